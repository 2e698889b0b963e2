"""A sweep as jobs of a real Slurm: submitted once, requeued, killed and resumed, to the same bits.

Training takes its time while the study has a file `brake`, so that a test has time to harm it.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import PROGRAMS, Cluster, environments, wait_until
from conftest import Study, make_once, needs
from warm import Warm

pytestmark = needs(*PROGRAMS, root=True)
BRAKE = '''
"""Lets training wait, or fail, as the tests of Slurm ask."""

import time
from pathlib import Path


class Brake:
    """Holds training before its first step while there is a file of this name."""

    def __init__(self, name="hold"):
        while Path(name).exists():
            Path("held").touch()
            time.sleep(0.05)

    def after_step(self, trainer, loss):
        """A second a step while there is a file `brake`; seed 13 brings bad luck."""
        if trainer.seed == 13:
            raise RuntimeError("bad luck")
        if trainer.folder is not None and Path("brake").exists():
            time.sleep(1)
'''
WORDS = ("run.py", "-m", "launcher=slurm", "hydra.launcher.mem_gb=0.5", "model=linear")
LONG = ("training.num_epochs=80", "training.checkpoint_steps=1")
RESULTS = ("best.pt", "history.csv", "metrics.json")


@pytest.fixture(name="braked", scope="session")
def _braked(small: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study, whose training can be made to wait. No test changes it."""

    def make(folder: Path) -> None:
        study = small.copy(folder / "my_study")
        (study.folder / "src" / "my_study" / "brake.py").write_text(BRAKE, encoding="utf-8")
        brake = r"callbacks: {brake: {_target_: my_study.brake.Brake}}"
        study.edit("conf/training/default.yaml", "callbacks: {}", brake)
        study.commit()

    return Study(make_once(tmp_path_factory, "braked", make) / "my_study")


@pytest.fixture(name="whole", scope="session")
def _whole(braked: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The same with the long run, done without any interruption."""

    def make(folder: Path) -> None:
        study = braked.copy(folder / "my_study")
        study.call("python", "run.py", "model=linear", *LONG)

    return Study(make_once(tmp_path_factory, "whole", make) / "my_study")


class Sweeps:
    """Sweeps of a study on a cluster."""

    def __init__(self, study: Study, cluster: Cluster, warm: Warm) -> None:
        self.study, self.cluster, self.warm = study, cluster, warm
        self.brake = study.folder / "brake"

    def call(self, *overrides: str, code: int = 0, env: dict[str, str] | None = None) -> str:
        """What the client says at its end."""
        variables = {**self.cluster.environment(), **(env or {})}
        return self.warm.call(self.study.folder, *WORDS, *overrides, code=code, env=variables)

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        """A client in the background, whose jobs train, slowly, until the brake is gone."""
        self.brake.touch()
        variables = [f"{key}={value}" for key, value in self.cluster.environment().items()]
        words = (*self.cluster.words, "env", *variables, "python", *WORDS)
        return self.study.start(*words, *overrides)

    def jobs(self) -> list[str]:
        """The states in accounting of all jobs of this study, as JOB STATE."""
        options = ("--allocations", "--noheader", "--parsable2", "--format=JobID,State,WorkDir")
        lines = self.cluster.call("sacct", *options, "--starttime=now-1hour").splitlines()
        mine = [line.split("|") for line in lines if line.endswith(f"|{self.study.folder}")]
        return [f"{number} {state}" for number, state, _ in mine]

    def numbers(self) -> list[str]:
        """The numbers of the jobs of this study in the queue: accounting is told of them later."""
        said = self.cluster.call("squeue", "--noheader", "--array", "--format=%i|%Z")
        lines = [line.split("|") for line in said.splitlines()]
        return [number for number, folder in lines if folder == str(self.study.folder)]

    def records(self) -> list[dict]:
        """The record of each run, by its command line."""
        paths = self.study.folder.glob("runs/*/record.json")
        found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        return sorted(found, key=lambda record: record.get("overrides", []))

    def wait_for_steps(self, number: int, runs: int = 1) -> None:
        """Waits until so many runs have done so many steps."""

        def done() -> bool:
            paths = self.study.folder.glob("runs/*/checkpoint-*.pt")
            far = [path.parent for path in paths if int(path.name.split("-")[1]) >= number]
            return len({*far}) >= runs

        wait_until(done, lambda: f"{self.jobs()} {self.logs()}")

    def logs(self) -> str:
        """The end of what the jobs have printed."""
        paths = sorted(self.study.folder.glob("slurm/*/*_log.*"))
        return "\n".join(f"{path}: {path.read_text()[-2000:]}" for path in paths)

    def release(self, client: subprocess.Popen[str], code: int = 0) -> str:
        """Lets all jobs go on; what the client says at its end."""
        self.brake.unlink()
        said = client.communicate()[0]
        assert client.returncode == code, said + self.logs()
        return said


@pytest.fixture(name="sweeps")
def _sweeps(braked: Study, slurm: Cluster, warm: Warm, tmp_path: Path) -> Sweeps:
    return Sweeps(braked.copy(tmp_path / "my_study"), slurm, warm)


def results_of(study: Study) -> dict[str, bytes]:
    """The results of the only run of a study."""
    (path,) = study.folder.glob("runs/*/metrics.json")
    return {name: path.with_name(name).read_bytes() for name in RESULTS}


def test_a_sweep_is_one_array_and_what_is_finished_is_not_submitted_again(sweeps: Sweeps) -> None:
    said = sweeps.call("seed=0,1,2")
    jobs = sweeps.jobs()
    print(said)
    array = jobs[0].partition("_")[0]
    assert sorted(jobs) == [f"{array}_{index} COMPLETED" for index in range(3)]
    records = sweeps.records()
    assert [record["status"] for record in records] == ["finished"] * 3
    parts = [part for record in records for part in record["parts"]]
    assert [part["slurm_job"] for part in parts] == [f"{array}_{index}" for index in range(3)]
    assert {part["host"] for part in parts} == {"n1"}
    values = re.findall(r"job \d \(model=linear seed=\d\): ([\d.]+)$", said, re.M)
    expected = [record["metrics"]["validation"]["accuracy"] for record in records]
    assert list(map(float, values)) == pytest.approx(expected, abs=1e-3)
    again = sweeps.call("seed=0,1,2,3")
    assert "4 jobs: 3 finished, 0 in the queue, 1 are submitted" in again
    assert len(sweeps.jobs()) == 4 and len(sweeps.records()) == 4
    assert re.findall(r"job \d \(model=linear seed=\d\): ([\d.]+)$", again, re.M)[:3] == values
    assert "4 finished, 0 in the queue, 0 are submitted" in sweeps.call("seed=0,1,2,3")
    assert len(sweeps.jobs()) == 4


def preempt(cluster: Cluster, job: str) -> None:
    """Another job needs the whole node, for a moment."""
    del job
    cluster.submit("true", "--partition=prio", "--exclusive")


STOPS: dict[str, tuple[Callable[[Cluster, str], object], str]] = {
    "signal": (lambda cluster, job: cluster.call("scancel", "--signal=USR2", job), "SIGUSR2"),
    "requeue": (lambda cluster, job: cluster.call("scontrol", "requeue", job), "SIGTERM"),
    "preemption": (preempt, "SIG(USR2|TERM)"),
}


@pytest.mark.parametrize("how", STOPS)
def test_a_job_that_is_stopped_resumes_to_the_same_bits(
    sweeps: Sweeps, whole: Study, how: str
) -> None:
    stop, name = STOPS[how]
    client = sweeps.start(*LONG)
    sweeps.wait_for_steps(3)
    (job,) = sweeps.numbers()
    stop(sweeps.cluster, job)
    sweeps.cluster.restart(job)
    said = sweeps.release(client)
    (record,) = sweeps.records()
    first, second = record["parts"]
    assert second["status"] == record["status"] == "finished"
    assert first["status"] == "interrupted"
    assert re.match(rf"Interrupted: by {name} after step \d+$", first["error"])
    assert first["slurm_job"] == second["slurm_job"] == job
    assert results_of(sweeps.study) == results_of(whole)
    assert "1 are submitted" in said and sweeps.jobs() == [f"{job} COMPLETED"]


def test_what_is_cancelled_is_named_and_alone_submitted_again(sweeps: Sweeps, whole: Study) -> None:
    client = sweeps.start(*LONG, "seed=0,1")
    sweeps.wait_for_steps(3, runs=2)
    array = sweeps.numbers()[0].partition("_")[0]
    sweeps.cluster.call("scancel", f"{array}_0")
    sweeps.cluster.wait(f"{array}_0", "CANCELLED")
    said = sweeps.release(client, code=1)
    last = said.splitlines()[-1]
    assert re.match(rf"error: job 0 \(model=linear .*seed=0\): CANCELLED.*slurm/{array}_0/", last)
    assert {record["seed"]: record["status"] for record in sweeps.records()} == {
        0: "interrupted",
        1: "finished",
    }
    again = sweeps.call(*LONG, "seed=0,1")
    assert "2 jobs: 1 finished, 0 in the queue, 1 are submitted" in again
    first, _ = sorted(sweeps.records(), key=lambda record: record["seed"])
    assert [part["status"] for part in first["parts"]] == ["interrupted", "finished"]
    for folder in sweeps.study.folder.glob("runs/*seed-0"):
        for name, content in results_of(whole).items():
            assert (folder / name).read_bytes() == content


def test_what_fails_is_named_with_its_error_and_ends_no_other(sweeps: Sweeps) -> None:
    said = sweeps.call("seed=0,13", "model.lr=1.0e-2,1.0e+30", "training.num_epochs=3", code=1)
    assert len([job for job in sweeps.jobs() if job.endswith(" FAILED")]) == 3
    codes = sweeps.cluster.call("sacct", "--allocations", "--noheader", "--format=ExitCode,State")
    assert "1:0     FAILED" in codes
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert [re.match(r"error: job (\d) ", line)[1] for line in lines] == ["1", "2", "3"]  # type: ignore[index]
    reason = r"FAILED \(exit code 1\): the loss is .* \(slurm/\d+_1/\d+_1_0_log.err\)$"
    assert re.search(rf"model.lr=1e\+30 .*\): {reason}", lines[0])
    assert re.search(r"seed=13 .*FAILED .*RuntimeError: bad luck", lines[1])
    statuses = [record["status"] for record in sweeps.records()]
    assert sorted(statuses) == ["failed"] * 3 + ["finished"]


def test_a_search_sends_its_points_to_slurm_and_counts_one_that_diverges(sweeps: Sweeps) -> None:
    words = ("search=random", "model.lr=interval(1.0e-3,1.0e-1)", "hydra.sweeper.n_jobs=2")
    said = sweeps.call(*words, "training.num_epochs=1", "hydra.sweeper.n_trials=2")
    assert re.search(r"best of 2 on validation: \S+ \d", said), said
    array = sweeps.jobs()[0].partition("_")[0]
    assert sorted(sweeps.jobs()) == [f"{array}_{index} COMPLETED" for index in range(2)]
    broken = ("search=random", "model.lr=choice(1.0e+30)", "hydra.sweeper.n_trials=1")
    for _ in range(2):  # it is not tried again
        said = sweeps.call(*broken, "training.num_epochs=3", code=1)
        assert re.search(r"^error: point 0 \(model.lr=1e\+30\): .*the loss is", said, re.M), said
        assert len(sweeps.jobs()) == 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_jobs_go_on_without_their_client_and_are_found_again(sweeps: Sweeps, how: int) -> None:
    client = sweeps.start(*LONG, "seed=0,1,2", "hydra.launcher.array_parallelism=1")
    sweeps.wait_for_steps(1)
    running = sweeps.cluster.call("squeue", "--noheader", "--states=RUNNING").splitlines()
    assert len(running) == 1  # of two CPUs
    client.send_signal(how)
    said = client.communicate()[0]
    array = sweeps.numbers()[0].partition("_")[0]
    if how == signal.SIGTERM:
        last = f"the jobs go on (to end them: scancel {array}); the same command resumes the run"
        assert client.returncode == 75 and said.endswith(f"interrupted by SIGTERM; {last}\n")
    again = sweeps.start(*LONG, "seed=0,1,2", "hydra.launcher.array_parallelism=1")
    assert again.stdout is not None
    assert any("0 finished, 3 in the queue, 0 are submitted" in line for line in again.stdout)
    sweeps.release(again)
    assert sorted(sweeps.jobs()) == [f"{array}_{index} COMPLETED" for index in range(3)]
    assert {len(record["parts"]) for record in sweeps.records()} == {1}


WRONG = {
    "hydra.launcher.partition=nowhere": "sbatch: .*invalid partition specified: nowhere",
    "hydra.launcher.mem_gb=-1": r"hydra.launcher.mem_gb=-1.0: must be above 0.001",
    "hydra.launcher.signal_delay_s=3600": "hydra.launcher.signal_delay_s=3600: leaves no",
    "hydra.launcher.gpu=1": r"hydra.launcher.gpu: there is no such key",
    "+hydra.launcher.additional_parameters.nodelist=n9": "sbatch: .*[Ii]nvalid node name",
    "model.lr=0.1,fast": r"job 1 \(model=linear model.lr=fast\): .*; nothing was submitted",
    "force=true": r"job 0 \(.*\): force=True: not in a job that may be .*; nothing was submitted",
    "debug=brief": r"job 0 \(.*\): debug=brief: not in a job that may",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_gets_one_line_and_nothing_is_submitted(sweeps: Sweeps, wrong: str) -> None:
    said = sweeps.call(wrong, code=1)
    assert re.match(rf"error: (hydra: )?{WRONG[wrong]}", said.splitlines()[-1]), said
    assert len(re.findall("^error: ", said, re.M)) == 1 and "Traceback" not in said
    assert not sweeps.jobs() and not sweeps.records()


def test_a_single_run_is_not_taken_for_a_job(sweeps: Sweeps) -> None:
    said = sweeps.warm.call(sweeps.study.folder, "run.py", "launcher=slurm", code=1)
    hint = "type it after -m, as: python run.py -m launcher=slurm ..."
    assert said == f"error: launcher=slurm: {hint}\n"


def test_a_machine_that_is_not_of_a_cluster_is_told_so(sweeps: Sweeps, tmp_path: Path) -> None:
    for name in ("sbatch", "sacct"):
        programs = tmp_path / name
        programs.mkdir()
        for other in {"sbatch", "squeue", "sacct", "scontrol", "srun", "git"} - {name}:
            (programs / other).symlink_to(str(shutil.which(other)))
        said = sweeps.call(code=1, env={"PATH": str(programs)})
        assert said.endswith(
            f"error: {name}: there is no such program here; "
            "launcher=slurm needs a machine of a cluster; without one: launcher=joblib\n"
        )
    text = (sweeps.cluster.folder / "slurm.conf").read_text(encoding="utf-8")
    (tmp_path / "slurm.conf").write_text(re.sub("Accounting.*\n", "", text), encoding="utf-8")
    said = sweeps.call(code=1, env={"SLURM_CONF": str(tmp_path / "slurm.conf")})
    assert said.splitlines()[-1] == "error: sacct: Slurm accounting storage is disabled"
    assert not sweeps.jobs()


def test_who_makes_no_step_is_not_requeued_and_goes_on(sweeps: Sweeps) -> None:
    hold = sweeps.study.folder / "hold"
    hold.touch()
    client = sweeps.start()
    wait_until((sweeps.study.folder / "held").exists, sweeps.logs)
    (job,) = sweeps.numbers()
    sweeps.cluster.call("scancel", "--signal=USR2", job)
    hold.unlink()
    sweeps.release(client)
    (record,) = sweeps.records()
    assert record["status"] == "finished" and len(record["parts"]) == 1
    assert sweeps.cluster.accounts(job) == [f"{job} COMPLETED"]


@pytest.mark.slow
def test_at_its_time_limit_a_job_is_requeued_unless_it_made_no_step(sweeps: Sweeps) -> None:
    limits = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=1")
    words = (*LONG, *limits, "+training.callbacks.brake.name=hold,free")
    client = sweeps.start(*words)
    sweeps.wait_for_steps(1, runs=2)
    held, free = sorted(sweeps.numbers())
    hold = sweeps.study.folder / "hold"
    hold.touch()
    sweeps.cluster.call("scontrol", "requeue", held)
    sweeps.cluster.restart(held)
    sweeps.cluster.restart(free)
    said = sweeps.release(client, code=1)
    assert re.match("error: job 0 .*: TIMEOUT", said.splitlines()[-1])
    assert said.count("error: ") == 1
    assert sweeps.cluster.accounts(held) == [f"{held} REQUEUED", f"{held} TIMEOUT"]
    assert sweeps.cluster.accounts(free) == [f"{free} REQUEUED", f"{free} COMPLETED"]
    hold.unlink()
    assert "2 jobs: 1 finished, 0 in the queue, 1 are submitted" in sweeps.call(*words)
    for record, name in zip(sweeps.records(), ("SIGUSR2", "SIGTERM"), strict=True):  # free, hold
        assert [part["status"] for part in record["parts"]] == ["interrupted", "finished"]
        assert name in record["parts"][0]["error"]


def test_a_job_gets_what_it_asks_for(sweeps: Sweeps) -> None:
    keys = ("cpus_per_task=2", "gpus_per_node=1", 'setup=["export OMP_NUM_THREADS=1"]')
    sweeps.call(*(f"hydra.launcher.{key}" for key in keys), "device=cpu")
    (record,) = sweeps.records()
    variables = {"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "1"}
    assert record["environment"] == {**record["environment"], **variables}
    job = record["parts"][0]["slurm_job"]
    options = ("--noheader", "--parsable2", "--format=JobID,AllocCPUS")
    assert f"{job}|2\n" in sweeps.cluster.call("sacct", *options, f"--jobs={job}")


def test_dvc_repro_in_a_job_takes_what_a_sweep_has_trained(sweeps: Sweeps) -> None:
    sweeps.call("experiment=linear", "seed=0", "test=true")
    variables = sweeps.study.environment()
    words = [f"{name}={variables[name]}" for name in ("HOME", "PATH", "PYTHONPATH")]
    command = shlex.join(["env", f"--chdir={sweeps.study.folder}", *words, "dvc", "repro"])
    job = sweeps.cluster.submit(command)
    sweeps.cluster.wait(job, "COMPLETED")
    (run,) = sweeps.records()
    published = sweeps.study.folder / "runs" / "published" / "linear-0" / "record.json"
    copy = json.loads(published.read_text(encoding="utf-8"))
    assert copy["parts"] == run["parts"] and copy["copied_from"].startswith("runs/")
    assert (sweeps.study.folder / "results" / "table.md").exists()


@pytest.fixture(name="whole_of_two", scope="session")
def _whole_of_two(braked: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The long run, done by two ranks of torchrun without any interruption."""

    def make(folder: Path) -> None:
        study = braked.copy(folder / "my_study")
        words = ("torchrun", "--standalone", "--nproc-per-node=2", "run.py", "model=linear")
        study.call(*words, *LONG)

    return Study(make_once(tmp_path_factory, "whole_of_two", make) / "my_study")


def test_two_tasks_of_a_job_train_one_model_and_resume_to_the_same_bits(
    sweeps: Sweeps, whole_of_two: Study
) -> None:
    client = sweeps.start(*LONG, "hydra.launcher.tasks_per_node=2")
    sweeps.wait_for_steps(3)
    (job,) = sweeps.numbers()
    sweeps.cluster.call("scancel", "--signal=USR2", job)
    sweeps.cluster.restart(job)
    sweeps.release(client)
    (record,) = sweeps.records()
    assert [part["status"] for part in record["parts"]] == ["interrupted", "finished"]
    assert "SIGUSR2" in record["parts"][0]["error"] and record["ranks"] == 2
    assert results_of(sweeps.study) == results_of(whole_of_two)


def test_a_task_that_is_killed_ends_the_other_and_the_job_fails(sweeps: Sweeps) -> None:
    client = sweeps.start(*LONG, "hydra.launcher.tasks_per_node=2")
    sweeps.wait_for_steps(1)
    (job,) = sweeps.numbers()
    ours = sweeps.cluster.pids(job)
    killed = [pid for pid, names in environments() if pid in ours and "SLURM_PROCID=1" in names]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert killed
    sweeps.cluster.wait(job, "FAILED")
    said = sweeps.release(client, code=1)
    assert re.match("error: job 0 .*: FAILED .* another rank was killed", said.splitlines()[-1])
    (record,) = sweeps.records()
    assert record["status"] == "failed"


@pytest.mark.slow
def test_a_job_whose_host_is_lost_goes_on_on_another(
    braked: Study, whole: Study, two_hosts: Cluster, warm: Warm, tmp_path: Path
) -> None:
    sweeps = Sweeps(braked.copy(tmp_path / "my_study"), two_hosts, warm)
    client = sweeps.start(*LONG)
    sweeps.wait_for_steps(3)
    (job,) = sweeps.numbers()
    first = two_hosts.job(job)["NodeList"]
    two_hosts.fail(first)
    two_hosts.restart(job)
    sweeps.release(client)
    (record,) = sweeps.records()
    assert [part["status"] for part in record["parts"]] == ["killed", "finished"]
    assert [part["host"] for part in record["parts"]] == sorted(["n1", "n2"], key=first.__ne__)
    assert results_of(sweeps.study) == results_of(whole)


@pytest.mark.slow
def test_a_job_on_two_hosts_survives_the_loss_of_one(
    braked: Study, whole_of_two: Study, two_hosts: Cluster, warm: Warm, tmp_path: Path
) -> None:
    sweeps = Sweeps(braked.copy(tmp_path / "my_study"), two_hosts, warm)
    client = sweeps.start(*LONG, "hydra.launcher.nodes=2")
    sweeps.wait_for_steps(3)
    (job,) = sweeps.numbers()
    two_hosts.fail("n2")
    two_hosts.repair("n2")
    two_hosts.restart(job)
    sweeps.release(client)
    (record,) = sweeps.records()
    assert record["ranks"] == 2 and record["status"] == "finished" and len(record["parts"]) == 2
    assert results_of(sweeps.study) == results_of(whole_of_two)

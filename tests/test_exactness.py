"""Runs that are interrupted, repeated and moved, in real processes, and exact all the same."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import RAW, Study

pytestmark = pytest.mark.slow
RESULTS = ("best.pt", "history.csv", "metrics.json")
LINEAR = "src/my_study/models/linear.py"
FLATTEN, TWICE = r"self.output\(image.flatten", "self.output(2 * image.flatten"
# dropout, augmentation, accumulation and a schedule: whatever a resumed run could get wrong
HARD = (
    "model.network.dropout=0.3",
    "++data.augmentation._target_=my_study.data.RandomShift",
    "++data.augmentation.max_shift=1",
    "training.num_accumulation_steps=2",
    "training.batch_size=8",  # four steps an epoch
    "training.checkpoint_steps=7",
)


def record(study: Study, name: str) -> dict:
    """The record of a run in runs/."""
    return json.loads((study.folder / "runs" / name / "record.json").read_text(encoding="utf-8"))


def epochs_logged(folder: Path) -> list[int]:
    """The epochs in a run's log, in its order."""
    log = (folder / "run.log").read_text(encoding="utf-8")
    return list(map(int, re.findall(r"epoch (\d+) ", log)))


def stop_at(process: subprocess.Popen[str], pattern: str, number: int, how: int) -> bool:
    """Signals a process and its children once it has printed `pattern` with at least `number`."""
    assert process.stdout is not None
    found = False
    for line in process.stdout:
        match = re.match(pattern, line)
        if match and int(match[1]) >= number:
            found = True
            if how == signal.SIGKILL:
                os.killpg(process.pid, how)
            else:
                process.send_signal(how)
            break
    process.communicate()
    return found


@pytest.mark.parametrize(("workers", "epochs"), [(0, 200), (2, 40)])
def test_twenty_interruptions_leave_no_trace(mine: Study, workers: int, epochs: int) -> None:
    size = (f"training.num_workers={workers}", f"training.num_epochs={epochs}")
    command = ("python", "run.py", *HARD, *size, "test=true")
    mine.call(*command, "run_dir=runs/whole")
    whole, stopped = mine.folder / "whole", mine.folder / "runs" / "stopped"
    (mine.folder / "runs" / "whole").rename(whole)  # where it is not found: it would be copied
    points = sorted(random.sample(range(1, epochs * 9 // 10), 10))  # never at the very end
    count = 0
    for number, point in enumerate(points):
        how = signal.SIGTERM if number % 2 else signal.SIGKILL
        process = mine.start(*command, "run_dir=runs/stopped")
        if not stop_at(process, r"epoch (\d+) ", point, how):
            break  # faster than the next point
        count += 1
        assert process.returncode == (-9 if how == signal.SIGKILL else 75)
    mine.call(*command, "run_dir=runs/stopped")
    assert count >= 6, points
    for name in RESULTS:
        assert (whole / name).read_bytes() == (stopped / name).read_bytes(), (name, points)
    statuses = {part["status"] for part in record(mine, "stopped")["parts"]}
    assert statuses == {"killed", "interrupted", "finished"}
    assert epochs_logged(stopped) == list(range(1, epochs + 1))


def test_a_sweep_that_was_killed_and_is_typed_again_runs_only_what_is_missing(mine: Study) -> None:
    seeds = ",".join(map(str, range(12)))
    command = ("python", "run.py", "-m", "model=linear", f"seed={seeds}")
    process = mine.start(*command, "training.num_epochs=30")
    assert stop_at(process, r".*#(\d+) :", 5, signal.SIGKILL)
    before = {path.name for path in (mine.folder / "runs").glob("*/metrics.json")}
    said = mine.call(*command, "training.num_epochs=30")
    records = [record(mine, path.parent.name) for path in mine.folder.glob("runs/*/record.json")]
    assert len(records) == 12 and {item["status"] for item in records} == {"finished"}
    assert sorted(item["seed"] for item in records) == list(range(12))
    done = said.count("already finished")
    assert done >= 4 and done >= len(before)
    assert [len(item["parts"]) for item in records].count(1) >= 11


def test_parallel_jobs_of_a_sweep_lose_no_step_however_it_is_stopped(mine: Study) -> None:
    size = ("training.num_epochs=800", "training.checkpoint_minutes=null")
    command = ("python", "run.py", "-m", "launcher=joblib", "model=linear", "seed=0,1,2", *size)
    whole = mine.copy(mine.folder.parent / "whole")
    whole.call(*command)
    stops = ((os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT), (os.killpg, signal.SIGTERM))
    for send, number in stops:
        before = epochs_done(mine)
        process = mine.start(*command)
        assert process.stdout is not None
        for _line in process.stdout:  # until two jobs train
            now = epochs_done(mine)
            if sum(now[name] > before.get(name, 0) for name in now) == 2:
                break
        send(process.pid, number)
        process.communicate()  # ends when no worker is left that could print
        assert process.returncode == 75
        ended = [record(mine, name) for name in epochs_done(mine)]
        assert [item["status"] for item in ended] == ["interrupted"] * 2  # the third did not begin
        for name, item in zip(epochs_done(mine), ended, strict=True):
            found = re.fullmatch(r"Interrupted: by SIG\w+ after step (\d+)", item["error"])
            assert found, item["error"]
            step = int(found[1])
            assert list(mine.folder.glob(f"runs/{name}/checkpoint-{step:08d}-*.pt"))
            assert step >= last_step(mine, name) > 0
    mine.call(*command)
    for seed in range(3):
        one, other = (find_run(study, seed) for study in (whole, mine))
        for name in RESULTS:
            assert (one / name).read_bytes() == (other / name).read_bytes(), (seed, name)


def epochs_done(study: Study) -> dict[str, int]:
    """How many epochs each run has done, by the name of its folder."""
    paths = sorted(study.folder.glob("runs/*/history.csv"))
    return {path.parent.name: path.read_bytes().count(b"\n") - 1 for path in paths}


def last_step(study: Study, name: str) -> int:
    """The step at the end of the last epoch of a run."""
    lines = (study.folder / "runs" / name / "history.csv").read_text(encoding="utf-8").splitlines()
    return int(lines[-1].split(",")[lines[0].split(",").index("step")])


def find_run(study: Study, seed: int) -> Path:
    """The folder of the run with this seed."""
    (found,) = [
        path.parent
        for path in study.folder.glob("runs/*/record.json")
        if record(study, path.parent.name)["seed"] == seed
    ]
    return found


def test_each_failed_job_of_a_sweep_is_reported_and_stops_no_other(mine: Study) -> None:
    sweep = "model.lr=0.01,1.0e+30,0.02,1.0e+31"
    for launcher, expected in (("local", 2), ("joblib", 2)):
        words = (f"launcher={launcher}", "training/schedule=constant", "training.batch_size=4")
        said = mine.call("python", "run.py", "-m", *words, "model=linear", sweep, code=1)
        last = said.splitlines()[-expected:]
        for number, line in zip((1, 3), sorted(last), strict=True):
            assert re.match(rf"error: job {number} \(.*model.lr=1e\+3.\): the loss is", line), said
    done = [record(mine, path.parent.name) for path in mine.folder.glob("runs/*/record.json")]
    assert sorted(item["status"] for item in done) == ["failed"] * 2 + ["finished"] * 2


def test_dvc_repro_that_was_killed_in_training_resumes_from_the_last_checkpoint(
    mine: Study,
) -> None:
    mine.edit("conf/training/default.yaml", r"num_epochs: \d+", "num_epochs: 300")
    mine.edit("conf/training/default.yaml", "checkpoint_steps: null", "checkpoint_steps: 5")
    mine.call("dvc", "repro", "compose_experiments")
    process = mine.start("dvc", "repro")
    assert stop_at(process, r"epoch (\d+) ", 50, signal.SIGKILL)
    mine.call("dvc", "repro")
    found = record(mine, "published/linear-0")
    assert [part["status"] for part in found["parts"]] == ["killed", "finished"]
    folder = mine.folder / "runs" / "published" / "linear-0"
    assert epochs_logged(folder) == list(range(1, 301))
    mine.call("python", "run.py", "experiment=linear", "run_dir=runs/again", "force=true")
    for name in RESULTS:
        again = mine.folder / "runs" / "again" / name
        assert again.read_bytes() == (folder / name).read_bytes(), name


def test_dvc_repro_copies_a_run_that_is_finished_in_another_folder(mine: Study) -> None:
    mine.call("python", "run.py", "-m", "experiment=linear", "seed=0,1", "test=true")
    said = mine.call("dvc", "repro")
    assert "which is the same run" in said and "epoch 1 " not in said
    metrics = (mine.folder / "runs" / "published" / "linear-0" / "metrics.json").read_bytes()
    copied = Path(record(mine, "published/linear-0")["copied_from"])
    assert (mine.folder / copied / "metrics.json").read_bytes() == metrics
    lock = (mine.folder / "dvc.lock").read_bytes()
    shutil.rmtree(mine.folder / "runs")
    mine.call("dvc", "repro", "--force")  # there is no run to copy: it is trained
    assert (mine.folder / "dvc.lock").read_bytes() == lock


def test_a_run_resumes_after_a_full_and_a_read_only_disk(mine: Study, tmp_path: Path) -> None:
    namespace = ("unshare", "--map-root-user", "--mount")
    trial = [*namespace, "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if subprocess.run(trial, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    run = ".venv/bin/python run.py model=mlp training.num_epochs=40 training.checkpoint_steps=10"
    mine.call("sh", "-c", f"{run} run_dir=whole")
    shutil.move(mine.folder / "whole", tmp_path / "whole")
    checkpoint, *_ = (tmp_path / "whole").glob("checkpoint-*.pt")
    room = int(2.6 * checkpoint.stat().st_size) // 1024  # two checkpoints, and not a third
    script = f"""
        mkdir -p runs && mount -t tmpfs -o size={room}k none runs
        {run}; echo "full: $?"; ls runs/*/
        mount -o remount,size=64m none runs && mount -o remount,ro none runs
        {run}; echo "read-only: $?"
        mount -o remount,rw none runs
        {run}; echo "then: $?"
        cp -r runs/* saved
    """
    (mine.folder / "saved").mkdir()
    said = mine.call(*namespace, "sh", "-c", script, code=None)
    full = re.search(r"^error: .*cannot be written \(No space left on device\)$", said, re.M)
    assert full and "full: 1" in said and "Traceback" not in said, said
    assert "Read-only file system" in said and "read-only: 1" in said and "then: 0" in said, said
    (saved,) = (mine.folder / "saved").glob("*")
    for name in RESULTS:
        assert (saved / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_second_clone_reproduces_every_published_run(mine: Study, tmp_path: Path) -> None:
    mine.edit("dvc.yaml", r"seeds: \[0\]", "seeds: [0, 1]")
    mine.call("dvc", "repro")
    mine.commit()
    clone = mine.clone(tmp_path / "clone")
    said = clone.call("study", "reproduce", "--all").splitlines()
    assert said[-1] == "2 runs: identical"
    assert [line.split() for line in said[:-1]] == [
        [f"linear-{seed}", "identical"] for seed in (0, 1)
    ]
    assert clone.call("git", "status", "--porcelain") == ""
    assert clone.call("git", "worktree", "list").count("\n") == 1


def test_a_reproduction_that_was_killed_is_swept_up_and_a_live_one_is_not(mine: Study) -> None:
    mine.call("python", "run.py", "model=linear", "run_dir=runs/old")
    again = ("python", "run.py", "model=linear", "run_dir=runs/old")
    with mine.start("study", "reproduce", "runs/old", "training.num_epochs=1000000") as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("epoch 1 "))
        mine.call(*again)
        assert mine.call("git", "worktree", "list").count("\n") == 2
        os.killpg(process.pid, signal.SIGKILL)
    mine.call(*again)
    assert mine.call("git", "worktree", "list").count("\n") == 1
    assert {path.name for path in (mine.folder / "runs").iterdir()} == {".lock", "old"}


def test_data_that_only_a_remote_has_are_fetched(mine: Study, tmp_path: Path) -> None:
    mine.call("git", "rm", "--cached", "--quiet", RAW)
    mine.call("dvc", "add", RAW)
    mine.call("dvc", "remote", "add", "--default", "store", tmp_path / "store")
    mine.commit()
    mine.call("dvc", "repro")
    mine.commit()
    mine.call("dvc", "push")
    clone = mine.clone(tmp_path / "clone")
    assert not (clone.folder / RAW).exists()
    name = "results/records/linear-0.json"
    assert clone.call("study", "reproduce", name) == f"identical: {name}\n"
    assert "identical: dvc.lock" in clone.call("study", "pipeline")
    shutil.rmtree(tmp_path / "store")
    shutil.rmtree(clone.folder / ".dvc" / "cache", ignore_errors=True)
    said = clone.call("study", "reproduce", name, code=4)
    assert "cannot be reproduced: its data are missing: data/prepared/" in said


def test_a_run_with_one_thing_changed_is_a_new_run_that_names_it(mine: Study) -> None:
    mine.call("python", "run.py", "model=linear", "run_dir=runs/old")
    mine.edit(LINEAR, FLATTEN, TWICE)
    said = mine.call("study", "reproduce", "runs/old", "model.lr=0.5")
    assert "config: model.lr: 0.01 -> 0.5" in said and "code:" not in said
    (folder,) = mine.folder.glob("runs/*_again_*")
    new = record(mine, folder.name)
    assert (
        new["rerun_of"] == record(mine, "old")["fingerprint"] and "model.lr=0.5" in new["overrides"]
    )

    text = (mine.folder / "conf/data/digits.yaml").read_text(encoding="utf-8")
    text = text.replace("data/prepared/digits", "data/prepared/other").replace(
        "split_seed: 0", "split_seed: 1"
    )
    (mine.folder / "conf/data/other.yaml").write_text(text, encoding="utf-8")
    mine.call("python", "stages/prepare.py", "data=other")
    said = mine.call("study", "reproduce", "runs/old", "data=other")
    # the setting that made other arrays is the cause; the arrays that follow from it are none
    assert "config: data.prepare.split_seed: 0 -> 1" in said and "train/image.npy" not in said


def test_an_environment_is_rebuilt_from_the_lock_of_the_run(mine: Study) -> None:
    mine.call("python", "run.py", "model=linear", "run_dir=runs/old")
    assert mine.call("study", "reproduce", "--env", "runs/old").endswith("identical: runs/old\n")


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (
            ["reproduce", "nowhere"],
            1,
            "error: nowhere: is not a run: there is no nowhere/record.json",
        ),
        (["reproduce"], 2, "error: name a run, or --all"),
        (["reproduce", "--all"], 1, "error: results/records: contains no record; type: dvc repro"),
        (["pipeline"], 1, "error: dvc.lock: is in no commit"),
    ],
)
def test_a_mistake_gets_one_line(mine: Study, words: list[str], code: int, line: str) -> None:
    said = mine.call("study", *words, code=code)
    assert line in said and "Traceback" not in said

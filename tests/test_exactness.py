"""Runs that are interrupted, repeated and moved, in real processes, and exact all the same."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Edit, Study, edit, make_once, write
from warm import Warm

pytestmark = pytest.mark.slow
RESULTS = ("best.pt", "history.csv", "metrics.json")
READ = ("words.txt", "own.local")  # files that a model reads
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
    mine.call("dvc", "repro", "compose", "prepare")
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


def corrupt_data(study: Study) -> None:
    """Changes one byte of the table, and prepares the data again."""
    path = study.folder / "tests" / "fixtures" / "tiny.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = lines[1].split(",")
    cells[0] = "1" if cells[0] == "0" else "0"
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n", encoding="utf-8")
    study.call("python", "stages/prepare.py")


def other_package(study: Study) -> None:
    """What `pip install` of another version leaves."""
    (study.folder / "src" / "tqdm-9.9.9.dist-info").mkdir()


LINEAR = "src/my_study/models/linear.py"
OUTPUTS = "src/my_study/models/outputs.py"
FLATTEN, TWICE = r"self.output\(image.flatten", "self.output(2 * image.flatten"
# what is done to the study, overrides, environment, what must be named
DRIFTS: dict[str, tuple[Edit | None, list[str], dict[str, str], str]] = {
    "a default": (
        edit("conf/training/default.yaml", "weight_decay: 1.0e-2", "weight_decay: 2.0e-2"),
        [],
        {},
        r"config: training.optimizer.weight_decay: 0.01 -> 0.02",
    ),
    "the rate": (None, ["model.lr=0.5"], {}, r"config: model.lr: 0.01 -> 0.5"),
    "the seed": (None, ["seed=1"], {}, r"config: seed: 0 -> 1"),
    "threads": (None, ["num_threads=2"], {}, r"config: num_threads: 1 -> 2"),
    "determinism": (None, ["deterministic=false"], {}, r"config: deterministic: True -> False"),
    "precision": (
        None,
        ["training.precision=bfloat16"],
        {},
        r"config: training.precision: float32 -> bfloat16",
    ),
    "the batch size": (
        None,
        ["training.batch_size=7"],
        {},
        r"config: training.batch_size: 32 -> 7",
    ),
    "the schedule": (
        None,
        ["training/schedule=constant"],
        {},
        r"config: training.schedule\.",
    ),
    # the code of the augmentation is reached by its configuration alone
    "augmentation": (
        None,
        list(HARD[1:3]),
        {},
        r"config: data.augmentation|code: src/my_study/data.py: is new",
    ),
    "a metric": (
        None,
        ["++metrics.second._target_=my_study.metrics.Accuracy"],
        {},
        r"config: metrics.second._target_: none -> my_study.metrics.Accuracy",
    ),
    "workers": (None, ["training.num_workers=1"], {}, r"config: training.num_workers: 0 -> 1"),
    "a byte of data": (corrupt_data, [], {}, r"data: \w+/image.npy: changed"),
    "a constant of a model": (
        edit(LINEAR, FLATTEN, TWICE),
        [],
        {},
        rf"code: {LINEAR}: changed",
    ),
    "a line of the entrypoint": (
        edit("run.py", r"\Z", "\nprint('done')\n"),
        [],
        {},
        r"code: run.py: changed",
    ),
    "a constant of the loop": (
        edit("src/my_study/harness/training/step.py", "if num_pieces > 1:", "if num_pieces > 0:"),
        [],
        {},
        r"code: src/my_study/harness/training/step.py: changed",
    ),
    "a version in the lock": (
        edit("requirements.lock", r"\ntqdm==[\d.]+", "\ntqdm==9.9.9"),
        [],
        {},
        r"environment: tqdm \(locked\): [\d.]+ -> 9.9.9",
    ),
    "an installed version": (
        other_package,
        [],
        {},
        r"environment: tqdm \(installed\): [\d.]+ -> 9.9.9",
    ),
    "a variable": (
        None,
        [],
        {"OMP_NUM_THREADS": "2"},
        r"environment: OMP_NUM_THREADS: none -> 2",
    ),
    "an untracked file that is read": (
        write("words.txt", "other"),
        [],
        {},
        r"data: words.txt: changed",
    ),
    "an ignored file that is read": (
        write("own.local", "other"),
        [],
        {},
        r"data: own.local: changed",
    ),
    "nothing": (None, [], {"NOISE": "1"}, r"nothing that is recorded changed: nondeterminism"),
}


@pytest.fixture(name="drifting", scope="session")
def _drifting(small: Study, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study, whose model reads two files and, if NOISE is set, the clock; with a run."""

    def make(folder: Path) -> None:
        study = small.copy(folder / "my_study")
        reads = ", ".join(f"open({name!r}, encoding='utf-8').read()" for name in READ)
        study.edit(OUTPUTS, r"\Z", f"\n\nimport os\nimport time\n\nWORDS = {reads}\n")
        noise = "(1 + time.time() % 1 * float(os.environ.get('NOISE', '0')))"
        before = "    outputs = {"
        study.edit(OUTPUTS, re.escape(before), f"    logits = logits * {noise}\n{before}")
        study.edit(".gitignore", r"\Z", "*.local\n")
        study.commit()
        for name in READ:
            write(name, "one")(study)
        warm.call(study.folder, "run.py", "model=linear", "run_dir=runs/before")

    return Study(make_once(tmp_path_factory, "drifting", make) / "my_study")


def differences(warm: Warm, study: Study, overrides: Sequence[str], env: dict[str, str]) -> str:
    """What `study diff` prints of a run before a change and the same after it."""
    again = ("model=linear", "run_dir=runs/now", "force=true", "preflight=false")
    warm.call(study.folder, "run.py", *again, *overrides, env=env)
    return warm.call(study.folder, ".venv/bin/study", "diff", "runs/before", "runs/now")


@pytest.mark.parametrize("name", DRIFTS)
def test_the_cause_that_is_named_is_the_change_that_was_made(
    drifting: Study, warm: Warm, tmp_path: Path, name: str
) -> None:
    change, overrides, variables, line = DRIFTS[name]
    study = drifting.copy(tmp_path / "my_study")
    if change:
        change(study)
    said = differences(warm, study, overrides, variables)
    causes = said.partition("causes:\n")[2].split("\n---")[0].splitlines()
    causes = [cause.strip() for cause in causes if cause.startswith("  ")]
    assert causes and all(re.match(line, cause) for cause in causes), said
    if change and LINEAR in line:
        assert TWICE in said
    if change is corrupt_data:  # the data of the run are restored
        assert "identical" in study.call("study", "reproduce", "runs/before")


WITHOUT_EFFECT: dict[str, Edit] = {
    LINEAR: edit(LINEAR, r"\Z", "\n# a comment\n"),
    OUTPUTS: edit(OUTPUTS, "unnormalised", "of any size"),
    "run.py": edit("run.py", "Seed, data, model, train", "Train"),
    "src/my_study/harness/checks/flow.py": edit(
        "src/my_study/harness/checks/flow.py", r"\Z", "\nUNUSED = 1\n"
    ),
    "src/my_study/new.py": write("src/my_study/new.py", "NEW = 1\n"),
    "src/my_study/words.json": write("src/my_study/words.json", "{}"),
    "stages/report.py": edit("stages/report.py", r"\Z", "\nUNUSED = 1\n"),
}


def test_an_edit_without_effect_on_a_number_is_no_cause(
    drifting: Study, warm: Warm, tmp_path: Path
) -> None:
    study = drifting.copy(tmp_path / "my_study")
    for change in WITHOUT_EFFECT.values():
        change(study)
    again = warm.call(study.folder, "run.py", "model=linear", "run_dir=runs/before")
    assert "runs/before: already finished" in again
    said = differences(warm, study, [], {})
    assert "numbers:\n  all are the same\n" in said
    assert "causes:\n  nothing that is recorded differs\n" in said
    listed = said.partition("edited, without effect on a number:\n")[2].split()
    assert listed == sorted(WITHOUT_EFFECT)
    fingerprints = {record(study, name)["fingerprint"] for name in ("before", "now")}
    assert len(fingerprints) == 1


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


def test_data_that_only_a_remote_has_are_fetched(mine: Study, tmp_path: Path) -> None:
    tiny = "tests/fixtures/tiny.csv"
    mine.call("git", "rm", "--cached", "--quiet", tiny)
    mine.call("dvc", "add", tiny)
    mine.call("dvc", "remote", "add", "--default", "store", tmp_path / "store")
    mine.commit()
    mine.call("dvc", "repro")
    mine.commit()
    mine.call("dvc", "push")
    clone = mine.clone(tmp_path / "clone")
    assert not (clone.folder / tiny).exists()
    name = "results/records/linear-0.json"
    assert clone.call("study", "reproduce", name) == f"identical: {name}\n"
    assert "identical: dvc.lock" in clone.call("study", "pipeline")
    shutil.rmtree(tmp_path / "store")
    shutil.rmtree(clone.folder / ".dvc" / "cache", ignore_errors=True)
    said = clone.call("study", "reproduce", name, code=4)
    assert "cannot be reproduced: its data are missing: data/prepared/" in said


def test_the_proof_names_what_has_changed_since(mine: Study) -> None:
    mine.call("dvc", "repro")
    mine.commit()
    mine.edit(LINEAR, FLATTEN, TWICE)
    mine.commit()
    said = mine.call("study", "pipeline", code=3)
    assert "not as committed: dvc.lock, results/" in said
    assert re.search(
        r"^linear-0  different .*code: src/my_study/models/linear.py: changed", said, re.M
    )
    assert TWICE in said
    assert mine.call("git", "status", "--porcelain") == ""


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
    text = text.replace("data/prepared", "data/prepared_other").replace(
        "split_seed: 0", "split_seed: 1"
    )
    (mine.folder / "conf/data/other.yaml").write_text(text, encoding="utf-8")
    mine.call("python", "stages/prepare.py", "data=other")
    said = mine.call("study", "reproduce", "runs/old", "data=other")
    assert "config: data.prepare.split_seed: 0 -> 1" in said and "data: train/image.npy" in said


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

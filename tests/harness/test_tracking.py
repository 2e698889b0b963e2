"""Trackers: what they show is what the history says, and none changes or stops a run.

Those of the libraries need their packages: the groups tensorboard, mlflow and wandb of a study.
"""

import csv
import importlib.util
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from my_study.harness import tracking
from my_study.harness.configuration import checking
from my_study.harness.configuration.composing import to_values
from my_study.harness.errors import StudyError
from my_study.harness.runs.fingerprint import flatten
from my_study.harness.runs.record import has_meaning, name_from, read_record
from my_study.harness.study import ROOT

from .commands import call
from .conftest import TINY, Compose, Copy

Run = Callable[..., Path]
TRACKERS = sorted(path.stem for path in (ROOT / "conf" / "tracker").glob("*.yaml"))


@pytest.fixture(name="run")
def _run(tiny: Path, tmp_path: Path) -> Run:
    """Types `python run.py` on the tiny data, in an empty folder; returns that of the run."""

    def run(*words: str, code: int = 0, study: Path = ROOT) -> Path:
        knobs = [f"data.prepare.read.path={TINY}", f"data.folder={tiny}", "device=cpu"]
        knobs += ["model=linear", "training.num_epochs=3", "training.batch_size=8"]
        answer = call(study, "run.py", *knobs, "run_dir=runs/one", *words, here=tmp_path)
        assert answer[0] == code, answer
        (tmp_path / "errors").write_text(answer[1] + answer[2], encoding="utf-8")
        return tmp_path / "runs" / "one"

    return run


def history(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's history."""
    with open(folder / "history.csv", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


Shown = tuple[dict[str, list[tuple[int, float]]], dict[str, float], str]


def in_tensorboard(folder: Path) -> Shown:
    """The curves, the final numbers and the status, in the event files of a run."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    events = importlib.import_module(module).EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    found = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    final = {tag: points[-1][1] for tag, points in found.items() if tag.startswith("final_")}
    status = events.Tensors("status/text_summary")[-1].tensor_proto.string_val[0].decode()
    return {tag: points for tag, points in found.items() if tag not in final}, final, status


def in_mlflow(folder: Path) -> Shown:
    """The same, in the database of MLflow."""
    client = importlib.import_module("mlflow").MlflowClient(
        f"sqlite:///{folder.parents[1]}/mlflow.db"
    )
    number = client.get_experiment_by_name("my_study").experiment_id
    (one,) = client.search_runs([number])  # the earlier part of a resumed run is deleted
    assert one.info.run_name == folder.name and one.data.params["model.lr"]
    assert set(one.data.tags) == {"folder", "mlflow.runName"}  # nothing of the machine
    final = {key: value for key, value in one.data.metrics.items() if key.startswith("final_")}
    curves = {
        key: [
            (point.step, point.value) for point in client.get_metric_history(one.info.run_id, key)
        ]
        for key in one.data.metrics
        if key not in final
    }
    return curves, final, {"FINISHED": "finished", "FAILED": "failed"}[one.info.status]


def in_wandb(folder: Path) -> Shown:
    """The same, in the offline folder of Weights & Biases."""
    (one,) = (folder.parents[1] / "wandb").glob("offline-run-*")  # an earlier part is deleted
    assert not [path for path in (one / "files").iterdir() if "metadata" in path.name]
    (path,) = one.glob("*.wandb")
    parse = importlib.import_module("wandb.proto.wandb_internal_pb2").Record.FromString
    curves: dict[str, list[tuple[int, float]]] = {}
    summary: dict[str, Any] = {}
    for record in map(parse, log_records(path.read_bytes())):
        row = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for key in [key for key in row if not key.startswith("_")]:
            curves.setdefault(key, []).append((int(row["_step"]), row[key]))
        for item in record.summary.update:
            summary[item.key or item.nested_key[0]] = json.loads(item.value_json)
    final = {key: value for key, value in summary.items() if key.startswith("final_")}
    return curves, final, summary["status"]


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a log of LevelDB, which begins with 7 bytes of wandb's own."""
    at, whole = 7, b""
    while at + 7 < len(content):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of a block
            at += 32768 - at % 32768
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part of one
            yield whole
            whole = b""


READERS = {"tensorboard": in_tensorboard, "mlflow": in_mlflow, "wandb": in_wandb}


@pytest.mark.filterwarnings("ignore")  # what these packages say when they are imported
@pytest.mark.parametrize("tracker", READERS)
def test_a_tracker_shows_each_epoch_once_also_of_a_run_that_was_resumed(
    tracker: str, own: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"needs the group {tracker} of a study")
    folder = run(STOP, study=own, code=1)
    folder = run(STOP, study=own)
    before = {name: (folder / name).read_bytes() for name in ("history.csv", "best.pt")}
    shutil.rmtree(folder)
    monkeypatch.setenv("HUNTER", "hunter2")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")  # of the one that reads, here
    words = (STOP, f"tracker={tracker}", "training.checkpoint_steps=6")
    run(*words, study=own, code=1)  # in the second epoch, which is then done again
    check(READERS[tracker](folder), folder, "failed")
    run(*words, study=own)
    check(READERS[tracker](folder), folder, "finished")
    assert before == {name: (folder / name).read_bytes() for name in before}
    for path in folder.parents[1].rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


def check(shown: Shown, folder: Path, end: str) -> None:
    """Compares what a tracker shows with the record."""
    curves, final, status = shown
    rows = history(folder)
    for key in rows[0]:
        steps, values = zip(*curves[key], strict=True)
        assert list(steps) == [row["step"] for row in rows], key
        assert list(values) == pytest.approx([row[key] for row in rows], rel=1e-6), key
    metrics = read_record(folder).get("metrics", {}).get("validation", {})
    expected = {f"final_validation_{name}": value for name, value in metrics.items()}
    assert final == pytest.approx(expected, rel=1e-6) and bool(final) == (end == "finished")
    assert status == end


OWN = '''"""A tracker that fails, and disturbs what it can reach."""
import random


class Own:
    def __init__(self, *, when, name, folder, parameters):
        self.when, self.rows = when, []
        self.do("start")

    def do(self, moment):
        random.seed(1)
        if moment == self.when:
            raise RuntimeError(f"no {moment}\\nat all")

    def log(self, row):
        self.rows.append(row)
        self.do(f"row {len(self.rows)}")

    def close(self, status, metrics):
        self.do("close")
        print("told", len(self.rows), status, sorted(metrics))


class Stop:
    """Ends a run in the second epoch, the first time."""

    def after_epoch(self, trainer, row):
        if row["epoch"] == 2 and trainer.folder and not (mark := trainer.folder / "mark").exists():
            mark.touch()
            raise RuntimeError("stop")
'''
STOP = "+training.callbacks.stop={_target_: my_study.own.Stop}"


@pytest.fixture(name="own")
def _own(copy: Copy) -> Path:
    """A study with a tracker of its own."""
    (copy.folder / "src/my_study/own.py").write_text(OWN, encoding="utf-8")
    path = copy.folder / "conf/tracker/own.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("_target_: my_study.own.Own\nwhen: never\n", encoding="utf-8")
    return copy.folder


@pytest.mark.parametrize("when", ["start", "row 1", "row 2", "close", "never"])
def test_a_tracker_that_fails_is_one_warning_and_changes_no_number(
    when: str, own: Path, run: Run, tmp_path: Path
) -> None:
    folder = run(study=own)
    before = {name: (folder / name).read_bytes() for name in ("history.csv", "best.pt")}
    known = read_record(folder)["fingerprint"]
    shutil.rmtree(folder)
    run("tracker=own", f"tracker.when={when}", study=own)
    said = (tmp_path / "errors").read_text(encoding="utf-8")
    warning = f": no {when} at all; the run goes on without it\n"
    assert said.count("tracker: ") == said.count(warning) == (when != "never")
    told = "told 3 finished ['final_validation_accuracy', 'final_validation_loss']"
    assert (told in said) is (when == "never")
    assert before == {name: (folder / name).read_bytes() for name in before}
    record = read_record(folder)
    assert (record["status"], record["fingerprint"]) == ("finished", known)


def test_a_tracker_is_told_that_a_run_failed(own: Path, run: Run, tmp_path: Path) -> None:
    run("tracker=own", "model.lr=1.0e+30", "training.batch_size=1", code=1, study=own)
    assert "failed []" in (tmp_path / "errors").read_text(encoding="utf-8")


def test_a_package_that_is_not_there_is_said_before_anything_is_done(
    run: Run, tmp_path: Path
) -> None:
    missing = [name for name in TRACKERS if importlib.util.find_spec(name) is None]
    for name in missing:
        (tmp_path / name).mkdir()  # such as wandb/, which an earlier run has left
        run(f"tracker={name}", code=1)
        said = (tmp_path / "errors").read_text(encoding="utf-8")
        install = "uv pip install --python .venv/bin/python -c requirements.lock --group"
        assert said == f"error: tracker={name}: is not installed; type: {install} {name}\n"
        assert not (tmp_path / "runs").exists()
    with pytest.raises(StudyError, match="tracker=none_such: is not installed"):
        tracking.need("none_such", tracker="none_such")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.nn.ReLU",
        "my_study.metrics.Accuracy",
        "my_study.harness.tracking.need",
        "my_study.harness.training.trainer.Trainer",
    ],
)
def test_what_is_no_tracker_is_refused(target: str, compose: Compose) -> None:
    config = compose("tracker=tensorboard", f"tracker._target_={target}")  # as if only read
    with pytest.raises(StudyError, match=f"^tracker._target_={target}: must"):
        checking.check_tracker(config)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_can_be_deleted(tracker: str, own: Path, run: Run) -> None:
    (own / f"conf/tracker/{tracker}.yaml").unlink()
    (own / f"src/my_study/harness/tracking/{tracker}.py").unlink()
    for path in [*(own / "src").rglob("*.py"), *own.glob("*.py"), *(own / "stages").glob("*.py")]:
        assert tracker not in path.read_text(encoding="utf-8").lower(), path
    run("tracker=own", study=own)
    run(f"tracker={tracker}", code=1, study=own)


def test_a_tracker_is_no_part_of_what_a_run_is_known_by(compose: Compose) -> None:
    plain = flatten(to_values(compose()))
    for name in TRACKERS:
        assert flatten(to_values(compose(f"tracker={name}"))) == plain
    assert not has_meaning("tracker=wandb") and not has_meaning("tracker.mode=online")
    assert name_from(["tracker=wandb", "tracker.mode=online", "seed=1"]) == "seed-1"

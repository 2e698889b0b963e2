"""A run repeated from its record: the verdict, and what is named as the cause of a difference."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from my_study.harness.runs import comparison, stages
from my_study.harness.runs.comparison import compare
from my_study.harness.runs.drift import find_drift, read_changes, write_changes
from my_study.harness.runs.record import VERSION
from my_study.harness.runs.sealing import seal

from .conftest import Copy

Finished = Callable[..., Path]
BASE: dict[str, Any] = {
    "version": VERSION,
    "fingerprint": "0" * 64,
    "status": "finished",
    "config": {"model": {"lr": 0.1}, "tolerance": {"relative": 0.01, "absolute": 0.0}},
    "code": {"run.py": "1", "src/model.py": "1"},
    "data": {"train/image.npy": "1"},
    "inputs": {"words.txt": "1"},
    "lock": "1",
    "python": "3.11.7",
    "torch": "2.13.0",
    "device": "cpu",
    "packages": {"installed": {"torch": "2.13.0+cpu"}, "locked": {"numpy": "2.4.0"}},
    "hardware": {"processor": "one", "threads": 1, "gpus": [], "host": "a"},
    "environment": {},
    "metrics": {"validation": {"loss": 1.0}},
    "history": [{"epoch": 1.0, "train_loss": 2.0}, {"epoch": 2.0, "train_loss": 1.0}],
    "files": {"best.pt": "1"},
}
DRIFTS: dict[str, dict[str, Any]] = {
    "config: model.lr: 0.1 -> 0.2": {"config": {**BASE["config"], "model": {"lr": 0.2}}},
    "config: model.depth: none -> 2": {"config": {"model": {"lr": 0.1, "depth": 2}}},
    "code: src/model.py: changed": {"code": {"run.py": "1", "src/model.py": "2"}},
    "code: src/new.py: is new": {"code": {**BASE["code"], "src/new.py": "2"}},
    "code: src/model.py: is gone": {"code": {"run.py": "1"}},
    "data: train/image.npy: changed": {"data": {"train/image.npy": "2"}},
    "data: words.txt: changed": {"inputs": {"words.txt": "2"}},
    "environment: python: 3.11.7 -> 3.12.1": {"python": "3.12.1"},
    "environment: torch: 2.13.0 -> 2.14.0": {
        "torch": "2.14.0",
        "packages": {"installed": {"torch": "2.14.0"}, "locked": {"numpy": "2.4.0"}},
    },
    "environment: numpy (locked): 2.4.0 -> 2.5.0": {
        "lock": "2",
        "packages": {"installed": {"torch": "2.13.0+cpu"}, "locked": {"numpy": "2.5.0"}},
    },
    "environment: torch (installed): 2.13.0+cpu -> 2.13.0+cu130": {
        "packages": {"installed": {"torch": "2.13.0+cu130"}, "locked": {"numpy": "2.4.0"}},
    },
    "environment: requirements.lock: changed": {"lock": "2"},
    "environment: OMP_NUM_THREADS: none -> 4": {"environment": {"OMP_NUM_THREADS": "4"}},
    "hardware: processor: one -> two": {"hardware": {**BASE["hardware"], "processor": "two"}},
    "hardware: threads: 1 -> 2": {"hardware": {**BASE["hardware"], "threads": 2}},
    "hardware: device: cpu -> cuda": {"device": "cuda"},
}


@pytest.fixture(name="finished")
def _finished(tmp_path: Path) -> Finished:
    """Writes a published record, with what differs from the base."""

    def finished(name: str, **differing: Any) -> Path:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(seal({**BASE, **differing})))
        return path

    return finished


@pytest.mark.parametrize("line", DRIFTS)
def test_each_change_is_named_and_nothing_else(line: str) -> None:
    changes = find_drift(BASE, {**BASE, **DRIFTS[line]})
    assert [str(change) for change in changes] == [line]
    assert read_changes(json.loads(json.dumps(write_changes(changes)))) == changes


def test_what_cannot_change_a_number_is_not_named(finished: Finished) -> None:
    config = {**BASE["config"], "note": "x", "run_dir": "y", "device": "auto"}
    other = finished("b", config=config, hardware={**BASE["hardware"], "host": "b"})
    found = compare(finished("a"), other)
    assert found == comparison.Comparison(comparison.IDENTICAL, [], [])


def test_another_number_without_a_cause_is_not_explained(finished: Finished) -> None:
    found = compare(finished("a"), finished("b", metrics={"validation": {"loss": 1.1}}))
    assert found.verdict == comparison.DIFFERENT
    assert found.numbers == ["validation loss: 1.0 -> 1.1"]
    assert found.causes == ["nothing that is recorded changed"]


@pytest.mark.parametrize(
    ("loss", "elsewhere", "verdict"),
    [
        *((1.005, True, comparison.TOLERATED), (1.005, False, comparison.DIFFERENT)),
        *((1.5, True, comparison.DIFFERENT), (float("nan"), True, comparison.DIFFERENT)),
        (1.0, True, comparison.IDENTICAL),
    ],
)
def test_a_close_number_is_good_enough_on_another_machine_alone(
    finished: Finished, loss: float, elsewhere: bool, verdict: str
) -> None:
    hardware = {**BASE["hardware"], "processor": "two"} if elsewhere else BASE["hardware"]
    other = finished("b", metrics={"validation": {"loss": loss}}, hardware=hardware)
    assert compare(finished("a"), other).verdict == verdict


def test_of_the_history_the_first_epoch_that_differs_is_shown(finished: Finished) -> None:
    history = [BASE["history"][0], {"epoch": 2.0, "train_loss": 1.5}, {"epoch": 3.0}]
    found = compare(finished("a"), finished("b", history=history))
    assert found.numbers == ["epoch 2 train_loss: 1.0 -> 1.5"]
    found = compare(finished("a"), finished("b", files={"best.pt": "2"}))
    assert found.numbers == ["weights: differ"] and found.verdict == comparison.DIFFERENT


LOCK = {
    "stages": {
        "train": {"cmd": "run a b", "outs": [{"path": "runs/published/a/best.pt"}]},
        "paper": {"cmd": "paper", "deps": [{"path": "results/table.csv"}], "outs": []},
        "report": {
            "cmd": "report a b",
            "deps": [{"path": "runs/published/a/best.pt"}],
            "outs": [{"path": "results/table.csv"}],
        },
    }
}


def test_what_is_made_of_results_is_made_again_too() -> None:
    commands, made = stages.made_of(LOCK, "runs/published")
    assert commands == ["report a b", "paper"] and made == ["results/table.csv"]


def test_another_order_of_experiments_is_named() -> None:
    other = json.loads(json.dumps(LOCK).replace("a b", "b a"))
    found = stages.find_stage_drift(LOCK, other)
    assert found["command: report a b -> report b a"] == ["report"]


@pytest.mark.slow
def test_a_run_with_uncommitted_changes_is_reproduced_after_the_tree_has_moved_on(
    copy: Copy,
) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *words], cwd=copy.folder, check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "--message=one")
    copy.edit("conf/model/linear.yaml", r"lr: .*", "lr: 0.5")
    copy.call("python", "stages/prepare.py")
    copy.call("python", "run.py", "model=linear", "run_dir=runs/mine")
    copy.edit("conf/model/linear.yaml", r"lr: .*", "lr: 0.1")
    copy.edit("src/my_study/models/linear.py", r"\Z", "\nEDITED = True\n")
    printed = copy.call("study", "reproduce", "runs/mine")
    assert printed == "identical: runs/mine\n"
    assert [path.name for path in (copy.folder / "runs").glob("[!.]*")] == ["mine"]

    path = copy.folder / "runs" / "mine" / "changes.patch"
    path.unlink()
    printed = copy.call("study", "reproduce", "runs/mine", code=4)
    reason = "its uncommitted changes to .* are missing: runs/mine has no patch"
    assert re.match(f"cannot be reproduced: {reason}", printed)

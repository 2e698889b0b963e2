"""Callbacks: called at their moments, kept by a checkpoint, and known by their code."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import my_study
from my_study.harness import checks
from my_study.harness.checks import Case, preflight
from my_study.harness.configuration import building
from my_study.harness.configuration.composing import to_values
from my_study.harness.errors import StudyError
from my_study.harness.runs.code import called_by, code_of
from my_study.harness.study import ROOT
from my_study.harness.training.callbacks import Callbacks
from my_study.harness.training.prepared import Split

from .conftest import TINY, Compose

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
AVERAGE = "+training.callbacks.average={_target_: my_study.callbacks.AveragedWeights, decay: 0.9}"


@pytest.fixture(name="write")
def _write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Writes callbacks.py into the package, for as long as a test lasts."""
    monkeypatch.setattr(my_study, "__path__", [*my_study.__path__, str(tmp_path)])
    yield (tmp_path / "callbacks.py").write_text
    sys.modules.pop("my_study.callbacks", None)
    vars(my_study).pop("callbacks", None)


def example() -> str:
    """The callback of docs/extending.md."""
    found = re.search(r"```python\n(# src/my_study/callbacks.py\n.*?)```", PAGE, re.S)
    assert found
    return found[1]


def case_with(compose: Compose, *overrides: str) -> Case:
    """What the checks are given."""
    values = to_values(compose("model=linear", f"data.fixture={TINY}", *overrides))
    return preflight.make_case(values, torch.device("cpu"))


def test_the_example_of_the_page_passes_the_checks_of_training(
    write: Any, compose: Compose
) -> None:
    write(example())
    case = case_with(compose, AVERAGE)
    checks.a_resumed_run_equals_an_uninterrupted_one(case)
    checks.the_trainer_equals_a_reference_loop(case)


def test_the_example_averages_what_is_evaluated_and_trains_on(
    write: Any, compose: Compose, tiny: Path
) -> None:
    write(example())
    splits, rows, last = (Split(tiny, "train"), Split(tiny, "validation")), [], []
    for overrides in ((), (AVERAGE,)):
        config = compose("model=linear", "training.batch_size=8", *overrides)
        torch.manual_seed(0)
        trainer = building.build_trainer(config, splits[0], torch.device("cpu"))
        trainer.fit(*splits)
        rows.append(trainer.history)
        last.append(trainer.optimizer.state_dict()["state"][0]["exp_avg"])
    assert torch.equal(*last)
    assert [row["train_loss"] for row in rows[0]] == [row["train_loss"] for row in rows[1]]
    assert all(
        one["validation_loss"] != other["validation_loss"] for one, other in zip(*rows, strict=True)
    )


def test_state_that_a_callback_does_not_give_is_found(write: Any, compose: Compose) -> None:
    write(example().replace("state_dict", "forgotten"))
    with pytest.raises(checks.Failed):
        checks.a_resumed_run_equals_an_uninterrupted_one(case_with(compose, AVERAGE))


def test_an_error_in_a_callback_names_it_in_one_line(
    write: Any, compose: Compose, tiny: Path
) -> None:
    write("class Wrong:\n    def after_step(self, trainer, loss):\n        {}['a\\nb']\n")
    config = compose("model=linear", "+training.callbacks.x={_target_: my_study.callbacks.Wrong}")
    trainer = building.build_trainer(config, Split(tiny, "train"), torch.device("cpu"))
    with pytest.raises(StudyError, match=r"^training.callbacks.x: after_step failed with KeyError"):
        trainer.fit(Split(tiny, "train"), Split(tiny, "validation"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+training.callbacks.x=1", "training.callbacks.x=1: must be given a _target_"),
        ("+training.callbacks.x={_target_: torch.nn.ReLU}", "must name a class or function"),
        ("+training.callbacks.x={_target_: os.system}", "must be defined in my_study"),
    ],
)
def test_what_is_no_callback_is_refused(override: str, message: str, compose: Compose) -> None:
    with pytest.raises(StudyError, match=message):
        compose(override)


def test_an_object_without_any_of_the_methods_is_refused() -> None:
    with pytest.raises(StudyError, match="x: object has none of the methods after_step"):
        Callbacks().add("x", object())


def test_a_callback_counts_by_its_code_and_its_values(compose: Compose) -> None:
    named = {"_target_": "my_study.metrics.Accuracy"}
    assert "src/my_study/metrics.py" in code_of(ROOT, {"training": {"callbacks": {"x": named}}})
    assert "src/my_study/metrics.py" not in code_of(ROOT, called_by({"tracker": named}))
    assert compose().training.callbacks == {}

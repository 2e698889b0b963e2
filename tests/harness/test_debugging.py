"""`debug=overfit`, `brief` and `profile`: each says what it found, and none leaves a run behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from my_study.harness.configuration.building import rebuild_trainer
from my_study.harness.configuration.composing import to_values
from my_study.harness.debugging import memorising, reasons
from my_study.harness.debugging.memorising import Attempt
from my_study.harness.runs.fingerprint import flatten
from my_study.harness.study import ROOT
from my_study.harness.training.prepared import Split
from my_study.models.mlp import MLP

from .commands import call
from .conftest import TINY, Compose

Debug = Callable[..., tuple[int, str, str]]
CONSTANT = "training/schedule=constant"


@pytest.fixture(name="debug")
def _debug(tiny: Path, tmp_path: Path) -> Debug:
    """Types `python run.py debug=...` on the tiny data, in an empty folder."""
    paths = [f"data.{key}={TINY}" for key in ("prepare.read.path", "fixture")]
    paths += [f"data.folder={tiny}", "device=cpu"]
    return lambda *words: call(ROOT, "run.py", *paths, *words, here=tmp_path)


def files(folder: Path) -> list[str]:
    """The names of all files."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_overfit_memorises_a_batch_and_leaves_no_run(debug: Debug, tmp_path: Path) -> None:
    code, output, errors = debug("debug=overfit", "model=mlp")
    assert code == 0 and "memorised after" in output, errors
    assert files(tmp_path / "debug") == files(tmp_path) == ["overfit.csv"]


def test_overfit_ends_with_code_1_and_the_reason(debug: Debug, tmp_path: Path) -> None:
    code, output, errors = debug("debug=overfit", "model=linear", "model.lr=1.0e-4")
    assert code == 1 and "memorised after" not in output
    assert errors == (
        "error: not memorised: model.lr=0.0001 is too small: at model.lr=0.001 it is memorised\n"
    )
    assert files(tmp_path) == ["overfit.csv"]


def forward(change: Callable[[Tensor, Tensor | None], dict[str, Tensor]]) -> Callable[..., Any]:
    """A forward method of the MLP whose logits go through a function first."""

    def changed(self: MLP, image: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        return change(self.output(self.hidden(image.flatten(start_dim=1))), target)

    return changed


def outputs(logits: Tensor, target: Tensor | None) -> dict[str, Tensor]:
    """As the model that is right."""
    return {"logits": logits} | (
        {"loss": F.cross_entropy(logits, target)} if target is not None else {}
    )


REASONS = {
    "nothing of the model reaches the loss": lambda logits, target: outputs(0 * logits, target),
    "the loss is nan at the first step": lambda logits, target: outputs(logits * torch.nan, target),
    "that is guessing": lambda logits, target: outputs(
        0 * logits + logits.mean(0, keepdim=True), target
    ),
    "a softmax before a cross-entropy": lambda logits, target: outputs(logits.softmax(-1), target),
}


@pytest.mark.parametrize("reason", REASONS)
def test_overfit_names_the_reason(
    reason: str, compose: Compose, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MLP, "forward", forward(REASONS[reason]))
    monkeypatch.setattr(memorising, "NUM_STEPS", 40)
    assert reason in explain(compose(CONSTANT, "model.lr=0.01"), tiny)


def explain(config: Any, tiny: Path) -> str:
    """Why a configuration does not memorise the first batch of the tiny data."""
    values, train = to_values(config), Split(tiny, "train")
    case = memorising.make_case(values, memorising.first_batch(config, train), torch.device("cpu"))

    def attempt(rate: float) -> Attempt:
        changed = {**values, "model": {**values["model"], "lr": rate}}
        trainer = rebuild_trainer(changed, train, torch.device("cpu"))
        return memorising.memorise(case, trainer)

    found = attempt(config.model.lr)
    assert not found.memorised
    return reasons.explain(case, found, attempt)


def test_overfit_tells_training_from_the_model(compose: Compose, tiny: Path) -> None:
    said = explain(compose(CONSTANT, "training.optimizer.weight_decay=1000"), tiny)
    assert "the model can do it: plain Adam does" in said


def test_brief_goes_through_all_parts_and_leaves_nothing(debug: Debug, tmp_path: Path) -> None:
    code, output, errors = debug("debug=brief", "model=mlp", "training.batch_size=8")
    assert code == 0, errors
    parts = ("data", "model", "train", "checkpoint", "resume", "validation", "best.pt")
    assert [line.split()[:2] for line in output.splitlines()[:-1]] == [
        [name, "ok"] for name in parts
    ]
    assert "bit-identical" in output and not files(tmp_path)


def test_brief_ends_at_the_first_part_that_fails(debug: Debug, tmp_path: Path) -> None:
    code, output, errors = debug("debug=brief", "model=mlp", "model.network.dropout=2")
    assert (code, output.split()[:2]) == (1, ["data", "ok"]) and output.count("\n") == 1
    assert errors.startswith("error: debug=brief: model: model.network: dropout")
    assert errors.count("\n") == 1 and not files(tmp_path)


def test_profile_writes_a_table_and_a_trace(debug: Debug, tmp_path: Path) -> None:
    code, output, errors = debug("debug=profile", "model=linear")
    assert code == 0, errors
    assert "rows a second" in output and "waiting for data" in output and "aten::" in output
    assert files(tmp_path) == ["table.txt", "trace.json"]
    (path,) = tmp_path.rglob("trace.json")
    assert any("aten::" in event["name"] for event in json.loads(path.read_text())["traceEvents"])
    (table,) = tmp_path.rglob("table.txt")
    assert "Self CPU" in table.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["debug=overfitt"], "debug=overfitt: must be null, overfit, brief or profile"),
        (["debug=brief", "task=find_lr"], "task=find_lr: must be train, with debug=brief"),
    ],
)
def test_a_slip_in_debug_gets_one_line(words: list[str], message: str, debug: Debug) -> None:
    assert debug(*words) == (1, "", f"error: {message}\n")


def test_debug_is_no_part_of_what_a_run_is_known_by(compose: Compose) -> None:
    assert flatten(to_values(compose("debug=brief"))) == flatten(to_values(compose()))

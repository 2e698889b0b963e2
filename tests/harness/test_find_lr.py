"""`task=find_lr`: the range test of the learning rate."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch


from my_study.harness.configuration.building import rebuild_trainer
from my_study.harness.configuration.composing import to_values
from my_study.harness.study import ROOT
from my_study.harness.training.prepared import Split
from my_study.harness.training.range_test import HIGHEST, LOWEST, run_range_test, suggest_rate

from .commands import call
from .conftest import TINY, Compose


@pytest.fixture(name="find")
def _find(tiny: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Types `python run.py task=find_lr` on the tiny data, in an empty folder."""
    paths = [f"data.prepare.read.path={TINY}", f"data.folder={tiny}", "device=cpu"]
    return lambda *words: call(ROOT, "run.py", "task=find_lr", *paths, *words, here=tmp_path)


def test_a_rate_is_found_and_no_run_is_left_behind(
    find: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    contents = []
    for _ in range(2):  # the same seed gives the same curve
        code, output, errors = find("model=mlp")
        assert code == 0 and "try model.lr=" in output, errors
        (folder,) = tmp_path.iterdir()
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        assert [path.name for path in files] == ["curve.csv", "curve.svg"]
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]
    assert find("model=mlp", "seed=1")[0] == 0
    curves = {path.read_bytes() for path in tmp_path.glob("lr_range/*/curve.csv")}
    assert len(curves) == 2


def test_a_slip_in_the_task_gets_one_line(find: Callable[..., tuple[int, str, str]]) -> None:
    assert find("task=find_rl") == (1, "", "error: task=find_rl: must be train or find_lr\n")


def test_every_group_grows_from_the_lowest_rate_to_the_highest(
    tiny: Path, compose: Compose
) -> None:
    values = to_values(compose("model=linear", f"model.lr={LOWEST}", "training/schedule=constant"))
    train = Split(tiny, "train")
    curve = run_range_test(rebuild_trainer(values, train, torch.device("cpu")), train)
    rates = [rate for rate, _ in curve]
    assert rates[0] == LOWEST and rates[-1] == pytest.approx(HIGHEST)
    ratios = [later / sooner for sooner, later in zip(rates, rates[1:], strict=False)]
    assert max(ratios) == pytest.approx(min(ratios))


def falling_then_rising(lowest: float) -> list[tuple[float, float]]:
    """A loss that falls over a decade to its lowest value at a rate, and rises after it."""
    rates = [LOWEST * (HIGHEST / LOWEST) ** (step / 699) for step in range(700)]
    return [(rate, min(2.0, abs(rate / lowest - 1)) + 0.1) for rate in rates]


@pytest.mark.parametrize("lowest", [1e-3, 1e-1])
def test_the_rate_is_where_the_loss_has_almost_fallen(lowest: float) -> None:
    rate = suggest_rate(falling_then_rising(lowest))
    assert rate is not None and lowest / 3 < rate < lowest * 1.2


@pytest.mark.parametrize(
    "curve",
    [
        [(rate, 1.0 + rate) for rate in range(100)],
        [(1.0, float("nan"))],
        [],
    ],
)
def test_no_rate_is_found_where_the_loss_does_not_fall(curve: list[tuple[float, float]]) -> None:
    assert suggest_rate(curve) is None

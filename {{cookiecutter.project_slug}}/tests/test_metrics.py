"""Metrics: counted by hand, over targets and not over batches, and never over missing ones."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from {{ cookiecutter.project_slug }}.harness.training.metrics import IGNORED
from {{ cookiecutter.project_slug }} import metrics

NAN = math.nan
# Of each metric: one output and one target a row, and the value by hand. The last row counts not.
ROWS: dict[str, tuple[Callable[[], Any], str, Tensor, Tensor, float]] = {
    # the largest logit is that of class 0, 1, 2, 0, 1: right, right, wrong, right, wrong
    "accuracy": (
        metrics.Accuracy,
        "logits",
        torch.tensor([[3.0, 2, 1], [2, 3, 1], [1, 2, 3], [3, 2, 1], [2, 3, 1], [1, 2, 3]]),
        torch.tensor([0, 1, 1, 0, 2, IGNORED]),
        3 / 5,
    ),
    # errors 1, -2, 0, 3, -2
    "mean absolute error": (
        lambda: metrics.MeanAbsoluteError(output="price"),
        "price",
        torch.tensor([2.0, 3, 4, 9, 0, 7]),
        torch.tensor([1.0, 5, 4, 6, 2, NAN]),
        8 / 5,
    ),
    "root mean squared error": (
        lambda: metrics.RootMeanSquaredError(output="price"),
        "price",
        torch.tensor([2.0, 3, 4, 9, 0, 7]),
        torch.tensor([1.0, 5, 4, 6, 2, NAN]),
        math.sqrt(18 / 5),
    ),
    # the mean of the targets is 3.6, and their squared distances from it add up to 17.2
    "r squared": (
        lambda: metrics.RSquared(output="price"),
        "price",
        torch.tensor([2.0, 3, 4, 9, 0, 7]),
        torch.tensor([1.0, 5, 4, 6, 2, NAN]),
        1 - 18 / 17.2,
    ),
    # 3 hits, 1 predicted wrongly, 2 missed
    "micro f1": (
        metrics.MicroF1,
        "logits",
        torch.tensor([[1.0, -1], [1, 1], [-1, -1], [1, -1], [-1, 0], [1, 1]]),
        torch.tensor([[1, 0], [1, 0], [0, 1], [1, 0], [0, 1], [IGNORED, IGNORED]]),
        6 / 9,
    ),
    # ranks 1, 2, 3 (a tie counts against it), 1, 2
    "mean reciprocal rank": (
        lambda: metrics.MeanReciprocalRank(output="scores"),
        "scores",
        torch.tensor([[9.0, 2, 1], [2, 9, 3], [1, 1, 1], [4, 5, 9], [7, 8, -math.inf], [0, 0, 0]]),
        torch.tensor([0, 2, 1, 2, 0, IGNORED]),
        (1 + 1 / 2 + 1 / 3 + 1 + 1 / 2) / 5,
    ),
}
every = pytest.mark.parametrize("name", list(ROWS))


def measure(name: str, *sizes: int) -> float:
    """Over the first rows, in batches of these sizes."""
    make, output, values, target, _ = ROWS[name]
    metric, start = make(), 0
    for size in sizes:
        rows = slice(start, start + size)
        metric.update({output: values[rows]}, {"target": target[rows]})
        start += size
    return float(metric.compute())


@every
def test_a_metric_is_what_is_counted_by_hand(name: str) -> None:
    assert measure(name, 5) == pytest.approx(ROWS[name][-1], rel=1e-6)


@every
def test_a_missing_target_counts_in_no_metric(name: str) -> None:
    assert measure(name, 6) == measure(name, 5)


@every
def test_a_metric_does_not_depend_on_the_size_of_the_batches(name: str) -> None:
    for sizes in [(1, 5), (2, 2, 2), (5, 1), (1, 1, 1, 1, 1, 1)]:
        assert measure(name, *sizes) == pytest.approx(measure(name, 6), rel=1e-6)


@every
def test_a_metric_of_a_sequence_counts_its_positions(name: str) -> None:
    make, output, values, target, value = ROWS[name]
    metric = make()
    sequences = (field.reshape(2, 3, *field.shape[1:]) for field in (values, target))
    metric.update({output: next(sequences)}, {"target": next(sequences)})
    assert metric.compute() == pytest.approx(value, rel=1e-6)


@every
def test_a_metric_over_no_target_is_not_a_number(name: str) -> None:
    make, output, values, target, _ = ROWS[name]
    metric = make()
    assert math.isnan(metric.compute())
    metric.update({output: values[5:]}, {"target": target[5:]})
    assert math.isnan(metric.compute())


@pytest.mark.parametrize("name", ["mean absolute error", "root mean squared error", "r squared"])
def test_a_prediction_of_another_shape_is_never_spread_over_the_targets(name: str) -> None:
    make, output, values, target, value = ROWS[name]
    metric = make()
    metric.update({output: values.unsqueeze(1)}, {"target": target})  # [rows, 1] for [rows]
    assert metric.compute() == pytest.approx(value, rel=1e-6)
    with pytest.raises(RuntimeError, match="shape"):
        metric.update({output: torch.stack([values, values], dim=1)}, {"target": target})


def test_r_squared_of_equal_targets_is_not_a_number() -> None:
    metric = metrics.RSquared(output="price")
    metric.update({"price": torch.tensor([1.0, 2])}, {"target": torch.tensor([3.0, 3])})
    assert math.isnan(metric.compute())


def test_errors_of_large_targets_keep_their_digits() -> None:
    metric = metrics.RSquared(output="price")
    target = torch.tensor([1.0e6, 1.0e6 + 1, 1.0e6 + 2])
    metric.update({"price": target + torch.tensor([1.0, 0, 0])}, {"target": target})
    assert metric.compute() == pytest.approx(0.5)


def test_scores_that_are_no_numbers_are_no_success() -> None:
    metric = metrics.MeanReciprocalRank(output="scores")
    metric.update({"scores": torch.full((1, 4), NAN)}, {"target": torch.tensor([2])})
    assert metric.compute() == 1 / 4

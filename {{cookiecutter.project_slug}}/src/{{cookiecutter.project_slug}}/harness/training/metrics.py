"""What training asks of a metric, and the mean loss, which every run reports."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

IGNORED = -100  # a target of this value (padding, for example) counts in no loss and no metric


class Metric(Protocol):
    """What training and evaluation ask of a metric."""

    def update(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Takes in one batch."""

    def compute(self) -> float:
        """The value over every batch so far."""


def num_targets(target: Tensor) -> int:
    """How many targets a mean loss averages over: all rows, or all that are not IGNORED."""
    return len(target) if target.is_floating_point() else int((target != IGNORED).sum())


def loss_weight(batch: Mapping[str, Tensor]) -> int:
    """What the mean loss of a batch averages over: its targets, or its rows if it has none."""
    if "target" in batch:
        return num_targets(batch["target"])
    return len(next(iter(batch.values())))


class MeanLoss:
    """The model's own loss, averaged over targets, or over rows without a target."""

    def __init__(self) -> None:
        self.total, self.weight = 0.0, 0

    def update(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Takes in `outputs["loss"]` (a scalar) and what it averages over."""
        weight = loss_weight(batch)
        if weight:  # the mean over no target is not a number
            self.total += float(outputs["loss"]) * weight
            self.weight += weight

    def compute(self) -> float:
        """The mean; nan before the first target."""
        return self.total / self.weight if self.weight else float("nan")

"""What training asks of a metric, and the mean loss, which every run reports."""

from typing import Protocol

from torch import Tensor

IGNORED = -100  # a target of this value (padding, for example) counts in no loss and no metric


class Metric(Protocol):
    """What training and evaluation ask of a metric."""

    higher_is_better: bool

    def update(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Takes in one batch."""

    def compute(self) -> float:
        """The value over every batch so far."""


def num_targets(target: Tensor) -> int:
    """How many targets a mean loss averages over: all rows, or all that are not IGNORED."""
    return len(target) if target.is_floating_point() else int((target != IGNORED).sum())


class MeanLoss:
    """The model's own loss, averaged over targets."""

    higher_is_better = False

    def __init__(self) -> None:
        self.total, self.num_targets = 0.0, 0

    def update(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Takes in `outputs["loss"]` (a scalar) and `batch["target"]`."""
        count = num_targets(batch["target"])
        if count:  # the mean over no target is not a number
            self.total += float(outputs["loss"]) * count
            self.num_targets += count

    def compute(self) -> float:
        """The mean; nan before the first target."""
        return self.total / self.num_targets if self.num_targets else float("nan")

"""Predictions and targets to numbers.

A metric is a class with `update(outputs, batch)`, called for each batch of a split, `compute()`,
the value over all of them, and `higher_is_better`. It counts things, not batches, so that its
value does not depend on the batch size. To add one: a class here, a line under `metrics:` in
conf/config.yaml.
"""

from typing import Protocol

from torch import Tensor

IGNORED = -100  # a target of this value (padding, say) counts nowhere: in no loss and no metric


class Metric(Protocol):
    """What training and evaluation ask of a metric."""

    higher_is_better: bool

    def update(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Takes in one batch."""

    def compute(self) -> float:
        """The value over every batch so far."""


def num_targets(target: Tensor) -> int:
    """How many things a loss over `target` averages: all rows, or all that are not IGNORED."""
    return len(target) if target.is_floating_point() else int((target != IGNORED).sum())


class MeanLoss:
    """The model's own loss, averaged over targets."""

    higher_is_better = False

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Takes in `outputs["loss"]` (a scalar) and `batch["target"]`."""
        count = num_targets(batch["target"])
        if count:  # the mean over no target is not a number
            self.total += float(outputs["loss"]) * count
            self.count += count

    def compute(self) -> float:
        """The mean; nan before the first target."""
        return self.total / self.count if self.count else float("nan")


class Accuracy:
    """The share of targets that the largest logit names, in [0, 1]."""

    higher_is_better = True

    def __init__(self) -> None:
        self.correct, self.count = 0, 0

    def update(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Takes in `outputs["logits"]` [..., num_classes] and `batch["target"]` [...]."""
        target = batch["target"]  # no largest logit is at an IGNORED index, which is negative
        self.correct += int((outputs["logits"].argmax(dim=-1) == target).sum())
        self.count += num_targets(target)

    def compute(self) -> float:
        """The share; nan before the first target."""
        return self.correct / self.count if self.count else float("nan")

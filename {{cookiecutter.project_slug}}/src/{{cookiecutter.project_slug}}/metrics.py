"""Predictions and targets to numbers.

A metric is a class with `update(outputs, batch)`, called for each batch of a split, `compute()`,
the value over all of them, and `higher_is_better`. It counts targets, not batches, so that its
value does not depend on the batch size. To add one: a class here, a line under `metrics:` in
conf/config.yaml.
"""

from torch import Tensor

from .harness.training.metrics import num_targets


class Accuracy:
    """The share of targets for which the largest logit is that of the right class, in [0, 1]."""

    higher_is_better = True

    def __init__(self) -> None:
        self.num_correct, self.num_targets = 0, 0

    def update(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Takes in `outputs["logits"]` [..., num_classes] and `batch["target"]` [...]."""
        target = batch["target"]  # padding is negative (IGNORED), so never the largest logit
        self.num_correct += int((outputs["logits"].argmax(dim=-1) == target).sum())
        self.num_targets += num_targets(target)

    def compute(self) -> float:
        """The share; nan before the first target."""
        return self.num_correct / self.num_targets if self.num_targets else float("nan")

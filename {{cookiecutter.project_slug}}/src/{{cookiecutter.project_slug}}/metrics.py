"""Predictions and targets to numbers.

A metric is a class with `update(outputs, batch)`, called for each batch of a split, and
`compute()`, the value over all of them. It counts targets, not batches, so that its value does not
depend on the batch size; a missing target counts in none. To add one: a class here, and under
`metrics:` in conf/data/ its name, its direction and its unit.
"""

import math

import torch
from torch import Tensor

from .harness.training.metrics import IGNORED

Values = dict[str, Tensor]


def is_counted(target: Tensor) -> Tensor:
    """True where a target counts: not nan, and of integers not IGNORED (padding, for example)."""
    return ~target.isnan() if target.is_floating_point() else target != IGNORED


def ratio(total: float, count: float) -> float:
    """Their quotient; nan over nothing."""
    return total / count if count else math.nan


class Accuracy:
    """The share of targets for which the largest logit is that of the right class, in [0, 1].

    Of a sequence, every position that counts is a target.
    """

    def __init__(self) -> None:
        self.num_correct, self.num_targets = 0, 0

    def update(self, outputs: Values, batch: Values) -> None:
        """Takes in `outputs["logits"]` [..., num_classes] and `batch["target"]` [...]."""
        target = batch["target"]  # padding is negative (IGNORED), so never the largest logit
        self.num_correct += int((outputs["logits"].argmax(dim=-1) == target).sum())
        self.num_targets += int(is_counted(target).sum())

    def compute(self) -> float:
        """The share; nan before the first target."""
        return ratio(self.num_correct, self.num_targets)


class MeanAbsoluteError:
    """The mean of |prediction - target|, from 0, in the unit of the target.

    Args:
        output: The name of the prediction among the outputs of the model.
    """

    def __init__(self, *, output: str) -> None:
        self.output, self.total, self.num_targets = output, 0.0, 0

    def update(self, outputs: Values, batch: Values) -> None:
        """Takes in the prediction and `batch["target"]`, of one shape."""
        prediction, target = paired(outputs[self.output], batch["target"])
        self.total += float(self.error(prediction - target).sum())
        self.num_targets += len(target)

    def error(self, apart: Tensor) -> Tensor:
        """Of each target, from how far its prediction is off."""
        return apart.abs()

    def compute(self) -> float:
        """The mean; nan before the first target."""
        return ratio(self.total, self.num_targets)


class RootMeanSquaredError(MeanAbsoluteError):
    """The root of the mean of (prediction - target)², from 0, in the unit of the target."""

    def error(self, apart: Tensor) -> Tensor:
        """The square."""
        return apart.square()

    def compute(self) -> float:
        """The root; nan before the first target."""
        return math.sqrt(super().compute())


class RSquared:
    """1 - Σ(prediction - target)² / Σ(target - mean)²: the share of the variance explained.

    At most 1; 0 for the mean of the targets that it counts, and below 0 for what is worse.

    Args:
        output: The name of the prediction among the outputs of the model.
    """

    def __init__(self, *, output: str) -> None:
        self.output, self.total = output, 0.0
        self.targets: list[Tensor] = []  # their mean is known at the end only

    def update(self, outputs: Values, batch: Values) -> None:
        """Takes in the prediction and `batch["target"]`, of one shape."""
        prediction, target = paired(outputs[self.output], batch["target"])
        self.total += float((prediction - target).square().sum())
        self.targets.append(target)

    def compute(self) -> float:
        """The share; nan if all targets are equal, or there is none."""
        targets = torch.cat([torch.zeros(0), *self.targets])
        spread = float((targets - targets.mean()).square().sum()) if len(targets) else 0.0
        return 1 - ratio(self.total, spread)


def paired(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions and targets that count, in double precision. Shape of each: [number of them].

    Raises:
        RuntimeError: there are more predictions than targets, or fewer.
    """
    counted = is_counted(target)
    # reshaped: [rows, 1] minus [rows] would be [rows, rows]
    pair = prediction.detach().reshape(target.shape)[counted], target[counted]
    left, right = (values.cpu().double() for values in pair)  # some devices have no float64
    return left, right


class MicroF1:
    """2 TP / (2 TP + FP + FN) over all labels of all instances, in [0, 1].

    A label is predicted where its logit is above 0, that is where it is likelier than not.
    """

    def __init__(self) -> None:
        self.num_hits, self.num_marked = 0, 0

    def update(self, outputs: Values, batch: Values) -> None:
        """Takes in `outputs["logits"]` and `batch["target"]`, 0 or 1: both [..., num_labels]."""
        counted = is_counted(batch["target"])
        predicted = (outputs["logits"] > 0)[counted]
        true = (batch["target"] > 0)[counted]
        self.num_hits += int((predicted & true).sum())
        self.num_marked += int(predicted.sum() + true.sum())  # 2 TP + FP + FN

    def compute(self) -> float:
        """The F1; nan if no label is true and none is predicted."""
        return ratio(2 * self.num_hits, self.num_marked)


class MeanReciprocalRank:
    """The mean of 1 / (rank of the right candidate), in (0, 1].

    The rank is the number of candidates with at least its score, itself among them: a tie counts
    against the model. A candidate that only fills up a row must have the lowest score, -1e4 or so.
    (The checks refuse -inf: with such a candidate as the target the loss were infinite.)
    """

    def __init__(self, *, output: str) -> None:
        self.output, self.total, self.num_targets = output, 0.0, 0

    def update(self, outputs: Values, batch: Values) -> None:
        """Takes in the scores [..., num_candidates] and `batch["target"]` [...], an index."""
        counted = is_counted(batch["target"])
        scores, target = outputs[self.output][counted], batch["target"][counted]
        right = scores.gather(-1, target.unsqueeze(-1))
        ranks = (~(scores < right)).sum(dim=-1)  # so that a score of nan is no success
        self.total += float(ranks.float().reciprocal().sum())
        self.num_targets += len(target)

    def compute(self) -> float:
        """The mean; nan before the first target."""
        return ratio(self.total, self.num_targets)

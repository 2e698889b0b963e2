"""Metrics: counted by hand, over targets and not over batches, and never over padding."""

import math

import torch

from {{ cookiecutter.project_slug }}.harness.training.metrics import IGNORED
from {{ cookiecutter.project_slug }}.metrics import Accuracy

# the largest logit of the six rows is that of class 0, 1, 2, 0, 1, 2
LOGITS = torch.tensor([[3.0, 2, 1], [2, 3, 1], [1, 2, 3]]).repeat(2, 1)
TARGET = torch.tensor([0, 1, 1, 0, 2, IGNORED])  # right, right, wrong, right, wrong


def accuracy(*sizes: int) -> float:
    """Over the first rows, in batches of these sizes."""
    metric, start = Accuracy(), 0
    for size in sizes:
        rows = slice(start, start + size)
        metric.update({"logits": LOGITS[rows]}, {"target": TARGET[rows]})
        start += size
    return metric.compute()


def test_accuracy_is_the_share_of_targets_with_the_largest_logit() -> None:
    assert accuracy(5) == 3 / 5


def test_accuracy_ignores_padding() -> None:
    assert accuracy(6) == 3 / 5
    metric = Accuracy()
    metric.update({"logits": LOGITS.reshape(2, 3, 3)}, {"target": TARGET.reshape(2, 3)})
    assert metric.compute() == 3 / 5


def test_accuracy_does_not_depend_on_the_size_of_the_batches() -> None:
    assert accuracy(6) == accuracy(1, 5) == accuracy(2, 2, 2)


def test_accuracy_over_no_target_is_not_a_number() -> None:
    assert math.isnan(Accuracy().compute())


def test_a_higher_accuracy_is_better() -> None:
    assert Accuracy.higher_is_better

"""Metrics: counted by hand, over things and not over batches, and never over padding."""

import math

import torch

from {{ cookiecutter.project_slug }} import metrics

# the highest logit of the six is that of class 0, 1, 2, 0, 1, 2
LOGITS = torch.tensor([[3.0, 2, 1], [2, 3, 1], [1, 2, 3]]).repeat(2, 1)
TARGET = torch.tensor([0, 1, 1, 0, 2, metrics.IGNORED])  # right, right, wrong, right, wrong


def accuracy(*sizes: int) -> float:
    """Over the six rows, in batches of these sizes."""
    counter, start = metrics.Accuracy(), 0
    for size in sizes:
        rows = slice(start, start + size)
        counter.update({"logits": LOGITS[rows]}, {"target": TARGET[rows]})
        start += size
    return counter.compute()


def test_accuracy_is_the_share_of_targets_that_the_largest_logit_names() -> None:
    assert accuracy(5) == 3 / 5


def test_accuracy_leaves_out_what_is_padding() -> None:
    assert accuracy(6) == 3 / 5
    sentences = {"logits": LOGITS.reshape(2, 3, 3)}, {"target": TARGET.reshape(2, 3)}
    counter = metrics.Accuracy()
    counter.update(*sentences)
    assert counter.compute() == 3 / 5


def test_metrics_do_not_depend_on_the_size_of_the_batches() -> None:
    assert accuracy(6) == accuracy(1, 5) == accuracy(2, 2, 2)


def test_the_mean_loss_weighs_each_batch_by_its_targets() -> None:
    counter = metrics.MeanLoss()
    for loss, target in ((2.0, TARGET[:1]), (4.0, TARGET[3:]), (math.nan, TARGET[5:])):
        counter.update({"loss": torch.tensor(loss)}, {"target": target})
    assert counter.compute() == (2 * 1 + 4 * 2) / 3


def test_a_number_over_nothing_is_not_a_number() -> None:
    assert math.isnan(metrics.Accuracy().compute()) and math.isnan(metrics.MeanLoss().compute())


def test_every_metric_says_which_way_is_better() -> None:
    assert metrics.Accuracy.higher_is_better and not metrics.MeanLoss.higher_is_better

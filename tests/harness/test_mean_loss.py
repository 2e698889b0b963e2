"""The mean loss: over targets and not over batches, and never over padding."""

import math

import torch

from my_study.harness.training.metrics import IGNORED, MeanLoss, num_targets
from my_study.harness.training.step import split_batch

TARGET = torch.tensor([0, 1, 1, 0, 2, IGNORED])


def test_the_mean_loss_weighs_each_batch_by_its_targets() -> None:
    counter = MeanLoss()
    for loss, target in ((2.0, TARGET[:1]), (4.0, TARGET[3:]), (math.nan, TARGET[5:])):
        counter.update({"loss": torch.tensor(loss)}, {"target": target})
    assert counter.compute() == (2 * 1 + 4 * 2) / 3


def test_a_mean_over_no_target_is_not_a_number() -> None:
    assert math.isnan(MeanLoss().compute())


def test_without_a_target_the_mean_loss_weighs_each_batch_by_its_rows() -> None:
    counter = MeanLoss()
    for loss, num_rows in ((2.0, 1), (4.0, 3)):
        counter.update({"loss": torch.tensor(loss)}, {"image": torch.zeros(num_rows, 2)})
    assert counter.compute() == (2 * 1 + 4 * 3) / 4


def test_pieces_of_a_batch_without_a_target_have_shares_of_its_rows() -> None:
    pieces = list(split_batch({"image": torch.zeros(5, 2)}, 2))
    assert [(len(piece["image"]), share) for piece, share in pieces] == [(3, 0.6), (2, 0.4)]


def test_padding_is_no_target_and_each_row_of_a_regression_is_one() -> None:
    assert num_targets(TARGET) == 5
    assert num_targets(torch.zeros(4, 3)) == 4

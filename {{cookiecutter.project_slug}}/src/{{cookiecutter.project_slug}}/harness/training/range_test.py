"""Which learning rate to try: the range test (Smith, "Cyclical learning rates", 2017).

The rate grows by the same factor at each step of one pass over the training rows. The loss first
stays, then falls, then rises: the rate to try is where it falls, well below where it rises.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch.utils.data import Dataset

from .determinism import seed_step
from .prepared import Batch, batches, order_of
from .trainer import Trainer

LOWEST, HIGHEST = 1e-6, 10.0  # rates; every optimizer of torch learns somewhere between
KEPT = 0.9  # of the running mean at each step
NUM_FIRST = 10  # the step whose running mean is the loss before any learning
FALL = 0.9  # the share of the fall at which the rate is right
MIN_STEPS = 200  # rows that make fewer batches are passed over several times
Curve = list[tuple[float, float]]  # a rate and the loss of a batch at it, a pair a step


def run_range_test(trainer: Trainer, train: Dataset[Batch]) -> Curve:
    """Trains with a growing rate, until the loss is no number or the highest rate is reached.

    Args:
        trainer: New, with a learning rate of `LOWEST` and a constant schedule. It is used up.
        train: The split to train on.
    """
    size = trainer.settings.batch_size
    num_steps = max(MIN_STEPS, math.ceil(len(train) / size))  # type: ignore[arg-type]
    factor = (HIGHEST / LOWEST) ** (1 / (num_steps - 1))
    growing = torch.optim.lr_scheduler.ExponentialLR(trainer.optimizer, factor)
    trainer.scheduler = growing
    trainer.model.train()
    curve: Curve = []
    for batch in itertools.islice(_endless(trainer, train), num_steps):
        seed_step(trainer.seed, trainer.step, trainer.device)
        curve.append((float(growing.get_last_lr()[0]), float(trainer.train_step(batch))))
        trainer.step += 1
        if not math.isfinite(curve[-1][1]):
            break
    return curve


def _endless(trainer: Trainer, train: Dataset[Batch]) -> Iterator[Batch]:
    """The batches of one epoch after another."""
    size = trainer.settings.batch_size
    for epoch in itertools.count():
        order = order_of(train, seed=trainer.seed, epoch=epoch, batch_size=size)
        yield from batches(train, order, batch_size=size)


def smooth(curve: Curve) -> Curve:
    """The losses as a running mean over about ten steps."""
    total, smoothed = 0.0, []
    for step, (rate, loss) in enumerate(curve, start=1):
        total = KEPT * total + (1 - KEPT) * loss
        smoothed.append((rate, total / (1 - KEPT**step)))  # the mean begins at nothing
    return smoothed


def suggest_rate(curve: Curve) -> float | None:
    """The rate at which the loss has done nine tenths of its fall; None if it does not fall.

    The lowest loss comes later, at a rate that is too high already: it was reached by the steps
    before. The steepest fall comes sooner, at a rate that is safe but slow.
    """
    smoothed = smooth([(rate, loss) for rate, loss in curve if math.isfinite(loss)])[NUM_FIRST:]
    losses = [loss for _, loss in smoothed]
    if not losses or min(losses) == losses[0]:
        return None
    reached = losses[0] - FALL * (losses[0] - min(losses))
    return next(rate for rate, loss in smoothed if loss <= reached)

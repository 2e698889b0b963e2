"""A check of running statistics: what training averages is what evaluation uses."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..training.prepared import Batch
from .case import Case, close, first_difference, take
from .failures import Failed, NotApplicable
from .fitting import Norm, without_dropout
from .running import check

NUM_PASSES, FEWER_PASSES = 100, 40
SLOWEST = 0.1  # momentum of a batch norm: a slower one would need more passes


@check(
    "a running variance that is given the deviation, statistics over the wrong axis, ones that are "
    "never updated, a momentum of another library (0.9 or 0.99 is 0.1 or 0.01 in torch)"
)
def running_statistics_are_those_of_the_data(case: Case) -> None:
    """After many passes over one batch, evaluation gives what training gives; two batches blend.

    Weights stay as they are, and dropout is off.
    Catches: running statistics that are wrong, never updated, or those of the last batch alone.
    False alarms: 0 of 165 runs on correct models.
    Source: Ioffe and Szegedy, "Batch Normalization" (2015), section 3.1.
    """
    model, batch, _ = case.precise(case.trained())
    model = copy.deepcopy(model)
    for norm in model.modules():
        if isinstance(norm, Norm) and norm.momentum:
            norm.momentum = max(norm.momentum, SLOWEST)
    start = _statistics(model)
    with without_dropout(model.train()):
        noisy = [case.outputs(model, batch, number) for number in range(2)]
    now = _statistics(model)
    moving = [name for name, values in start.items() if not torch.equal(values, now[name])]
    if not moving:
        raise NotApplicable("no running statistic changes in training")
    if first_difference(noisy[0], noisy[1], 0) is not None:
        raise NotApplicable("training mode has noise, so the modes cannot be compared")
    settled = _settle(case, model, [batch], NUM_PASSES)
    steps = [_distance(start, now) / 2, _distance(settled, _settle(case, model, [batch], 1))]
    if 1e-3 * _distance(start, settled) < steps[1] < 0.95 * steps[0]:  # a sum does not slow down
        raise NotApplicable(f"running statistics move on after {NUM_PASSES} passes over a batch")
    before, after = noisy[0], case.outputs(model.eval(), batch)
    apart = first_difference(before, after, 0.02)
    if apart is not None:
        seen = f"differs by {apart[1]:.3g} between the modes after {NUM_PASSES} passes on one batch"
        raise Failed(f"output `{apart[0]}`", seen, "running statistics that are those of the batch")
    _check_blend(case, model, batch, moving)


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the buffers that hold real numbers."""
    buffers = model.named_buffers()
    return {name: item.clone() for name, item in buffers if item.is_floating_point()}


def _distance(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """How far the buffers have moved in all."""
    return sum(float((after[name] - values).norm()) for name, values in before.items())


def _settle(
    case: Case, model: nn.Module, parts: Sequence[Batch], num_passes: int
) -> dict[str, Tensor]:
    """The buffers after many passes in training mode over batches in turn."""
    with without_dropout(model.train()):
        for number in range(num_passes):
            part = parts[number % len(parts)]
            # twice the rows, because a running variance is unbiased
            case.outputs(model, {name: torch.cat([item, item]) for name, item in part.items()})
    return _statistics(model)


def _check_blend(case: Case, model: nn.Module, batch: Batch, moving: Sequence[str]) -> None:
    """Raises Failed if two batches in turn leave the statistics of the last one."""
    middle = case.num_rows // 2
    halves = [take(batch, slice(middle)), take(batch, slice(middle, None))]
    first, last = (_settle(case, model, [half], FEWER_PASSES) for half in halves)
    both = _settle(case, model, halves, FEWER_PASSES)
    for name in moving:
        way = last[name] - first[name]
        length = float(way.square().sum())
        share = float(((both[name] - first[name]) * way).sum()) / (length or 1)
        if not close(first[name], last[name], 1e-3) and 0.85 < share < 1.05:  # no counter
            seen = f"holds {share:.0%} of the last batch after two batches in turn"
            raise Failed(f"buffer `{name}`", seen, "a mean over batches: about 50 %", BLEND)


BLEND = "a momentum of another library: 0.9 there is 0.1 in torch"

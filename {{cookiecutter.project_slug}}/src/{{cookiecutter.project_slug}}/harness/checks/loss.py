"""Checks of the loss: a mean over what counts, and the one that the spec names."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..training.metrics import loss_weight
from ..training.prepared import Batch
from ..training.spec import valid
from .case import Case, take
from .failures import Failed, NotApplicable
from .fitting import counted_targets, error, without_dropout
from .running import check


@check("`reduction='sum'`, a sum over pairs of rows")
def the_loss_is_a_mean(case: Case) -> None:
    """A repeated batch has the same loss, and the gradients of parts add up to those of the whole.

    Each part is weighted by its number of targets, as training.num_accumulation_steps does it. A
    coupled loss may grow with the number of rows, but less than a sum does.
    Catches: a summed loss, a wrong divisor.
    False alarms: 0 of 270 runs on correct models.
    Source: gradient accumulation, which several large projects had wrong until 2024.
    """
    model, batch, tolerance = case.precise(case.trained())
    if case.spec.coupled:
        _check_coupled(case, model, batch)
        return
    once, twice = (_loss_of_copies(case, model, batch, number) for number in (1, 2))
    if not math.isclose(once, twice, rel_tol=10 * tolerance, abs_tol=1e-6):
        seen = f"is {once:.5g}, and {twice:.5g} when the batch is repeated"
        raise Failed("output `loss`", seen, "the same loss, as of a mean", NOT_A_MEAN)
    middle = case.num_rows // 3
    whole = _gradients(case, model, [batch])
    parts = _gradients(case, model, [take(batch, slice(middle)), take(batch, slice(middle, None))])
    for name, gradient in whole.items():
        scale = float(gradient.abs().max())
        apart = float((gradient - parts[name]).abs().max())
        if not apart <= 1e-3 * scale + 1e-6:
            share = apart / max(scale, 1e-12)
            seen = f"its gradient differs by {share:.2%} when the batch is split in two parts"
            expected = "the same gradient, within 0.1 %"
            raise Failed(f"parameter `{name}`", seen, expected, NOT_A_MEAN)


NOT_A_MEAN = (
    "`reduction='sum'`, a sum divided by a constant (a batch size, a padded length), a mask that "
    "counts positions without a target, classes with different weights; if a row's loss depends on "
    "other rows: `coupled: true`"
)


def _check_coupled(case: Case, model: nn.Module, batch: Batch) -> None:
    """Raises Failed if a coupled loss grows in proportion to the number of rows."""
    once, twice = (_loss_of_copies(case, model, batch, number) for number in (4, 8))
    if abs(once) > 1e-6 and twice / once > 1.8:  # a mean over all pairs grows by log(2)
        seen = f"is {once:.5g} for 4 copies of the batch, and {twice:.5g} for 8"
        raise Failed("output `loss`", seen, "less than twice the loss, as of a mean over rows")


def _loss_of_copies(case: Case, model: nn.Module, batch: Batch, number: int) -> float:
    """The loss of a batch that is repeated."""
    copies = {name: torch.cat([values] * number) for name, values in batch.items()}
    return float(case.outputs(model, copies)["loss"])


def _gradients(case: Case, model: nn.Module, parts: Sequence[Batch]) -> dict[str, Tensor]:
    """The gradients of the mean loss over all parts."""
    total = sum(_weight(case, part) for part in parts)
    model.zero_grad()
    for part in parts:
        with torch.backends.cudnn.flags(enabled=False):
            loss = case.forward(model, part)["loss"]
            (loss * (_weight(case, part) / total)).backward()  # type: ignore[no-untyped-call]
    return {
        name: item.grad.clone() for name, item in model.named_parameters() if item.grad is not None
    }


def _weight(case: Case, part: Batch) -> int:
    """The number of targets that count, or of rows."""
    counted = None if case.spec.target is None else valid(part, case.spec.target)
    return loss_weight(part) if counted is None else int(counted.sum())


@check(
    "a constant factor (0.5, a temperature, log(2)), label smoothing, class weights, another term, "
    "a mean over positions that do not count, a mean of means"
)
def the_loss_is_the_declared_one(case: Case) -> None:
    """The loss is that of the spec, computed from the outputs and the targets of the same call.

    In both modes, without dropout. Catches: a small factor or term, which every other check allows.
    False alarms: 0 of 561 runs on correct models.
    Source: own; a loss that is 10 % too large trains as well, and is reported.
    """
    if case.spec.loss is None:
        raise NotApplicable("the spec names no loss")
    model, batch, tolerance = case.precise(case.trained())
    with without_dropout(model):
        for mode in ("evaluation", "training"):
            outputs = case.outputs(model.train(mode == "training"), batch)
            loss, expected = float(outputs["loss"]), declared_loss(case, outputs, batch)
            if not math.isclose(loss, expected, rel_tol=10 * tolerance, abs_tol=1e-6):
                seen = f"is {loss:.6g} in {mode} mode, {loss / (expected or 1):.4g} times as large"
                wanted = f"{expected:.6g}, the {case.spec.loss} of the outputs and the targets"
                raise Failed("output `loss`", seen, wanted)


def declared_loss(case: Case, outputs: Mapping[str, Tensor], batch: Batch) -> float:
    """The loss that the spec names, over all targets that count."""
    if case.spec.loss == "mae":
        target, counted = batch["target"], counted_targets(case, batch)
        apart = outputs[case.spec.prediction].reshape(target.shape) - target
        return float(apart[counted].abs().mean())
    return error(case, outputs, batch)

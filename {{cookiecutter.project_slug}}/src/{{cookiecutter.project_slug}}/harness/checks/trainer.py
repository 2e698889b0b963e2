"""Checks of training: a resumed run, and a comparison with a plain loop."""

import dataclasses
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..training.determinism import permutation, seed_step
from ..training.groups import hold, rates
from ..training.metrics import loss_weight
from ..training.prepared import Batch
from ..training.step import to_device
from ..training.trainer import Trainer
from .case import Case, num_rows, take
from .data import Rows, all_rows, splits_of
from .failures import Failed, NotApplicable
from .running import check
from .static import build


class Killed(BaseException):
    """Simulates the end of a process: nothing is written after it."""


def run_to_end(case: Case, trainer: Trainer) -> Trainer:
    """Trains on the splits of a case; returns the trainer after its last step."""
    splits = splits_of(case)
    trainer.fit(splits["train"], splits["validation"])
    return trainer


@check(
    "state that is not in the checkpoint: of an optimizer, a schedule or a generator, sums over "
    "the current epoch, the best weights so far, an attribute of the trainer (see own_state)"
)
def a_resumed_run_equals_an_uninterrupted_one(case: Case) -> None:
    """A run killed within or at the end of an epoch and resumed is bit-identical to a whole run.

    The first process ends as if killed: what it has not written is lost. A trainer of your own is
    compared with its `own_state` too.
    Catches: state that a checkpoint forgets.
    False alarms: 0 of 270 runs on correct models.
    Source: the promise of this harness; PyTorch's notes on reproducibility.
    """
    trainer = run_to_end(case, build(case))
    whole, num_steps = _state(trainer), _num_steps(case, trainer)
    for step in (num_steps, num_steps + max(1, num_steps // 2)):
        with tempfile.TemporaryDirectory() as folder:
            _train_until(case, step, Path(folder))
            resumed = build(case)
            resumed.folder = Path(folder)
            resumed.resume()
            if resumed.step != step:
                raise Failed("`step`", f"is {resumed.step} after resuming", f"{step}")
            found = _state(run_to_end(case, resumed))
        if different := difference(whole, found):
            parts = [name for name in PARTS if not difference(whole[name], found[name])]
            seen = f"differs if the run is stopped after step {step} and resumed"
            seen += f" (equal: {', '.join(parts) or 'nothing else'})"
            raise Failed(f"`{different}`", seen, "bit-identical values")


PARTS = (
    "history",
    "optimizer",
    "scheduler",
    "own_state",
    "callbacks",
)  # of a run, besides the model


def _state(trainer: Trainer) -> dict[str, Any]:
    """The results of a run, and what a trainer of one's own adds."""
    own = {"own_state": trainer.own_state(), "callbacks": trainer.callbacks.state_dict()}
    return {**results(trainer), **own}


def _num_steps(case: Case, trainer: Trainer) -> int:
    """The number of steps in an epoch."""
    size = trainer.settings.batch_size
    return -(-len(splits_of(case)["train"]) // size)  # type: ignore[arg-type]


def _train_until(case: Case, step: int, folder: Path) -> None:
    """Trains until a checkpoint is written after this step, and stops before the next step."""
    trainer = build(case)
    trainer.folder = folder
    trainer.settings = dataclasses.replace(trainer.settings, checkpoint_steps=step)
    advance = trainer.advance

    def advance_or_stop(batch: Batch) -> None:
        if trainer.step == step:
            raise Killed
        advance(batch)

    trainer.advance = advance_or_stop  # type: ignore[method-assign]
    try:
        run_to_end(case, trainer)
    except Killed:
        return
    raise NotApplicable(f"the run ends before step {step + 1}")


def results(trainer: Trainer) -> dict[str, Any]:
    """The weights, the history and the state of the optimizer and the schedule."""
    return {
        **{f"model.{name}": values for name, values in trainer.model.state_dict().items()},
        "history": trainer.history,
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
    }


def difference(left: Any, right: Any, path: str = "") -> str:
    """The path of the first place where two nested structures are not bit-identical, or ""."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return "" if torch.equal(left, right) else path or "the tensor"
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        pairs = [
            (left.get(key, ABSENT), right.get(key, ABSENT), f"{path}.{key}".lstrip("."))
            for key in {**left, **right}
        ]
    elif isinstance(left, SEQUENCE) and isinstance(right, SEQUENCE):
        both = enumerate(itertools.zip_longest(left, right, fillvalue=ABSENT))
        pairs = [(one, other, f"{path}[{index}]") for index, (one, other) in both]
    else:  # by repr, because a value that is not a number does not equal itself
        return "" if repr(left) == repr(right) else path or "the value"
    found = (difference(*pair) for pair in pairs)
    return next((place for place in found if place), "")


SEQUENCE, ABSENT = (list, tuple), object()


@check(
    "gradients that are not set to zero, a schedule stepped twice or by epochs, accumulation that "
    "does not divide, a mean over batches of unequal size, evaluation in training mode"
)
def the_trainer_equals_a_reference_loop(case: Case) -> None:
    """The batches, the weights, the history and the best epoch are those of a plain loop.

    The last batch of the evaluation is smaller than the one before.
    If the trainer overrides `train_step`, the plain loop calls it: the loss that it returns, seeds,
    order, evaluation, history and best epoch are then still compared, and not the step itself.
    Catches: a trainer that does more or less than it says.
    False alarms: 0 of 270 runs on correct models.
    Source: torchtitan: a change of the trainer must give the identical loss.
    """
    case = _with_partial_batch(case)
    trainer = build(case)
    taken = _note_batches(trainer)
    run_to_end(case, trainer)
    _check_order(case, trainer, taken)
    epochs = list(_reference_epochs(case, build(case), len(trainer.history)))
    for row, (expected, _) in zip(trainer.history, epochs, strict=True):
        for name, value in expected.items():
            if not abs(row[name] - value) <= 1e-4 * max(abs(value), 1e-2):
                seen = f"is {row[name]:.6g} in epoch {row['epoch']:.0f}"
                cause = EVALUATION if name.startswith("validation_") else None
                raise Failed(f"history: `{name}`", seen, f"{value:.6g}, as in a plain loop", cause)
    best = _best_epoch(trainer)
    for key, weights in epochs[best][1].items():
        if not torch.equal(weights, trainer.model.state_dict()[key]):
            seen = "differs from a plain loop, although the history agrees"
            cause = "a best epoch chosen by another metric, or weights that were not copied"
            raise Failed(f"`{key}` of the best epoch, {best + 1}", seen, "the same weights", cause)


EVALUATION = (
    "evaluation in training mode, a last batch that is dropped, padded or weighs too much, a "
    "metric that averages over batches; if a row's loss depends on other rows: `coupled: true`"
)


def _with_partial_batch(case: Case) -> Case:
    """The case with validation rows for one batch and a smaller one, which training may share."""
    splits, size = splits_of(case), build(case).settings.batch_size
    parts = [all_rows(splits[name]) for name in ("validation", "train")]
    rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    few = Rows(take(rows, slice(size + max(2, size // 2))))
    return dataclasses.replace(case, splits={**splits, "validation": few})


def _note_batches(trainer: Trainer) -> list[Batch]:
    """A list that fills with the batches that the trainer takes."""
    taken, advance = [], trainer.advance

    def advance_and_note(batch: Batch) -> None:
        taken.append({name: values.clone() for name, values in batch.items()})
        advance(batch)

    trainer.advance = advance_and_note  # type: ignore[method-assign]
    return taken


def _check_order(case: Case, trainer: Trainer, taken: Sequence[Batch]) -> None:
    """Raises Failed at the first batch that a plain loop would not take at that step."""
    train, expected = splits_of(case)["train"], []
    for epoch in range(len(trainer.history)):
        expected += [train[rows] for rows in _orders(train, trainer, epoch)]
    if len(taken) != len(expected):
        seen = f"{len(taken)} batches are taken in {len(trainer.history)} epochs"
        raise Failed("the order of the data", seen, f"{len(expected)}, with every row", ORDER)
    for step, (batch, wanted) in enumerate(zip(taken, expected, strict=True)):
        if different := difference(wanted, batch):
            seen = f"`{different}` of the batch of step {step + 1} holds other rows"
            expected_rows = "those of the permutation by the seed and the epoch"
            raise Failed("the order of the data", seen, expected_rows, ORDER)


ORDER = (
    "an order that is sorted, that is the same in every epoch or depends on more than seed and "
    "epoch, a batch that is left out or changed before the step"
)


def _orders(train: Dataset[Batch], parts: Trainer, epoch: int) -> list[np.ndarray]:
    """The rows of each batch of an epoch."""
    num_train, size = len(train), parts.settings.batch_size  # type: ignore[arg-type]
    order = permutation(num_train, seed=parts.seed, epoch=epoch)
    return [order[start : start + size] for start in range(0, num_train, size)]


def _best_epoch(trainer: Trainer) -> int:
    """The index of the epoch with the best monitored value; the first of equals."""
    name = trainer.settings.monitor
    sign = 1 if trainer.higher_is_better[name] else -1
    values = [row[f"validation_{name}"] * sign for row in trainer.history]
    return values.index(max(values))


def _reference_epochs(
    case: Case, parts: Trainer, num_epochs: int
) -> Iterator[tuple[dict[str, float], dict[str, Tensor]]]:
    """Runs a plain loop on the parts of a new trainer; yields numbers and weights of each epoch."""
    train, model = splits_of(case)["train"], parts.model
    for epoch in range(num_epochs):
        losses = []
        for rows in _orders(train, parts, epoch):
            seed_step(parts.seed, parts.step, case.device)
            model.train()
            hold(parts.parts, epoch + 1)
            losses.append(_reference_step(parts, train[rows]))
            parts.step += 1  # a train_step of one's own may read it, and the history
            parts.callbacks.call("after_step", parts, torch.tensor(losses[-1]))
        numbers = {
            "epoch": epoch + 1,
            "step": parts.step,
            **rates(parts.parts, float(parts.scheduler.get_last_lr()[0]), epoch + 1),
            "train_loss": sum(losses) / len(losses),
        }
        parts.callbacks.call("before_validation", parts)
        numbers |= {f"validation_{name}": value for name, value in _evaluate(case, parts).items()}
        parts.history.append(numbers)
        yield numbers, {name: values.clone() for name, values in model.state_dict().items()}
        parts.callbacks.call("after_epoch", parts, numbers)


def _reference_step(parts: Trainer, batch: Batch) -> float:
    """One step on a batch, by `train_step` if it is overridden; returns the loss."""
    if type(parts).train_step is not Trainer.train_step:
        return _own_step(parts, batch)
    parts.optimizer.zero_grad()
    loss = _reference_backward(parts, to_device(batch, parts.device))
    if parts.settings.max_gradient_norm is not None:
        nn.utils.clip_grad_norm_(parts.model.parameters(), parts.settings.max_gradient_norm)
    parts.optimizer.step()
    parts.scheduler.step()
    return loss


def _own_step(parts: Trainer, batch: Batch) -> float:
    """The loss of an overridden `train_step`; raises Failed unless it is a detached scalar."""
    loss = parts.train_step(batch)
    if loss.shape != () or loss.requires_grad:
        graph = " with a graph" if loss.requires_grad else ""
        seen = f"returns a tensor of shape {list(loss.shape)}{graph}"
        cause = "a `loss.detach()` that was forgotten, or a loss for each instance"
        raise Failed("`train_step`", seen, "the mean loss, a detached scalar", cause)
    return float(loss)


def _reference_backward(parts: Trainer, batch: Batch) -> float:
    """Computes the gradients of a batch, piece by piece as the settings say; returns its loss."""
    num_pieces = parts.settings.num_accumulation_steps
    pieces = zip(*(values.chunk(num_pieces) for values in batch.values()), strict=True)
    total = 0.0
    for values in pieces:
        piece = dict(zip(batch, values, strict=True))
        share = loss_weight(piece) / max(loss_weight(batch), 1)
        piece = parts.augmentation(piece) if parts.augmentation is not None else piece
        with _precision(parts):
            loss = parts.model(**piece)["loss"]
        loss = loss if num_pieces == 1 else loss * share
        loss.backward()
        total += float(loss.detach())
    return total


def _precision(parts: Trainer) -> torch.autocast:
    """The autocast of the settings."""
    reduced = parts.settings.precision == "bfloat16"
    return torch.autocast(parts.device.type, dtype=torch.bfloat16, enabled=reduced)


def _evaluate(case: Case, parts: Trainer) -> dict[str, float]:
    """The loss and the metrics on the validation split, in batches of the size of the settings.

    A metric sees all rows at once, unless the model couples the rows of a batch.
    """
    rows, size = all_rows(splits_of(case)["validation"]), parts.settings.batch_size
    starts = range(0, num_rows(rows), size)
    batches = [to_device(take(rows, slice(at, at + size)), case.device) for at in starts]
    with torch.no_grad(), _precision(parts):
        found = [parts.model.eval()(**batch) for batch in batches]
    weights = [loss_weight(batch) for batch in batches]
    terms = [out["loss"] * weight for out, weight in zip(found, weights, strict=True) if weight]
    total = float(sum(terms)) / sum(weights) if terms else math.nan
    if not case.spec.coupled:
        batches = [to_device(rows, case.device)]
        with torch.no_grad(), _precision(parts):
            found = [parts.model(**batches[0])]
    counters = {name: make() for name, make in parts.metrics.items()}
    for outputs, batch in zip(found, batches, strict=True):
        for counter in counters.values():
            counter.update(outputs, batch)
    return {"loss": total, **{name: counter.compute() for name, counter in counters.items()}}

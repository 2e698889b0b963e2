"""Checks of training: a resumed run, and a comparison with a plain loop."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..training.determinism import permutation, seed_step
from ..training.metrics import MeanLoss, num_targets
from ..training.prepared import Batch
from ..training.step import to_device
from ..training.trainer import Trainer
from .case import Case
from .data import all_rows, splits_of
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
        different = [name for name in whole if not identical(whole[name], found.get(name))]
        if different:
            equal = [name for name in PARTS if name not in different]
            seen = f"differs if the run is stopped after step {step} and resumed"
            seen += f" (equal: {', '.join(equal) or 'nothing else'})"
            raise Failed(f"`{different[0]}`", seen, "bit-identical values")


PARTS = ("history", "optimizer", "scheduler", "own_state")  # of a run, besides the model


def _state(trainer: Trainer) -> dict[str, Any]:
    """The results of a run, and what a trainer of one's own adds."""
    return {**results(trainer), "own_state": trainer.own_state()}


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


def identical(left: Any, right: Any) -> bool:
    """Whether two nested structures of tensors and values are bit-identical."""
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and torch.equal(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(identical(left[key], right[key]) for key in left)
    if isinstance(left, Sequence) and not isinstance(left, str):
        return len(left) == len(right) and all(map(identical, left, right))
    return bool(left == right)


@check(
    "gradients that are not set to zero, a schedule stepped twice or by epochs, accumulation that "
    "does not divide, a mean over batches of unequal size, evaluation in training mode"
)
def the_trainer_equals_a_reference_loop(case: Case) -> None:
    """Weights, history and best epoch are those of a plain loop.

    If the trainer overrides `train_step`, the plain loop calls it: the loss that it returns, seeds,
    order, evaluation, history and best epoch are then still compared, and not the step itself.
    Catches: a trainer that does more or less than it says.
    False alarms: 0 of 270 runs on correct models.
    Source: torchtitan: a change of the trainer must give the identical loss.
    """
    trainer = run_to_end(case, build(case))
    epochs = list(_reference_epochs(case, build(case), len(trainer.history)))
    for row, (expected, _) in zip(trainer.history, epochs, strict=True):
        for name, value in expected.items():
            if not abs(row[name] - value) <= 1e-4 * max(abs(value), 1e-2):
                seen = f"is {row[name]:.6g} in epoch {row['epoch']:.0f}"
                raise Failed(f"history: `{name}`", seen, f"{value:.6g}, as in a plain loop")
    best = _best_epoch(trainer)
    for key, weights in epochs[best][1].items():
        if not torch.equal(weights, trainer.model.state_dict()[key]):
            seen = "differs from a plain loop, although the history agrees"
            cause = "a best epoch chosen by another metric, or weights that were not copied"
            raise Failed(f"`{key}` of the best epoch, {best + 1}", seen, "the same weights", cause)


def _best_epoch(trainer: Trainer) -> int:
    """The index of the epoch with the best monitored value; the first of equals."""
    name = trainer.settings.monitor
    higher = name != "loss" and trainer.metrics[name]().higher_is_better
    values = [row[f"validation_{name}"] * (1 if higher else -1) for row in trainer.history]
    return values.index(max(values))


def _reference_epochs(
    case: Case, parts: Trainer, num_epochs: int
) -> Iterator[tuple[dict[str, float], dict[str, Tensor]]]:
    """Runs a plain loop on the parts of a new trainer; yields numbers and weights of each epoch."""
    train, model, size = splits_of(case)["train"], parts.model, parts.settings.batch_size
    num_rows = len(train)  # type: ignore[arg-type]
    for epoch in range(num_epochs):
        order, losses = permutation(num_rows, seed=parts.seed, epoch=epoch), []
        for start in range(0, num_rows, size):
            seed_step(parts.seed, parts.step, case.device)
            model.train()
            losses.append(_reference_step(parts, train[order[start : start + size]]))
            parts.step += 1  # a train_step of one's own may read it, and the history
        numbers = {
            "epoch": epoch + 1,
            "step": parts.step,
            "lr": float(parts.scheduler.get_last_lr()[0]),
            "train_loss": sum(losses) / len(losses),
        }
        numbers |= {f"validation_{name}": value for name, value in _evaluate(case, parts).items()}
        parts.history.append(numbers)
        yield numbers, {name: values.clone() for name, values in model.state_dict().items()}


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
        share = num_targets(piece["target"]) / num_targets(batch["target"])
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
    """The loss and the metrics on the validation split, in one batch."""
    rows = to_device(all_rows(splits_of(case)["validation"]), case.device)
    counters = {"loss": MeanLoss(), **{name: make() for name, make in parts.metrics.items()}}
    with torch.no_grad(), _precision(parts):
        outputs = parts.model.eval()(**rows)
    for counter in counters.values():
        counter.update(outputs, rows)
    return {name: counter.compute() for name, counter in counters.items()}

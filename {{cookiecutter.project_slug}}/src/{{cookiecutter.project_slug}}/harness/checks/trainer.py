"""Whether training does what it says, goes on as if never stopped, and obeys every knob."""

import copy
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..training.prepared import Batch
from ..training.metrics import MeanLoss, num_targets
from ..training.determinism import permutation, seed_step
from ..training.step import to_device
from ..training.trainer import Trainer
from .case import Case, Failed, NotApplicable, Values, check, flatten
from .data import all_rows, splits_of
from .static import build, program

# of a context: the weights at the beginning, and all that the run leaves
Bases = dict[str, tuple[dict[str, Tensor], dict[str, Any]]]


class Stopped(BaseException):
    """Stands for the end of a process: nothing is written behind it."""


def fitted(case: Case, trainer: Trainer) -> Trainer:
    """The trainer behind its last step."""
    splits = splits_of(case)
    trainer.fit(splits["train"], splits["validation"])
    return trainer


@check(
    "something that is not in the checkpoint: the state of the optimizer, the schedule or a "
    "generator, sums of the epoch under way, the best so far, an attribute of the trainer"
)
def a_resumed_run_equals_an_uninterrupted_one(case: Case) -> None:
    """Stopped in mid-epoch or at the end of an epoch and resumed, a run ends in the same bits.

    The first process ends as if killed: what it has not written is gone. Run by SIGKILL, with
    processes of their own, it is one of the study's slow tests.
    Catches: what a checkpoint forgets.
    False alarms: 0 of 270 runs on models that are right.
    Source: this study's promise; PyTorch's notes on reproducibility.
    """
    trainer = fitted(case, build(case))
    whole, num_steps = _results(trainer), _num_steps(case, trainer)
    for step in (num_steps, num_steps + max(1, num_steps // 2)):
        with tempfile.TemporaryDirectory() as folder:
            _train_until(case, step, Path(folder))
            resumed = build(case)
            resumed.folder = Path(folder)
            resumed.resume()
            if resumed.step != step:
                raise Failed("`step`", f"is {resumed.step} after a resume", f"{step}")
            again = _results(fitted(case, resumed))
        apart = [name for name, item in whole.items() if not identical(item, again.get(name))]
        if apart:
            agree = (
                ", ".join(name for name in ("history", *STATES) if name not in apart) or "nothing"
            )
            seen = f"differs if the run is stopped after step {step} and resumed; {agree} agrees"
            raise Failed(f"`{apart[0]}`", seen, "the same, bit for bit")


def _num_steps(case: Case, trainer: Trainer) -> int:
    size = trainer.settings.batch_size
    return -(-len(splits_of(case)["train"]) // size)  # type: ignore[arg-type]


def _train_until(case: Case, step: int, folder: Path) -> None:
    """A process that is killed one step behind its checkpoint."""
    trainer = build(case)
    trainer.folder = folder
    trainer.settings = dataclasses.replace(trainer.settings, checkpoint_steps=step)
    advance = trainer.advance

    def advance_or_stop(batch: Batch) -> None:
        if trainer.step == step:
            raise Stopped
        advance(batch)

    trainer.advance = advance_or_stop  # type: ignore[method-assign]
    try:
        fitted(case, trainer)
    except Stopped:
        return
    raise NotApplicable(f"the run ends before step {step + 1}")


def _results(trainer: Trainer) -> dict[str, Any]:
    """All that a run leaves."""
    return {
        **{f"model.{name}": values for name, values in trainer.model.state_dict().items()},
        "history": trainer.history,
        **{name: getattr(trainer, name).state_dict() for name in STATES},
    }


STATES = ("optimizer", "scheduler")


def identical(left: Any, right: Any) -> bool:
    """Whether two nests of tensors and values are equal, bit for bit."""
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
    """Training ends in the bits of a plain loop, and history and best epoch are those of that loop.

    Catches: every trainer that does more or less than it says.
    False alarms: 0 of 270 runs on models that are right.
    Source: torchtitan: a change of the trainer must give the identical loss.
    """
    trainer = fitted(case, build(case))
    reference = build(case)  # only for its parts, which nobody has touched
    epochs = list(_reference_epochs(case, reference, len(trainer.history)))
    for row, (expected, _) in zip(trainer.history, epochs, strict=True):
        for name, value in expected.items():
            if not abs(row[name] - value) <= 1e-4 * max(abs(value), 1e-2):
                seen = f"is {row[name]:.6g} in epoch {row['epoch']:.0f}"
                raise Failed(f"history: `{name}`", seen, f"{value:.6g}, that of a plain loop")
    name = trainer.settings.monitor
    higher = name != "loss" and trainer.metrics[name]().higher_is_better
    values = [row[f"validation_{name}"] * (1 if higher else -1) for row in trainer.history]
    best = values.index(max(values))
    for key, weights in epochs[best][1].items():
        if not torch.equal(weights, trainer.model.state_dict()[key]):
            seen = "differs from that of a plain loop, though the history agrees"
            cause = "a best epoch picked by another number, or weights that were not copied"
            raise Failed(f"`{key}` of the best epoch, {best + 1}", seen, "the same bits", cause)


def _reference_epochs(
    case: Case, parts: Trainer, num_epochs: int
) -> Iterator[tuple[dict[str, float], dict[str, Tensor]]]:
    """The loop that everybody would write: yields numbers and weights of each epoch."""
    settings, step = parts.settings, 0
    train, model = splits_of(case)["train"], parts.model
    num_rows = len(train)  # type: ignore[arg-type]
    for epoch in range(num_epochs):
        order, losses = permutation(num_rows, seed=parts.seed, epoch=epoch), []
        for start in range(0, len(order), settings.batch_size):
            batch = to_device(train[order[start : start + settings.batch_size]], case.device)
            seed_step(parts.seed, step, case.device)
            parts.optimizer.zero_grad()
            model.train()
            losses.append(_reference_backward(parts, batch))
            if settings.max_gradient_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
            parts.optimizer.step()
            parts.scheduler.step()
            step += 1
        numbers = {
            "step": step,
            "lr": float(parts.scheduler.get_last_lr()[0]),
            "train_loss": sum(losses) / len(losses),
        }
        numbers |= {f"validation_{name}": value for name, value in _evaluate(case, parts).items()}
        yield numbers, {name: values.clone() for name, values in model.state_dict().items()}


def _reference_backward(parts: Trainer, batch: Batch) -> float:
    """The gradients of one batch, in as many pieces as the settings say; returns its loss."""
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
    reduced = parts.settings.precision == "bfloat16"
    return torch.autocast(parts.device.type, dtype=torch.bfloat16, enabled=reduced)


def _evaluate(case: Case, parts: Trainer) -> dict[str, float]:
    """Loss and metrics over the validation split, in one batch."""
    rows = to_device(all_rows(splits_of(case)["validation"]), case.device)
    counters = {"loss": MeanLoss(), **{name: make() for name, make in parts.metrics.items()}}
    with torch.no_grad(), _precision(parts):
        outputs = parts.model.eval()(**rows)
    for counter in counters.values():
        counter.update(outputs, rows)
    return {name: counter.compute() for name, counter in counters.items()}


@check(
    "an argument that the constructor does not use, a value written into the code, a key that the "
    "configuration has and the program does not read"
)
def every_knob_acts(case: Case) -> None:
    """Another value of any key of model.* and training.* changes shapes, losses or weights.

    Both begin with the same weights, where shapes are equal: numbers drawn in another order are no
    effect. A key that is `idle` must change nothing.
    Catches: a dropout that is not used, a rate that is written down, a switch that does nothing.
    False alarms: 0 of 270 runs on models that are right.
    Source: this study; AllenNLP's refusal of left-over keys.
    """
    values, _ = program(case)
    idle, others = case.idle or {}, case.others or {}
    bases: Bases = {}
    for name, value in knobs(values):
        if name in idle:
            if any(_acts(case, bases, {name: other}, {}) for other in others.get(name, ())):
                raise Failed(f"`{name}`", "changes the numbers", f"no change: {idle[name]}")
            continue
        answers = _answers(case, bases, name, others.get(name) or alternatives(value))
        if answers and not any(answers):
            seen = f"is {value}, and another value changes no shape, loss or weight"
            raise Failed(f"`{name}`", seen, "a setting that acts")


def knobs(values: Values) -> Iterator[tuple[str, Any]]:
    """Each setting of model.* and training.*, with its dotted name."""
    for name, value in flatten(values):
        path = name.split(".")
        if path[0] in ("model", "training") and path[-1][0] != "_" and "opt_outs" not in path:
            yield name, value


def _answers(case: Case, bases: Bases, name: str, others: Sequence[Any]) -> list[bool]:
    """Whether each other value acts, until one does, in any of the contexts."""
    current = dict(flatten(case.values or {}))[name]
    found = []
    for context in ({}, *(case.contexts or ())):
        if name in context:
            continue
        for other in [other for other in others if other != current]:
            answer = _acts(case, bases, {name: other}, context)
            if answer is not None:
                found.append(answer)
            if answer:
                return found
    return found


def alternatives(value: Any) -> list[Any]:
    """Other values that a knob may take, judged by the one that it has."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value, value - 1]
    if isinstance(value, float):
        return [value / 2, 2 * value] if value else [0.5, 0.1]
    if isinstance(value, str):
        return [f"{value}_"]
    if isinstance(value, Sequence) and value:
        first = [[other, *value[1:]] for other in alternatives(value[0])]
        return [*first, [*value, value[-1]], list(value[:-1])]
    return [1, 0.5, True, "other", [1]]


def _with(values: Values, changes: Values) -> Any:
    changed = copy.deepcopy(dict(values))
    for name, value in changes.items():
        node = changed
        *path, key = name.split(".")
        for part in path:
            node = node[part]
        node[key] = value
    return changed


def _acts(case: Case, bases: Bases, change: Values, context: Values) -> bool | None:
    """Whether another value changes anything; None if it is refused."""
    values, make = program(case)
    key = repr(context)
    if key not in bases:
        base = make(_with(values, context))
        start = {name: values.clone() for name, values in base.model.state_dict().items()}
        bases[key] = start, _results(fitted(case, base))
    start, results = bases[key]
    try:
        changed = make(_with(values, {**context, **change}))
    except Exception:  # pylint: disable=broad-exception-caught  # a constructor may raise anything
        return None
    now = changed.model.state_dict()
    shapes = {name: values.shape for name, values in start.items()}
    if shapes != {name: values.shape for name, values in now.items()}:
        return True
    spread = any(_other_spread(start[name], now[name]) for name in start)
    changed.model.load_state_dict(start)
    try:
        return spread or not identical(results, _results(fitted(case, changed)))
    except Exception:  # pylint: disable=broad-exception-caught  # what cannot run with it reads it
        return True


def _other_spread(left: Tensor, right: Tensor) -> bool:
    """Whether weights are drawn otherwise, and not only in another order."""
    if left.numel() < 16 or not left.is_floating_point():
        return (
            left.numel() < 16
            and bool((left == left.reshape(-1)[:1]).all())
            and not torch.equal(left, right)
        )
    before, after = float(left.std()), float(right.std())
    return abs(after - before) > 0.3 * max(after, before)


@check("a constructor with **kwargs, which takes every key; a key that is read without a check")
def misspelt_keys_are_refused(case: Case) -> None:
    """Each key of model.* and training.*, misspelt, is refused, and the right one is named.

    Catches: a typing mistake that trains the default.
    False alarms: 0 of 270 runs on models that are right.
    Source: AllenNLP; torchtune, which binds each configuration to its signature.
    """
    values, make = program(case)
    for name, value in knobs(values):
        parent, _, key = name.rpartition(".")
        wrong = (
            key[:-2] + key[-1] + key[-2] if key[-1:] != key[-2:-1] and len(key) > 2 else f"{key}x"
        )
        changed = _with(values, {})
        node = changed
        for part in parent.split("."):
            node = node[part]
        del node[key]
        node[wrong] = value
        try:
            make(changed)
        except Exception as error:  # pylint: disable=broad-exception-caught
            if key in str(error).replace(wrong, ""):
                continue
            raise Failed(
                f"`{parent}.{wrong}`", f"is refused by: {error}", f"that {key} is named"
            ) from error
        raise Failed(
            f"`{parent}.{wrong}`", "is taken without a word", f"that it is refused for {key}"
        )

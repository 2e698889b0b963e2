"""Memorising one batch with the trainer of a run, and the reason where that fails."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checks import fitting
from ..checks.case import Case
from ..checks.failures import NotApplicable
from ..checks.fitting import (
    calibrate,
    counted_targets,
    distinct_rows,
    error,
    is_memorised,
    share_right,
    without_dropout,
)
from ..checks.preflight import read_spec
from ..configuration.building import build_network
from ..errors import StudyError
from ..training.determinism import seed_step
from ..training.prepared import Batch, Split, order_of
from ..training.step import to_device
from ..training.trainer import Trainer

NUM_STEPS = 500
CHECKED = 10  # how often it is looked at, in steps
FALLEN = 0.1  # an unsupervised loss has no known floor: to so much of the first one
LEAST_ROWS = 8  # of a case


@dataclass
class Attempt:
    """What came of training on one batch.

    Attributes:
        rate: The learning rate.
        losses: Of each step.
        memorised: Whether the model gives the targets back, in evaluation mode.
        reached: How far it came, in words.
        weights: The size of each parameter that is trained.
        idle: Those of them whose gradient was zero, or none, at each step.
        finite: Whether each loss was a number.
    """

    rate: float
    losses: list[float] = field(default_factory=list)
    memorised: bool = False
    reached: str = ""
    weights: dict[str, int] = field(default_factory=dict)
    idle: set[str] = field(default_factory=set)
    finite: bool = True


def first_batch(config: Any, train: Split) -> Batch:
    """The batch of the first step of a run; of at least 8 rows, where there are so many."""
    size = max(config.training.batch_size, LEAST_ROWS)
    order = order_of(train, seed=config.seed, epoch=0, batch_size=config.training.batch_size)
    return train[order[:size]]


def make_case(values: Mapping[str, Any], batch: Batch, device: torch.device) -> Case:
    """The model of a configuration with those rows of a batch that differ in their inputs.

    Raises:
        StudyError: the batch is too small, or the data have no spec.
    """
    spec = read_spec(values)
    try:
        case = Case(make=lambda: build_network(values), batch=batch, spec=spec, device=device)
        if spec.task == "unsupervised":
            return case
        rows = distinct_rows(case, case.num_rows)
        return Case(make=case.make, batch=rows, spec=spec, device=device)
    except (ValueError, NotApplicable) as reason:
        raise StudyError(f"debug=overfit: {reason}") from reason


def memorise(case: Case, trainer: Trainer) -> Attempt:
    """Trains on the rows of a case until they are memorised, or for `NUM_STEPS` steps."""
    attempt = Attempt(float(trainer.optimizer.param_groups[0]["lr"]))
    batch, model = to_device(case.batch, case.device), trainer.model
    _watch_gradients(model, attempt)
    for _ in range(NUM_STEPS):
        model.train()
        seed_step(trainer.seed, trainer.step, trainer.device)
        with without_dropout(model):
            attempt.losses.append(float(trainer.train_step(batch)))
        trainer.step += 1
        attempt.finite = math.isfinite(attempt.losses[-1])
        due = trainer.step % CHECKED == 0
        if not attempt.finite or (due and _look(case, model, batch, attempt)):
            break
    return attempt


def _watch_gradients(model: torch.nn.Module, attempt: Attempt) -> None:
    """From now on, a parameter whose gradient is not zero is idle no more."""

    def watch(name: str, parameter: torch.nn.Parameter) -> None:
        def note(gradient: Tensor) -> None:
            if name in attempt.idle and bool(gradient.count_nonzero()):
                attempt.idle.discard(name)

        parameter.register_hook(note)

    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            attempt.weights[name] = parameter.numel()
            attempt.idle.add(name)
            watch(name, parameter)


def _look(case: Case, model: torch.nn.Module, batch: Batch, attempt: Attempt) -> bool:
    """Notes how far a model has come; returns whether it has memorised the batch."""
    if case.spec.task == "unsupervised":
        first, last = attempt.losses[0], attempt.losses[-1]
        attempt.memorised = last < FALLEN * abs(first)
        attempt.reached = f"the loss fell from {first:.3g} to {last:.3g}"
        return attempt.memorised
    calibrate(case, model, batch)
    outputs = case.outputs(model.eval(), batch)
    attempt.memorised = is_memorised(case, outputs, batch)
    attempt.reached = _describe(case, outputs, batch)
    return attempt.memorised


def _describe(case: Case, outputs: Mapping[str, Tensor], batch: Batch) -> str:
    """How near the predictions are to the targets."""
    if case.spec.task == "classification":
        return f"{share_right(case, outputs, batch):.1%} of the targets right"
    share = error(case, outputs, batch) / max(_error_of_guessing(case, batch), 1e-12)
    return f"an error of {share:.2%} of the targets' variance"


def _error_of_guessing(case: Case, batch: Batch) -> float:
    """The error of the best prediction that is the same for every row."""
    target = batch["target"][counted_targets(case, batch)]
    if case.spec.task == "regression":
        return float(target.var(correction=0))
    shares = torch.bincount(target - case.spec.labels.start) / len(target)
    return float(-(shares[shares > 0] * shares[shares > 0].log()).sum())


def explain(case: Case, failed: Attempt, again: Callable[[float], Attempt]) -> str:
    """Why a batch was not memorised: what was seen, and what to do.

    First what can be seen at once; then whether another rate does it, and whether plain Adam does,
    which tells the settings of training from the model.

    Args:
        case: The batch.
        failed: The attempt.
        again: Tries another learning rate.
    """
    rate, last = failed.rate, failed.losses[-1]
    if not failed.finite and len(failed.losses) == 1:
        return f"the loss is {last} at the first step, before any learning: check data and loss"
    if len(failed.idle) == len(failed.weights):
        return "the gradient is zero at every parameter: nothing of the model reaches the loss"
    for other in (rate / 10, rate * 10):
        if again(other).memorised:
            word = "large" if other < rate else "small"
            return f"model.lr={rate:g} is too {word}: at model.lr={other:g} it is memorised"
    seen = failed.reached if failed.finite else f"the loss is {last}"
    seen = f"{seen} after {len(failed.losses)} steps"
    if case.spec.task == "unsupervised":
        return (
            f"{seen}, and no better at rates from {rate / 10:g} to {10 * rate:g}; {_idle(failed)}"
        )
    batch = to_device(case.batch, case.device)
    able, outputs, best = fitting.memorise(case, batch)
    if able:
        hint = "look at training.optimizer, training.freeze and model.lr (task=find_lr)"
        return f"{seen}; the model can do it: plain Adam does, at {best:g}; {hint}"
    return f"{seen}, and with plain Adam {_describe(case, outputs, batch)}; {_suspect(case, failed, outputs)}"


def _idle(failed: Attempt) -> str:
    """The parameters without a gradient, if there are any."""
    if not failed.idle:
        return "to find why, type study check"
    names = sorted(failed.idle)
    return f"the gradient is zero at {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _suspect(case: Case, failed: Attempt, outputs: Mapping[str, Tensor]) -> str:
    """What most likely keeps a model from memorising, whatever trains it."""
    batch = to_device(case.batch, case.device)
    if failed.idle:
        return _idle(failed)
    if error(case, outputs, batch) > 0.9 * _error_of_guessing(case, batch):
        return "that is guessing: the inputs do not reach the output; to find where: study check"
    if case.spec.task == "classification" and share_right(case, outputs, batch) == 1:
        return "but the loss stays large: a softmax before a cross-entropy? Type study check"
    size = sum(failed.weights.values())
    return f"too few weights ({size:,}) for {case.num_rows} rows? If not, type study check"

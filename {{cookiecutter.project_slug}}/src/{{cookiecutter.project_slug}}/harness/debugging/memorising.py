"""Memorising one batch with the trainer of a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

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
        attempt.losses.append(_step(trainer, batch))
        trainer.step += 1
        attempt.finite = math.isfinite(attempt.losses[-1])
        due = trainer.step % CHECKED == 0
        if not attempt.finite or (due and _look(case, model, batch, attempt)):
            break
    return attempt


def _step(trainer: Trainer, batch: Batch) -> float:
    """A step without dropout; returns its loss.

    Raises:
        StudyError: it cannot be taken: a loss that depends on no parameter, for example.
    """
    try:
        with without_dropout(trainer.model):
            return float(trainer.train_step(batch))
    except (RuntimeError, TypeError, ValueError, LookupError) as reason:
        said = " ".join(f"{type(reason).__name__}: {reason}".split())
        raise StudyError(f"debug=overfit: step {trainer.step + 1}: {said}") from reason


def _watch_gradients(model: torch.nn.Module, attempt: Attempt) -> None:
    """From now on, a parameter whose gradient is not zero is idle no more."""

    def watch(name: str, parameter: torch.nn.Parameter) -> None:
        def note(gradient: Tensor) -> None:
            if name in attempt.idle and bool(gradient.count_nonzero()):
                attempt.idle.discard(name)

        parameter.register_hook(note)  # type: ignore[no-untyped-call]

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
    attempt.reached = describe(case, outputs, batch)
    return attempt.memorised


def describe(case: Case, outputs: Mapping[str, Tensor], batch: Batch) -> str:
    """How near the predictions are to the targets."""
    if case.spec.task == "classification":
        return f"{share_right(case, outputs, batch):.1%} of the targets right"
    share = error(case, outputs, batch) / max(error_of_guessing(case, batch), 1e-12)
    return f"an error of {share:.2%} of the targets' variance"


def error_of_guessing(case: Case, batch: Batch) -> float:
    """The error of the best prediction that is the same for every row."""
    target = batch["target"][counted_targets(case, batch)]
    if case.spec.task == "regression":
        return float(target.var(correction=0))
    shares = torch.bincount(target - case.spec.labels.start) / len(target)
    return float(-(shares[shares > 0] * shares[shares > 0].log()).sum())

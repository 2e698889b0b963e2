"""A model under test, the checks by name, and how a check says what it saw."""

import copy
import functools
import logging
import random
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..training.prepared import Batch
from ..training.metrics import IGNORED
from ..training.determinism import mix, seed_everything
from ..training.trainer import Trainer
from .spec import Spec, over, valid

Outputs = Mapping[str, Tensor]
Forward = Callable[[nn.Module, Batch], Outputs]
Values = Mapping[str, Any]


class Failed(AssertionError):
    """What a check saw, what it expected, and where.

    Args:
        tensor: What it is about: an input, an output, a parameter, with its name.
        seen: What was seen.
        expected: What was expected instead.
        cause: The usual cause of just this; None for that of the check.
    """

    def __init__(self, tensor: str, seen: str, expected: str, cause: str | None = None) -> None:
        super().__init__(f"{tensor}: {seen}; expected: {expected}")
        self.tensor, self.where, self.cause = tensor, "", cause

    def __str__(self) -> str:
        return f"{self.where}{super().__str__()}\nusual cause: {self.cause}"


class NotApplicable(Exception):
    """A check has nothing to look at, and says why."""


def call_by_name(model: nn.Module, batch: Batch) -> Outputs:
    """Calls a model of this study: it takes its inputs by name and returns a dictionary."""
    outputs: Outputs = model(**batch)
    return outputs


def call_plain(loss: Callable[[Tensor, Tensor], Tensor], output: str = "logits") -> Forward:
    """For `Case.forward`: how to call a module that returns its prediction and no loss.

    Args:
        loss: Of prediction and target, to a scalar, for example `F.cross_entropy`.
        output: The name of the prediction in the spec.
    """

    def forward(model: nn.Module, batch: Batch) -> Outputs:
        inputs = {name: values for name, values in batch.items() if name != "target"}
        prediction = model(*inputs.values()) if len(inputs) == 1 else model(**inputs)
        outputs = {output: prediction}
        return outputs | ({"loss": loss(prediction, batch["target"])} if "target" in batch else {})

    return forward


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, rows to feed it and what they mean: what every check is given.

    Args:
        make: Makes the model, its weights drawn from torch's generator: a class, or a function
            without arguments. A module does too, for the checks that need no second one.
        batch: At least 8 rows, `target` among the fields; better 24, with every class.
        spec: What the fields and the outputs are.
        name: Of the model or its configuration, for messages.
        seed: Of the weights and of everything that a check draws.
        device: Where the model runs.
        forward: How the model is called; see `call_plain`.
        values: The configuration that `build` takes.
        build: Makes a trainer of a configuration: for the checks of training and of its knobs.
        splits: `train` and `validation` (and `test`), for the checks of data and training; None
            deals the rows of the batch.
        others: For a knob of `values`, by its dotted name, what else it can be, where that cannot
            be guessed (a number can).
        idle: The knobs that must not change a number, dotted, with the reason.
        contexts: Other knobs, dotted, to be set where a knob does not act in `values`: patience
            acts only on a model that gets no better.

    Raises:
        ValueError: the batch is too small.
    """

    make: Callable[[], nn.Module] | nn.Module
    batch: Batch
    spec: Spec
    name: str = "model"
    seed: int = 0
    device: torch.device = torch.device("cpu")
    forward: Forward = call_by_name
    values: Values | None = None
    build: Callable[[Values], Trainer] | None = None
    splits: Mapping[str, Dataset[Batch]] | None = None
    others: Mapping[str, Sequence[Any]] | None = None
    idle: Mapping[str, str] | None = None
    contexts: Sequence[Values] | None = None

    def __post_init__(self) -> None:
        if len(self.batch.get("target", ())) < 8:
            raise ValueError("batch: needs a `target`, and at least 8 rows")

    def rows(self) -> Batch:
        """The batch, a copy of its own on the device."""
        return {name: values.clone().to(self.device) for name, values in self.batch.items()}

    def fresh(self, number: int = 0) -> nn.Module:
        """A new model in evaluation mode; another number, another seed."""
        seed_everything(mix(self.seed, number))
        model = copy.deepcopy(self.make) if isinstance(self.make, nn.Module) else self.make()
        return model.to(self.device).eval()

    def trained(self, num_steps: int = 3) -> nn.Module:
        """A model behind a few steps, in evaluation mode: layers that begin at zero have moved."""
        model = self.fresh()
        for _ in self.train(model, self.rows(), lr=0.01, num_steps=num_steps):
            pass
        return model.eval()

    def train(
        self, model: nn.Module, batch: Batch, *, lr: float, num_steps: int
    ) -> Iterator[Outputs]:
        """Trains on one batch with Adam, in training mode, and yields the outputs of each step."""
        parameters = [item for item in model.parameters() if item.requires_grad]
        if not parameters:
            raise NotApplicable("the model has no trainable parameter")
        optimizer = torch.optim.Adam(parameters, lr=lr)
        for step in range(num_steps):
            seed_everything(mix(self.seed, 1, step))
            model.train()
            optimizer.zero_grad()
            outputs = self.forward(model, batch)
            outputs["loss"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield outputs

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The declared outputs, and the loss if the batch has a target, without gradients.

        The same random numbers each time; zeros where a mask says that nothing counts.
        """
        seed_everything(mix(self.seed, 2))
        with torch.no_grad():
            found = self.forward(model, batch)
        outputs = {name: found[name] for name in self.spec.outputs}
        for name, item in self.spec.outputs.items():
            if (counted := valid(batch, item)) is not None:
                outputs[name] = outputs[name].masked_fill(~over(counted, outputs[name]), 0)
        return outputs | ({"loss": found["loss"]} if "target" in batch else {})

    def precise(self, model: nn.Module) -> tuple[nn.Module, Batch, float]:
        """Model and rows in float64 if it lets itself be, and how far equal outputs may differ.

        In float64 a difference is a difference; in float32 the order of a sum makes one too.
        """
        batch = self.rows()
        if self.device.type != "mps":
            try:
                wide = copy.deepcopy(model).double()
                doubled = {
                    name: values.double() if values.is_floating_point() else values
                    for name, values in batch.items()
                }
                self.outputs(wide, doubled)
                return wide, doubled, 1e-5  # some layers compute in float32 all the same
            except (RuntimeError, TypeError):  # a layer insists on its own type
                pass
        return model, batch, 1e-4

    def other_values(self, name: str, batch: Batch, number: int = 0) -> Tensor:
        """Other values for an input or the target, each different and within its range."""
        item = self.spec.target if name == "target" else self.spec.inputs[name]
        values = batch[name]
        seed_everything(mix(self.seed, 3, number))
        if item.kind == "index":
            least, count = int(item.low or 0), int((item.high or 0) - (item.low or 0)) + 1
            step = torch.randint(1, max(count, 2), values.shape).to(values.device)
            other = least + (values - least + step) % count
            other = torch.where(values == IGNORED, values, other)
        elif item.kind == "mask":
            other = torch.rand(values.shape).to(values.device) < 0.5
        elif item.low is not None and item.high is not None:
            drawn = torch.rand(values.shape).to(values)
            other = item.low + (item.high - item.low) * drawn
        else:
            spread = values.std(0, correction=0)
            spread = torch.where(spread > 0, spread, torch.ones_like(spread))
            other = values + spread * torch.randn(values.shape).to(values)
            other = other.clamp(*item.bounds)
        counted = valid(batch, item)
        return other if counted is None else torch.where(over(counted, other), other, values)


def flatten(values: Values, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf of nested dictionaries with its dotted name."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def take(batch: Batch, rows: Any) -> Batch:
    """Some rows of a batch."""
    return {name: values[rows] for name, values in batch.items()}


def without_target(batch: Batch) -> Batch:
    """The named inputs alone."""
    return {name: values for name, values in batch.items() if name != "target"}


def close(left: Tensor, right: Tensor, tolerance: float) -> bool:
    """Whether two tensors are equal but for rounding: `tolerance` times the largest value."""
    if left.shape != right.shape:
        return False
    scale = float(left.detach().abs().max()) if left.numel() else 0.0
    return bool(((left - right).abs() <= tolerance * max(scale, 1e-6)).all())


def first_apart(left: Outputs, right: Outputs, tolerance: float) -> tuple[str, float] | None:
    """The first output that differs between two calls, and by how much; None if none does."""
    for name, values in left.items():
        if values.shape != right[name].shape:
            return name, float("inf")
        if not close(values, right[name], tolerance):
            return name, float((values - right[name]).abs().max())
    return None


Check = Callable[[Case], None]
CHECKS: dict[str, Check] = {}  # in the order of their numbers in the documentation
SLOW: set[str] = set()


def check(cause: str, *, slow: bool = False) -> Callable[[Check], Check]:
    """Makes a check of a function: what it raises says where, and it leaves no trace.

    Args:
        cause: The usual cause of a failure, and what to look at.
        slow: Takes seconds rather than a fraction of one.
    """

    def decorate(function: Check) -> Check:
        name = function.__name__

        @functools.wraps(function)
        def checked(case: Case) -> None:
            try:
                with isolated(case):
                    function(case)
            except Failed as error:
                error.where = f"{name} ({case.name}, seed {case.seed}): "
                error.cause = error.cause or cause
                raise
            except NotApplicable:
                raise
            except Exception as error:
                failure = Failed(place(error), explain(error), "no error", cause)
                failure.where = f"{name} ({case.name}, seed {case.seed}): "
                raise failure from error

        CHECKS[name] = checked
        if slow:
            SLOW.add(name)
        return checked

    return decorate


def place(error: Exception) -> str:
    """The line that raised an error: the last that is neither a package's nor of this folder."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if "site-packages" not in path.parts and path.parent != Path(__file__).parent:
            return f"{path.name}, line {frame.lineno}, `{frame.line}`"
    return "the model"


def explain(error: Exception) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"


@contextmanager
def isolated(case: Case) -> Iterator[None]:
    """Seeds every generator, puts each back as it was, and says nothing meanwhile."""
    devices = [case.device] if case.device.type == "cuda" else []
    states = random.getstate(), np.random.get_state()
    told = logging.root.manager.disable
    logging.disable(max(told, logging.INFO))  # trainers tell each epoch
    with torch.random.fork_rng(devices), torch.enable_grad():
        seed_everything(case.seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            logging.disable(told)


@dataclass(frozen=True)
class Outcome:
    """What came of one check: `passed`, `failed`, `opted out` or `does not apply`, and why."""

    check: str
    outcome: str
    seconds: float
    seed: int
    detail: str = ""
    tensor: str = ""

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.check}: {self.outcome}{detail}"


def run(case: Case, names: Sequence[str] | None = None, *, slow: bool = False) -> list[Outcome]:
    """Runs checks one after another, to the end; none is raised.

    Args:
        case: What is checked.
        names: Which checks; None for all.
        slow: Whether the slow ones are among them.
    """
    found = []
    for name in CHECKS if names is None else names:
        if names is None and name in SLOW and not slow:
            continue
        started = time.perf_counter()
        outcome, detail, tensor = "passed", "", ""
        try:
            run_one(case, name)
        except OptedOut as error:
            outcome, detail = "opted out", str(error)
        except NotApplicable as error:
            outcome, detail = "does not apply", str(error)
        except Failed as error:
            outcome, detail, tensor = "failed", str(error), error.tensor
        seconds = time.perf_counter() - started
        found.append(Outcome(name, outcome, seconds, case.seed, detail, tensor))
    return found


class OptedOut(NotApplicable):
    """The spec says that a check does not hold, and why."""


def run_one(case: Case, name: str) -> None:
    """One check by its name.

    Raises:
        Failed: with what was seen, what was expected, and the usual cause.
        NotApplicable: with why, also where the spec opts out.
        ValueError: the spec opts out of a check that does not exist.
    """
    for opted in case.spec.opt_outs:
        if opted not in CHECKS:
            raise ValueError(f"opt_outs.{opted}: there is no such check")
    if name in case.spec.opt_outs:
        raise OptedOut(case.spec.opt_outs[name])
    CHECKS[name](case)


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as lines: check, outcome, seconds; below, each failure in full."""
    width = max(len(item.check) for item in outcomes)
    lines = [f"{'check':{width}}  outcome         seconds  remark"]
    for item in outcomes:
        remark = f"{item.tensor}, seed {item.seed}" if item.outcome == "failed" else item.detail
        lines.append(
            f"{item.check:{width}}  {item.outcome:14}  {item.seconds:7.2f}  {remark}".rstrip()
        )
    told: dict[str, str] = {}  # one mistake may fail many checks: it is told once
    for item in [item for item in outcomes if item.outcome == "failed"]:
        told.setdefault(item.detail.partition("): ")[2].partition("\nusual")[0], item.detail)
    return "\n".join(lines) + "".join(f"\n\n{text}" for text in told.values())

"""The checks by name; how to run one or all of them, and the table of what they found."""

import functools
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ..training.determinism import seed_everything
from .case import Case
from .failures import Failed, NotApplicable, OptedOut, failing_line, one_line

Check = Callable[[Case], None]
CHECKS: dict[str, Check] = {}  # in the order of docs/checks.md
SLOW: set[str] = set()


def check(cause: str, *, slow: bool = False) -> Callable[[Check], Check]:
    """Makes a check of a function: its failures name the model, and it has no side effects.

    A check of this package is added to `CHECKS`. One of your own is not: call it in a test.

    Args:
        cause: The usual cause of a failure, and where to look.
        slow: Whether the check takes seconds rather than a fraction of one.
    """

    def decorate(function: Check) -> Check:
        checked = _checked(function, cause)
        if function.__module__.startswith(f"{__package__}."):
            CHECKS[function.__name__] = checked
            if slow:
                SLOW.add(function.__name__)
        return checked

    return decorate


def _checked(function: Check, cause: str) -> Check:
    """The function, isolated; any exception of the model becomes a failure of the check."""

    @functools.wraps(function)
    def checked(case: Case) -> None:
        where = f"{function.__name__} ({case.name}, seed {case.seed}): "
        try:
            with isolated(case):
                function(case)
        except Failed as error:
            error.where, error.cause = where, error.cause or cause
            raise
        except NotApplicable:
            raise
        except Exception as error:
            why = UNKNOWN if isinstance(error, KeyError) else cause
            failure = Failed(failing_line(error), one_line(error), "no error", why)
            failure.where = where
            raise failure from error

    return checked


UNKNOWN = "an input, output or target that has another name, or that the task does not have"


@contextmanager
def isolated(case: Case) -> Iterator[None]:
    """Seeds every random generator and restores it afterwards; the log is silent until then."""
    devices = [case.device] if case.device.type == "cuda" else []
    states = random.getstate(), np.random.get_state()
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.INFO))  # a trainer logs each epoch
    with torch.random.fork_rng(devices), torch.enable_grad():
        seed_everything(case.seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            logging.disable(disabled)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check (`passed`, `failed`, `opted out` or `does not apply`) and why."""

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
    """Runs checks one after another; a failure is an outcome and does not end the run.

    Args:
        case: The model under test.
        names: Which checks; None for all.
        slow: Whether all includes the slow ones.
    """
    if names is None:
        names = [name for name in CHECKS if slow or name not in SLOW]
    return [_outcome(case, name) for name in names]


def _outcome(case: Case, name: str) -> Outcome:
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
    return Outcome(name, outcome, seconds, case.seed, detail, tensor)


def run_one(case: Case, name: str) -> None:
    """Runs one check.

    Raises:
        Failed: with what the check saw, what it expected, and the usual cause.
        NotApplicable: with the reason; also if the spec opts out of the check.
        ValueError: the spec opts out of a check that does not exist.
    """
    for opted in case.spec.opt_outs:
        if opted not in CHECKS:
            raise ValueError(f"opt_outs.{opted}: there is no such check")
    if name in case.spec.opt_outs:
        raise OptedOut(case.spec.opt_outs[name])
    CHECKS[name](case)


def table(outcomes: Sequence[Outcome]) -> str:
    """A line for each check (name, outcome, seconds, remark), then each failure in full."""
    width = max(len(item.check) for item in outcomes)
    lines = [f"{'check':{width}}  outcome         seconds  remark"]
    for item in outcomes:
        remark = f"{item.tensor}, seed {item.seed}" if item.outcome == "failed" else item.detail
        lines.append(
            f"{item.check:{width}}  {item.outcome:14}  {item.seconds:7.2f}  {remark}".rstrip()
        )
    shown: dict[str, str] = {}  # one mistake may fail many checks: it is shown once
    for item in [item for item in outcomes if item.outcome == "failed"]:
        shown.setdefault(item.detail.partition("): ")[2].partition("\nusual")[0], item.detail)
    return "\n".join(lines) + "".join(f"\n\n{text}" for text in shown.values())

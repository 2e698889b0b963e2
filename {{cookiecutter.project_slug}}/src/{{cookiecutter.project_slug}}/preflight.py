"""A configuration's model held to the checks of `testing`: before a run, or instead of one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from . import StudyError, configuration
from .data import Batch
from .testing import Case, Outcome, Spec, run
from .testing.data import all_rows, splits_of

# A check is a matter of steps, not of hours; what is left out here cannot change a number.
BRIEFLY = {
    "num_epochs": 2,
    "batch_size": 12,
    "num_workers": 0,
    "compile": False,
    "max_minutes": None,
}
IDLE = {
    "training.checkpoint_steps": "a checkpoint only writes",
    "training.checkpoint_minutes": "a checkpoint only writes",
    "training.num_workers": "the_data_are_sane looks at it",
    "training.compile": "it takes a minute",
    "training.max_minutes": "a matter of the clock",
    "training.monitor": "the_trainer_equals_a_reference_loop looks at it",
}
OTHERS: dict[str, list[Any]] = {
    "training.checkpoint_steps": [2],
    "training.max_gradient_norm": [0.01],
    "training.patience": [1, 2],
    "training.precision": ["bfloat16", "float32"],
}
# where the model stands still, and where it jumps about: there patience matters
CONTEXTS = (
    {"model.lr": 1e-12, "training.num_epochs": 3},
    {"model.lr": 0.3, "training.num_epochs": 5},
)


def make_case(
    values: Mapping[str, Any],
    device: torch.device,
    splits: Mapping[str, Dataset[Batch]] | None = None,
) -> Case:
    """What the checks are given: the model of a configuration, on the few rows of `data.fixture`.

    Args:
        values: A configuration, resolved and checked.
        device: Where the model runs.
        splits: The same rows, prepared; None deals them here.

    Raises:
        StudyError: the spec of the data is missing or wrong, or the fixture cannot be read.
    """
    values = {**values, "training": {**values["training"], **BRIEFLY}}
    if splits is None:
        fields = configuration.read_fixture(values)
        batch = {name: torch.from_numpy(field) for name, field in fields.items()}
    else:
        batch = all_rows(splits["train"])
    case = Case(
        make=lambda: configuration.make_network(values),
        batch=batch,
        spec=read_spec(values),
        name=str(values["model"]["network"]["_target_"]).rpartition(".")[2],
        seed=values["seed"],
        device=device,
        values=values,
        build=lambda changed: configuration.rebuild(changed, splits_of(case)["train"], device),
        splits=splits,
        others=OTHERS,
        idle=IDLE,
        contexts=CONTEXTS,
    )
    return case


def read_spec(values: Mapping[str, Any]) -> Spec:
    """The spec of the data, with the opt-outs of the model.

    Raises:
        StudyError: it is missing, or says what it is that is wrong.
    """
    spec, own = values["data"].get("spec"), values["model"].get("opt_outs") or {}
    if not isinstance(spec, Mapping):
        raise StudyError("data.spec: is missing; docs/checks.md says what it holds")
    try:
        return Spec.from_values({**spec, "opt_outs": {**(spec.get("opt_outs") or {}), **own}})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StudyError(f"data.spec.{error}; docs/checks.md says what it holds") from error


def check(values: Mapping[str, Any], device: torch.device, *, slow: bool) -> list[Outcome]:
    """Runs the checks on a configuration's model.

    Args:
        values: A configuration, resolved and checked.
        device: Where the model runs.
        slow: Whether to run those too that take seconds.
    """
    try:
        return run(make_case(values, device), slow=slow)
    except ValueError as error:
        raise StudyError(f"data.spec.{error}") from error


def refuse(outcomes: Sequence[Outcome]) -> None:
    """Raises StudyError if a check failed."""
    failed = sorted(item.check for item in outcomes if item.outcome == "failed")
    if failed:
        told = f"{len(failed)} of {len(outcomes)} checks failed: {', '.join(failed)}"
        raise StudyError(f"{told}; task=check shows each, with its usual cause")

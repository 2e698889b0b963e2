"""The model of a configuration, checked: before a run, or by `study check`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from ..configuration.building import build_network, read_fixture, rebuild_trainer
from ..configuration.messages import suggest
from ..errors import StudyError
from ..runs.reads import forget_read
from ..runs.record import Record
from ..training.prepared import Batch, Split
from . import CHECKS, Case, Outcome, Spec, run
from .data import all_rows, deal

# A check is a matter of steps, not of hours
BRIEFLY = {"num_epochs": 2, "num_workers": 0, "compile": False, "max_minutes": None}
NUM_ROWS = 1000  # of the prepared data are compared with the spec
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
    *,
    name: str = "model",
) -> Case:
    """What the checks are given: the model of a configuration, on the few rows of `data.fixture`.

    Args:
        values: A configuration, resolved and checked.
        device: Where the model runs.
        splits: The same rows, prepared; None deals them here.
        name: Of the configuration, for messages: `model=cnn`.

    Raises:
        StudyError: the spec of the data is missing or wrong, or the fixture cannot be read.
    """
    spec = read_spec(values)
    if splits is None:
        fields = read_fixture(values)
        forget_read(values["data"]["fixture"])
        batch = {name: torch.from_numpy(field) for name, field in fields.items()}
        splits = deal(batch)
    else:
        batch = all_rows(splits["train"])
    train = splits["train"]
    num_rows = len(train)  # type: ignore[arg-type]
    values = {**values, "training": briefly(values["training"], num_rows)}
    return Case(
        make=lambda: build_network(values),
        batch=batch,
        spec=spec,
        name=name,
        seed=values["seed"],
        device=device,
        values=values,
        build=lambda changed: rebuild_trainer(changed, train, device),
        splits=splits,
        others=OTHERS,
        idle=IDLE,
        contexts=CONTEXTS,
    )


def briefly(training: Mapping[str, Any], num_rows: int) -> dict[str, Any]:
    """The settings of a training of a few steps: two batches an epoch at least.

    The last one is as large as can be: a batch norm takes no single row, and pieces are halves.
    """
    sizes = [size for size in range(3, 13) if 2 * size <= num_rows] or [num_rows]
    size = max(sizes, key=lambda size: (num_rows % size or size, size))
    num_pieces = min(2, training["num_accumulation_steps"])
    return {**training, **BRIEFLY, "batch_size": size, "num_accumulation_steps": num_pieces}


def read_spec(values: Mapping[str, Any]) -> Spec:
    """The spec of the data, with the opt-outs of the model.

    Raises:
        StudyError: it is missing, or says what it is that is wrong.
    """
    spec, own = values["data"].get("spec"), values["model"].get("opt_outs") or {}
    if not isinstance(spec, Mapping):
        raise StudyError("data.spec: is missing; docs/checks.md says what it holds")
    try:
        spec = Spec.from_values({**spec, "opt_outs": {**(spec.get("opt_outs") or {}), **own}})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StudyError(f"data.spec.{error}; docs/checks.md says what it holds") from error
    for name in set(spec.opt_outs) - set(CHECKS):
        hint = suggest(name, list(CHECKS))
        raise StudyError(f"opt_outs.{name}: there is no such check{hint}")
    return spec


def check_model(
    values: Mapping[str, Any], device: torch.device, *, name: str, slow: bool
) -> list[Outcome]:
    """Runs the checks on the model of a configuration.

    Args:
        values: A configuration, resolved and checked.
        device: Where the model runs.
        name: Of the configuration, for messages: `model=cnn`.
        slow: Whether to run the slow checks too, which take seconds each.

    Raises:
        StudyError: the spec is wrong, or the fixture too small.
    """
    try:
        return run(make_case(values, device, name=name), slow=slow)
    except ValueError as error:
        raise StudyError(f"data.fixture: {error}") from error


def preflight(record: Record, device: torch.device, train: Split) -> None:
    """Compares the prepared data with the spec, and runs the fast checks; all of it is recorded.

    Raises:
        StudyError: the data are not as the spec says, or a check failed.
    """
    values, name = record["config"], " ".join(record["overrides"])
    seen = compare_with_spec(values, train)
    outcomes = check_model(values, device, name=name, slow=False)
    record["checks"] = list(dict.fromkeys([*record["checks"], seen, *map(str, outcomes)]))
    refuse_failed(outcomes)


def compare_with_spec(values: Mapping[str, Any], train: Split) -> str:
    """Compares rows of the prepared data with the spec; returns a line for the record.

    Raises:
        StudyError: names the field, what it is and what it must be.
    """
    num_rows = min(NUM_ROWS, len(train))
    try:
        read_spec(values).check_batch(train[range(num_rows)])
    except ValueError as error:
        raise StudyError(f"{train.folder}/{train.name}: {error}; see data.spec") from error
    return f"prepared data: {num_rows} rows are as data.spec says"


def refuse_failed(outcomes: Sequence[Outcome]) -> None:
    """Raises StudyError if a check failed."""
    failed = sorted(item.check for item in outcomes if item.outcome == "failed")
    if failed:
        count = f"{len(failed)} of {len(outcomes)} checks failed: {', '.join(failed)}"
        raise StudyError(f"{count}; to see each with its usual cause: study check")

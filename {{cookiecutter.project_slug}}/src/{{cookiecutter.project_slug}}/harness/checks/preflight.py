"""Checks the model of a configuration: before a run, or by `study check`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from ..configuration.building import build_network, read_fixture, rebuild_trainer
from ..errors import StudyError, suggest
from ..runs.reads import forget_read
from ..runs.record import Record
from ..training.distributed import share
from ..training.preparation import encode, gather_inputs
from ..training.prepared import Batch, Split
from . import CHECKS, Case, Outcome, Spec, run
from .case import take
from .data import Rows, all_rows, hold_out_rows

# A check trains for a few steps
BRIEFLY = {"num_epochs": 2, "num_workers": 0, "compile": False, "max_minutes": None}
NUM_ROWS = 1000  # rows of the prepared data that are compared with the spec
IDLE = {
    "training.checkpoint_steps": "a checkpoint only writes",
    "training.checkpoint_minutes": "a checkpoint only writes",
    "training.num_workers": "the_data_are_sane covers it",
    "training.compile": "compiling takes a minute",
    "training.max_minutes": "the effect depends on the clock",
    "training.monitor": "the_trainer_equals_a_reference_loop covers it",
}
OTHERS: dict[str, list[Any]] = {
    "training.checkpoint_steps": [2],
    "training.max_gradient_norm": [0.01],
    "training.patience": [1, 2],
    "training.precision": ["bfloat16", "float32"],
}
# patience has an effect where the model does not change, or where it diverges
CONTEXTS = (
    {"model.lr": 1e-12, "training.num_epochs": 3},
    {"model.lr": 0.3, "training.num_epochs": 12},
)


def make_case(
    values: Mapping[str, Any],
    device: torch.device,
    splits: Mapping[str, Dataset[Batch]] | None = None,
    *,
    name: str = "model",
    trainings: Sequence[Mapping[str, Any]] = (),
) -> Case:
    """The case of a configuration: its model on the few rows of `data.fixture`.

    Args:
        values: A configuration, resolved and checked.
        device: Where the model runs.
        splits: The splits of these rows, if they are prepared; None reads and splits them here.
        name: The configuration, for messages: `model=NAME`.
        trainings: Other values of `training`, under which a knob may have its effect.

    Raises:
        StudyError: the spec of the data is missing or wrong, or the fixture cannot be read.
    """
    spec = read_spec(values)
    batch, splits = _read_rows(values) if splits is None else (all_rows(splits["train"]), splits)
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
        contexts=(*CONTEXTS, *({"training": briefly(each, num_rows)} for each in trainings)),
    )


def _read_rows(values: Mapping[str, Any]) -> tuple[Batch, Mapping[str, Dataset[Batch]]]:
    """The rows of `data.fixture` as one batch, and as splits; an encoder is fitted on the first."""
    found, encoder, splitter = read_fixture(values)
    fields = gather_inputs(found, splitter)
    forget_read(values["data"]["fixture"])  # the record lists what training read
    raw = fields.get("target")
    target = None if raw is None or raw.dtype.kind not in "biuf" else torch.from_numpy(raw)
    train, held_out = hold_out_rows(len(next(iter(fields.values()))), target)
    fields, _ = encode(fields, train.tolist(), encoder)
    batch = {name: torch.from_numpy(field) for name, field in fields.items()}
    return batch, {"train": Rows(take(batch, train)), "validation": Rows(take(batch, held_out))}


def briefly(training: Mapping[str, Any], num_rows: int) -> dict[str, Any]:
    """The training settings, changed to train for a few steps: at least two batches an epoch.

    The batch size makes the last batch as large as possible: a batch norm needs more than one row,
    and accumulation splits a batch in two.
    """
    sizes = [size for size in range(3, 13) if 2 * size <= num_rows] or [num_rows]
    size = max(sizes, key=lambda size: (num_rows % size or size, size))
    num_pieces = min(2, training["num_accumulation_steps"])
    return {**training, **BRIEFLY, "batch_size": size, "num_accumulation_steps": num_pieces}


def read_spec(values: Mapping[str, Any]) -> Spec:
    """The spec of the data, with the opt-outs of the model.

    Raises:
        StudyError: the spec is missing or wrong; the message names the key.
    """
    spec, own = values["data"].get("spec"), values["model"].get("opt_outs") or {}
    if not isinstance(spec, Mapping):
        raise StudyError("data.spec: is missing; docs/checks.md describes it")
    try:
        spec = Spec.from_values({**spec, "opt_outs": {**(spec.get("opt_outs") or {}), **own}})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StudyError(f"data.spec.{error}; docs/checks.md describes it") from error
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
        name: The configuration, for messages: `model=NAME`.
        slow: Whether to run the slow checks too, which take seconds each.

    Raises:
        StudyError: the spec is wrong, or the fixture too small.
    """
    try:
        return run(make_case(values, device, name=name), slow=slow)
    except ValueError as error:
        raise StudyError(f"data.fixture: {error}") from error


def preflight(record: Record, device: torch.device, train: Split) -> None:
    """Compares the prepared data with the spec and runs the fast checks; records the outcomes.

    Raises:
        StudyError: the data do not agree with the spec, or a check failed.
    """
    values, name = record["config"], " ".join(record["overrides"])

    def check() -> tuple[str, list[Outcome]]:
        return compare_with_spec(values, train), check_model(values, device, name=name, slow=False)

    remark, outcomes = share(check)  # of several ranks, one checks
    record["checks"] = list(dict.fromkeys([*record["checks"], remark, *map(str, outcomes)]))
    refuse_failed(outcomes)


def compare_with_spec(values: Mapping[str, Any], train: Split) -> str:
    """Compares rows of the prepared data with the spec; returns a line for the record.

    Raises:
        StudyError: a field does not agree with the spec; the message names it.
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

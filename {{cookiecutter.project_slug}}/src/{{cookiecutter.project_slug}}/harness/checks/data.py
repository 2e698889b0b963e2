"""Checks of the data: a batch agrees with the spec, and the splits have no leak."""

import hashlib
import multiprocessing
from collections.abc import Mapping

import numpy as np
import torch
from torch.utils.data import Dataset

from ..training.prepared import Batch, batches
from ..training.step import to_device
from .case import Case, take
from .failures import Failed
from .fitting import counted_targets
from .running import check


class Rows(Dataset[Batch]):
    """A batch as a split: indexed by a list of rows."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["target"])

    def __getitem__(self, index: object) -> Batch:
        return take(self.batch, torch.as_tensor(index))


def splits_of(case: Case) -> Mapping[str, Dataset[Batch]]:
    """The splits of a case; if it has none, every fourth row is held out."""
    return hold_out(case.batch) if case.splits is None else case.splits


def hold_out(batch: Batch) -> dict[str, Dataset[Batch]]:
    """Splits a batch in two: every fourth row of each class is held out for validation."""
    target = batch["target"]
    order = torch.argsort(target, stable=True) if target.dim() == 1 else torch.arange(len(target))
    held_out = torch.arange(len(target)) % 4 == 3
    return {
        "train": Rows(take(batch, order[~held_out])),
        "validation": Rows(take(batch, order[held_out])),
    }


def all_rows(split: Dataset[Batch]) -> Batch:
    """A split as one batch."""
    found: Batch = split[np.arange(len(split))]  # type: ignore[arg-type]
    return found


def split_rows(case: Case) -> tuple[Batch, Batch]:
    """The rows of the training split and of the validation split, on the device."""
    train, held_out = (all_rows(splits_of(case)[key]) for key in ("train", "validation"))
    return to_device(train, case.device), to_device(held_out, case.device)


@check("the data were prepared in another way, or data.spec describes another data set")
def the_batch_is_as_specified(case: Case) -> None:
    """Names, shapes, types and ranges of a batch agree with the spec, and `forward` takes them.

    Catches: a spec that is out of date, pixels that were not divided by 255, class indices that
    begin at 1, a mask of integers, an argument of `forward` that no batch has.
    False alarms: 0 of 270 runs on correct models.
    Source: own; most other checks rely on the spec.
    """
    try:
        case.spec.check_batch(case.batch)
        if case.forward.__name__ == "call_by_name":
            case.spec.check_signature(case.fresh().forward)
    except ValueError as error:
        name, _, seen = str(error).partition("`: ")
        tensor = f"{name}`" if seen else "the batch"
        raise Failed(tensor, seen or str(error), "agreement with data.spec") from error


@check(
    "duplicates in the raw table (opt out if equal rows are common), splits drawn row by row from "
    "augmented or windowed data, a class that was filtered out, a column computed from the target"
)
def the_data_are_sane(case: Case) -> None:
    """No contradictions, no row in two splits, every class in training, no target among the inputs.

    Batches are also the same with 0 and with 2 worker processes.
    Catches: leaks and mistakes in the data, which every model would learn.
    False alarms: 0 of 270 runs on correct models.
    Source: Kaufman et al., "Leakage in Data Mining" (2012); Kapoor and Narayanan, "Leakage and the
    reproducibility crisis in machine-learning-based science" (2023).
    """
    splits = splits_of(case)
    seen: dict[bytes, tuple[str, int, torch.Tensor]] = {}
    for name, split in splits.items():
        rows = all_rows(split)
        try:
            case.spec.check_batch(rows)
        except ValueError as error:
            raise Failed(f"split {name}", str(error), "agreement with data.spec") from error
        for number in range(len(rows["target"])):
            key = _hash(case, rows, number)
            other, row, target = seen.setdefault(key, (name, number, rows["target"][number]))
            if other != name:
                text = f"row {number} is also row {row} of {other}"
                raise Failed(f"split {name}", text, "no row in two splits")
            # a text may have several continuations
            if case.spec.causal is None and not torch.equal(target, rows["target"][number]):
                text = f"rows {row} and {number} have equal inputs and different targets"
                raise Failed(f"split {name}", text, "no contradictions")
    _check_targets(case, all_rows(splits["train"]))
    _check_workers(splits["train"])


def _hash(case: Case, rows: Batch, number: int) -> bytes:
    """A hash of the inputs of one row."""
    digest = hashlib.sha256()
    for name in sorted(case.spec.inputs):
        digest.update(rows[name][number].contiguous().numpy().tobytes())
    return digest.digest()


def _check_targets(case: Case, train: Batch) -> None:
    """Raises Failed if a class is missing, the target is constant, or an input determines it."""
    target = train["target"]
    counted = target[counted_targets(case, train)]
    if case.spec.task == "classification":
        low = int(case.spec.target.low or 0)
        missing = set(range(low, low + case.spec.num_classes)) - set(counted.tolist())
        # a vocabulary has rare words: every class is required only where an instance has one class
        if missing and target.dim() == 1:
            raise Failed("split train", f"no row is of class {min(missing)}", "every class")
    if not (counted != counted[:1]).any():
        raise Failed("`target`", "is the same in every row", "a target that varies")
    if case.spec.causal is not None:
        _check_shift(case, train)
    for name in case.spec.features if target.dim() == 1 else ():
        columns = train[name].reshape(len(target), -1).double()
        for index, column in enumerate(columns.T):
            if _determines(case, column, target):
                where = "" if columns.shape[1] == 1 else f", column {index}"
                seen = "determines the target in every row"
                raise Failed(f"input `{name}`{where}", seen, "no copy of the target in an input")


def _determines(case: Case, column: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether a column is the target with other labels or on another scale."""
    if case.spec.task == "regression":
        both = torch.stack([column, target.double()])
        return bool(column.std() > 0) and abs(float(torch.corrcoef(both)[0, 1])) > 0.9999
    pairs = set(zip(target.tolist(), column.tolist(), strict=True))
    num_classes = len(set(target.tolist()))
    return len(pairs) == num_classes == len({value for _, value in pairs})


def _check_shift(case: Case, train: Batch) -> None:
    """Raises Failed if the target of a causal model is its input shifted by other than 1."""
    tokens, target = train[case.spec.causal or ""], train["target"]
    if tokens.shape != target.shape:
        return
    for shift in (0, 2, 3):
        length = tokens.shape[1] - shift
        if length > 1 and torch.equal(target[:, :length], tokens[:, shift:]):
            seen = f"is `{case.spec.causal}` shifted by {shift} positions"
            expected = "the next token: a shift by 1"
            raise Failed("`target`", seen, expected, "targets that were not shifted, or twice")


def _check_workers(split: Dataset[Batch]) -> None:
    """Raises Failed if batches depend on the number of worker processes."""
    if multiprocessing.current_process().daemon:
        return  # a daemon may not start processes
    order = np.arange(len(split))[::-1].copy()  # type: ignore[arg-type]
    size = max(2, len(order) // 3)
    direct = list(batches(split, order, batch_size=size))
    loaded = list(batches(split, order, batch_size=size, num_workers=2))
    for number, (left, right) in enumerate(zip(direct, loaded, strict=True)):
        for name, values in left.items():
            if not torch.equal(values, right[name]):
                text = f"batch {number} differs between 0 and 2 worker processes"
                raise Failed(f"`{name}`", text, "the same batches", WORKERS)
            rows = order[number * size : (number + 1) * size]
            if not torch.equal(values, torch.cat([split[[row]][name] for row in rows])):
                text = f"batch {number} does not hold the requested rows in the requested order"
                expected = "the rows that the split gives one by one"
                cause = "rows that the split sorts, or fields that it indexes differently"
                raise Failed(f"`{name}`", text, expected, cause)


WORKERS = (
    "random numbers drawn in the data set (each worker has its own), a counter or cache in the "
    "data set, batches that the workers return in another order"
)

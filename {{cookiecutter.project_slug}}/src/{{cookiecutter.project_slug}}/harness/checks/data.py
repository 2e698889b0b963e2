"""Checks of the data: a batch agrees with the spec, and the splits have no leak."""

import hashlib
import multiprocessing
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..training.prepared import Batch, batches, cut_padding
from ..training.spec import check_shape
from ..training.step import to_device
from .case import Case, num_rows, take
from .failures import Failed
from .fitting import counted_targets
from .running import check

NUM_COLUMNS = 64  # of a field, whose statistics are looked at


class Rows(Dataset[Batch]):
    """A batch as a split: indexed by a list of rows."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return num_rows(self.batch)

    def __getitem__(self, index: object) -> Batch:
        return take(self.batch, torch.as_tensor(index))


def splits_of(case: Case) -> Mapping[str, Dataset[Batch]]:
    """The splits of a case; if it has none, every fourth row is held out."""
    return hold_out(case.batch) if case.splits is None else case.splits


def hold_out(batch: Batch) -> dict[str, Dataset[Batch]]:
    """Splits a batch in two: every fourth row of each class is held out for validation."""
    train, held_out = hold_out_rows(num_rows(batch), batch.get("target"))
    return {"train": Rows(take(batch, train)), "validation": Rows(take(batch, held_out))}


def hold_out_rows(count: int, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows to train on, and every fourth of each class."""
    order = torch.arange(count)
    if target is not None and target.dim() == 1:
        order = torch.argsort(target, stable=True)
    held_out = torch.arange(count) % 4 == 3
    return order[~held_out], order[held_out]


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
    begin at 1, a mask of integers, an argument of `forward` that no batch has, padding that is cut
    in one field and not in another.
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
    _check_padding(case)


def _check_padding(case: Case) -> None:
    """Raises Failed if fields of one length differ in it once padding is cut."""
    padding = (case.values or {}).get("data", {}).get("padding")
    if padding is None:
        return
    shortest = case.batch[padding["mask"]].sum(1).argmin()
    cut, sizes = cut_padding(take(case.batch, shortest[None]), padding), dict[str, int]()
    for name, item in case.spec.fields.items():
        try:
            check_shape(name, item, cut[name], sizes)
        except ValueError as error:
            seen = f"{str(error).partition('`: ')[2]}, in a batch of the shortest row"
            expected = "fields that are cut to one length"
            raise Failed(f"`{name}`", seen, expected, CUT) from error


CUT = "data.padding.fields lacks a field that data.padding.mask is the mask of"


@check(
    "duplicates in the raw table (opt out if equal rows are common), splits drawn row by row from "
    "augmented or windowed data, a class that was filtered out, a column computed from the target, "
    "a column normalised by statistics of all rows"
)
def the_data_are_sane(case: Case) -> None:
    """No contradictions, no row in two splits, every class in training, no target among the inputs.

    No column has a mean of 0 and a deviation of 1 over all splits together. Batches are also the
    same with 0 and with 2 worker processes.
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
        targets = rows.get("target", torch.zeros(num_rows(rows)))
        for number, mine in enumerate(targets):
            key = _hash(case, rows, number)
            other, row, target = seen.setdefault(key, (name, number, mine))
            if other != name:
                text = f"row {number} is also row {row} of {other}"
                raise Failed(f"split {name}", text, "no row in two splits")
            # a text may have several continuations
            if case.spec.causal is None and not torch.equal(target, mine):
                text = f"rows {row} and {number} have equal inputs and different targets"
                raise Failed(f"split {name}", text, "no contradictions")
    _check_normalisation(case, [all_rows(split) for split in splits.values()])
    if case.spec.target is not None:
        _check_targets(case, all_rows(splits["train"]))
    _check_workers(splits["train"])


def _check_normalisation(case: Case, splits: Sequence[Batch]) -> None:
    """Raises Failed if a column has mean 0 and deviation 1 over all splits, and not in training."""
    for name, item in case.spec.fields.items():
        if item.kind != "float" or item.mask is not None:
            continue
        parts = [rows[name].reshape(len(rows[name]), -1).double() for rows in splits]
        for index in range(min(parts[0].shape[1], NUM_COLUMNS)):
            train, every = parts[0][:, index], torch.cat(parts)[:, index]
            # two values may be -1 and 1 by design
            values = set(every.tolist())
            if len(values) > 2 and _off_normal(every) < 1e-4 < 1e-2 < _off_normal(train):
                seen = "has a mean of 0 and a deviation of 1 over all splits together"
                expected = "statistics of the rows of training only"
                cause = "a normalisation before the split: validation and test rows take part in it"
                raise Failed(f"`{name}`", seen, expected, cause)


def _off_normal(column: torch.Tensor) -> float:
    """How far mean and standard deviation are from 0 and 1."""
    apart = min(abs(float(column.std(correction=number)) - 1) for number in (0, 1))
    return abs(float(column.mean())) + apart


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
        missing = set(case.spec.labels) - set(counted.tolist())
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

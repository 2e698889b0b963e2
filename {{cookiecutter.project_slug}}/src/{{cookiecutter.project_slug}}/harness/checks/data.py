"""Whether the rows that a model learns from are what they seem."""

import hashlib
import multiprocessing
from collections.abc import Mapping

import numpy as np
import torch
from torch.utils.data import Dataset

from ..training.prepared import Batch, batches
from ..training.step import to_device
from .case import Case, Failed, check, take
from .fitting import counted_targets


class Rows(Dataset[Batch]):
    """A batch as a split: indexed by a list of rows."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["target"])

    def __getitem__(self, index: object) -> Batch:
        return take(self.batch, torch.as_tensor(index))


def splits_of(case: Case) -> Mapping[str, Dataset[Batch]]:
    """The case's splits; or its batch, dealt."""
    return deal(case.batch) if case.splits is None else case.splits


def deal(batch: Batch) -> dict[str, Dataset[Batch]]:
    """Rows to train on and to validate on: each fourth of each class is held out."""
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
    """The rows to train on and those held out, on the device."""
    train, held_out = (all_rows(splits_of(case)[key]) for key in ("train", "validation"))
    return to_device(train, case.device), to_device(held_out, case.device)


@check("the data were prepared otherwise, or conf/data/ says what was true of another data set")
def the_batch_is_as_specified(case: Case) -> None:
    """Names, shapes, types and ranges of a batch are those of the spec, and `forward` takes them.

    Catches: a spec that is out of date, pixels that nobody divided by 255, a class index that
    begins at 1, a mask of integers, an argument of `forward` that no batch has.
    False alarms: 0 of 270 runs on models that are right.
    Source: this study: whatever rests on a spec is worth what the spec is worth.
    """
    try:
        case.spec.check_batch(case.batch)
        if case.forward.__name__ == "call_by_name":
            case.spec.check_signature(case.fresh().forward)
    except ValueError as error:
        name, _, seen = str(error).partition("`: ")
        tensor = f"{name}`" if seen else "the batch"
        raise Failed(tensor, seen or str(error), "what the spec says") from error


@check(
    "duplicates in the raw table (opt out if equal rows are common), splits drawn row by row from "
    "augmented or windowed data, a class that was filtered out, a column computed from the target"
)
def the_data_are_sane(case: Case) -> None:
    """No contradictions, no row in two splits, every class in training, no target among the inputs.

    And the same batches for 0 and 2 worker processes.
    Catches: leaks and mistakes of the data, which every model then learns.
    False alarms: 0 of 270 runs on models that are right.
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
            raise Failed(f"split {name}", str(error), "what the spec says") from error
        for number in range(len(rows["target"])):
            key = _hash(case, rows, number)
            other, row, target = seen.setdefault(key, (name, number, rows["target"][number]))
            if other != name:
                text = f"its row {number} is row {row} of {other} too"
                raise Failed(f"split {name}", text, "no row in two splits")
            # what follows a text is not decided by it
            if case.spec.causal is None and not torch.equal(target, rows["target"][number]):
                text = f"rows {row} and {number} are equal, and their targets are not"
                raise Failed(f"split {name}", text, "no contradictions")
    _check_targets(case, all_rows(splits["train"]))
    _check_workers(splits["train"])


def _hash(case: Case, rows: Batch, number: int) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(case.spec.inputs):
        digest.update(rows[name][number].contiguous().numpy().tobytes())
    return digest.digest()


def _check_targets(case: Case, train: Batch) -> None:
    target = train["target"]
    counted = target[counted_targets(case, train)]
    if case.spec.task == "classification":
        low = int(case.spec.target.low or 0)
        missing = set(range(low, low + case.spec.num_classes)) - set(counted.tolist())
        # a vocabulary has rare words: only what is the class of an instance must be there
        if missing and target.dim() == 1:
            raise Failed("split train", f"no row is of class {min(missing)}", "every class")
    if not (counted != counted[:1]).any():
        raise Failed("`target`", "is the same in every row", "something to be learnt")
    if case.spec.causal is not None:
        _check_shift(case, train)
    for name in case.spec.features if target.dim() == 1 else ():
        columns = train[name].reshape(len(target), -1).double()
        for index, column in enumerate(columns.T):
            if _says(case, column, target):
                where = "" if columns.shape[1] == 1 else f", column {index}"
                seen = "says what the target is, row for row"
                raise Failed(f"input `{name}`{where}", seen, "something to be predicted")


def _says(case: Case, column: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether a column is the target in other words: other numbers, another scale."""
    if case.spec.task == "regression":
        both = torch.stack([column, target.double()])
        return bool(column.std() > 0) and abs(float(torch.corrcoef(both)[0, 1])) > 0.9999
    words = set(zip(target.tolist(), column.tolist(), strict=True))
    num_classes = len(set(target.tolist()))
    return len(words) == num_classes == len({value for _, value in words})


def _check_shift(case: Case, train: Batch) -> None:
    """The target of a causal model is what comes next, if it is of the same kind as its input."""
    tokens, target = train[case.spec.causal or ""], train["target"]
    if tokens.shape != target.shape:
        return
    for shift in (0, 2, 3):
        length = tokens.shape[1] - shift
        if length > 1 and torch.equal(target[:, :length], tokens[:, shift:]):
            seen = f"is `{case.spec.causal}` {shift} positions on"
            wanted = "the next token, 1 position on"
            raise Failed("`target`", seen, wanted, "targets that were not shifted, or twice")


def _check_workers(split: Dataset[Batch]) -> None:
    if multiprocessing.current_process().daemon:
        return  # it may start no others
    order = np.arange(len(split))[::-1].copy()  # type: ignore[arg-type]
    size = max(2, len(order) // 3)
    alone = list(batches(split, order, batch_size=size))
    helped = list(batches(split, order, batch_size=size, num_workers=2))
    for number, (left, right) in enumerate(zip(alone, helped, strict=True)):
        for name, values in left.items():
            if not torch.equal(values, right[name]):
                text = f"batch {number} differs between 0 and 2 worker processes"
                raise Failed(f"`{name}`", text, "the same batches", WORKERS)
            asked = order[number * size : (number + 1) * size]
            if not torch.equal(values, torch.cat([split[[row]][name] for row in asked])):
                text = f"batch {number} does not hold the rows asked for, in their order"
                wanted = "what each row holds when it is asked for alone"
                raise Failed(f"`{name}`", text, wanted, "rows that are sorted, or fields apart")


WORKERS = (
    "random numbers drawn in the data set (each worker has its own), a counter or cache kept on "
    "it, batches that come back in another order"
)

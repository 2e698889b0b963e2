"""How rows are divided into train, validation and test: `data.prepare.split` names one of these.

A draw is a function of seed and content: it depends neither on the order of the table nor on the
version of a random generator. A class of one's own does the same job: it has `columns`, the fields
that it reads besides the target, and `assign`. What only the split reads reaches no model, unless
the class says `is_input`; no value of the column that it calls `group` may stand in two splits.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from ..errors import StudyError

Fields = Mapping[str, np.ndarray]  # name to values, an instance a row
PLACE = "data.prepare.split"
NAMES = ("train", "validation", "test")


class Splitter(Protocol):
    """What divides the rows."""

    columns: Sequence[str]

    def assign(self, fields: Fields, keys: np.ndarray, /) -> np.ndarray:
        """The split of each row: `train`, `validation` or `test`.

        Args:
            fields: The columns, and the `target` if it is one value a row.
            keys: The SHA-256 of each row without its target, no two the same. Shape: [rows, 32].
        """


class Random:
    """Rows by chance, whatever their targets."""

    columns: Sequence[str] = ()

    def __init__(
        self, *, split_seed: int, validation_fraction: float, test_fraction: float
    ) -> None:
        self.seed = split_seed
        self.fractions = check_fractions(validation_fraction, test_fraction)

    def assign(self, fields: Fields, keys: np.ndarray) -> np.ndarray:
        """The split of each row."""
        names = np.full(len(keys), "train", dtype="<U10")
        for rows in self.strata(fields, len(keys)):
            names[rows] = divide(draw(self.seed, hexadecimal(keys, rows)), self.fractions)
        return names

    def strata(self, _fields: Fields, num_rows: int) -> Iterator[np.ndarray]:
        """The rows of each part that is divided in the same way."""
        yield np.arange(num_rows)


class Stratified(Random):
    """Rows by chance, each class divided in the same way: of the target, or of a named column.

    Args:
        column: Of classes. It reaches no model unless `is_input`; the target always does.
    """

    def __init__(
        self,
        *,
        column: str,
        split_seed: int,
        validation_fraction: float,
        test_fraction: float,
        is_input: bool = False,
    ) -> None:
        super().__init__(
            split_seed=split_seed,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
        )
        self.column, self.is_input = column, is_input
        self.columns = () if column == "target" else (column,)

    def strata(self, fields: Fields, num_rows: int) -> Iterator[np.ndarray]:
        """The rows of each class."""
        if self.column not in fields or fields[self.column].dtype.kind not in "biuUS":
            raise StudyError(f"{PLACE}.column={self.column}: must be one class a row")
        return rows_of_classes(fields[self.column])


class ByTarget(Random):
    """What is drawn where no split is named: by class if the target is one, otherwise any rows."""

    def strata(self, fields: Fields, num_rows: int) -> Iterator[np.ndarray]:
        """The rows of each class, or all rows."""
        return rows_of_target(fields, num_rows)


class ByGroup(Random):
    """Groups by chance, such as patients: all rows of one stand in the same split.

    The fractions count groups.

    Args:
        column: Of groups. It reaches no model unless `is_input`.
    """

    def __init__(
        self,
        *,
        column: str,
        split_seed: int,
        validation_fraction: float,
        test_fraction: float,
        is_input: bool = False,
    ) -> None:
        super().__init__(
            split_seed=split_seed,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
        )
        self.group, self.columns, self.is_input = column, (column,), is_input

    def assign(self, fields: Fields, keys: np.ndarray) -> np.ndarray:
        """The split of each row."""
        texts, inverse = groups_of(fields, self.group)
        return divide(draw(self.seed, texts), self.fractions).take(inverse)


class ByTime:
    """The latest rows are for test, those before them for validation.

    Rows of one time stay together, in the later split, which may thus be larger than its fraction.

    Args:
        column: Of times: numbers, or dates such as 2026-01-31. It reaches no model unless
            `is_input`.
    """

    def __init__(
        self,
        *,
        column: str,
        validation_fraction: float,
        test_fraction: float,
        is_input: bool = False,
    ) -> None:
        self.columns, self.is_input = (column,), is_input
        self.fractions = check_fractions(validation_fraction, test_fraction)

    def assign(self, fields: Fields, _keys: np.ndarray) -> np.ndarray:
        """The split of each row."""
        times = read_times(fields, self.columns[0])
        num_validation, num_test = count(len(times), self.fractions)
        ordered = np.sort(times)
        is_test = times >= ordered[-num_test]
        names = np.where(is_test, "test", "validation")
        earlier = ordered[ordered < ordered[-num_test]]
        if earlier.size:
            names[times < earlier[-min(num_validation, len(earlier))]] = "train"
        return names


class Given:
    """As a column says: its values are train, validation and test.

    Args:
        column: With the name of a split in each row. It reaches no model.
        group: A column whose values may stand in one split only, such as patients, if there is one.
            It reaches no model either.
    """

    def __init__(self, *, column: str, group: str | None = None) -> None:
        self.column, self.group = column, group
        self.columns = (column,) if group is None else (column, group)

    def assign(self, fields: Fields, _keys: np.ndarray) -> np.ndarray:
        """The split of each row."""
        return fields[self.column]


class Folds:
    """Cross-validation: of `num_folds` parts, one for test, the next one for validation.

    Over all folds, each row is for test once. Each class of the target is spread evenly.

    Args:
        num_folds: At least 3.
        fold: Which one is for test, from 0.
        group: A column whose values may stand in one fold only, such as patients; None has none.
            It reaches no model unless `is_input`.
    """

    def __init__(
        self,
        *,
        num_folds: int,
        fold: int,
        split_seed: int,
        group: str | None = None,
        is_input: bool = False,
    ) -> None:
        if num_folds < 3:
            raise StudyError(f"{PLACE}.num_folds={num_folds}: must be at least 3")
        if not 0 <= fold < num_folds:
            raise StudyError(f"{PLACE}.fold={fold}: must be from 0 to {num_folds - 1}")
        self.num_folds, self.fold, self.seed = num_folds, fold, split_seed
        self.group, self.is_input = group, is_input
        self.columns = () if group is None else (group,)

    def assign(self, fields: Fields, keys: np.ndarray) -> np.ndarray:
        """The split of each row."""
        folds = self.folds(fields, keys)
        names = np.full(len(folds), "train", dtype="<U10")
        names[folds == (self.fold + 1) % self.num_folds] = "validation"
        names[folds == self.fold] = "test"
        return names

    def folds(self, fields: Fields, keys: np.ndarray) -> np.ndarray:
        """The fold of each row; the same whichever of them is for test."""
        if self.group is not None:
            texts, inverse = groups_of(fields, self.group)
            return self._deal(draw(self.seed, texts)).take(inverse)
        folds, first = np.empty(len(keys), dtype=np.int64), 0
        for rows in rows_of_target(fields, len(keys)):
            folds[rows] = self._deal(draw(self.seed, hexadecimal(keys, rows)), first)
            first += len(rows)
        return folds

    def _deal(self, order: np.ndarray, first: int = 0) -> np.ndarray:
        """The fold of each item, dealt like cards in an order."""
        dealt = np.empty(len(order), dtype=np.int64)
        dealt[order] = (first + np.arange(len(order))) % self.num_folds
        return dealt


def check_fractions(validation: float, test: float) -> tuple[float, float]:
    """Both, if they leave something to train on.

    Raises:
        StudyError: they do not, or one is out of its range.
    """
    for name, value in {"validation": validation, "test": test}.items():
        if isinstance(value, (str, bool)) or not 0 < value < 1:
            raise StudyError(f"data.prepare.{name}_fraction={value}: must be between 0 and 1")
    if validation + test >= 1:
        raise StudyError(f"data.prepare.test_fraction={test}: leaves nothing to train on")
    return validation, test


def draw(seed: int, texts: Sequence[str]) -> np.ndarray:
    """An order of items, by the hash of the seed and each. Shape: [items]."""
    hashed = bytearray()
    for text in texts:
        hashed += hashlib.sha256(f"{seed} {text}".encode()).digest()
    return np.argsort(np.frombuffer(hashed, dtype="S32"), kind="stable")


def count(num_items: int, fractions: tuple[float, float]) -> tuple[int, ...]:
    """How many items are for validation and for test: at least one each."""
    return tuple(max(1, round(fraction * num_items)) for fraction in fractions)


def divide(order: np.ndarray, fractions: tuple[float, float]) -> np.ndarray:
    """The split of each item: the first ones in the order are for test, then for validation."""
    num_validation, num_test = count(len(order), fractions)
    names = np.full(len(order), "train", dtype="<U10")
    names[order[:num_test]] = "test"
    names[order[num_test : num_test + num_validation]] = "validation"
    return names


def hexadecimal(keys: np.ndarray, rows: np.ndarray) -> list[str]:
    """The hashes of some rows as text."""
    return [keys[row].tobytes().hex() for row in rows]


def rows_of_target(fields: Fields, num_rows: int) -> Iterator[np.ndarray]:
    """The rows of each class of an integer target; all rows where there is none."""
    if "target" in fields and np.issubdtype(fields["target"].dtype, np.integer):
        yield from rows_of_classes(fields["target"])
    else:
        yield np.arange(num_rows)


def rows_of_classes(values: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each value."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    yield from np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])


def groups_of(fields: Fields, column: str) -> tuple[list[str], np.ndarray]:
    """The groups as text, and which of them each row belongs to.

    Raises:
        StudyError: every row has a group of its own, so that nothing is grouped.
    """
    values, inverse = np.unique(fields[column], return_inverse=True)
    if len(values) == len(inverse):
        raise StudyError(f"{PLACE}: every row has another {column}, so there are no groups")
    return [str(value) for value in values], inverse.reshape(-1)


def read_times(fields: Fields, column: str) -> np.ndarray:
    """A column of times, so that they can be ordered.

    Raises:
        StudyError: it holds text that is no date.
    """
    values = fields[column]
    if values.dtype.kind not in "USO":
        return values
    for text in map(str, values):
        if not re.match(r"\d{4}-\d\d", text):  # 9 and 10 are in another order as text
            raise StudyError(f"{PLACE}: {column} {text[:40]!r} is no date such as 2026-01-31")
    try:
        return values.astype("datetime64[us]")
    except ValueError as error:
        raise StudyError(f"{PLACE}: {column} holds what is no date ({error})") from error


def check_columns(splitter: Splitter, fields: Fields) -> None:
    """Refuses columns that are not one value a row.

    Raises:
        StudyError: names the column, and the first row where it has no value.
    """
    for name in splitter.columns:
        require_column(name, fields)
        values = fields[name]
        if values.ndim != 1:
            raise StudyError(f"{PLACE}: field {name} is not one value a row")
        if (missing := is_missing(values)).any():
            raise StudyError(f"{PLACE}: row {int(missing.argmax()) + 1} has no {name}")


def is_missing(values: np.ndarray) -> np.ndarray:
    """Where a value is no number, no time or an empty text."""
    if values.dtype.kind in "US":
        return np.asarray(values == values.dtype.type())
    tests = {"f": np.isnan, "c": np.isnan, "m": np.isnat, "M": np.isnat}
    test = tests.get(values.dtype.kind)
    return np.zeros(values.shape, dtype=bool) if test is None else np.asarray(test(values))


def require_column(name: str, fields: Fields) -> None:
    """Refuses a column that is not among the fields.

    Raises:
        StudyError: names those that are.
    """
    if name not in fields:
        raise StudyError(f"{PLACE}: the reader gives no field {name}; it gives {', '.join(fields)}")


def split_only(splitter: Splitter) -> set[str]:
    """The fields that only the split reads: they reach no model."""
    return set() if getattr(splitter, "is_input", False) else {*splitter.columns} - {"target"}


def draw_splits(splitter: Splitter, fields: Fields, keys: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each split, in the order of the table.

    Raises:
        StudyError: a split is left without a row, a row without a split, or a group in two.
    """
    names = np.asarray(splitter.assign(fields, keys))
    if names.shape != (len(keys),):
        raise StudyError(f"{PLACE}: assigns {names.shape} rows, not {len(keys)}")
    wrong = ~np.isin(names, NAMES)
    if wrong.any():
        reason = f"{wrong.sum()} rows are for {str(names[wrong][0])[:40]!r}"
        raise StudyError(f"{PLACE}: {reason}; must be one of {', '.join(NAMES)}")
    splits = {name: np.flatnonzero(names == name) for name in NAMES}
    for name, rows in splits.items():
        if not rows.size:
            raise StudyError(f"raw data: too few instances: none is left for {name}")
    if getattr(splitter, "group", None) is not None:
        _check_groups(splitter.group, fields, names)  # type: ignore[attr-defined]
    return splits


def _check_groups(column: str, fields: Fields, names: np.ndarray) -> None:
    """Refuses a group that stands in two splits."""
    groups, inverse = groups_of(fields, column)
    stands_in = np.stack(
        [np.bincount(inverse[names == name], minlength=len(groups)) > 0 for name in NAMES]
    )
    shared = [groups[index] for index in np.flatnonzero(stands_in.sum(0) > 1)]
    if shared:
        first = ", ".join(shared[:5])
        reason = f"{len(shared)} of {len(groups)} values of {column} stand in several splits"
        raise StudyError(f"{PLACE}: {reason}: {first}; each must stand in one")

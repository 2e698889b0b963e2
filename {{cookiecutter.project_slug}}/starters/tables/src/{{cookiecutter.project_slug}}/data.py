"""Raw data to named arrays, and the columns of a table to numbers.

A reader returns a dictionary of arrays, an instance a row, one of them the `target`. To add a data
set: a reader here, a file in conf/data/ that names it under `prepare.read`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .harness.errors import StudyError
from .harness.files import read_text

Fields = Mapping[str, np.ndarray]  # name to values, an instance a row
NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
NAME = re.compile(r'[^\s"\\]+( [^\s"\\]+)*')  # a byte that is not UTF-8 was read as \xff or so


def read_cars(
    path: str | Path,
    *,
    numbers: Mapping[str, Sequence[float]],
    may_be_missing: Sequence[str],
    categories: Iterable[str],
    target: Mapping[str, Sequence[float]],
) -> dict[str, np.ndarray]:
    """Reads and validates a table: a header, then a row a car.

    Args:
        path: The table. Its columns are the numbers, the categories and the target, in this order.
        numbers: The columns of numbers, each with its smallest and its largest value.
        may_be_missing: Those of them in which a cell may be empty.
        categories: The columns of names.
        target: The column to predict, with its smallest and its largest value.

    Returns:
        The columns by name, and `target`: float64, nan where a value is missing, or text. Shape of
        each: [rows].

    Raises:
        StudyError: what is wrong, with the row (the header is row 1) and the column.
    """
    limits, (goal,) = {**numbers, **target}, target
    columns = _read_columns(Path(path), [*numbers, *categories, goal], limits, may_be_missing)
    fields = {
        name: np.array([float(cell or "nan") for cell in cells] if name in limits else cells)
        for name, cells in columns.items()
    }
    return {"target" if name == goal else name: values for name, values in fields.items()}


def _read_columns(
    path: Path,
    names: Sequence[str],
    limits: Mapping[str, Sequence[float]],
    may_be_missing: Sequence[str],
) -> dict[str, list[str]]:
    """The cells of each column, none of them wrong."""
    rows = [line.split(",") for line in read_text(path).rstrip("\n").split("\n")]
    for number, (name, text) in enumerate(zip(names, rows[0], strict=False), start=1):
        if text != name:
            raise StudyError(f"{path}: row 1: column {number} must be {name}, not {text[:40]!r}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise StudyError(f"{path}: row {number}: {len(row)} columns, not {len(names)}")
    for number, row in enumerate(rows[1:], start=2):
        for text, name in zip(row, names, strict=True):
            if wrong := _find_fault(text, limits.get(name), name in may_be_missing):
                raise StudyError(f"{path}: row {number}, column {name}: {wrong}")
    if len(rows) == 1:
        raise StudyError(f"{path}: has no rows")
    return {name: [row[index] for row in rows[1:]] for index, name in enumerate(names)}


def _find_fault(text: str, limits: Sequence[float] | None, may_be_missing: bool) -> str:
    """What is wrong with a cell; an empty text if nothing is."""
    if limits is None:
        return "" if NAME.fullmatch(text) else f"must be a name without quotes, not {text[:40]!r}"
    if not text and may_be_missing:
        return ""
    low, high = limits
    if NUMBER.fullmatch(text) and low <= float(text) <= high:
        return ""
    hint = "" if text else "; if it may be missing, add the column to data.may_be_missing"
    return f"must be a number from {low} to {high}, not {text[:40]!r}{hint}"


class Columns:
    """The columns of a table to numbers, by what the training rows say.

    A number is standardised: minus the mean, by the standard deviation. Where it is missing it
    becomes 0, the mean, and a column of its own says so. A category becomes an index. The columns
    share one row of indices, so that one embedding serves all: first those of the first column,
    its unknown category at their head, then those of the second.

    Args:
        numbers: The columns of numbers.
        may_be_missing: Those of them in which a value may be missing (nan).
        categories: The columns of categories, each with its largest number of categories.
        num_categories: All these together, and an unknown one of each column.
        min_rows: A category of fewer training rows counts as unknown: it has too few to learn from.

    Raises:
        ValueError: an argument does not fit the others.
    """

    def __init__(
        self,
        *,
        numbers: Iterable[str],
        may_be_missing: Sequence[str],
        categories: Mapping[str, int],
        num_categories: int,
        min_rows: int,
    ) -> None:
        self.numbers, self.sizes = list(numbers), dict(categories)
        if not self.numbers or not self.sizes:
            raise ValueError("numbers, categories: name at least one column of each")
        for name in set(may_be_missing) - set(self.numbers):
            raise ValueError(f"may_be_missing: {name} is no column of numbers")
        if num_categories != (needed := sum(self.sizes.values()) + len(self.sizes)):
            raise ValueError(f"num_categories={num_categories}: must be {needed}")
        self.may_be_missing, self.min_rows = list(may_be_missing), min_rows
        self.means: dict[str, float] = {}
        self.deviations: dict[str, float] = {}
        self.known: dict[str, list[str]] = {}

    def fit(self, fields: Fields) -> None:
        """Learns means, deviations and categories from the training rows.

        Raises:
            StudyError: a column is missing, never changes, or has too many categories.
        """
        for name in self.numbers:
            values = _column(fields, name, "numbers")
            seen = values[~np.isnan(values)]
            if seen.size == 0 or not seen.std():
                reason = "is the same in every training row, and says nothing"
                raise StudyError(f"data.numbers.{name}: {reason}; remove it")
            self.means[name], self.deviations[name] = float(seen.mean()), float(seen.std())
        for name, size in self.sizes.items():
            values, counts = np.unique(_column(fields, name, "categories"), return_counts=True)
            self.known[name] = [str(value) for value in values[counts >= self.min_rows]]
            if len(self.known[name]) > size:
                reason = f"the training rows have {len(self.known[name])} categories, not {size}"
                hint = f"write {name}: {len(self.known[name])}"
                raise StudyError(f"data.categories.{name}: {reason} at most; {hint}")

    def encode(self, fields: Fields) -> dict[str, np.ndarray]:
        """The columns of any rows as numbers.

        Returns:
            `numbers`, float32, [rows, columns of numbers + columns that may be missing];
            `categories`, int64, [rows, columns of categories]; `target`, float32, [rows], if it is
            among the fields.

        Raises:
            StudyError: a column is missing, or a value where none may be.
        """
        numbers = np.stack([*self._standardise(fields)], axis=1).astype(np.float32)
        categories = np.stack([*self._index(fields)], axis=1)
        encoded = {"numbers": numbers, "categories": categories}
        if "target" in fields:
            encoded["target"] = fields["target"].astype(np.float32)
        return encoded

    def _standardise(self, fields: Fields) -> Iterator[np.ndarray]:
        """Each column of numbers; then where each that may be missing is so, 1, else 0."""
        columns = {name: _column(fields, name, "numbers") for name in self.numbers}
        for name, values in columns.items():
            missing = np.isnan(values)
            if missing.any() and name not in self.may_be_missing:
                reason = f"row {int(missing.argmax()) + 1} has no {name}"
                raise StudyError(f"data.may_be_missing: {reason}; add {name}")
            yield np.where(missing, 0, (values - self.means[name]) / self.deviations[name])
        for name in self.may_be_missing:
            yield np.isnan(columns[name]).astype(np.float64)

    def _index(self, fields: Fields) -> Iterator[np.ndarray]:
        """Each column of categories as indices."""
        first = 0  # the index of the column's unknown category
        for name, size in self.sizes.items():
            known = {value: first + 1 + rank for rank, value in enumerate(self.known[name])}
            values = _column(fields, name, "categories")
            yield np.array([known.get(str(value), first) for value in values], dtype=np.int64)
            first += size + 1

    def state_dict(self) -> dict[str, Any]:
        """What was learnt, as JSON can hold it."""
        return {"means": self.means, "deviations": self.deviations, "known": self.known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.means, self.deviations = dict(state["means"]), dict(state["deviations"])
        self.known = dict(state["known"])


def _column(fields: Fields, name: str, kind: str) -> np.ndarray:
    """A field, which must be of this kind.

    Raises:
        StudyError: there is none, or it holds text where numbers belong.
    """
    if name not in fields:
        known = ", ".join(key for key in fields if key != "target")
        raise StudyError(f"data.{kind}.{name}: there is no such column; there are: {known}")
    if kind == "numbers" and not np.issubdtype(fields[name].dtype, np.number):
        raise StudyError(f"data.numbers.{name}: holds text; name it under data.categories")
    return fields[name]

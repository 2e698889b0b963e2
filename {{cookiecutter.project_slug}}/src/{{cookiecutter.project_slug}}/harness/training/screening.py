"""What is suspicious about a table and its splits, each in one line."""

from collections.abc import Iterator, Mapping

import numpy as np

from .splits import Fields, is_missing

MIN_ROWS = 20  # whole numbers of fewer rows may all differ by chance
NUM_SHOWN = 5  # names or rows that a line lists


class Screening:
    """Columns that never change, and columns that are another in each row; it is fed by chunks.

    A column is a field of one value a row, or a column of a field of two dimensions.
    """

    def __init__(self) -> None:
        self.num_rows = 0
        self.first: dict[str, np.ndarray] = {}  # of each field, the values of the first row
        self.constant: dict[str, np.ndarray] = {}  # of each field, whether a column is so far
        self.seen: dict[tuple[str, int], list[np.ndarray]] = {}  # of those that differ so far

    def add(self, fields: Fields) -> None:
        """Takes in further rows."""
        tables = {name: values for name, values in fields.items() if values.ndim <= 2}
        for name, values in tables.items():
            columns = values.reshape(len(values), -1)
            if not self.num_rows:
                self.first[name] = columns[0]
                self.constant[name] = np.ones(columns.shape[1], dtype=bool)
                self.seen |= {(name, index): [] for index in range(columns.shape[1])}
            first = self.first[name]
            both_missing = is_missing(columns) & is_missing(first)
            self.constant[name] &= ((columns == first) | both_missing).all(0)
        for name, index in list(self.seen):
            column = tables[name].reshape(len(tables[name]), -1)[:, index]
            if _all_differ(column):
                self.seen[name, index].append(_numbers(column))
            else:
                del self.seen[name, index]
        self.num_rows += len(next(iter(fields.values())))

    def warnings(self) -> Iterator[str]:
        """A line for each kind of column that says nothing about new rows."""
        constant = [
            (name, int(index))
            for name, is_constant in self.constant.items()
            for index in np.flatnonzero(is_constant)
        ]
        if constant:
            yield f"the same in every row, so without information: {self._list(constant)}"
        num_columns = sum(map(len, self.constant.values()))
        if num_columns == 1 or self.num_rows < MIN_ROWS:
            return  # a word may be all that there is
        unique = [key for key, parts in self.seen.items() if _all_differ(np.concatenate(parts))]
        if unique:
            yield f"different in every row, as a name or a row number is: {self._list(unique)}"

    def _list(self, columns: list[tuple[str, int]]) -> str:
        labels = [
            name if len(self.constant[name]) == 1 else f"{name}[{index}]" for name, index in columns
        ]
        return "columns " + shorten(labels)


def _all_differ(column: np.ndarray) -> bool:
    """Whether no two rows have the same value, and the values are names or whole numbers."""
    if column.dtype.kind == "f" and not (column == np.rint(column)).all():
        return False
    return column.dtype.kind in "iufUS" and len(np.unique(column)) == len(column)


def _numbers(column: np.ndarray) -> np.ndarray:
    """A number for each value, another for another value."""
    if column.dtype.kind in "US":
        return np.fromiter(map(hash, column.tolist()), dtype=np.int64, count=len(column))
    return column.copy()


def equal_across(inputs: np.ndarray, splits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each split but the first, the rows whose inputs are also in a split before it.

    Args:
        inputs: The hash of each row's inputs. Shape: [rows, 32].
        splits: The rows of each.
    """
    _, inverse = np.unique(inputs.view("S32")[:, 0], return_inverse=True)
    before = np.zeros(len(inputs), dtype=bool)
    found = {}
    for name, rows in splits.items():
        found[name] = rows[before[inverse[rows]]]
        before[inverse[rows]] = True
    return found


def shorten(items: list[str]) -> str:
    """The first of a list, and how many more there are."""
    more = len(items) - NUM_SHOWN
    return ", ".join(items[:NUM_SHOWN]) + (f" and {more} more" if more > 0 else "")

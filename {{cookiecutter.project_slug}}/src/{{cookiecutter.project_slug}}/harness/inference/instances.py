"""Instances as a person types them, JSON lines or CSV, to raw fields as a reader gives them."""

import contextlib
import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from ..configuration.building import read_fixture
from ..errors import StudyError, suggest
from ..study import ROOT
from ..training.preparation import gather_inputs

# of each kind of array: what a value is called, and as which kinds numpy may have read it
KINDS = {
    "f": ("a number", "iuf"),
    "i": ("a whole number", "iu"),
    "u": ("a whole number", "iu"),
    "b": ("true or false", "b"),
    "U": ("text in quotes", "U"),
}
TRUTHS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True)
class RawField:
    """A raw field of one instance, of this type and shape."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def may_be_absent(self) -> bool:
        """Whether there is a value for one that is missing: nan. The encoder may refuse it."""
        return self.dtype.kind == "f" and not self.shape

    @property
    def columns(self) -> list[str]:
        """Its columns in a CSV: `name`; of several values `name_0`, `name_1` and so on."""
        if not self.shape:
            return [self.name]
        return [f"{self.name}_{index}" for index in range(math.prod(self.shape))]

    def read(self, value: Any) -> np.ndarray:
        """A value as an array. Lists may be flat, or leave out axes of size 1.

        Raises:
            ValueError: it is no such value; the message says what it must be.
        """
        if value is None and self.may_be_absent:
            return np.array(math.nan, self.dtype)
        word, kinds = KINDS[self.dtype.kind]
        try:
            found = np.array(value)
        except ValueError as error:
            raise ValueError(f"field {self.name}: its rows differ in length") from error
        wanted = f"{math.prod(self.shape)} values, shape {list(self.shape)}" if self.shape else word
        if _thick(found.shape) not in (_thick(self.shape), _thick((math.prod(self.shape),))):
            raise ValueError(f"field {self.name}: has shape {list(found.shape)}, not {wanted}")
        if found.dtype.kind not in kinds:
            raise ValueError(f"field {self.name}: must be {word}, not {json.dumps(value)[:40]}")
        if self.dtype.kind == "U":
            return found.reshape(self.shape)
        with np.errstate(over="ignore"):
            made = found.astype(self.dtype).reshape(self.shape)
        is_same = np.isfinite(made).all() if self.dtype.kind == "f" else (made == found).all()
        if not is_same:
            raise ValueError(f"field {self.name}: {json.dumps(value)[:40]} is too large")
        return made

    def read_cells(self, cells: Iterable[str]) -> Any:
        """The cells of its columns as a value for `read`; an empty cell as a missing one.

        Raises:
            ValueError: a cell is no such value.
        """
        values = [self._read_cell(cell) for cell in cells]
        return values if self.shape else values[0]

    def _read_cell(self, cell: str) -> Any:
        word, _ = KINDS[self.dtype.kind]
        try:
            if self.dtype.kind == "U":
                return cell
            if self.dtype.kind == "b":
                return TRUTHS[cell.lower()]
            if not cell:
                return None
            value = float(cell) if self.dtype.kind == "f" else int(cell)
        except (KeyError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"field {self.name}: must be {word}, not {cell[:40]!r}")
        return value


def _thick(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def raw_fields(config: Mapping[str, Any]) -> dict[str, RawField]:
    """The raw fields of an instance, without the target, as the reader gives them of the fixture.

    Raises:
        StudyError: the fixture cannot be read, or has a field that is neither numbers nor text.
    """
    with contextlib.chdir(ROOT):
        found, _, splitter = read_fixture(config)
        fields = gather_inputs(found, splitter)
    known = {}
    for name, values in fields.items():
        if values.dtype.kind not in KINDS:
            raise StudyError(f"field {name}: is {values.dtype}, which cannot be typed")
        if name != "target":
            known[name] = RawField(name, values.dtype, values.shape[1:])
    return known


@dataclass
class Instance:
    """One line of the input: the values of its raw fields, or what is wrong with it."""

    line: int
    values: dict[str, np.ndarray] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)  # fields without a value, which became nan
    error: str = ""


def read_json(stream: IO[bytes], fields: Mapping[str, RawField]) -> Iterator[Instance]:
    """An instance a line: an object with the raw fields."""
    for line, content in enumerate(stream, start=1):
        try:
            yield _make(line, _parse(content), fields)
        except ValueError as error:
            yield Instance(line, error=" ".join(str(error).split()))


def _parse(content: bytes) -> dict[str, Any]:
    """The object in a line.

    Raises:
        ValueError: it is none.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError("is no object, such as " + '{"field": value}')
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def read_csv(stream: IO[bytes], fields: Mapping[str, RawField]) -> Iterator[Instance]:
    """An instance a row, below a header with the columns of the fields, in any order.

    Raises:
        StudyError: a column is unknown, or there twice.
    """
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="backslashreplace", newline="")
    rows = csv.reader(text)
    header = next(rows, [])
    known = [column for each in fields.values() for column in each.columns]
    for column in header:
        if column not in known:
            hint = suggest(column, known)
            raise StudyError(f"line 1: column {column[:40]}: is no input{hint}")
        if header.count(column) > 1:
            raise StudyError(f"line 1: column {column}: is there twice")
    for row, wrong in _rows_of(rows):
        try:
            if wrong or len(row) != len(header):
                raise ValueError(wrong or f"has {len(row)} columns, not {len(header)}")
            cells = dict(zip(header, row, strict=True))
            yield _make(rows.line_num, _gather(cells, fields), fields)
        except ValueError as error:
            yield Instance(rows.line_num, error=str(error))


def _rows_of(rows: Iterator[list[str]]) -> Iterator[tuple[list[str], str]]:
    """Each row of a CSV, or why it cannot be read."""
    while True:
        try:
            yield next(rows), ""
        except StopIteration:
            return
        except csv.Error as error:
            yield [], f"is not CSV ({error})"


def _gather(cells: Mapping[str, str], fields: Mapping[str, RawField]) -> dict[str, Any]:
    """The values of a row of a CSV, by field."""
    found = {}
    for name, each in fields.items():
        missing = [column for column in each.columns if column not in cells]
        if not missing:
            found[name] = each.read_cells([cells[column] for column in each.columns])
        elif len(missing) < len(each.columns):
            raise ValueError(f"field {name}: there is no column {missing[0]}")
    return found


def _make(line: int, given: Mapping[str, Any], fields: Mapping[str, RawField]) -> Instance:
    """An instance of what was given.

    Raises:
        ValueError: a field is unknown or missing, or its value is wrong.
    """
    for name in given:
        if name not in fields:
            raise ValueError(f"field {name[:40]}: there is no such field{suggest(name, [*fields])}")
    absent = [name for name in fields if given.get(name) is None]
    for name in absent:
        if not fields[name].may_be_absent:
            raise ValueError(f"field {name}: is missing")
    values = {name: each.read(given.get(name)) for name, each in fields.items()}
    return Instance(line, values, absent)

"""Rows that are more than memory holds: a reader yields them piece by piece.

They are kept in a temporary folder, so that the reader is asked once, and are read again from there
as often as preparing needs them.
"""

import io
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StudyError
from .splits import Fields

READ = "data.prepare.read"


@contextmanager
def kept(fields: Fields | Iterator[Fields], folder: Path) -> Iterator[Iterable[Fields]]:
    """The chunks of a reader, kept in a folder inside this context; all rows at once are one chunk.

    Raises:
        StudyError: there are none, or one is not as it must be.
    """
    if not isinstance(fields, Iterator):
        check_fields(fields, READ)
        yield [fields]
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield Chunks(fields, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Chunks:
    """Dictionaries of arrays, over which one iterates as often as one likes; one is in memory.

    Args:
        chunks: From a reader. All have the same fields; their texts may differ in width, and their
            numbers in type: each field gets the type of all its rows together.
        folder: A new one, where they are kept.

    Raises:
        StudyError: there are none, or one does not fit those before it.
    """

    def __init__(self, chunks: Iterator[Fields], folder: Path) -> None:
        self.folder, self.num_chunks = folder, 0
        self.types: dict[str, np.dtype[Any]] = {}
        for fields in chunks:
            self._keep(fields)
        if not self.num_chunks:
            raise StudyError(f"{READ}: the reader gives no rows")

    def _keep(self, fields: Fields) -> None:
        place = f"{READ}: chunk {self.num_chunks + 1}"
        check_fields(fields, place)
        if self.types and {*fields} != {*self.types}:
            known = ", ".join(self.types)
            raise StudyError(f"{place}: has the fields {', '.join(fields)}, the first {known}")
        part = self.folder / str(self.num_chunks)
        part.mkdir(parents=True)
        for name, values in fields.items():
            content = io.BytesIO()  # written to a file, np.save would not notice a full disk
            np.save(content, values)
            with open(part / f"{name}.npy", "wb") as file:
                file.write(content.getbuffer())
            self.types[name] = np.result_type(self.types.get(name, values.dtype), values.dtype)
        self.num_chunks += 1

    def __iter__(self) -> Iterator[Fields]:
        for number in range(self.num_chunks):
            part = self.folder / str(number)
            yield {
                name: np.load(part / f"{name}.npy").astype(kind, copy=False)
                for name, kind in self.types.items()
            }


def count_rows(fields: Fields) -> int:
    """How many rows they have."""
    return len(next(iter(fields.values())))


def check_fields(fields: Fields, place: str) -> None:
    """Refuses what is no dictionary of arrays with as many rows each, at least one.

    Raises:
        StudyError: names the field.
    """
    if not isinstance(fields, Mapping) or not {*fields} - {"target"}:
        raise StudyError(f"{place}: is no dictionary of arrays with an input")
    lengths = {}
    for name, values in fields.items():
        if not isinstance(values, np.ndarray) or not values.ndim or values.dtype == object:
            raise StudyError(f"{place}: field {name} is no array of numbers or text")
        lengths[name] = len(values)
    first, *others = lengths
    for name in others:
        if lengths[name] != lengths[first]:
            reason = f"field {name} has {lengths[name]} rows, and {first} {lengths[first]}"
            raise StudyError(f"{place}: {reason}")
    if not lengths[first]:
        raise StudyError(f"{place}: has no rows")

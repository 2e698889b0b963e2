"""Fields to splits: without duplicates, divided, in a form that loads by memory map.

What turns raw fields into tensors, such as a vocabulary or a scale, is fitted on the training rows.
Rows that memory does not hold come in chunks (chunks.py): of all rows together only their hashes,
their targets and the columns of the split are held.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import StudyError
from ..files import ENCODER, MANIFEST, hash_file, to_json, write_atomically
from .chunks import check_fields, count_rows, kept
from .screening import Screening, equal_across, shorten
from .splits import (
    ByTarget,
    Fields,
    Splitter,
    check_columns,
    draw_splits,
    require_column,
    split_only,
)

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """What turns raw fields into those of a batch. Its state is saved with each run.

    Of rows that come in chunks, `partial_fit` is given the training rows of each, instead of `fit`.
    """

    def fit(self, fields: Fields) -> None:
        """Learns from the training rows alone."""

    def encode(self, fields: Fields) -> Fields:
        """Numbers of the raw fields. New instances come without a `target`."""

    def state_dict(self) -> dict[str, Any]:
        """What was learnt, as JSON can hold it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""


@dataclass(frozen=True)
class Rows:
    """What is known of every row. Hashes have the shape [rows, 32]."""

    keys: np.ndarray  # of the fields, without the target
    inputs: np.ndarray  # without the columns of the split, too
    targets: np.ndarray | None  # the values, if one a row; otherwise their hashes
    columns: Fields  # those of the split, and the target if it is one value a row

    def __len__(self) -> int:
        return len(self.keys)


def prepare(
    folder: Path,
    fields: Fields | Iterator[Fields],
    parameters: Mapping[str, Any],
    raw: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
    encoder: Encoder | None = None,
    splitter: Splitter | None = None,
) -> None:
    """Drops duplicates, draws the splits and writes them, with their manifest, to a folder.

    Args:
        folder: Where the splits go; prepared data that are there are replaced.
        fields: What the reader returned; `target` among them where there is one. An iterator
            yields them by chunks.
        parameters: The values of `data.prepare`.
        raw: The SHA-256 of each file that was read, by its name in the study; or, as a reader of
            chunks reads later, a function that returns them.
        encoder: Is fitted on the training rows; None where the reader returns numbers.
        splitter: Divides the rows; None draws them by `split_seed`, `validation_fraction` and
            `test_fraction`.

    Raises:
        StudyError: the folder contains other files, or the fields cannot be split or encoded.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise StudyError(f"data.folder={folder}: contains other files; name a new folder")
    splitter = splitter or default_splitter(parameters)
    is_chunked = isinstance(fields, Iterator)
    if is_chunked and not callable(raw):
        hint = "hand preparation.prepare a function that returns the hashes of raw files"
        raise StudyError(f"stages/prepare.py: the reader has read nothing yet; {hint}")
    try:
        with kept(fields, folder.with_name(f".{folder.name}.raw")) as chunks:
            facts: dict[str, Any] = {"parameters": parameters}
            facts["raw"] = raw() if callable(raw) else raw or {}
            rows = scan(chunks, splitter)
            splits = split_rows(rows, splitter)
            facts["duplicates_dropped"] = dropped = len(rows) - sum(map(len, splits.values()))
            inputs = _Without(chunks, split_only(splitter))
            if encoder is not None:
                fit(encoder, inputs, splits["train"], is_chunked=is_chunked)
            write_prepared(folder, inputs, splits, facts, encoder)
    except OSError as error:
        raise StudyError(f"data.folder={folder}: cannot be written ({error})") from error
    sizes = ", ".join(f"{len(each)} {name}" for name, each in splits.items())
    log.info("%s: %s; %d duplicates dropped", folder, sizes, dropped)


def split_rows(rows: Rows, splitter: Splitter) -> dict[str, np.ndarray]:
    """The rows of each split, counted in the table, without duplicates.

    Raises:
        StudyError: two rows contradict each other, or they cannot be split.
    """
    unique = unique_rows(rows)
    columns = {name: values[unique] for name, values in rows.columns.items()}
    drawn = draw_splits(splitter, columns, rows.keys[unique])
    splits = {name: unique[places] for name, places in drawn.items()}
    _warn_of_leaks(rows, splits)
    return splits


def gather_inputs(found: Fields | Iterator[Fields], splitter: Splitter | None) -> Fields:
    """A few rows at once, without what only the split reads.

    Raises:
        StudyError: they are not as they must be, or lack a column of the split.
    """
    parts = [*found] if isinstance(found, Iterator) else [found]
    fields = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    check_fields(fields, "data.fixture")
    if splitter is None:
        return fields
    check_columns(splitter, fields)
    return {name: each for name, each in fields.items() if name not in split_only(splitter)}


def default_splitter(parameters: Mapping[str, Any]) -> Splitter:
    """What divides rows where `data.prepare.split` says nothing.

    Raises:
        StudyError: it says something.
    """
    if parameters.get("split") is not None:
        hint = "hand configuration.build_splitter(config) to preparation.prepare"
        raise StudyError(f"stages/prepare.py: ignores data.prepare.split; {hint}")
    names = ("split_seed", "validation_fraction", "test_fraction")
    return ByTarget(**{name: parameters[name] for name in names})


class _Without:
    """Chunks without the fields that reach no model."""

    def __init__(self, chunks: Iterable[Fields], hidden: set[str]) -> None:
        self.chunks, self.hidden = chunks, hidden

    def __iter__(self) -> Iterator[Fields]:
        for fields in self.chunks:
            yield {name: each for name, each in fields.items() if name not in self.hidden}


def scan(chunks: Iterable[Fields], splitter: Splitter) -> Rows:
    """Hashes every row, and warns of columns that say nothing about new ones.

    Raises:
        StudyError: a chunk is not as it must be, or lacks a column of the split.
    """
    keys, inputs, targets, screening = bytearray(), bytearray(), [], Screening()
    columns: dict[str, list[np.ndarray]] = {}
    hidden = split_only(splitter)
    for fields in chunks:
        for name in splitter.columns:
            require_column(name, fields)
        known = {name: each for name, each in fields.items() if name not in {*hidden, "target"}}
        if not known:
            raise StudyError("data.prepare.read: no input besides the columns of the split")
        keys += hash_rows(fields, {*fields} - {"target"})
        inputs += hash_rows(known, {*known}) if hidden else b""
        screening.add(known)
        for name in {*splitter.columns, "target"} & {*fields}:
            is_plain = name != "target" or fields[name].ndim == 1
            if is_plain:
                columns.setdefault(name, []).append(fields[name])
            else:
                targets.append(hash_rows(fields, {"target"}))
    for line in screening.warnings():
        log.warning("data.prepare.read: %s", line)
    together = {name: np.concatenate(parts) for name, parts in columns.items()}
    check_columns(splitter, together)
    return Rows(
        keys=_as_hashes(keys),
        inputs=_as_hashes(inputs if hidden else keys),
        targets=_as_hashes(b"".join(targets)) if targets else together.get("target"),
        columns=together,
    )


def hash_rows(fields: Fields, names: Iterable[str]) -> bytes:
    """The SHA-256 of these fields of each row, one after another."""
    arrays = [fields[name] for name in sorted(names)]
    digests = bytearray()
    for row in range(len(arrays[0])):
        content = b"".join(values[row].tobytes() for values in arrays)
        digests += hashlib.sha256(content).digest()
    return bytes(digests)


def _as_hashes(digests: bytes | bytearray) -> np.ndarray:
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)


def unique_rows(rows: Rows) -> np.ndarray:
    """The first row of each content, so that no two splits can share one.

    Raises:
        StudyError: two rows have the same inputs and different targets.
    """
    whole = rows.keys.view("S32")[:, 0]  # one value a row
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    if rows.targets is not None:
        differ = rows.targets[first[inverse]] != rows.targets
        differ = differ.any(1) if differ.ndim == 2 else differ
        # a target that is missing differs from itself
        places = np.flatnonzero(differ & (first[inverse] != np.arange(len(rows))))
        if len(places):
            _refuse_contradiction(rows, int(first[inverse[places[0]]]), int(places[0]))
    return np.sort(first)


def _refuse_contradiction(rows: Rows, known: int, row: int) -> None:
    assert rows.targets is not None
    values = "differ"
    if rows.targets.ndim == 1:
        values = f"are {rows.targets[known]} and {rows.targets[row]}"
    raise StudyError(
        f"raw data: instances {known + 1} and {row + 1} are equal, but their targets {values}; "
        "correct or remove one"
    )


def _warn_of_leaks(rows: Rows, splits: Mapping[str, np.ndarray]) -> None:
    """Names rows that a model cannot tell from rows of an earlier split."""
    found = {name: each for name, each in equal_across(rows.inputs, splits).items() if len(each)}
    if found:
        counts = ", ".join(f"{len(each)} of {name}" for name, each in found.items())
        numbers = shorten([str(row + 1) for each in found.values() for row in each])
        reason = "have the inputs of a row in an earlier split"
        log.warning("data.prepare.split: %s %s (rows %s)", counts, reason, numbers)


def fit(encoder: Encoder, chunks: Iterable[Fields], train: np.ndarray, *, is_chunked: bool) -> None:
    """Fits an encoder on the training rows, in one pass.

    Raises:
        StudyError: it cannot be fitted chunk by chunk.
    """
    learn = getattr(encoder, "partial_fit", None) if is_chunked else encoder.fit
    if learn is None:
        hint = "write partial_fit(fields), which is called with the training rows of each chunk"
        raise StudyError(f"data.prepare.encode: is fitted on all rows at once; {hint}")
    start = 0
    for fields in chunks:
        rows = _rows_within(train, start, fields)
        if len(rows):
            learn({name: values[rows] for name, values in fields.items()})
        start += count_rows(fields)


def _rows_within(rows: np.ndarray, start: int, fields: Fields) -> np.ndarray:
    """Those of the rows, in order, that are in a chunk, counted from its beginning."""
    end = start + count_rows(fields)
    return rows[np.searchsorted(rows, start) : np.searchsorted(rows, end)] - start


def encode(
    fields: Fields, train: list[int], encoder: Encoder | None
) -> tuple[Fields, dict[str, Any] | None]:
    """Every row as numbers, by what is fitted on the training rows; and its state.

    Raises:
        StudyError: a field holds no numbers.
    """
    if encoder is not None:
        fit(encoder, [fields], np.array(train), is_chunked=False)
    return _to_numbers(fields, encoder), None if encoder is None else encoder.state_dict()


def _to_numbers(fields: Fields, encoder: Encoder | None) -> Fields:
    """The fields of a batch.

    Raises:
        StudyError: a field holds no numbers, or the encoder gives more or fewer rows.
    """
    if encoder is not None:
        num_rows, fields = count_rows(fields), encoder.encode(fields)
        check_fields(fields, "data.prepare.encode")
        if count_rows(fields) != num_rows:
            raise StudyError(f"data.prepare.encode: {count_rows(fields)} rows of {num_rows}")
    for name, values in fields.items():
        if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
            hint = "data.prepare.encode names the class that makes numbers of it"
            raise StudyError(f"field {name}: is {values.dtype}, and no numbers; {hint}")
    return fields


class ArrayFile:
    """A .npy file that is written piece by piece, hashed meanwhile."""

    def __init__(self, path: Path, num_rows: int, like: np.ndarray) -> None:
        self.path, self.num_rows, self.like = path, num_rows, like
        self.num_written, self.digest = 0, hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            kind = np.lib.format.dtype_to_descr(like.dtype)
            shape = (num_rows, *like.shape[1:])
            header = {"descr": kind, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        self.digest.update(path.read_bytes())

    def append(self, values: np.ndarray) -> None:
        """Writes further rows; they are on the disk when this returns.

        Raises:
            StudyError: they do not fit those before them.
        """
        if (values.dtype, values.shape[1:]) != (self.like.dtype, self.like.shape[1:]):
            seen = f"is {values.dtype} of shape {list(values.shape[1:])} in one chunk"
            first = f"{self.like.dtype} of shape {list(self.like.shape[1:])} in the first"
            raise StudyError(f"field {self.path.stem}: {seen}, {first}")
        content = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        self.digest.update(content)
        self.num_written += len(values)
        with open(self.path, "ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def describe(self) -> dict[str, Any]:
        """Its size and its hash, for the manifest.

        Raises:
            StudyError: not all rows were written.
        """
        if self.num_written != self.num_rows:
            reason = f"has {self.num_written} rows in {self.path.parent.name}, not {self.num_rows}"
            raise StudyError(f"field {self.path.stem}: {reason}")
        size = self.path.stat().st_size
        return {"rows": self.num_rows, "size": size, "sha256": self.digest.hexdigest()}


def write_prepared(
    folder: Path,
    chunks: Iterable[Fields],
    splits: Mapping[str, np.ndarray],
    facts: Mapping[str, object],
    encoder: Encoder | None = None,
) -> None:
    """Writes `<split>/<field>.npy`, the state of the encoder and the manifest to a new folder.

    That folder then takes the place of the old one.
    """
    new, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    try:
        described: dict[str, Any] = _write_splits(new, chunks, splits, encoder)
        if encoder is not None:
            write_atomically(new / ENCODER, to_json(encoder.state_dict()))
            size = (new / ENCODER).stat().st_size
            described[ENCODER] = {"size": size, "sha256": hash_file(new / ENCODER)}
        write_atomically(new / MANIFEST, to_json({**facts, "files": described}))
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write_splits(
    new: Path,
    chunks: Iterable[Fields],
    splits: Mapping[str, np.ndarray],
    encoder: Encoder | None,
) -> dict[str, Any]:
    """Writes each field of each split; returns the description of each file."""
    files: dict[str, ArrayFile] = {}
    start = 0
    for fields in chunks:
        encoded = _to_numbers(fields, encoder)
        for split, members in splits.items():
            rows = _rows_within(members, start, fields)
            for name, values in encoded.items():
                path = f"{split}/{name}.npy"
                if path not in files:
                    files[path] = ArrayFile(new / path, len(members), values)
                files[path].append(values[rows])
        start += count_rows(fields)
    return {path: file.describe() for path, file in files.items()}

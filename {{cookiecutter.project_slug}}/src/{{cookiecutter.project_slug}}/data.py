"""Splits to batches: dictionaries of named tensors, one of them the `target`.

A prepared folder (stages/prepare.py makes it) holds a file `<split>/<field>.npy` for each field,
with an instance a row, read by memory map, so it may be larger than memory; and a manifest of
what it was made from and of each file's size and hash.
"""

import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from . import StudyError
from .files import hash_file, write_atomically

Batch = dict[str, Tensor]
SPLITS = ("train", "validation", "test")


def read_digits(
    path: str | Path, *, image_shape: Sequence[int], num_classes: int, max_value: int
) -> dict[str, np.ndarray]:
    """Reads and validates a table of grey images: a column a pixel, row by row, then the class.

    Returns:
        `image`, float32 in [0, 1], shape [rows, *image_shape], and `target`, int64, shape [rows].

    Raises:
        StudyError: what is wrong, with the row (the header is row 1) and the column.
    """
    path = Path(path)
    _, height, width = image_shape
    columns = [f"pixel_{row}_{column}" for row in range(height) for column in range(width)]
    limits = [max_value] * len(columns) + [num_classes - 1]
    columns.append("digit")
    rows = _read_table(path, columns)
    values = np.empty((len(rows), len(columns)), dtype=np.int64)
    for number, row in enumerate(rows):
        for index, (text, limit) in enumerate(zip(row, limits, strict=True)):
            if not (text.isascii() and text.isdigit() and int(text) <= limit):
                raise StudyError(
                    f"{path}: row {number + 2}, column {columns[index]}: "
                    f"must be a whole number from 0 to {limit}, not {text!r}"
                )
            values[number, index] = int(text)
    missing = sorted(set(range(num_classes)) - set(values[:, -1].tolist()))
    if missing:
        raise StudyError(f"{path}: column digit: no row is of class {missing[0]}")
    image = (values[:, :-1] / max_value).astype(np.float32).reshape(-1, *image_shape)
    return {"image": image, "target": values[:, -1].copy()}


def _read_table(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """The rows below the header, each as long as the header, which must be `columns`."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError as error:
        raise StudyError(f"{path}: there is no such file; type: git checkout {path}") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as a table ({error})") from error
    for index, name in enumerate(columns):
        if header[index : index + 1] != [name]:
            raise StudyError(f"{path}: row 1: column {index + 1} must be {name}")
    for number, row in enumerate([header, *rows], start=1):
        if len(row) != len(columns):
            raise StudyError(f"{path}: row {number}: {len(row)} columns, not {len(columns)}")
    return rows


class Split(Dataset[Batch]):
    """One split of a prepared folder. Indexed by a list of rows, it gives their batch at once."""

    def __init__(self, folder: str | Path, name: str) -> None:
        self.folder, self.name = folder, name
        paths = sorted((Path(folder) / name).glob("*.npy"))
        if not paths:
            raise StudyError(f"{folder}/{name}: no prepared data; type: dvc repro prepare")
        # mode c: torch takes no array that is read-only, and what is written never reaches the file
        self.fields = {path.stem: torch.from_numpy(np.load(path, mmap_mode="c")) for path in paths}

    def __reduce__(self) -> tuple[Any, ...]:
        # a worker process opens the files itself: it is not sent the data
        return Split, (self.folder, self.name)

    def __len__(self) -> int:
        return len(self.fields["target"])

    def __getitem__(self, index: np.ndarray | Sequence[int]) -> Batch:
        rows = torch.as_tensor(index)  # indexing copies just these out of the map
        return {name: values[rows] for name, values in self.fields.items()}


def batches(
    split: Dataset[Batch], order: np.ndarray, *, batch_size: int, num_workers: int = 0
) -> Iterator[Batch]:
    """Yields the rows of `order` by `batch_size`; the last batch may be smaller.

    The same batches for any number of worker processes. None at all is fastest for rows that
    only have to be copied: workers pay when a row costs more than a millisecond to make.
    """
    chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if num_workers and chunks:
        # each "item" of the loader is a whole batch: nothing is collated
        yield from DataLoader(split, sampler=chunks, batch_size=None, num_workers=num_workers)
    else:
        for chunk in chunks:
            yield split[chunk]


class RandomShift:
    """Moves each image by up to `max_shift` pixels each way, filling with zeros. Training only."""

    def __init__(self, *, max_shift: int) -> None:
        if max_shift < 0:
            raise ValueError(f"max_shift={max_shift}: must be at least 0")
        self.max_shift = max_shift

    def __call__(self, batch: Batch) -> Batch:
        """`image` [batch, channels, height, width] moved; the other fields as they are."""
        image, shift = batch["image"], self.max_shift
        padded = torch.nn.functional.pad(image, (shift, shift, shift, shift))
        # one corner an instance: windows is [batch, channels, 2s+1, 2s+1, height, width]
        windows = padded.unfold(2, image.shape[2], 1).unfold(3, image.shape[3], 1)
        top, left = torch.randint(0, 2 * shift + 1, (2, len(image)), device=image.device)
        moved = windows[torch.arange(len(image), device=image.device), :, top, left]
        return {**batch, "image": moved}


def check_prepared(folder: str | Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Checks prepared data against their manifest and against the parameters of this run.

    A file's hash is taken once, and again when its size or time of change differs.

    Args:
        folder: The prepared folder.
        parameters: What `data.prepare` says now.

    Returns:
        The hash of each file, by its name in the folder.

    Raises:
        StudyError: the data are missing, altered, or were prepared with other parameters.
    """
    folder = Path(folder)
    mend = "type: dvc repro prepare"
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        made, files = manifest["parameters"], manifest["files"]
    except FileNotFoundError as error:
        raise StudyError(f"{folder}: no prepared data; {mend}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{folder}/manifest.json: cannot be read ({error}); {mend}") from error
    _compare_parameters(folder, made, parameters)
    seen_path = folder.with_name(folder.name + ".seen.json")
    try:
        seen = json.loads(seen_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        seen = {}
    now = {}
    for name, file in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file["size"]:
            raise StudyError(f"{path}: {'altered' if path.exists() else 'missing'}; {mend}")
        stamp = [file["size"], path.stat().st_mtime_ns]
        known = seen.get(name, [])
        now[name] = known if known[:2] == stamp else [*stamp, hash_file(path)]
        if now[name][2] != file["sha256"]:
            raise StudyError(f"{path}: altered; {mend}")
    if now != seen:
        with suppress(StudyError):  # data mounted read-only are hashed each time
            write_atomically(seen_path, json.dumps(now).encode())
    return {name: file["sha256"] for name, file in files.items()}


def _compare_parameters(folder: Path, made: Any, asked: Any, path: str = "data.prepare") -> None:
    """Names the first parameter whose value is not the one that the data were made with."""
    if isinstance(made, Mapping) and isinstance(asked, Mapping):
        for key in [*asked, *(key for key in made if key not in asked)]:
            _compare_parameters(folder, made.get(key), asked.get(key), f"{path}.{key}")
    elif made != asked:
        raise StudyError(
            f"{path}={asked}: {folder} was made with {made}; to make it anew, set this in "
            f"conf/data/ and type: dvc repro prepare (or: python stages/prepare.py {path}={asked})"
        )

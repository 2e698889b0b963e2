"""Prepared splits to batches: dictionaries of named tensors, one of them the `target`.

A prepared folder (see preparation.py) contains a file `<split>/<field>.npy` for each field, with an
instance a row, read by memory map, so it may be larger than memory; and a manifest of what it was
made from and of each file's size and hash.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import StudyError
from ..files import MANIFEST, hash_file, write_atomically

Batch = dict[str, Tensor]
SPLITS = ("train", "validation", "test")
PREPARE_AGAIN = "type: dvc repro prepare"


class Split(Dataset[Batch]):
    """One split of a prepared folder. Indexed by a list of rows, it gives their batch at once."""

    def __init__(self, folder: str | Path, name: str) -> None:
        self.folder, self.name = folder, name
        paths = sorted((Path(folder) / name).glob("*.npy"))
        if not paths:
            raise StudyError(f"{folder}/{name}: no prepared data; {PREPARE_AGAIN}")
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


def verify_prepared(folder: str | Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Compares prepared data with their manifest and with the parameters of this run.

    A file is hashed once, and again when its size or modification time differs.

    Args:
        folder: The prepared folder.
        parameters: The values of `data.prepare`.

    Returns:
        The SHA-256 of each file, by its name in the folder.

    Raises:
        StudyError: the data are missing, altered, or were prepared with other parameters.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    _compare_parameters(folder, manifest["parameters"], parameters)
    cache_path = folder.with_name(folder.name + ".seen.json")
    try:
        cached = json.loads(cache_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        cached = {}
    hashed = {}
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["size"]:
            raise StudyError(
                f"{path}: {'altered' if path.exists() else 'missing'}; {PREPARE_AGAIN}"
            )
        stamp = [expected["size"], path.stat().st_mtime_ns]
        known = cached.get(name, [])
        hashed[name] = known if known[:2] == stamp else [*stamp, hash_file(path)]
        if hashed[name][2] != expected["sha256"]:
            raise StudyError(f"{path}: altered; {PREPARE_AGAIN}")
    if hashed != cached:
        with suppress(StudyError):  # data mounted read-only are hashed each time
            write_atomically(cache_path, json.dumps(hashed).encode())
    return {name: expected["sha256"] for name, expected in manifest["files"].items()}


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        return {"parameters": manifest["parameters"], "files": manifest["files"]}
    except FileNotFoundError as error:
        raise StudyError(f"{folder}: no prepared data; {PREPARE_AGAIN}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder}/{MANIFEST}: cannot be read ({error}); {PREPARE_AGAIN}"
        raise StudyError(message) from error


def _compare_parameters(folder: Path, made: Any, asked: Any, path: str = "data.prepare") -> None:
    """Names the first parameter whose value is not the one that the data were made with."""
    if isinstance(made, Mapping) and isinstance(asked, Mapping):
        for key in [*asked, *(key for key in made if key not in asked)]:
            _compare_parameters(folder, made.get(key), asked.get(key), f"{path}.{key}")
    elif made != asked:
        command = f"dvc repro prepare (or: python stages/prepare.py {path}={asked})"
        raise StudyError(
            f"{path}={asked}: {folder} was made with {made}; to prepare the data again, set this "
            f"in conf/data/ and type: {command}"
        )

"""Prepared splits to batches: dictionaries of named tensors, one of them the `target`.

A prepared folder (see preparation.py) contains a file `<split>/<field>.npy` for each field, with an
instance a row, read by memory map, so it may be larger than memory; the state of what was fitted on
the training rows, if anything; and a manifest of what it was made from and of each file's size and
hash.
"""

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import StudyError
from ..files import hash_file, read_manifest, write_atomically
from .determinism import mix, permutation
from .memory import open_array

Batch = dict[str, Tensor]
SPLITS = ("train", "validation", "test")
PREPARE = "python stages/prepare.py"


class Split(Dataset[Batch]):
    """One split of a prepared folder. Indexed by a list of rows, it gives their batch at once.

    Args:
        folder: The prepared folder.
        name: `train`, `validation` or `test`.
        padding: The values of `data.padding`: the `fields` with a row's length on their second
            axis, and the `mask` that tells how much of it counts, are cut to the longest row of
            each batch; `bucket_size` batches at a time are sorted by length. None cuts nothing.

    Raises:
        StudyError: there are no prepared data.
    """

    def __init__(
        self, folder: str | Path, name: str, padding: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.name, self.padding = folder, name, padding
        paths = sorted((Path(folder) / name).glob("*.npy"))
        if not paths:
            raise StudyError(f"{folder}/{name}: no prepared data; type: {PREPARE} data=NAME")
        self.fields = {path.stem: torch.from_numpy(open_array(path)) for path in paths}

    def __reduce__(self) -> tuple[Any, ...]:
        # a worker process opens the files itself: it is not sent the data
        return Split, (self.folder, self.name, self.padding)

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    def __getitem__(self, index: np.ndarray | Sequence[int]) -> Batch:
        rows = torch.as_tensor(index)  # indexing copies just these out of the map
        batch = {name: values[rows] for name, values in self.fields.items()}
        return batch if self.padding is None else cut_padding(batch, self.padding)

    def order(self, *, seed: int, epoch: int, batch_size: int) -> np.ndarray:
        """The rows of an epoch, each once, as a function of seed and epoch. Shape: [rows]."""
        order = permutation(len(self), seed=seed, epoch=epoch)
        bucket_size = (self.padding or {}).get("bucket_size")
        if self.padding is None or bucket_size is None:
            return order
        lengths = self.fields[self.padding["mask"]].sum(1).numpy()
        return sort_in_buckets(order, lengths, batch_size, bucket_size, seed=mix(seed, epoch))


def order_of(split: Dataset[Batch], *, seed: int, epoch: int, batch_size: int) -> np.ndarray:
    """The rows of an epoch, each once; a data set that has no order of its own is shuffled."""
    if isinstance(split, Split):
        return split.order(seed=seed, epoch=epoch, batch_size=batch_size)
    return permutation(len(split), seed=seed, epoch=epoch)  # type: ignore[arg-type]


def cut_padding(batch: Batch, padding: Mapping[str, Any]) -> Batch:
    """A batch whose padded fields, and their mask, are as long as its longest row."""
    used = batch[padding["mask"]].any(0).nonzero()
    length = int(used.max()) + 1 if len(used) else 1
    names = {padding["mask"], *padding["fields"]}
    return {name: each[:, :length] if name in names else each for name, each in batch.items()}


def sort_in_buckets(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, bucket_size: int, *, seed: int
) -> np.ndarray:
    """Sorts so many batches at a time by length, so that a batch holds rows of nearly one length.

    The full batches then come in an order drawn by the seed; a last one that is smaller stays last.
    """
    size = batch_size * bucket_size
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    order = np.concatenate([chunk[np.argsort(lengths[chunk], kind="stable")] for chunk in chunks])
    num_full = len(order) // batch_size
    full, rest = order[: num_full * batch_size], order[num_full * batch_size :]
    shuffled = full.reshape(num_full, batch_size)[permutation(num_full, seed=seed, epoch=0)]
    return np.concatenate([shuffled.reshape(-1), rest])


def batches(
    split: Dataset[Batch],
    order: np.ndarray,
    *,
    batch_size: int,
    num_workers: int = 0,
    part_of: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Iterator[Batch]:
    """Yields the rows of `order` by `batch_size`; the last batch may be smaller.

    Of each batch it reads the part that `part_of` chooses: all, unless told otherwise.

    The same batches for any number of worker processes. None at all is fastest for rows that
    only have to be copied: workers pay when a row costs more than a millisecond to make.
    """
    starts = range(0, len(order), batch_size)
    chunks = [part_of(order[start : start + batch_size]) for start in starts]
    if num_workers and chunks:
        # each "item" of the loader is a whole batch: nothing is collated
        loader = DataLoader(split, sampler=chunks, batch_size=None, num_workers=num_workers)
        with _stop_signals_blocked():
            loaded = iter(loader)
        yield from loaded
    else:
        for chunk in chunks:
            yield split[chunk]


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Processes that are started in here never get SIGTERM or Ctrl-C: the run decides when to end.

    A scheduler signals every process of a job. If the workers died of it, torch would raise an
    error out of whatever the run is doing, such as writing a checkpoint. They end with the run,
    and within seconds where it was killed.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def verify_prepared(
    folder: str | Path, parameters: Mapping[str, Any], command: str = PREPARE
) -> dict[str, str]:
    """Compares prepared data with their manifest and with the parameters of this run.

    A file is hashed once, and again when its size or modification time differs.

    Args:
        folder: The prepared folder.
        parameters: The values of `data.prepare`.
        command: What prepares these data, for messages.

    Returns:
        The SHA-256 of each file, by its name in the folder.

    Raises:
        StudyError: the data are missing, altered, or were prepared with other parameters.
    """
    folder, hint = Path(folder), f"type: {command}"
    manifest = read_manifest(folder, hint)
    _compare_parameters(folder, manifest["parameters"], parameters, hint)
    cache_path = folder.with_name(folder.name + ".seen.json")
    try:
        cached = json.loads(cache_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        cached = {}
    hashed = {}
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["size"]:
            raise StudyError(f"{path}: {'altered' if path.exists() else 'missing'}; {hint}")
        stamp = [expected["size"], path.stat().st_mtime_ns]
        known = cached.get(name, [])
        hashed[name] = known if known[:2] == stamp else [*stamp, hash_file(path)]
        if hashed[name][2] != expected["sha256"]:
            raise StudyError(f"{path}: altered; {hint}")
    if hashed != cached:
        with suppress(StudyError):  # data mounted read-only are hashed each time
            write_atomically(cache_path, json.dumps(hashed).encode())
    return {name: expected["sha256"] for name, expected in manifest["files"].items()}


def _compare_parameters(
    folder: Path, made: Any, asked: Any, hint: str, path: str = "data.prepare"
) -> None:
    """Names the first parameter whose value is not the one that the data were made with."""
    if isinstance(made, Mapping) and isinstance(asked, Mapping):
        for key in [*asked, *(key for key in made if key not in asked)]:
            _compare_parameters(folder, made.get(key), asked.get(key), hint, f"{path}.{key}")
    elif made != asked:
        raise StudyError(f"{path}={asked}: {folder} was made with {made}; {hint}")

"""Which files of the study a run reads: it may depend on any of them.

Code, configuration and prepared data have hashes of their own; every other file is an input,
besides those of results/, which are made of runs.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..files import MANIFEST, hash_file, hash_files

# What has a hash of its own in the record, or is made of runs.
UNWATCHED = (
    *(".dvc", ".git", ".venv", "conf", "dvc.lock", "pyproject.toml", "requirements.lock"),
    *("results", "run.py"),
)
CODE = (".py", ".pyc", ".pyi", ".typed")  # of src/ and stages/: see code.py
ENVIRONMENT = f"{sys.prefix}{os.sep}"  # thousands of files, which installed.py looks after

_watched: list[Path] = []  # the study's folder, once it is watched
_ignored: list[bool] = []  # not empty while the harness hashes files
_read: set[str] = set()  # every file below it that this process has opened to read
_own: set[Path] = set()  # the folders of the runs that this process does
_of_workers: list[tuple[int, IO[bytes]]] = []  # this process, and where its workers note theirs


def watch_reads(root: Path) -> None:
    """From now on, notes which files of the study this process opens to read."""
    if not _watched:
        # processes that load batches are forked from this one, and share the open file
        _of_workers.append((os.getpid(), tempfile.TemporaryFile(buffering=0)))
        sys.addaudithook(_note_read)
    if root not in _watched:
        _watched.append(root)


@contextmanager
def reads_ignored() -> Iterator[None]:
    """Notes nothing in here: what the harness reads in order to hash it is no input of the run."""
    _ignored.append(True)
    try:
        yield
    finally:
        _ignored.pop()


def forget_read(path: str | Path) -> None:
    """Forgets a file that was read for a check: it cannot change a number, so it is no input."""
    _read.discard(os.path.abspath(path))


def _note_read(event: str, arguments: tuple[Any, ...]) -> None:
    """Called by Python for each audit event; only `open` matters here."""
    if event != "open" or _ignored or not isinstance(arguments[0], (str, bytes, Path)):
        return
    name, mode, flags = arguments
    if not ("w" in (mode or "") or "a" in (mode or "") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)):
        path = os.path.abspath(os.fsdecode(name))
        if path in _read or path.startswith(ENVIRONMENT):
            return
        if any(path.startswith(f"{root}{os.sep}") for root in _watched):
            _read.add(path)
            for process, file in _of_workers:
                if os.getpid() != process:
                    file.write(os.fsencode(path) + b"\0")


def _read_by_workers() -> set[str]:
    """Every file that a worker process has opened to read."""
    noted = b""
    for _, file in _of_workers:
        file.seek(0)
        noted += file.read()
    return {os.fsdecode(path) for path in noted.split(b"\0") if path}


def hash_inputs(root: Path, known: Mapping[str, str], own: Path) -> dict[str, str]:
    """The SHA-256 of what was read in the study so far, besides what has a hash of its own.

    That is its code, its configuration, and prepared data. What compiled code reads is not noticed.

    Args:
        root: The study's folder.
        known: A file that is in it keeps the hash that it has there.
        own: The folder of the run, which is no input; nor is that of an earlier one of a sweep.
    """
    _own.add(root / own)
    skipped = [*(root / name for name in UNWATCHED), *_own]
    noted = map(Path, sorted(_read | _read_by_workers()))
    paths = [path for path in noted if _is_input(root, path, skipped)]
    new = [path for path in paths if path.relative_to(root).as_posix() not in known]
    return {**known, **hash_files(root, new)}


def _is_input(root: Path, path: Path, skipped: list[Path]) -> bool:
    """Whether a file is neither code, nor prepared data, nor a trace of how files are written."""
    if not path.is_relative_to(root) or any(path.is_relative_to(each) for each in skipped):
        return False
    hidden = path.name == ".lock" or path.suffix == ".tmp" or "__pycache__" in path.parts
    is_code = path.suffix in CODE and path.relative_to(root).parts[0] in ("src", "stages")
    return not (hidden or is_code or _is_prepared(path)) and path.is_file()


def changed_inputs(root: Path, known: Mapping[str, str]) -> list[str]:
    """The files that a run read (`known`, with their hashes) and that have changed since."""
    with reads_ignored():
        return [
            name
            for name, before in known.items()
            if not (root / name).is_file() or hash_file(root / name) != before
        ]


def _is_prepared(path: Path) -> bool:
    """Whether a file belongs to prepared data: prepared/<split>/<field>.npy, or what is beside."""
    folders = list(path.parents)[:2]
    manifests = [folder / MANIFEST for folder in folders]
    return path.name.endswith(".seen.json") or any(each.is_file() for each in manifests)

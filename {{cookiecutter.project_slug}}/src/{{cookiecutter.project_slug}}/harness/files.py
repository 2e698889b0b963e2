"""Files that are complete or absent, their texts and their hashes."""

import gzip
import hashlib
import json
import os
import platform
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import StudyError

MANIFEST = "manifest.json"  # of a folder of prepared data
ENCODER = "encoder.json"  # what was fitted on its training rows; a copy is in each run's folder


def read_text(path: Path) -> str:
    """A text, packed (.gz) or not. A byte that is not UTF-8 becomes `\\xff` or so.

    Raises:
        StudyError: it cannot be read; the message says what restores it.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="backslashreplace") as file:
            return str(file.read())
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        restore = f"to restore it, type: git checkout {path}"
        hint = "name a file" if path.is_dir() else restore
        raise StudyError(f"{path}: cannot be read ({reason}); {hint}") from error


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Writes a file that is complete or absent, even if the machine dies in between.

    Raises:
        StudyError: it cannot be written; what was there before is unchanged.
    """
    temporary = temporary_path(path)
    remove_stale(path.parent)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StudyError(f"{path}: cannot be written ({error.strerror})") from error


def temporary_path(path: Path) -> Path:
    """Where this process writes a file before it gets its name; see `remove_stale`."""
    return path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.tmp")


def remove_stale(folder: Path) -> None:
    """Removes the temporary files in a folder that killed processes of this machine have left."""
    for path in folder.glob(".*.tmp"):
        found = re.fullmatch(rf"\..*\.{re.escape(platform.node())}-(\d+)\.tmp", path.name)
        if found and not _is_running(int(found[1])):
            with suppress(OSError):
                path.unlink()


def _is_running(process: int) -> bool:
    if os.name == "nt":  # there is no signal that does nothing
        return True
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def to_json(value: Any) -> bytes:
    """JSON as a person reads it: indented, one key a line, a newline at the end."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(root: Path, paths: Sequence[Path]) -> dict[str, str]:
    """The SHA-256 of each file, by its name relative to `root`, in the order of the names."""
    return {path.relative_to(root).as_posix(): hash_file(path) for path in sorted(paths)}


def read_manifest(folder: Path, hint: str) -> dict[str, Any]:
    """What prepared data were made with, and the size and hash of each file.

    Raises:
        StudyError: there are none; the message ends with the hint.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        return {"parameters": manifest["parameters"], "files": manifest["files"]}
    except FileNotFoundError as error:
        raise StudyError(f"{folder}: no prepared data; {hint}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{folder}/{MANIFEST}: cannot be read ({error}); {hint}") from error

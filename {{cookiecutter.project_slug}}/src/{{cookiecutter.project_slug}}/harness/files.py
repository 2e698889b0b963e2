"""Files that are complete or absent, and their hashes."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import StudyError

MANIFEST = "manifest.json"  # of a folder of prepared data


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is complete or absent, even if the machine dies in between.

    Raises:
        StudyError: it cannot be written; what was there before is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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

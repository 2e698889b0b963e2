"""Weights and checkpoints: files that are verified by their names and contain no code."""

import contextlib
import hashlib
import io
import logging
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import StudyError
from ..files import hash_file, to_json, write_atomically
from .results import METRICS, RESULTS, write_history, write_metrics

log = logging.getLogger(__name__)
# what torch.load raises of a file that it did not write
UNREADABLE = (
    *(OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError, AssertionError),
    *(AttributeError, struct.error, pickle.UnpicklingError),
)


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint, and removes all others but the previous one.

    Its name contains its step and the hash of its content, so a truncated or corrupt file is
    recognised.
    """
    content = to_bytes(state)
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = folder / f"checkpoint-{state['step']:08d}-{digest}.pt"
    write_atomically(path, content)
    others = [other for other in list_checkpoints(folder) if other != path]
    earlier = [other for other in others if other.name[:19] <= path.name[:19]]
    for other in others:  # one of a later step was corrupt, or the run would not be here
        if other not in earlier[:1] and other.is_file():
            other.unlink(missing_ok=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    paths = folder.glob("checkpoint-*.pt")
    return sorted(paths, key=lambda path: (path.name[:19], path.stat().st_mtime_ns), reverse=True)


def load_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest intact checkpoint in a folder, or None; warns of each corrupt one."""
    for path in list_checkpoints(folder):
        with contextlib.suppress(OSError):  # what cannot be read is corrupt too
            if hash_file(path)[:16] == path.stem.rpartition("-")[2]:
                return path, load_weights(path)
        log.warning("%s: is truncated or corrupt; trying the previous checkpoint", path)
    return None


def restore_results(folder: Path, record: Mapping[str, Any]) -> bool:
    """Writes the missing results of a finished run again, from its last checkpoint.

    DVC removes a stage's outputs before it runs its command.

    Returns:
        Whether all results are there, with the hashes that the record gives.
    """
    results = {name: record["files"][name] for name in RESULTS}
    if hashlib.sha256(to_json(record["metrics"])).hexdigest() != results[METRICS]:
        log.warning("%s: its record was altered after the run; running it again", folder)
        return False
    missing = [name for name in results if not (folder / name).is_file()]
    found = load_checkpoint(folder) if missing else None
    if missing and found is None:
        return False
    if found is not None:
        state = found[1]
        weights = state["model"] if state["best"] is None else state["best"]
        write_history(folder, state["history"])
        write_atomically(folder / "best.pt", to_bytes(weights))
        write_metrics(folder, record["metrics"])
    for name, known in results.items():
        if hash_file(folder / name) != known:
            log.warning("%s: was altered after the run; running it again", folder / name)
            return False
    return True


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """Tensors and plain values as `torch.load` reads them; the same content gives the same bytes.

    Tensors are those of the CPU, so that any machine can read them.
    """
    buffer = io.BytesIO()  # torch would write a file's name into the file, a temporary one's too
    torch.save(_on_cpu(dict(state)), buffer)
    return buffer.getvalue()


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_on_cpu(item) for item in value]
    return value


def load_weights(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Loads tensors and plain values, never code.

    Raises:
        StudyError: the file is missing, corrupt, or contains anything else.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise StudyError(f"{path}: there is no such checkpoint") from error
    except UNREADABLE as error:
        reason = str(error).strip().partition(". ")[0].splitlines() or ["it is empty"]
        raise StudyError(f"{path}: not a readable checkpoint ({reason[0]})") from error
    if not isinstance(state, dict):
        raise StudyError(f"{path}: not a checkpoint of a study")
    return state

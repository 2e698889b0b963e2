"""What a run is known by.

Two runs with the same identity compute the same numbers: it consists of the configuration, the
code, the data, the locked environment, the versions of Python and torch and the kind of device.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ..files import hash_file
from .code import called_by, code_in_use

# Keys of the configuration that cannot change a number: where a run writes, and descriptions.
WITHOUT_EFFECT = (
    *("description", "note", "group", "rerun_of", "price_per_hour", "tolerance"),
    *("run_dir", "force", "replace", "resume", "data.folder"),
    *("preflight", "data.fixture", "data.spec", "model.opt_outs"),
    *("training.checkpoint_steps", "training.checkpoint_minutes"),
    "device",  # its kind counts instead: auto is one of them
)
KEYS = ("code", "data", "lock", "python", "torch", "device")


def identify(
    root: Path, values: Mapping[str, Any], data: Mapping[str, str], device: str
) -> dict[str, Any]:
    """The identity of a run that is about to start.

    Args:
        root: The study's folder.
        values: The resolved configuration, as plain values.
        data: The hash of each prepared file.
        device: Its kind: `cpu`, `cuda` or `mps`.

    Raises:
        StudyError: code has changed since this process began that it has yet to import.
    """
    return {
        "config": flatten(values),
        "code": code_in_use(root, called_by(values)),
        "data": dict(data),
        "lock": hash_file(root / "requirements.lock"),
        "python": platform.python_version(),
        "torch": metadata.version("torch").partition("+")[0],  # which is not in the lock
        "device": device,
    }


def fingerprint(identity: Mapping[str, Any]) -> str:
    """The SHA-256 of an identity: the same inputs, the same fingerprint, on every machine."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Each value of a configuration that can change a number, by its key with dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in WITHOUT_EFFECT:
            continue
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def identity_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a run that has been recorded."""
    values = flatten(record.get("config") or {})
    return {"config": values, **{key: record.get(key) for key in KEYS}}

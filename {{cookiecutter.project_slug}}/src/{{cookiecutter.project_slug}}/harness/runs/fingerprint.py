"""What a run is known by.

Two runs with the same identity compute the same numbers: it consists of the configuration, the
code, the data, the weights that it starts from, the locked environment and what of it is not as
locked, the versions of Python and torch, the kind of device, and how many ranks train together.
"""

import hashlib
import json
import os
import platform
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import StudyError
from ..files import MANIFEST, hash_file
from ..ranks import num_ranks
from .code import called_by, code_in_use, code_of
from .installed import find_unlocked
from .reads import reads_ignored

# Keys of the configuration that cannot change a number: where a run writes, and descriptions.
WITHOUT_EFFECT = (
    *("report", "data.metrics.*.unit", "data.metrics.*.digits"),
    *("description", "note", "group", "rerun_of", "price_per_hour", "tolerance"),
    *("run_dir", "force", "replace", "resume", "data.folder"),
    *("task", "debug", "tracker", "preflight", "data.fixture", "data.spec", "model.opt_outs"),
    *("training.checkpoint_steps", "training.checkpoint_minutes"),
    *("initial_weights.run", "initial_weights.file"),  # their content counts, see source.py
    "device",  # its kind counts instead: auto is one of them
)
KEYS = ("code", "data", "lock", "python", "torch", "device", "ranks", "unlocked", "initial_weights")


def identify(
    root: Path,
    values: Mapping[str, Any],
    data: Mapping[str, str],
    device: str,
    initial_weights: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The identity of a run that is about to start.

    Args:
        root: The study's folder.
        values: The resolved configuration, as plain values.
        data: The hash of each prepared file.
        device: Its kind: `cpu`, `cuda` or `mps`.
        initial_weights: What they are known by, see `Source.describe`; None if it starts afresh.

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
        "unlocked": find_unlocked(root),
        "ranks": num_ranks(),
        "initial_weights": initial_weights,
    }


def describe_origin(root: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """What prepared data follow from: the hash of each raw file, and the code that prepares them.

    It explains why data differ; a run is known by the data themselves.
    """
    data = values.get("data", {})
    found: dict[str, Any] = {"raw": {}, "code": {}}
    with suppress(OSError, ValueError), reads_ignored():  # data that were prepared elsewhere
        manifest = json.loads(Path(root, data.get("folder", ""), MANIFEST).read_bytes())
        found["raw"] = manifest.get("raw", {})
    with suppress(StudyError):  # a stage of one's own
        found["code"] = code_of_prepare(root, data.get("prepare", {}))
    return found


def code_of_prepare(root: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The digest of each file of code that prepared data depend on."""
    return code_of(root, parameters, start="stages/prepare.py")


def fingerprint(identity: Mapping[str, Any]) -> str:
    """The SHA-256 of an identity: the same inputs, the same fingerprint, on every machine.

    A variable of the environment stands in it by its name, and counts by its value.
    """
    text = json.dumps(identity, sort_keys=True)
    if names := sorted(set(re.findall(r"\$\{oc\.env:(\w+)\}", text))):
        text += json.dumps([os.environ.get(name) for name in names])
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(
    values: Mapping[str, Any], prefix: str = "", *, without: Collection[str] = WITHOUT_EFFECT
) -> dict[str, Any]:
    """Each value of a configuration, by its key with dots, but for those that match `without`.

    By default these are all that can change a number.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if any(fnmatchcase(name, pattern) for pattern in without):
            continue
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.", without=without)
        else:
            flat[name] = value
    return flat


def identity_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a run that has been recorded."""
    values = flatten(record.get("config") or {})
    known = {key: record.get(key) for key in KEYS}
    return {"config": values, **known, "ranks": record.get("ranks", 1)}

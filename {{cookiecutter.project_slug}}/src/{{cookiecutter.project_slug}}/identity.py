"""What a run is known by, and what differs between two.

Two runs with the same identity compute the same numbers: it holds the configuration, the code, the
data, the locked environment, the versions of Python and torch and the kind of device, nothing else.
"""

import hashlib
import json
import logging
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from . import StudyError
from .files import hash_file, hash_files

log = logging.getLogger(__name__)
# Keys of the configuration that cannot change a number: where a run stands and what is said of it.
WITHOUT_EFFECT = (
    *("description", "note", "group", "rerun_of", "price_per_hour", "tolerance"),
    *("run_dir", "force", "replace", "resume", "data.folder"),
    *("task", "preflight", "data.fixture", "data.spec", "model.opt_outs"),
    *("training.checkpoint_steps", "training.checkpoint_minutes"),
    "device",  # its kind counts instead: auto is one of them
)
KEYS = ("code", "data", "lock", "python", "torch", "device")
HARDWARE = ("processor", "instructions", "cores", "gpus", "driver", "cuda", "system", "threads")
FOLLOWED = {"num_threads", "deterministic"}  # the number of threads follows from these
_at_first: dict[Path, dict[str, str]] = {}  # the code of a study when this process first looked
NOTHING = "nothing that is recorded changed: nondeterminism"


def identify(
    root: Path, config: Mapping[str, Any], data: Mapping[str, str], device: str
) -> dict[str, Any]:
    """The identity of a run that is about to start.

    Args:
        root: The study's folder.
        config: The resolved configuration.
        data: The hash of each prepared file.
        device: Its kind: `cpu`, `cuda` or `mps`.

    Raises:
        StudyError: code has changed since this process began that it has yet to import.
    """
    return {
        "config": flatten(config),
        "code": _code_in_use(root),
        "data": dict(data),
        "lock": hash_file(root / "requirements.lock"),
        "python": platform.python_version(),
        "torch": metadata.version("torch").partition("+")[0],  # which the lock does not hold
        "device": device,
    }


def _code_in_use(root: Path) -> dict[str, str]:
    """The code that this process runs: a later job of a sweep has what the first one imported."""
    now = hash_code(root)
    first = _at_first.setdefault(root, dict(now))
    if first == now:
        return now
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    imported = {Path(name).resolve() for name in files if name}
    for name in [name for name in first if now.get(name) != first[name]]:
        if (root / name).resolve() not in imported:
            raise StudyError(f"{name}: has changed while this command ran; type it again")
        log.warning("%s: has changed; this command goes on with what it was", name)
    return dict(first)


def hash_code(root: Path) -> dict[str, str]:
    """The SHA-256 of run.py and of each file of the library, but for what tools leave there."""
    made = ("__pycache__", ".egg-info", ".dist-info")
    paths = [root / "run.py"]
    for path in (root / "src").rglob("*"):
        inside = path.relative_to(root).parts
        if path.is_file() and not any(part.endswith(made) or part[0] == "." for part in inside):
            paths.append(path)
    return hash_files(root, paths)


def fingerprint(identity: Mapping[str, Any]) -> str:
    """The SHA-256 of an identity: the same inputs, the same fingerprint, on every machine."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Each value of a configuration that can change a number, by its key with dots."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in WITHOUT_EFFECT:
            continue
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a run that has been recorded."""
    config = flatten(record.get("config") or {})
    return {"config": config, **{key: record.get(key) for key in KEYS}}


def explain(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each thing that differs between two records: what, from what, to what.

    Config first, then code, data, other files that were read, environment, hardware.
    """
    known = before["config"] and now["config"]  # the first records had none
    config = dict(_differences(flatten(before["config"]), flatten(now["config"]))) if known else {}
    lines = [f"config: {key}: {change}" for key, change in config.items()]
    lines += [f"code: {name}: {_word(*pair)}" for name, pair in _changed(before, now, "code")]
    lines += [f"data: {name}: {_word(*pair)}" for name, pair in _changed(before, now, "data")]
    if "inputs" in before and "inputs" in now:
        lines += [f"data: {name}: {_word(*pair)}" for name, pair in _changed(before, now, "inputs")]
    environment = list(_explain_environment(before, now))
    if "deterministic" in config:
        environment = [line for line in environment if not line.startswith("CUBLAS_WORKSPACE")]
    lines += [f"environment: {line}" for line in environment]
    hardware = explain_hardware(before, now)
    if FOLLOWED & config.keys():
        hardware = [line for line in hardware if not line.startswith("hardware: threads")]
    lines += hardware
    if before["device"] != now["device"]:
        lines.append(f"hardware: device: {before['device']} -> {now['device']}")
    for record in (before, now):  # a run that was gone on with on another machine
        lines += record.get("moved") or []
    return lines


def explain_hardware(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each thing that differs between the machines of two records."""
    machines = [record.get("hardware") or {} for record in (before, now)]
    if not all(machines):
        return []
    left, right = ({key: each.get(key) for key in HARDWARE} for each in machines)
    return [f"hardware: {key}: {change}" for key, change in _differences(left, right)]


def _explain_environment(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Packages by name; the hash of the lock alone where no version in it tells."""
    for name in ("python", "torch"):
        if before.get(name) != now.get(name):
            yield f"{name}: {before.get(name)} -> {now.get(name)}"
    named = False
    for kind in ("locked", "installed"):
        old, new = ((record.get("packages") or {}).get(kind) for record in (before, now))
        if old and new:
            for name, change in _differences(old, new):
                if name == "torch" and before.get("torch") != now.get("torch"):
                    continue  # said already
                named |= kind == "locked"
                yield f"{name} ({kind}): {change}"
    if before["lock"] != now["lock"] and not named:
        yield "requirements.lock: changed"
    if "environment" in before and "environment" in now:
        for name, change in _differences(before["environment"], now["environment"]):
            yield f"{name}: {change}"


def _changed(
    before: Mapping[str, Any], now: Mapping[str, Any], key: str
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    old, new = before[key] or {}, now[key] or {}
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield name, (old.get(name), new.get(name))


def _word(old: object, new: object) -> str:
    return "is new" if old is None else "is gone" if new is None else "changed"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key) or (key in old) != (key in new):
            left, right = (str(side[key]) if key in side else "none" for side in (old, new))
            yield key, f"{left} -> {right}"

"""What differs between two runs: config, code, data, environment, hardware."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .fingerprint import flatten

HARDWARE = ("processor", "instructions", "cores", "gpus", "driver", "cuda", "system", "threads")
FOLLOWED = {"num_threads", "deterministic"}  # the number of threads follows from these
HASHED = ("code", "data")  # kinds whose values are hashes, which are not shown
ELSEWHERE = ("hardware", "environment")  # kinds that excuse a number that is only close


@dataclass(frozen=True)
class Change:
    """One thing that differs.

    Attributes:
        kind: `config`, `code`, `data`, `environment`, `hardware` or `time`.
        key: What it is: a key, a file, a package.
        old: Its value in the first run; None where it was not there.
        new: Its value in the second run; None where it is not there.
    """

    kind: str
    key: str
    old: Any = None
    new: Any = None

    def __str__(self) -> str:
        if self.kind in HASHED or self.key == "requirements.lock":
            word = "is new" if self.old is None else "is gone" if self.new is None else "changed"
            return f"{self.kind}: {self.key}: {word}"
        if self.old is None and self.new is None:
            return f"{self.kind}: {self.key}"
        return f"{self.kind}: {self.key}: {_shown(self.old)} -> {_shown(self.new)}"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def find_drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Each thing that differs between two records, or a record and an identity.

    Config first, then code, data, other files that were read, environment, hardware.
    """
    of_config = _config_drift(before, now)
    keys = {change.key for change in of_config}
    found = [*of_config, *_mapping_drift("code", *_code_of(before, now))]
    for key in ("data", "inputs"):
        if key == "data" or (key in before and key in now):
            found += _mapping_drift("data", before.get(key) or {}, now.get(key) or {})
    environment = _environment_drift(before, now)
    if "deterministic" in keys:  # it sets the variable
        environment = [item for item in environment if item.key != "CUBLAS_WORKSPACE_CONFIG"]
    hardware = hardware_drift(before, now)
    if FOLLOWED & keys:
        hardware = [item for item in hardware if item.key != "threads"]
    found += [*environment, *hardware]
    if before["device"] != now["device"]:
        found.append(Change("hardware", "device", before["device"], now["device"]))
    for record in (before, now):  # a run that was resumed on another machine
        found += read_changes(record.get("moved"))
    return found


def read_changes(values: Sequence[Mapping[str, Any]] | None) -> list[Change]:
    """Changes from the form that a record has."""
    return [Change(**value) for value in values or ()]


def write_changes(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Changes from the form that a record has."""
    return [asdict(change) for change in changes]


def _config_drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    if not (before["config"] and now["config"]):  # the first records had none
        return []
    old, new = flatten(before["config"]), flatten(now["config"])
    missing = object()
    keys = [*old, *(key for key in new if key not in old)]
    differing = [key for key in keys if old.get(key, missing) != new.get(key, missing)]
    return [Change("config", key, *(_word(side, key) for side in (old, new))) for key in differing]


def _word(values: Mapping[str, Any], key: str) -> Any:
    """A value of a configuration as text; None if the key is missing."""
    return str(values[key]) if key in values else None


def _code_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The code of two records: digests; or hashes of bytes if one is of an earlier version."""
    key = "code" if before.get("code") and now.get("code") else "source"
    return [record.get(key) or {} for record in (before, now)]


def hardware_drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Each thing that differs between the machines of two records."""
    machines = [record.get("hardware") or {} for record in (before, now)]
    if not all(machines):
        return []
    left, right = ({key: each.get(key) for key in HARDWARE} for each in machines)
    return list(_mapping_drift("hardware", left, right))


def _environment_drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Packages by name; the hash of the lock only if no version in it differs."""
    found = [
        Change("environment", name, before.get(name), now.get(name))
        for name in ("python", "torch")
        if before.get(name) != now.get(name)
    ]
    lock_is_told = False
    for kind in ("locked", "installed"):
        old, new = ((record.get("packages") or {}).get(kind) for record in (before, now))
        for change in _mapping_drift("environment", old or {}, new or {}) if old and new else ():
            if change.key == "torch" and before.get("torch") != now.get("torch"):
                continue  # already in the list
            lock_is_told |= kind == "locked"
            found.append(Change("environment", f"{change.key} ({kind})", change.old, change.new))
    if before["lock"] != now["lock"] and not lock_is_told:
        found.append(Change("environment", "requirements.lock", before["lock"], now["lock"]))
    if "environment" in before and "environment" in now:
        found += _mapping_drift("environment", before["environment"], now["environment"])
    return found


def _mapping_drift(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key):
            yield Change(kind, key, old.get(key), new.get(key))

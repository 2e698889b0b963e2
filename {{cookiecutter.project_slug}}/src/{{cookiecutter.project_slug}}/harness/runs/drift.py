"""What differs between two runs: config, code, data, environment, hardware."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .fingerprint import flatten
from .machine import INSTRUCTIONS

HARDWARE = ("processor", "instructions", "cores", "gpus", "driver", "cuda", "system", "threads")
FOLLOWED = {"num_threads", "deterministic"}  # the number of threads follows from these
HASHED = ("code", "data")  # kinds whose values are hashes, which are not shown
PREPARES = " (prepares it)"  # said of code that prepared data follow from
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
        limited = "processor instructions limited by " if self.key in INSTRUCTIONS else ""
        return f"{self.kind}: {limited}{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def find_drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Each thing that differs between two records, or a record and an identity.

    Config first, then code, data, other files that were read, environment, hardware.
    """
    of_config = _config_drift(before, now)
    keys = {change.key for change in of_config}
    found = [*of_config, *code_drift(before, now), *_data_drift(before, now)]
    environment = _environment_drift(before, now)
    if "deterministic" in keys:  # it sets the variable
        environment = [item for item in environment if item.key != "CUBLAS_WORKSPACE_CONFIG"]
    hardware = hardware_drift(before, now)
    if FOLLOWED & keys:
        hardware = [item for item in hardware if item.key != "threads"]
    found += [*environment, *hardware]
    if before["device"] != now["device"]:
        found.append(Change("hardware", "device", before["device"], now["device"]))
    ranks = [record.get("ranks", 1) for record in (before, now)]
    if ranks[0] != ranks[1]:
        found.append(Change("hardware", "ranks", *ranks))
    for record in (before, now):  # a run that was resumed on another machine
        found += read_changes(record.get("moved"))
    return found


def code_drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Each file of code that differs: by its digest, or by its bytes in an early record."""
    return list(_mapping_drift("code", *_code_of(before, now)))


def _data_drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Raw files and the code that prepares them; prepared arrays only where these explain nothing.

    Then other files that were read.
    """
    arrays = list(_mapping_drift("data", before.get("data") or {}, now.get("data") or {}))
    inputs = []
    if "inputs" in before and "inputs" in now:
        inputs = list(_mapping_drift("data", before["inputs"] or {}, now["inputs"] or {}))
    inputs += _mapping_drift("data", *(_initial_weights(record) for record in (before, now)))
    origins = [record.get("prepared_from") or {} for record in (before, now)]
    if not arrays or not all(origins):
        return [*arrays, *inputs]
    raw, code = ([origin.get(key) or {} for origin in origins] for key in ("raw", "code"))
    causes = list(_mapping_drift("data", *raw)) if all(raw) else []
    if not causes:
        prepared = _mapping_drift("data", *code)
        causes = [Change("data", f"{item.key}{PREPARES}", item.old, item.new) for item in prepared]
    told = any(change.key.startswith("data.prepare.") for change in _config_drift(before, now))
    return [*(causes or ([] if told else arrays)), *inputs]


def _initial_weights(record: Mapping[str, Any]) -> dict[str, str]:
    """The hash of each file of the weights that a run starts from, by how it is shown."""
    files = (record.get("initial_weights") or {}).get("files") or {}
    return {f"initial weights ({name})": known for name, known in files.items()}


def read_changes(values: Sequence[Mapping[str, Any]] | None) -> list[Change]:
    """Changes from the form that a record has."""
    return [Change(**value) for value in values or ()]


def write_changes(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Changes in the form that a record has."""
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
    """A value of a configuration as text; None if the key is missing, or null."""
    return None if values.get(key) is None else str(values[key])


def find_input_drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Each value and each file of code that differs between two files of results/inputs/."""
    config = (
        {**each.get("config", {}), **flatten(each.get("parameters", {}), "data.prepare.")}
        for each in (before, now)
    )
    code = (each.get("code", {}) for each in (before, now))
    return [*_mapping_drift("config", *config), *_mapping_drift("code", *code)]


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
    """Python, torch, each package that a run imports, and the variables that can change a number.

    The hash of the lock counts only if it is not known which packages were imported.
    """
    found = [
        Change("environment", name, before.get(name), now.get(name))
        for name in ("python", "torch")
        if before.get(name) != now.get(name)
    ]
    left, right = (record.get("packages") or {} for record in (before, now))
    imported = {*left.get("imported", ()), *right.get("imported", ())}
    known = "imported" in left and "imported" in right
    for kind in ("locked", "installed"):
        old, new = left.get(kind), right.get(kind)
        for change in _mapping_drift("environment", old or {}, new or {}) if old and new else ():
            if change.key == "torch" and before.get("torch") != now.get("torch"):
                continue  # already in the list
            if not known or change.key in imported:
                key = f"{change.key} ({kind})"
                found.append(Change("environment", key, change.old, change.new))
    is_told = known or any(change.key.endswith("(locked)") for change in found)
    if before["lock"] != now["lock"] and not is_told:
        found.append(Change("environment", "requirements.lock", before["lock"], now["lock"]))
    found += _unlocked_drift(before, now, {change.key for change in found})
    if "environment" in before and "environment" in now:
        found += _mapping_drift("environment", before["environment"], now["environment"])
    return found


def _unlocked_drift(
    before: Mapping[str, Any], now: Mapping[str, Any], told: set[str]
) -> Iterator[Change]:
    """What of the imported packages is not as it was installed: a file, or a package from a folder.

    A version that is not the lock's is told already: as installed or as locked.
    """
    values = (record.get("unlocked") or {} for record in (before, now))
    for change in _mapping_drift("environment", *values):
        if not told.intersection({f"{change.key} (installed)", f"{change.key} (locked)"}):
            yield Change("environment", f"{change.key} (edited after its installation)")


def _mapping_drift(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key):
            yield Change(kind, key, old.get(key), new.get(key))

"""What differs between two dvc.lock files, stage by stage: commands, dependencies, parameters."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

COMPOSE = "compose_"  # what their dependencies change is in results/inputs/: no comment does
Lock = Mapping[str, Any]


def find_stage_drift(old: Lock, new: Lock, told: Collection[str] = ()) -> dict[str, list[str]]:
    """Each thing that differs, and the stages it concerns.

    What one stage makes of another's result is no cause: only what comes from outside is named,
    and no file or folder of which something was `told` already.
    """
    found: dict[str, list[str]] = {}
    left, right = old.get("stages", {}), new.get("stages", {})
    made = {
        out["path"] for stage in (*left.values(), *right.values()) for out in _list(stage, "outs")
    }
    made |= set(told)
    for name in dict.fromkeys([*left, *right]):
        if name not in left or name not in right:
            lines = iter(["the stage is new" if name in right else "the stage is gone"])
        else:
            lines = _changes(left[name], right[name], made)
        for line in lines:
            found.setdefault(line, []).append(name)
    return found


def _changes(old: Lock, new: Lock, made: set[str]) -> Iterator[str]:
    """Each line that tells what differs between two states of a stage."""
    if old.get("cmd") != new.get("cmd"):
        yield f"command: {old.get('cmd')} -> {new.get('cmd')}"
    before, now = (
        {dep["path"]: _hash(dep) for dep in _list(stage, "deps")} for stage in (old, new)
    )
    for path in dict.fromkeys([*before, *now]):
        inside = is_in(path, made) or any(is_in(out, [path]) for out in made)
        if before.get(path) != now.get(path) and not inside:
            word = "is new" if path not in before else "is gone" if path not in now else "changed"
            yield f"dependency: {path}: {word}"
    before, now = (dict(_parameters(stage)) for stage in (old, new))
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) != now.get(key):
            yield f"parameter: {key}: {before.get(key)} -> {now.get(key)}"


def without_dependency(lock: Lock, path: str) -> dict[str, Any]:
    """A dvc.lock in which no stage depends on a file."""
    stages = {
        name: {**stage, "deps": [dep for dep in _list(stage, "deps") if dep["path"] != path]}
        for name, stage in lock.get("stages", {}).items()
    }
    return {**lock, "stages": stages}


def without_compose(lock: Lock) -> dict[str, Any]:
    """A dvc.lock without the hashes of the files from which the configurations are composed."""
    stages = {
        name: (
            {key: value for key, value in stage.items() if key != "deps"}
            if name.startswith(COMPOSE)
            else stage
        )
        for name, stage in lock.get("stages", {}).items()
    }
    return {**lock, "stages": stages}


def is_in(path: str, places: Collection[str]) -> bool:
    """Whether a path is one of these files or folders, or in one."""
    return any(path == place or path.startswith(f"{place}/") for place in places)


def made_of(lock: Lock, path: str) -> tuple[list[str], list[str]]:
    """What is made of a folder, and of what is made of it.

    Returns:
        The command of each such stage, in an order in which they can be run; and their outputs.
    """
    commands: list[str] = []
    made, stages = [path], list(lock.get("stages", {}).values())
    while follow := [stage for stage in stages if _needs(stage, made)]:
        for stage in follow:
            commands.append(stage["cmd"])
            made += [out["path"] for out in _list(stage, "outs")]
            stages.remove(stage)
    return commands, made[1:]


def _needs(stage: Lock, made: Collection[str]) -> bool:
    paths = [dep["path"] for dep in _list(stage, "deps")]
    return any(is_in(path, made) for path in paths)


def _list(stage: Lock, key: str) -> list[dict[str, Any]]:
    return list(stage.get(key) or [])


def _hash(item: Mapping[str, Any]) -> Any:
    return item.get(item.get("hash", "md5"))


def _parameters(stage: Lock) -> Iterator[tuple[str, Any]]:
    for file, values in (stage.get("params") or {}).items():
        for key, value in values.items():
            yield f"{file}: {key}", value

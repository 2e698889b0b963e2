"""Where a run starts from, if not from fresh values: an earlier run, or a file of weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StudyError
from ..files import hash_file, hash_files
from .folder import status
from .published import PUBLISHED
from .reads import reads_ignored
from .record import NAME, read_record

WEIGHTS = "best.pt"  # of a run
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # of a folder of a model hub


@dataclass(frozen=True)
class Source:
    """Weights to start from.

    Attributes:
        folder: Where they are.
        files: The SHA-256 of each file that holds them, by its name in the folder.
        fingerprint: Of the run that computed them; None if they come from elsewhere.
    """

    folder: Path
    files: Mapping[str, str]
    fingerprint: str | None = None

    def describe(self) -> dict[str, Any]:
        """What the new run is known by: where the weights lie does not count."""
        return {"fingerprint": self.fingerprint, "files": dict(self.files)}


def find_source(node: Mapping[str, Any] | None) -> Source | None:
    """The weights that `initial_weights` of a checked configuration names; None for None.

    Raises:
        StudyError: there is no such file or run, or the run is not finished, or was altered.
    """
    if node is None:
        return None
    with reads_ignored():  # the run is known by their hashes, wherever they lie
        return _of_run(Path(node["run"])) if node.get("run") else _of_file(Path(node["file"]))


def folder_of(node: Mapping[str, Any]) -> Path:
    """The folder in which the files are that `initial_weights` names."""
    path = Path(node.get("run") or node["file"])
    return path.parent if not node.get("run") and path.suffix else path


def _of_run(folder: Path) -> Source:
    record = read_trained(folder, f"initial_weights.run={folder}")
    return Source(folder, {WEIGHTS: record["files"][WEIGHTS]}, record["fingerprint"])


def read_trained(folder: Path, place: str, published: Path = PUBLISHED) -> dict[str, Any]:
    """The record of the finished run whose weights are in a folder.

    DVC restores those of a published run without its record, which is in results/records/ then.

    Args:
        folder: Of the run.
        place: What the errors begin with.
        published: The folder of the published records.

    Raises:
        StudyError: there is no such run, or it is not finished, or its weights are missing or
            altered.
    """
    paths = [folder / NAME, published / f"{folder.name}.json"]
    records = [read_record(path) for path in paths if path.is_file()]
    if not records:
        raise StudyError(f"{place}: there is no such run: no {paths[0]}")
    if records[0]["status"] != "finished":
        hint = f"to finish it, type: python run.py resume={folder}"
        raise StudyError(f"{place}: is {status(folder)}, and not finished; {hint}")
    if not (folder / WEIGHTS).is_file():
        again = f"or its command again: {records[0].get('command')}"
        raise StudyError(f"{place}: {WEIGHTS} is missing; type: dvc pull, {again}")
    found = hash_file(folder / WEIGHTS)
    for record in records:
        if (record.get("files") or {}).get(WEIGHTS) == found:
            return record
    raise StudyError(f"{place}: {WEIGHTS} is not as the run wrote it; run it again")


def _of_file(path: Path) -> Source:
    key = f"initial_weights.file={path}"
    paths = _files_in(path, key) if path.is_dir() else [path]
    for each in paths:
        if not each.is_file():
            raise StudyError(f"{key}: there is no {each}")
    return Source(paths[0].parent, hash_files(paths[0].parent, paths))


def _files_in(folder: Path, key: str) -> list[Path]:
    """The files of weights in a folder as model hubs lay it out: one, or several by an index."""
    if not (folder / INDEX).is_file():
        return [folder / SINGLE]
    try:
        names = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f"{key}: {INDEX} is no index of weights ({error})") from error
    return [folder / Path(name).name for name in sorted(names)]  # none from outside

"""results/records/: what it takes to run each published run again, in any clone."""

import hashlib
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..files import hash_file, hash_files, to_json, write_atomically
from ..training.results import (
    HISTORY,
    METRICS,
    RESULTS,
    history_to_csv,
    read_history,
    write_history,
    write_metrics,
)
from .record import NAME, read_record
from .scanning import refuse_secrets
from .sealing import seal

log = logging.getLogger(__name__)
PUBLISHED = Path("results", "records")
PATCH = "changes.patch"


def publish(folders: Collection[Path]) -> None:
    """Writes the records of the published runs, and removes those of others.

    Raises:
        StudyError: one that is new looks as if it held a secret; nothing is written.
    """
    new = sorted(folder for folder in folders if not _is_published(folder))
    if new:
        refuse_secrets(folder / name for folder in new for name in (NAME, PATCH))
    for folder in new:
        _publish_one(folder, PUBLISHED / f"{folder.name}.json")
    names = {f"{folder.name}.json" for folder in folders}
    for path in PUBLISHED.glob("*.json"):
        if path.name not in names:
            path.unlink()
    patches = {read_record(path).get("patch") for path in PUBLISHED.glob("*.json")}
    for path in PUBLISHED.glob("*.patch"):
        if path.name not in patches:
            path.unlink()


def find_published(folders: Collection[Path]) -> dict[str, str | None]:
    """The name and the fingerprint of each run that has a record."""
    return {
        folder.name: read_record(PUBLISHED / f"{folder.name}.json")["fingerprint"]
        for folder in folders
        if (PUBLISHED / f"{folder.name}.json").exists()
    }


def _hash_results(folder: Path) -> dict[str, str]:
    """The hash of each file that DVC keeps of a run."""
    paths = [folder / name for name in (*RESULTS, "config.yaml")]
    return hash_files(folder, [path for path in paths if path.is_file()])


def _is_published(folder: Path) -> bool:
    """Whether there is a record that gave the same results: those numbers need no other.

    Where only numbers are, as `write_results` leaves them, there are no weights to compare.
    """
    path = PUBLISHED / f"{folder.name}.json"
    if not path.exists():
        return False
    files, results = read_record(path).get("files") or {}, _hash_results(folder)
    return METRICS in results and results.items() <= files.items()


def _publish_one(folder: Path, path: Path) -> None:
    """Writes a record with its history, its uncommitted changes beside it, and no host names."""
    results = _hash_results(folder)
    record = read_record(folder) if (folder / NAME).is_file() else {}
    known = record.get("files") or {}
    if any(
        known.get(name) != results.get(name) for name in RESULTS
    ):  # DVC restored those of another time
        log.warning("%s: its record is of other results; not published", folder)
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    patch = folder / PATCH
    if patch.exists():
        record["patch"] = f"{hash_file(patch)[:16]}.patch"
        write_atomically(path.with_name(record["patch"]), patch.read_bytes())
    record["hardware"].pop("host", None)
    for part in record["parts"]:
        part.pop("host", None)
        part.pop("pid", None)
    published = {**record, "history": read_history(folder), "files": results}
    write_atomically(path, to_json(seal(published)))


def find_altered_numbers(path: Path, record: Mapping[str, Any]) -> list[str]:
    """What of a published record is not what its run wrote: numbers, history, uncommitted changes.

    Earlier versions wrote the numbers of a history in another form.
    """
    contents = {METRICS: to_json(record["metrics"])}
    if record["version"] >= 4:
        contents[HISTORY] = history_to_csv(record["history"])
    altered = [
        f"{name}: is not as the run wrote it"
        for name, content in contents.items()
        if hashlib.sha256(content).hexdigest() != (record.get("files") or {}).get(name)
    ]
    patch = path.with_name(record.get("patch") or path.name)
    if patch.suffix == ".patch" and patch.is_file() and hash_file(patch)[:16] != patch.stem:
        altered.append(f"{patch.name}: is not as the run wrote it")
    return altered


def write_results(records: Path, folder: Path) -> None:
    """Writes metrics and history of every published record into a folder of its own in `folder`."""
    for path in records.glob("*.json"):
        record = read_record(path)
        (folder / path.stem).mkdir(parents=True)
        write_metrics(folder / path.stem, record["metrics"])
        write_history(folder / path.stem, record["history"])

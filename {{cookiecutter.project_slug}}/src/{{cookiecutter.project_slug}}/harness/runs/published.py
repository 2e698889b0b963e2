"""results/records/: what it takes to run each published run again, in any clone."""

import logging
from collections.abc import Collection
from pathlib import Path

from ..files import hash_file, hash_files, to_json, write_atomically
from ..training.results import read_history
from .record import NAME, RESULTS, read_record

log = logging.getLogger(__name__)
PUBLISHED = Path("results", "records")


def publish(folders: Collection[Path]) -> None:
    """Writes the records of the published runs, and removes those of others."""
    for folder in folders:
        _publish_one(folder, PUBLISHED / f"{folder.name}.json")
    names = {f"{folder.name}.json" for folder in folders}
    for path in PUBLISHED.glob("*.json"):
        if path.name not in names:
            path.unlink()
    patches = {read_record(path).get("patch") for path in PUBLISHED.glob("*.json")}
    for path in PUBLISHED.glob("*.patch"):
        if path.name not in patches:
            path.unlink()


def _publish_one(folder: Path, path: Path) -> None:
    """Writes a record with its history, its uncommitted changes beside it, and no host names.

    A record that is there and gave the same results is kept: those numbers need no other.
    """
    results = hash_files(folder, [folder / name for name in RESULTS])
    if path.exists() and read_record(path).get("files") == results:
        return
    record = read_record(folder) if (folder / NAME).is_file() else {}
    if record.get("files") != results:  # DVC has restored the results of another time
        log.warning("%s: its record is of other results; not published", folder)
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    patch = folder / "changes.patch"
    if patch.exists():
        record["patch"] = f"{hash_file(patch)[:16]}.patch"
        write_atomically(path.with_name(record["patch"]), patch.read_bytes())
    record["hardware"].pop("host", None)
    for part in record["parts"]:
        part.pop("host", None)
        part.pop("pid", None)
    write_atomically(path, to_json({**record, "history": read_history(folder)}))

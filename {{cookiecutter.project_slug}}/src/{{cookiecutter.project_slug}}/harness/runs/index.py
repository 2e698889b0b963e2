"""Every run of the study in short. runs/.index.db remembers each record that has not changed.

The index may be deleted at any time: it is made again from the records, which are the truth.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import StudyError
from .fingerprint import flatten
from .folder import RUNS
from .leftovers import is_alive
from .record import NAME, key_of, read_record

INDEX = ".index.db"
FORMAT = 1  # of an entry: increased when one changes, so that older ones are read again
Value = str | float | None
TEXTS = ("group", "note", "description", "error", "started", "ended", "device", "fingerprint")


@dataclass(frozen=True)
class Entry:
    """A run in short.

    Attributes:
        folder: Relative to the study, such as `runs/NAME`.
        status: As recorded; `killed` if no process works on a running one; `unreadable`.
        texts: What `TEXTS` names of the record.
        seconds: Of all its parts; None where it has none yet.
        typed: What was typed for each key; `~` for one that was deleted.
        parameters: Each value that can change a number, by its key with dots.
        code: A digest of the code that it ran; None where that is not known.
        rerun: Whether it runs another one again.
        metrics: The final numbers, by split and name.
        higher_is_better: The direction of each metric.
    """

    folder: str
    status: str
    texts: Mapping[str, str | None]
    seconds: float | None = None
    typed: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Value] = field(default_factory=dict)
    code: str | None = None
    rerun: bool = False
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)


def list_runs(root: Path) -> list[Entry]:
    """Every run in runs/, the earliest first; those that cannot be read come before all others."""
    stamps = dict(_find_records(root / RUNS))
    known = _read_index(root / RUNS)
    entries, new = [], []
    for folder, stamp in stamps.items():
        found = known.get(folder)
        if found is None or found[0] != stamp:
            entry = summarise(root, folder)
            new.append((folder, stamp, json.dumps(asdict(entry))))
        else:
            entry = Entry(**json.loads(found[1]))
        entries.append(_alive(root, entry))
    gone = [folder for folder in known if folder not in stamps]
    if new or gone:
        _write_index(root / RUNS, new, gone)
    return sorted(entries, key=lambda entry: (entry.texts.get("started") or "", entry.folder))


def summarise(root: Path, folder: str) -> Entry:
    """The entry of one run, from its record."""
    try:
        record = read_record(root / folder)
    except StudyError as error:
        return Entry(folder, "unreadable", {"error": str(error).replace(f"{root}{os.sep}", "")})
    config = record.get("config") or {}
    choices = (config.get("data") or {}).get("metrics") or {}
    code = record.get("code") or record.get("source")
    return Entry(
        folder=folder,
        status=record["status"],
        texts={name: record.get(name) for name in TEXTS},
        seconds=record.get("seconds"),
        typed={
            key_of(word): "~" if word[0] == "~" else word.partition("=")[2]
            for word in record.get("overrides") or ()
        },
        parameters={key: _plain(value) for key, value in flatten(config).items()},
        code=(
            hashlib.sha256(json.dumps(code, sort_keys=True).encode()).hexdigest() if code else None
        ),
        rerun=bool(record.get("rerun_of")),
        metrics=record.get("metrics") or {},
        higher_is_better={
            name: choice["higher_is_better"]
            for name, choice in choices.items()
            if isinstance(choice, Mapping) and "higher_is_better" in choice
        },
    )


def _plain(value: Any) -> Value:
    """A value of the configuration: a number, or a text."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if value is None or isinstance(value, (int, float)) else str(value)


def _alive(root: Path, entry: Entry) -> Entry:
    """The entry with the status of this moment."""
    if entry.status == "running" and not is_alive(root / entry.folder):
        return replace(entry, status="killed")
    return entry


def _find_records(runs: Path) -> Iterator[tuple[str, str]]:
    """Each folder with a record, in runs/ and in its groups, and what changes with the record."""
    for name in _folders(str(runs)):
        if stamp := _stamp(f"{runs}/{name}"):
            yield f"{runs.name}/{name}", stamp
            continue
        for inner in _folders(f"{runs}/{name}"):
            if stamp := _stamp(f"{runs}/{name}/{inner}"):
                yield f"{runs.name}/{name}/{inner}", stamp


def _stamp(folder: str) -> str:
    with suppress(OSError):
        found = os.stat(f"{folder}/{NAME}")
        return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"
    return ""


def _folders(folder: str) -> list[str]:
    with suppress(OSError), os.scandir(folder) as items:
        return [item.name for item in items if item.name[0] != "." and item.is_dir()]
    return []


def _open_index(runs: Path) -> sqlite3.Connection:
    index = sqlite3.connect(runs / INDEX, timeout=5)
    if index.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
        index.execute("DROP TABLE IF EXISTS runs")
        index.execute("CREATE TABLE runs (folder TEXT PRIMARY KEY, stamp TEXT, entry TEXT)")
        index.execute(f"PRAGMA user_version = {FORMAT}")
    return index


def _read_index(runs: Path) -> dict[str, tuple[str, str]]:
    """Stamp and entry of each run that is in the index; nothing if it cannot be read."""
    if not (runs / INDEX).is_file():
        return {}
    try:
        with closing(_open_index(runs)) as index:
            rows = index.execute("SELECT folder, stamp, entry FROM runs")
            return {folder: (stamp, entry) for folder, stamp, entry in rows}
    except sqlite3.OperationalError:  # another process writes it, or it may not be written
        return {}
    except sqlite3.DatabaseError:  # it is corrupt
        with suppress(OSError):
            (runs / INDEX).unlink()
        return {}


def _write_index(runs: Path, new: list[tuple[str, str, str]], gone: list[str]) -> None:
    """Takes in what is new. Where it cannot be written, the records are read again next time."""
    with suppress(sqlite3.Error), closing(_open_index(runs)) as index:
        index.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", new)
        index.executemany("DELETE FROM runs WHERE folder = ?", [(folder,) for folder in gone])
        index.commit()

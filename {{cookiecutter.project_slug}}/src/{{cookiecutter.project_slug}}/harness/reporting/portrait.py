"""A run as a reader of a paper wants to see it: sections of facts, from its record and folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import hash_file
from ..runs.fingerprint import flatten
from ..runs.index import Value
from ..runs.record import NAME

Rows = Sequence[Sequence[Value]]


@dataclass(frozen=True)
class Section:
    """A part of a portrait: a table, and lines of text below it.

    Attributes:
        title: What it is about.
        header: The columns; none for a table of names and values.
        rows: The cells.
        lines: Text, as it is.
        is_long: Whether a terminal does without it, and a page hides it until it is asked for.
    """

    title: str
    header: Sequence[str] = ()
    rows: Rows = ()
    lines: Sequence[str] = field(default_factory=tuple)
    is_long: bool = False


def describe(record: Mapping[str, Any], folder: Path, again: Sequence[str]) -> Iterator[Section]:
    """Every section that follows from the record and the files of the folder.

    Args:
        record: Of the run.
        folder: Where its files are, if they are here.
        again: The commands that run it again.
    """
    yield Section("Run", rows=_pairs(_head(record)))
    if metrics := record.get("metrics"):
        names = list(dict.fromkeys(name for named in metrics.values() for name in named))
        rows = [[split, *(named.get(name) for name in names)] for split, named in metrics.items()]
        yield Section("Metrics", ["split", *names], rows)
    yield Section("Run it again", lines=list(again))
    yield Section("What ran on what", rows=_pairs(_surroundings(record)))
    if parts := record.get("parts"):
        header = ["started", "seconds", "status", "error"]
        yield Section("Parts", header, [[part.get(key) for key in header] for part in parts])
    config = flatten(record.get("config") or {}, without=())
    yield Section("Every value of the configuration", rows=_pairs(config), is_long=True)
    versions = (record.get("packages") or {}).get("installed") or {}
    yield Section("Installed packages", rows=_pairs(versions), is_long=True)
    yield Section("Files", ["file", "bytes", "SHA-256", "state"], [*_files(record, folder)])


def _pairs(values: Mapping[str, Any]) -> list[list[Value]]:
    """Names and values, without those that are not known."""
    return [
        [name, _text(value)] for name, value in values.items() if value not in (None, "", [], {})
    ]


def _text(value: Any) -> Value:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _head(record: Mapping[str, Any]) -> dict[str, Any]:
    git = record.get("git") or {}
    changed = "" if git.get("clean", True) else ", and uncommitted changes (changes.patch)"
    cost = record.get("cost") or {}
    return {
        **{key: record.get(key) for key in ("description", "note", "group", "status", "error")},
        "command": record.get("command"),
        "seed": record.get("seed"),
        "commit": f"{git['commit']}{changed}" if git.get("commit") else "none",
        **{key: record.get(key) for key in ("started", "ended", "seconds", "ended_by")},
        "price": cost.get("price"),
        "energy in joules": cost.get("joules"),
        **{key: record.get(key) for key in ("copied_from", "rerun_of", "fingerprint")},
        "resumed after changes": [change["key"] for change in record.get("mixed") or ()],
        "moved to another machine": [change["key"] for change in record.get("moved") or ()],
    }


def _surroundings(record: Mapping[str, Any]) -> dict[str, Any]:
    config, hardware = record.get("config") or {}, record.get("hardware") or {}
    data = record.get("data") or {}
    weights = (record.get("initial_weights") or {}).get("fingerprint")
    return {
        "data": (config.get("data") or {}).get("folder"),
        "files of data": len(data) or None,
        "initial weights of the run": weights,
        "Python": record.get("python"),
        "torch": record.get("torch"),
        **{key: record.get(key) for key in ("device", "lock")},
        **{name: value for name, value in hardware.items() if name != "host"},
        "not as locked": sorted(record.get("unlocked") or ()),
        "environment": record.get("environment"),
    }


def _files(record: Mapping[str, Any], folder: Path) -> Iterator[list[Value]]:
    """Each file of the record and of the folder: size, hash, and whether it is as recorded."""
    known: Mapping[str, str] = record.get("files") or {}
    here = {
        path.relative_to(folder).as_posix(): path
        for path in (sorted(folder.rglob("*")) if folder.is_dir() else ())
        if path.is_file() and path.name != NAME and not path.name.startswith(".")
    }
    for name in sorted({*known, *here}):
        if name not in here:
            yield [name, None, known[name][:16], "is not here"]
            continue
        found = hash_file(here[name])
        state = "as recorded" if known.get(name) == found else "is not as the run wrote it"
        yield [
            name,
            here[name].stat().st_size,
            found[:16],
            state if name in known else "not recorded",
        ]


def describe_history(history: Sequence[Mapping[str, float]], *, whole: bool = False) -> Section:
    """Some epochs of a history, the first and the last among them, or all."""
    last, step = len(history) - 1, max(1, len(history) // 8)
    chosen = [
        row for index, row in enumerate(history) if whole or index % step == 0 or index == last
    ]
    header = list(history[0])
    return Section("Learning", header, [[row.get(name) for name in header] for row in chosen])


def read_log(folder: Path) -> list[str]:
    """The lines of the log; none if it is not here."""
    path = folder / "run.log"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return text.splitlines()

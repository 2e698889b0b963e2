"""Runs as a table: what a column holds, which columns tell runs apart, and which runs are meant."""

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from ..errors import StudyError, suggest
from ..runs.fingerprint import WITHOUT_EFFECT
from ..runs.index import TEXTS, Entry, Value

FIXED = ("run", "status", "age", "duration")  # of any run; the last two in seconds
SPLITS = ("validation", "test")
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    **{"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt},
    **{"!=": operator.ne, "=": operator.eq, "~": lambda value, part: str(part) in str(value)},
}


def value_of(entry: Entry, column: str) -> Value:
    """What a run has in a column; None where it has nothing.

    Args:
        entry: The run.
        column: One of `FIXED` or `TEXTS`; `validation.accuracy` or `accuracy`, a metric; or a key
            of the configuration: its value, or of a group what was typed, such as `model`.
    """
    for known in (entry.parameters, entry.texts, entry.typed):
        if column in known:
            return known[column]
    if column in FIXED:
        return _fixed(entry, column)
    for name in (column, *(f"{split}.{column}" for split in SPLITS)):
        split, _, metric = name.partition(".")
        if metric in entry.metrics.get(split, {}):
            return entry.metrics[split][metric]
    return None


def _fixed(entry: Entry, column: str) -> Value:
    if column == "age":
        started = entry.texts.get("started")
        now = datetime.now(timezone.utc)
        return (now - datetime.fromisoformat(started)).total_seconds() if started else None
    names = {"run": entry.folder.removeprefix("runs/"), "status": entry.status}
    return entry.seconds if column == "duration" else names[column]


def metric_columns(entries: Iterable[Entry]) -> list[str]:
    """The metrics that any of the runs has, by split, without the loss where there is another."""
    names = dict.fromkeys(
        f"{split}.{name}"
        for entry in entries
        for split in SPLITS
        for name in entry.metrics.get(split, {})
    )
    shown = [name for name in names if not name.endswith(".loss")]
    return sorted(shown or names, key=lambda name: SPLITS.index(name.partition(".")[0]))


def differing(entries: Sequence[Entry], without: Iterable[str] = ()) -> list[str]:
    """The parameters that tell the runs apart: first what was typed, then what that leaves open.

    Two runs of the same command line may differ too, when a file in conf/ was edited in between.
    """
    ignored = {*without}
    typed = dict.fromkeys(key for entry in entries for key in entry.typed)
    keys = [key for key in typed if key not in ignored and not _is_without_effect(key)]
    columns = [key for key in keys if len({value_of(entry, key) for entry in entries}) > 1]
    alike: dict[tuple[Value, ...], Mapping[str, Value]] = {}
    more: dict[str, None] = {}
    for entry in entries:
        if entry.parameters:  # records of version 1 have none
            values = entry.parameters
            first = alike.setdefault(tuple(value_of(entry, key) for key in columns), values)
            if first != values:
                both = {**first, **values}
                more |= {key: None for key in both if first.get(key) != values.get(key)}
    return columns + [key for key in more if key not in (*columns, *ignored)]


@cache
def _is_without_effect(key: str) -> bool:
    return key == "test" or any(fnmatchcase(key, pattern) for pattern in WITHOUT_EFFECT)


def count_columns(entries: Sequence[Entry]) -> dict[str, int]:
    """Every column that a run has, and how many runs have it."""
    counts: dict[str, int] = defaultdict(int)
    for entry in entries:
        metrics = [f"{split}.{name}" for split, named in entry.metrics.items() for name in named]
        keys = [*FIXED, *TEXTS, *metrics, *entry.typed, *entry.parameters]
        for column in dict.fromkeys(keys):
            counts[column] += value_of(entry, column) is not None
    return {column: count for column, count in counts.items() if count}


def require_column(entries: Sequence[Entry], column: str) -> None:
    """Refuses a column that no run has.

    Raises:
        StudyError: no run has it; the message names the nearest one.
    """
    if all(value_of(entry, column) is None for entry in entries):
        if column not in (*FIXED, *TEXTS):
            names = [*count_columns(entries)]
            names += [name.partition(".")[2] for name in metric_columns(entries)]
            hint = suggest(column, names)
            raise StudyError(f"{column}: no run has such a column{hint}")


def choose(entries: Sequence[Entry], condition: str) -> list[Entry]:
    """The runs for which a condition holds, such as `model.lr<0.01` or `status=finished`.

    Raises:
        StudyError: it is no condition, or its column is that of no run.
    """
    found = re.fullmatch(r"\s*([\w.@/]+)\s*(<=|>=|!=|=|<|>|~)=?\s*(.*?)\s*", condition)
    if found is None:
        hint = "write a column, one of < <= > >= = != ~ and a value, such as 'model.lr<0.01'"
        raise StudyError(f"--where {condition!r}: is no condition; {hint}")
    column, sign, text = found.groups()
    require_column(entries, column)
    return [entry for entry in entries if _holds(value_of(entry, column), sign, text)]


def _holds(value: Value, sign: str, text: str) -> bool:
    """Whether a comparison holds: of numbers if both sides are some, else of texts."""
    compare = COMPARISONS[sign]
    if value is None:
        return sign == "!=" and text not in ("", "null")
    try:
        right: Value = float(text)
    except ValueError:
        right = text
    if sign != "~" and isinstance(value, (int, float)) != isinstance(right, (int, float)):
        value, right = str(value), text
        return sign in ("=", "!=") and compare(value, right)
    return compare(value, right)


def sort(entries: Sequence[Entry], keys: Iterable[str]) -> list[Entry]:
    """The runs in the order of columns, each descending after a `-`; without a value last.

    Raises:
        StudyError: no run has such a column.
    """
    ordered = list(entries)
    for key in reversed([*keys]):
        column, descending = key.removeprefix("-"), key.startswith("-")
        require_column(entries, column)
        values = {entry.folder: value_of(entry, column) for entry in ordered}
        texts = any(isinstance(value, str) for value in values.values())
        known = [entry for entry in ordered if values[entry.folder] is not None]
        known.sort(key=_key(values, texts), reverse=descending)
        ordered = known + [entry for entry in ordered if values[entry.folder] is None]
    return ordered


def _key(values: Mapping[str, Value], texts: bool) -> Callable[[Entry], Any]:
    def key(entry: Entry) -> Any:
        value = values[entry.folder]
        return str(value) if texts else value

    return key

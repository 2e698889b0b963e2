"""Whether two runs gave the same numbers: every metric, every epoch of the history, the weights."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .identity import NOTHING, explain
from .records import read_history, read_record

IDENTICAL, TOLERATED = "identical", "within tolerance"
DIFFERENT, IMPOSSIBLE = "different", "cannot be reproduced"
EXIT_CODES = {IDENTICAL: 0, TOLERATED: 0, DIFFERENT: 3, IMPOSSIBLE: 4}


@dataclass(frozen=True)
class Comparison:
    """What came of comparing two runs.

    Attributes:
        verdict: One of the four above.
        numbers: A line for each number that differs: at most the first epoch of the history.
        causes: A line for each thing recorded that changed; if none did and numbers differ, that.
    """

    verdict: str
    numbers: list[str]
    causes: list[str]


def compare(before: Path, now: Path) -> Comparison:
    """Compares two finished runs, each a folder or a published record.

    A number that is only close is good enough on another machine alone, where the last bits of a
    sum may differ; how close, the configuration of the first run says under `tolerance`.
    """
    old, new = read_record(before), read_record(now)
    causes = explain(old, new)
    left, right = dict(_numbers(before, old)), dict(_numbers(now, new))
    names = [*left, *(name for name in right if name not in left)]
    pairs = {name: (left.get(name), right.get(name)) for name in names}
    differing = {name: pair for name, pair in pairs.items() if not _equal(*pair)}
    weights = [(record.get("files") or {}).get("best.pt") for record in (old, new)]
    numbers = list(_lines(differing))
    if weights[0] != weights[1]:
        numbers.append("weights: differ")
    if not numbers:
        return Comparison(IDENTICAL, [], causes)
    if "time budget" in (old.get("ended_by"), new.get("ended_by")):
        causes.append("time: training.max_minutes ended it, so the speed of the machine decided")
    elsewhere = any(line.startswith(("hardware:", "environment:")) for line in causes)
    bounds = (old.get("config") or {}).get("tolerance") or {"relative": 0.0, "absolute": 0.0}
    close = all(_close(*pair, bounds) for pair in differing.values())
    verdict = TOLERATED if elsewhere and close else DIFFERENT
    return Comparison(verdict, numbers, causes or [NOTHING])


def _numbers(path: Path, record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number of a run: the metrics, then the history epoch by epoch."""
    for split, values in (record.get("metrics") or {}).items():
        for name, value in values.items():
            yield f"{split} {name}", value
    history: Sequence[Mapping[str, float]] = record.get("history") or read_history(path)
    for number, row in enumerate(history, start=1):
        for name, value in row.items():
            yield f"epoch {number} {name}", value


def _equal(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return False
    return old == new or (math.isnan(old) and math.isnan(new))


def _close(old: float | None, new: float | None, bounds: Mapping[str, float]) -> bool:
    if old is None or new is None:
        return False
    return abs(old - new) <= bounds["absolute"] + bounds["relative"] * abs(old)


def _lines(differing: Mapping[str, tuple[float | None, float | None]]) -> Iterator[str]:
    """Each metric that differs, and of the history the first epoch that does."""
    first = next((name.split()[1] for name in differing if name.startswith("epoch ")), None)
    for name, (old, new) in differing.items():
        if not name.startswith("epoch ") or name.split()[1] == first:
            yield f"{name}: {_shown(old)} -> {_shown(new)}"


def _shown(value: float | None) -> str:
    return "none" if value is None else repr(value)

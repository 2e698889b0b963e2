"""Whether two runs gave the same numbers: every metric, every epoch of the history, the weights."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..training.results import read_history
from .drift import ELSEWHERE, Change, find_drift
from .record import read_record

IDENTICAL, TOLERATED = "identical", "within tolerance"
DIFFERENT, IMPOSSIBLE, ALTERED = "different", "cannot be reproduced", "altered"
EXIT_CODES = {IDENTICAL: 0, TOLERATED: 0, DIFFERENT: 3, IMPOSSIBLE: 4, ALTERED: 5}
UNEXPLAINED = "nothing that is recorded changed"
BUDGET = Change("time", "training.max_minutes ended the run, so the speed of the machine decided")
Pair = tuple[float | None, float | None]


@dataclass(frozen=True)
class Comparison:
    """What came of comparing two runs.

    Attributes:
        verdict: One of the five above.
        numbers: A line for each number that differs: of the history, the first epoch that does.
        changes: Each thing recorded that differs.
        reason: Why it cannot be reproduced, what was altered, or what a second run has shown.
    """

    verdict: str
    numbers: Sequence[str] = ()
    changes: Sequence[Change] = ()
    reason: str = ""

    @property
    def causes(self) -> list[str]:
        """The reason; or a line for each change; or, if numbers differ without one, that."""
        if self.reason:
            return [self.reason]
        lines = [str(change) for change in self.changes]
        return lines or ([UNEXPLAINED] if self.numbers else [])


def compare(before: Path, now: Path) -> Comparison:
    """Compares two finished runs, each a folder or a published record.

    A number that is only close is good enough on another machine alone, where the last bits of a
    sum may differ; how close: see `tolerance` in the configuration of the first run.
    """
    old, new = read_record(before), read_record(now)
    changes = find_drift(old, new)
    left, right = dict(_numbers(before, old)), dict(_numbers(now, new))
    names = [*left, *(name for name in right if name not in left)]
    pairs = {name: (left.get(name), right.get(name)) for name in names}
    differing = {name: pair for name, pair in pairs.items() if not is_equal(pair)}
    weights = [(record.get("files") or {}).get("best.pt") for record in (old, new)]
    numbers = list(_lines(differing))
    if weights[0] != weights[1]:
        numbers.append("weights: differ")
    if not numbers:
        return Comparison(IDENTICAL, [], changes)
    if "time budget" in (old.get("ended_by"), new.get("ended_by")):
        changes.append(BUDGET)
    elsewhere = any(change.kind in ELSEWHERE for change in changes)
    bounds = (old.get("config") or {}).get("tolerance") or {"relative": 0.0, "absolute": 0.0}
    close = all(is_close(pair, bounds) for pair in differing.values())
    return Comparison(TOLERATED if elsewhere and close else DIFFERENT, numbers, changes)


def _numbers(path: Path, record: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number of a run: the metrics, then the history epoch by epoch."""
    for split, values in (record.get("metrics") or {}).items():
        for name, value in values.items():
            yield (split, name), value
    history: Sequence[Mapping[str, float]] = record.get("history") or read_history(path)
    for number, row in enumerate(history, start=1):
        for name, value in row.items():
            yield ("epoch", str(number), name), value


def is_equal(pair: Pair) -> bool:
    """Whether two numbers are the same, or both not a number."""
    old, new = pair
    if old is None or new is None:
        return False
    return old == new or (math.isnan(old) and math.isnan(new))


def is_close(pair: Pair, bounds: Mapping[str, float]) -> bool:
    """Whether the second number differs from the first by at most `tolerance`."""
    old, new = pair
    if old is None or new is None:
        return False
    return abs(old - new) <= bounds["absolute"] + bounds["relative"] * abs(old)


def _lines(differing: Mapping[tuple[str, ...], Pair]) -> Iterator[str]:
    """Each metric that differs, and of the history the first epoch that does."""
    first = next((name[1] for name in differing if name[0] == "epoch"), None)
    for name, pair in differing.items():
        if name[0] != "epoch" or name[1] == first:
            old, new = ("none" if value is None else repr(value) for value in pair)
            yield f"{' '.join(name)}: {old} -> {new}"

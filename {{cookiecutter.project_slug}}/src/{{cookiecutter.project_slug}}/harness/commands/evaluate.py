"""Compute the metrics of a finished run: on a split, or on new data.

    study evaluate runs/NAME                   on validation
    study evaluate runs/NAME --split test      counted in the record of the run, as test_looks
    study evaluate runs/NAME --data new.csv    read by the reader of its data set
What the record has already is compared with it. Exit code: 0; 3 if a number differs by more than
`tolerance`; 1 a mistake; 2 wrong usage.
"""

import argparse
import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..reporting.shown import Metric
from ..runs.comparison import (
    DIFFERENT,
    EXIT_CODES,
    IDENTICAL,
    TOLERATED,
    is_close,
    is_equal,
)
from ..runs.folder import count_test_look, looks_at_test
from .loaded import add_run, open_run
from .printing import relative

if TYPE_CHECKING:  # torch takes seconds to import
    from ..inference import LoadedRun

Numbers = Mapping[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_run(parser)
    which = parser.add_mutually_exclusive_group()
    splits = ("train", "validation", "test")
    which.add_argument("--split", choices=splits, default="validation", help="(validation)")
    which.add_argument("--data", metavar="FILE", type=Path, help="new data, with targets")
    parser.add_argument("--json", action="store_true", help="every digit, for a program")


def run(arguments: argparse.Namespace) -> int:
    """Prints the metrics; the exit code says whether the record has others."""
    from ..inference.evaluation import evaluate, read_new

    loaded = open_run(arguments)
    place = str(arguments.data or arguments.split)
    new = arguments.data is not None
    opened = read_new(loaded, arguments.data) if new else nullcontext(loaded.split(place))
    with opened as split:
        found, num_rows = evaluate(loaded, split), len(split)
    known = {} if new else (loaded.record.get("metrics") or {}).get(place) or {}
    looks, told = count_look(loaded) if place == "test" and not new else (None, "")
    verdict = compare(loaded, found, known)
    if arguments.json:
        numbers = {name: value if math.isfinite(value) else None for name, value in found.items()}
        facts = {"run": relative(loaded.folder), "data": place, "rows": num_rows}
        facts |= {"metrics": numbers, "recorded": known or None, "test_looks": looks}
        print(json.dumps(facts, indent=2))
    else:
        print(f"{relative(loaded.folder)} on {place}, {num_rows} rows")
        print(*table(loaded, found), *verdict, sep="\n")
        if told:
            print(f"looks at the test split with this run: {told}")
    return EXIT_CODES[DIFFERENT] if any(line.startswith(DIFFERENT) for line in verdict) else 0


def count_look(loaded: "LoadedRun") -> tuple[int, str]:
    """How often the test split was looked at with a run, this time included; in words, too."""
    if "history" in loaded.record:  # as published, which stays as it is
        count = looks_at_test(loaded.record)
        return count, f"{count}, and this one, which a published record does not count"
    count = count_test_look(loaded.folder)
    return count, str(count)


def table(loaded: "LoadedRun", found: Numbers) -> list[str]:
    """A line a metric, as results/ shows it."""
    choices: Mapping[str, Any] = loaded.config["data"]["metrics"]
    rows = []
    for name, value in found.items():
        choice = choices.get(name) or {"higher_is_better": False}
        digits = choice.get("digits", 4)
        metric = Metric(name, choice["higher_is_better"], choice.get("unit"), digits)
        unit = f" ({metric.unit})" if metric.unit else ""
        rows.append((f"{name}{unit}", f"{metric.scale * value:.{digits}f}"))
    width = max(len(name) for name, _ in rows)
    return [f"  {name:{width}}  {value:>10}" for name, value in rows]


def compare(loaded: "LoadedRun", found: Numbers, known: Numbers) -> list[str]:
    """A line: whether these are the numbers of the record; nothing if that has none."""
    if not known:
        return []
    pairs = {name: (known.get(name), value) for name, value in found.items()}
    differing = {name: pair for name, pair in pairs.items() if not is_equal(pair)}
    if not differing:
        return [f"{IDENTICAL} to the record"]
    bounds = loaded.config.get("tolerance") or {"relative": 0.0, "absolute": 0.0}
    close = all(is_close(pair, bounds) for pair in differing.values())
    devices = (loaded.record["device"], loaded.device.type)
    where = f"; computed on {devices[1]}, recorded on {devices[0]}" if len({*devices}) > 1 else ""
    lines = ", ".join(f"{name} was {pair[0]!r}, is {pair[1]!r}" for name, pair in differing.items())
    return [f"{TOLERATED if close else DIFFERENT}: {lines}{where}"]

"""How verdicts and causes look on a terminal."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..runs.comparison import EXIT_CODES, IDENTICAL, Comparison


def print_lines(title: str, lines: Sequence[str]) -> None:
    """A title and the lines below it; nothing if there are none."""
    if lines:
        print(f"{title}:", *lines, sep="\n  ")


def print_table(rows: Sequence[tuple[str, Comparison]]) -> int:
    """A line a run: its verdict and why; returns the exit code of the worst."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, found in rows:
        why = "; ".join([*found.numbers[:2], *found.causes]) if found.verdict != IDENTICAL else ""
        print(f"{name:{width}}  {found.verdict:20}  {why}".rstrip())
    worst = max((found.verdict for _, found in rows), key=list(EXIT_CODES).index, default=IDENTICAL)
    print(f"{len(rows)} runs: {worst if rows else 'none is published'}")
    return EXIT_CODES[worst]


def relative(path: Path) -> str:
    """A path as it can be typed from here."""
    return os.path.relpath(path)

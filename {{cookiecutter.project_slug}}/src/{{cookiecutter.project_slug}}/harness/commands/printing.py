"""How verdicts and causes look on a terminal."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..runs.comparison import EXIT_CODES, IDENTICAL, Comparison


def print_lines(title: str, lines: Sequence[str]) -> None:
    """A title and the lines below it; nothing if there are none."""
    if lines:
        print(f"{title}:", *lines, sep="\n  ")


def print_table(rows: Sequence[tuple[str, Comparison]], told: Collection[str] = ()) -> None:
    """A line a run: its verdict and numbers; then each cause once, with the runs it concerns.

    A cause that was `told` already is left out.
    """
    width = max(len(name) for name, _ in rows)
    concerned: dict[str, list[str]] = {}
    for name, found in rows:
        numbers = "; ".join(found.numbers[:2])
        print(f"{name:{width}}  {found.verdict:20}  {numbers}".rstrip())
        for cause in found.causes if found.verdict != IDENTICAL else ():
            if cause not in told:
                concerned.setdefault(cause, []).append(name)
    print_concerned("causes", concerned)
    print(f"{len(rows)} run{'s' if len(rows) > 1 else ''}: {worst(rows)}")


def print_concerned(title: str, concerned: Mapping[str, Sequence[str]]) -> None:
    """Each line once, with the names that it concerns."""
    print_lines(title, [f"{line} ({', '.join(names)})" for line, names in concerned.items()])


def worst(rows: Sequence[tuple[str, Comparison]]) -> str:
    """The worst verdict."""
    return max((found.verdict for _, found in rows), key=list(EXIT_CODES).index)


def relative(path: Path) -> str:
    """A path as it can be typed from here."""
    return os.path.relpath(path)

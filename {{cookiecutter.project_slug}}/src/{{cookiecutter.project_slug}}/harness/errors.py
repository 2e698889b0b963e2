"""The one kind of error that is a person's to correct, and what helps to do so."""

import difflib
from collections.abc import Sequence


class StudyError(Exception):
    """A mistake that a person can correct: shown as one line, without a traceback."""


def suggest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the nearest one, or all if they are few."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; there are: {', '.join(sorted(known))}" if 0 < len(known) <= 12 else ""


def install(group: str) -> str:
    """The command that installs an optional group of the study's dependencies."""
    return f"uv pip install --python .venv/bin/python -c requirements.lock --group {group}"

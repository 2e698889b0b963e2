"""history.csv: a row an epoch, numbers in full precision."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import write_atomically

NAME = "history.csv"


def write_history(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Writes the history of a run into its folder."""
    text = io.StringIO(newline="")
    if history:
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    write_atomically(folder / NAME, text.getvalue().encode())


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's history, an epoch each; none if there is no such file."""
    try:
        text = (folder / NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    rows = csv.DictReader(io.StringIO(text))
    return [{name: float(value) for name, value in row.items()} for row in rows]

"""The numbers of a run as files: history.csv, a row an epoch, and metrics.json."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import StudyError
from ..files import to_json, write_atomically

HISTORY = "history.csv"
METRICS = "metrics.json"


def write_history(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Writes the history of a run into its folder."""
    text = io.StringIO(newline="")
    if history:
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    write_atomically(folder / HISTORY, text.getvalue().encode())


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's history, an epoch each; none if there is no such file."""
    try:
        text = (folder / HISTORY).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    rows = csv.DictReader(io.StringIO(text))
    return [{name: float(value) for name, value in row.items()} for row in rows]


def write_metrics(folder: Path, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Writes the final numbers of a run, by split and name, into its folder."""
    write_atomically(folder / METRICS, to_json(metrics))


def read_metrics(folder: Path) -> dict[str, dict[str, float]]:
    """The final numbers of a run, by split and name.

    Raises:
        StudyError: there are none.
    """
    try:
        metrics: dict[str, dict[str, float]] = json.loads((folder / METRICS).read_bytes())
        return metrics
    except FileNotFoundError as error:
        raise StudyError(f"{folder}: is no finished run: there is no {METRICS}") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"{folder / METRICS}: cannot be read ({error})") from error

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
RESULTS = ("best.pt", HISTORY, METRICS)


def history_to_csv(history: Sequence[Mapping[str, float]]) -> bytes:
    """The rows of a history as a table, with every digit; `read_history` gives them back."""
    text = io.StringIO(newline="")
    if history:
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    return text.getvalue().encode()


def write_history(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Writes the history of a run into its folder."""
    write_atomically(folder / HISTORY, history_to_csv(history))


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's history, an epoch each; none if there is no such file.

    Raises:
        StudyError: it cannot be read.
    """
    try:
        text = (folder / HISTORY).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StudyError(f"{folder / HISTORY}: cannot be read ({error})") from error
    try:
        rows = csv.DictReader(io.StringIO(text), strict=True)
        return [{name: _to_number(value) for name, value in row.items()} for row in rows]
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise StudyError(f"{folder / HISTORY}: is no history of a run ({error})") from error


def _to_number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


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

"""Estimates as CSV, Markdown and LaTeX, and the table in README.md."""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from ..errors import StudyError
from ..files import write_atomically
from .estimates import Estimate, Row

MARKERS = ("<!-- results: begin -->", "<!-- results: end -->")


def to_csv(rows: Sequence[Row]) -> str:
    """Plain numbers in full precision."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "std", "ci95_half_width")
    writer.writerow(
        ["experiment", "num_seeds", *parts, *(f"difference_to_baseline_{part}" for part in parts)]
    )
    for row in rows:
        difference = ("", "", "") if row.difference is None else astuple(row.difference)
        writer.writerow([row.experiment, row.num_seeds, *astuple(row.value), *difference])
    return text.getvalue()


def _cells(row: Row, plus_minus: str) -> list[str]:
    """A row of the Markdown and the LaTeX table, in percent."""

    def spread(estimate: Estimate, sign: str) -> str:
        value = f"{100 * estimate.mean:{sign}.2f}"
        return f"{value} {plus_minus} {100 * estimate.half_width:.2f}"

    difference = "" if row.difference is None else spread(row.difference, "+")
    std = f"{100 * row.value.std:.2f}"
    return [row.experiment, str(row.num_seeds), spread(row.value, ""), std, difference]


def to_markdown(rows: Sequence[Row], metric: str) -> str:
    """The table of README.md."""
    header = ["experiment", "seeds", f"test {metric} (%)", "std", f"minus {rows[0].experiment}"]
    lines = [header, ["---", *["---:"] * 4], *(_cells(row, "±") for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nMean over seeds ± half of the 95 % confidence interval (Student's t).\n"


def to_latex(rows: Sequence[Row], metric: str) -> str:
    """The same table for a paper; needs the package booktabs."""
    header = ["experiment", "seeds", f"test {metric} (\\%)", "std", f"minus {rows[0].experiment}"]
    table = [header, *(_cells(row, r"$\pm$") for row in rows)]
    lines = [" & ".join(cells).replace("_", r"\_") + r" \\" for cells in table]
    begin = [r"\begin{tabular}{lrrrr}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*begin, *lines[1:], r"\bottomrule", r"\end{tabular}"]) + "\n"


def put_into_readme(path: Path, table: str) -> None:
    """Replaces the text between the two markers of the README.

    Raises:
        StudyError: a marker is missing.
    """
    text = path.read_text(encoding="utf-8")
    begin, end = (text.find(marker) for marker in MARKERS)
    if not 0 <= begin < end:
        raise StudyError(f"{path}: {MARKERS[0]} and {MARKERS[1]} must be in it, in this order")
    changed = f"{text[:begin]}{MARKERS[0]}\n{table}{text[end:]}"
    if changed != text:
        write_atomically(path, changed.encode())

"""Estimates as CSV, Markdown and LaTeX, and the table in README.md."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from ..errors import StudyError
from ..files import write_atomically
from ..training.results import read_metrics
from .estimates import Estimate, Row, compare_to_baseline
from .shown import Metric, Shown

MARKERS = ("<!-- results: begin -->", "<!-- results: end -->")
Rows = Mapping[Metric, Sequence[Row]]  # of each metric, an experiment a row
Estimates = Sequence[tuple[Shown, Rows]]  # a data set each


def estimate(shown: Shown, folders: Mapping[str, Sequence[Path]]) -> Rows:
    """Every metric of the experiments of a data set, over the runs in these folders.

    Raises:
        StudyError: a run has no such number.
    """
    return {
        metric: compare_to_baseline(
            {
                name: [_read(folder, shown.split, metric.name) for folder in folders[name]]
                for name in shown.experiments
            }
        )
        for metric in shown.metrics
    }


def _read(folder: Path, split: str, metric: str) -> float:
    try:
        return read_metrics(folder)[split][metric]
    except KeyError as error:
        hint = "see data.metrics in conf/data/, and test: in conf/experiment/"
        raise StudyError(f"{folder}: has no {split} {metric}; {hint}") from error


def to_csv(estimates: Estimates) -> str:
    """Plain numbers in full precision: a row an experiment and a metric."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "std", "ci95_half_width")
    differences = [f"difference_to_baseline_{part}" for part in parts]
    writer.writerow(["data", "experiment", "metric", "num_seeds", *parts, *differences])
    for shown, rows in estimates:
        for metric, row in ((metric, row) for metric, group in rows.items() for row in group):
            difference = ("", "", "") if row.difference is None else astuple(row.difference)
            start = [shown.data, row.experiment, metric.name, row.num_seeds]
            writer.writerow([*start, *astuple(row.value), *difference])
    return text.getvalue()


def _header(shown: Shown, arrows: tuple[str, str]) -> list[str]:
    """The columns: three a metric; an arrow points to where it is better."""
    cells = ["experiment", "seeds"]
    for metric in shown.metrics:
        arrow = arrows[0] if metric.higher_is_better else arrows[1]
        cells += [f"{metric.label(shown.split)} {arrow}", "std", f"minus {shown.experiments[0]}"]
    return cells


def _lines(rows: Rows, plus_minus: str) -> Iterator[list[str]]:
    """The cells of each experiment, in the units of its metrics."""
    for group in zip(*rows.values(), strict=True):
        cells = [group[0].experiment, str(group[0].num_seeds)]
        for metric, row in zip(rows, group, strict=True):
            cells += _cells(metric, row, plus_minus)
        yield cells


def _cells(metric: Metric, row: Row, plus_minus: str) -> list[str]:
    def number(value: float, sign: str = "") -> str:
        return f"{metric.scale * value:{sign}.{metric.digits}f}"

    def spread(found: Estimate, sign: str = "") -> str:
        mean = number(found.mean, sign)
        return (
            mean if found.half_width is None else f"{mean} {plus_minus} {number(found.half_width)}"
        )

    difference = "" if row.difference is None else spread(row.difference, "+")
    return [spread(row.value), "" if row.value.std is None else number(row.value.std), difference]


def to_markdown(estimates: Estimates) -> str:
    """The table of README.md; of several data sets, a table each."""
    tables = []
    for shown, values in estimates:
        header = _header(shown, ("↑", "↓"))
        lines = [header, ["---", *["---:"] * (len(header) - 1)], *_lines(values, "±")]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        tables.append(table if len(estimates) == 1 else f"**{shown.data}**\n\n{table}")
    rows = [row for _, groups in estimates for group in groups.values() for row in group]
    note = "Mean over seeds ± half of the 95 % confidence interval (Student's t)."
    if all(row.value.half_width is None for row in rows):
        note = "Of one seed: without a confidence interval."
    return "\n\n".join([*tables, note]) + "\n"


def to_latex(estimates: Estimates) -> str:
    """The same tables for a paper; they need the package booktabs."""
    return "\n".join(_to_latex(shown, rows) for shown, rows in estimates)


def _to_latex(shown: Shown, rows: Rows) -> str:
    header = _header(shown, (r"$\uparrow$", r"$\downarrow$"))
    escape = str.maketrans({"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#"})
    cells = [
        [cell.translate(escape) for cell in line] for line in [header, *_lines(rows, r"$\pm$")]
    ]
    lines = [" & ".join(line) + r" \\" for line in cells]
    columns = "l" + "r" * (len(header) - 1)
    begin = [r"\begin{tabular}" + "{" + columns + "}", r"\toprule"]
    end = [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*begin, lines[0], r"\midrule", *lines[1:], *end]) + "\n"


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

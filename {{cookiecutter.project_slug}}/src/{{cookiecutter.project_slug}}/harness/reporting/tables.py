"""Estimates as CSV, Markdown and LaTeX, and the table in README.md."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from ..errors import StudyError
from ..files import write_atomically
from ..runs.index import Value
from ..training.results import read_metrics
from . import grid
from .captions import Rows, compare_all, describe
from .estimates import Row, compare_to_baseline
from .shown import Shown

MARKERS = ("<!-- results: begin -->", "<!-- results: end -->")
Estimates = Sequence[tuple[Shown, Rows]]  # a data set each
PARTS = ("mean", "std", "ci95_half_width")
ROUND = ".6g"  # of what functions of statistics give: their last bits may differ elsewhere


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
            },
            shown.overlap,
            shown.num_rows if metric.unit == "%" else (),
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
    header = ["data", "experiment", "metric", "repeats", "num_repeats", *PARTS]
    header += [f"difference_to_baseline_{part}" for part in PARTS]
    header += ["num_rows", "over_rows_ci95_low", "over_rows_ci95_high"]
    lines: list[list[Value]] = []
    for shown, rows in estimates:
        num_rows = sum(shown.num_rows) or None
        for metric, row in ((metric, row) for metric, group in rows.items() for row in group):
            difference = ("", "", "") if row.difference is None else astuple(row.difference)
            over_rows = [format(value, ROUND) for value in row.over_rows or ()] or ["", ""]
            names = (shown.data, row.experiment, metric.name, shown.repeats)
            numbers = (*astuple(row.value), *difference)
            lines.append([*names, len(row.values), *numbers, num_rows, *over_rows])
    return grid.to_csv(header, lines)


def to_pairs_csv(estimates: Estimates) -> str:
    """Every pair of experiments, and whether the first may be called better."""
    header = ["data", "metric", "first", "second", *(f"difference_{part}" for part in PARTS)]
    lines: list[list[Value]] = []
    for shown, rows in estimates:
        for metric in rows:
            for pair in compare_all(shown, rows, metric):
                found = [pair.first, pair.second, *astuple(pair.difference)]
                tested = ["" if p is None else format(p, ROUND) for p in (pair.p, pair.corrected)]
                answer = "yes" if pair.is_better else "not shown"
                lines.append([shown.data, metric.name, *found, *tested, answer])
    return grid.to_csv([*header, "p", "p_holm", "first_is_better"], lines)


def _header(shown: Shown, rows: Rows, arrows: tuple[str, str]) -> list[str]:
    """The columns: three a metric, four of a share; an arrow points to where it is better."""
    cells = ["experiment", shown.repeats]
    for metric, group in rows.items():
        arrow = arrows[0] if metric.higher_is_better else arrows[1]
        cells += [f"{metric.label(shown.split)} {arrow}", "std"]
        cells += ["over rows"] if _is_share(group) else []
        cells.append(f"minus {shown.experiments[0]}")
    return cells


def _is_share(group: Sequence[Row]) -> bool:
    return any(row.over_rows for row in group)


def _lines(rows: Rows, plus_minus: str, runs: Mapping[str, str]) -> Iterator[list[str]]:
    """The cells of each experiment, in the units of its metrics."""
    for group in zip(*rows.values(), strict=True):
        name = group[0].experiment
        cells = [name, runs.get(name, str(len(group[0].values)))]
        for metric, row in zip(rows, group, strict=True):
            spread = "" if row.value.std is None else metric.number(row.value.std)
            cells += [metric.spread(row.value, plus_minus), spread]
            if _is_share(rows[metric]):
                cells.append(" to ".join(map(metric.number, row.over_rows or ())))
            gap = row.difference
            cells.append("" if gap is None else metric.spread(gap, plus_minus, "+"))
        yield cells


def to_markdown(estimates: Estimates, runs: Mapping[str, str] | None = None) -> str:
    """The table with its caption; of several data sets, a table each.

    Args:
        estimates: Of each data set.
        runs: What stands for the runs of an experiment, such as links; otherwise their number.
    """
    parts = []
    for shown, rows in estimates:
        header = _header(shown, rows, ("↑", "↓"))
        marks = ["---", *["---:"] * (len(header) - 1)]
        lines = [header, marks, *_lines(rows, "±", runs or {})]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts += [table] if len(estimates) == 1 else [f"**{shown.data}**", table]
        parts += describe(shown, rows)
    return "\n\n".join(parts) + "\n"


def to_latex(estimates: Estimates) -> str:
    """The same tables for a paper; they need the package booktabs. Captions are comments."""
    return "\n".join(_to_latex(shown, rows) for shown, rows in estimates)


def _to_latex(shown: Shown, rows: Rows) -> str:
    header = _header(shown, rows, (r"$\uparrow$", r"$\downarrow$"))
    escape = str.maketrans({"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#"})
    cells = [
        [cell.translate(escape) for cell in line] for line in [header, *_lines(rows, r"$\pm$", {})]
    ]
    captions = [f"% {line}" for line in describe(shown, rows)]
    return "\n".join([*grid.frame_latex(cells), *captions]) + "\n"


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

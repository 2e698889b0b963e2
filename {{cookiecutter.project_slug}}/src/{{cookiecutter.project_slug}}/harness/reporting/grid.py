"""A header and rows of cells as text for a terminal, CSV and LaTeX."""

import csv
import io
import shutil
import sys
from collections.abc import Sequence

from ..runs.index import Value

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
LEAST = 20  # characters of a first column that is cut


def to_cell(column: str, value: Value) -> str:
    """A value as a person reads it: numbers with four digits, times with a unit."""
    if value is None:
        return ""
    if column in ("age", "duration", "seconds") and isinstance(value, (int, float)):
        size, unit = next((pair for pair in UNITS if value >= pair[0]), UNITS[-1])
        return f"{value // size:.0f} {unit}" if column == "age" else f"{value / size:.1f} {unit}"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("\n", " ")


def to_cells(header: Sequence[str], rows: Sequence[Sequence[Value]]) -> list[list[str]]:
    """The values of a table as a person reads them."""
    return [[to_cell(name, value) for name, value in zip(header, row, strict=True)] for row in rows]


def to_text(header: Sequence[str], values: Sequence[Sequence[Value]]) -> str:
    """Aligned columns, numbers to the right; the first is cut where a terminal is too narrow."""
    numeric = [
        not any(isinstance(row[index], str) for row in values) for index in range(len(header))
    ]
    rows = to_cells(header, values)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    if sys.stdout.isatty():
        excess = sum(widths) + 2 * (len(widths) - 1) - shutil.get_terminal_size().columns
        widths[0] = max(min(LEAST, widths[0]), widths[0] - max(0, excess))
    lines = []
    for row in (header, *rows):
        cells = [_cut(row[0], widths[0]), *row[1:]]
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"


def _cut(text: str, width: int) -> str:
    """A text with its middle left out, if it is too long: the end tells names apart."""
    if len(text) <= width:
        return text
    head = (width - 1) // 3
    return f"{text[:head]}…{text[head + 1 - width:]}"


def to_csv(header: Sequence[str], rows: Sequence[Sequence[Value]]) -> str:
    """Plain values in full precision."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def to_latex(header: Sequence[str], values: Sequence[Sequence[Value]]) -> str:
    """A table for a paper; it needs the package booktabs."""
    escape = str.maketrans(
        {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\^{}"}
        | {letter: f"\\{letter}" for letter in "_%&#$" + "{" + "}"}
    )
    rows = [header, *to_cells(header, values)]
    return "\n".join(frame_latex([[cell.translate(escape) for cell in row] for row in rows])) + "\n"


def frame_latex(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table with the rules of booktabs; the first row is the header."""
    lines = [" & ".join(row) + r" \\" for row in rows]
    begin = [r"\begin{tabular}" + "{l" + "r" * (len(rows[0]) - 1) + "}", r"\toprule", lines[0]]
    return [*begin, r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"]

"""Compare all runs: a table of their metrics and of the parameters that differ.

study compare --group lr-study --sort -accuracy
study compare --where "model.lr<0.01" --where status=finished
study compare --over seed
study compare --columns run,model.lr,accuracy --csv
study compare --columns
"""

import argparse
import os
from collections import Counter
from pathlib import Path

from ..errors import StudyError
from ..files import write_atomically
from ..reporting import columns, grid, pages
from ..runs.index import Entry, Value, list_runs
from ..study import ROOT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="*", help="these alone; else all")
    parser.add_argument("--group", help="the runs of this group: group=NAME when they were run")
    condition = "the runs for which it holds, such as 'model.lr<0.01'; may be repeated"
    parser.add_argument("--where", metavar="CONDITION", action="append", default=[], help=condition)
    parser.add_argument("--sort", metavar="COLUMNS", help="by these; -accuracy: the largest first")
    shown = "these, such as run,model.lr,accuracy; alone: list all columns"
    parser.add_argument("--columns", metavar="COLUMNS", nargs="?", const="", help=shown)
    over = (
        "fold the runs that differ in this alone, such as seed, and compare what is left in pairs"
    )
    parser.add_argument("--over", metavar="COLUMNS", help=over)
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--csv", action="store_true", help="plain numbers, in full precision")
    formats.add_argument("--latex", action="store_true", help="a table for a paper")
    page = "write a page that opens without a network, to sort and search"
    formats.add_argument("--html", metavar="FILE", type=Path, help=page)


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; no run to show is an error."""
    everything = list_runs(ROOT)
    entries = select(everything, arguments)
    if arguments.columns == "":
        counted = columns.count_columns(entries).items()
        print(grid.to_text(["column", "runs"], [[*pair] for pair in counted]), end="")
        return 0
    if arguments.over:
        return fold(entries, arguments)
    names = choose_columns(entries, arguments.columns)
    for name in names:
        columns.require_column(entries, name)
    values = [[columns.value_of(entry, name) for name in names] for entry in entries]
    counts = Counter(entry.status for entry in entries)
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    unread = [str(entry.texts["error"]) for entry in everything if entry.status == "unreadable"]
    notes = [f"{len(entries)} run{'s' if len(entries) > 1 else ''}: {told}", *unread]
    write(names, values, notes, arguments)
    return 0


def select(entries: list[Entry], arguments: argparse.Namespace) -> list[Entry]:
    """The runs that are meant, in the order that is asked for.

    Raises:
        StudyError: there is none.
    """
    if not entries:
        raise StudyError("runs/: there is no run yet; type: python run.py")
    if arguments.runs:
        wanted = [Path(os.path.abspath(run)).relative_to(ROOT).as_posix() for run in arguments.runs]
        for name in wanted:
            if all(entry.folder != name for entry in entries):
                raise StudyError(f"{name}: is not a run; type: study compare")
        entries = [entry for entry in entries if entry.folder in wanted]
    if arguments.group is not None:
        entries = [entry for entry in entries if entry.texts.get("group") == arguments.group]
    for condition in arguments.where:
        entries = columns.choose(entries, condition)
    if not entries:
        raise StudyError("no run is like this; type: study compare --columns")
    return columns.sort(entries, arguments.sort.split(",")) if arguments.sort else entries


def choose_columns(entries: list[Entry], typed: str | None) -> list[str]:
    """The columns that were typed; else those that tell the runs apart, and their metrics."""
    if typed:
        return [name.strip() for name in typed.split(",") if name.strip()]
    metrics = columns.metric_columns(entries)
    group = ["group"] if any(entry.texts.get("group") for entry in entries) else []
    return ["run", *group, "status", "age", "duration", *columns.differing(entries), *metrics]


def fold(entries: list[Entry], arguments: argparse.Namespace) -> int:
    """Prints a row for the runs that differ in one thing alone, and what of two rows is better.

    Raises:
        StudyError: no run is finished.
    """
    from ..reporting import folding  # with scipy, which takes time to import

    over = arguments.over.split(",")
    for name in over:
        columns.require_column(entries, name)
    folds = folding.fold(entries, over)
    if not folds:
        raise StudyError("no run is finished, so there is nothing to fold")
    names = [name for name in (arguments.columns or "").split(",") if name]
    parameters = columns.differing([each.first for each in folds], without=over)
    metrics = [name for name in names if name not in parameters] or columns.metric_columns(entries)
    header, rows = folding.to_rows(folds, parameters, metrics)
    notes = [
        f"± half of the 95 % interval over {arguments.over}",
        *folding.describe_pairs(folds, parameters, metrics),
        *folding.describe_left_out(entries, folds),
    ]
    write(header, rows, notes, arguments)
    return 0


def write(
    header: list[str],
    rows: list[list[Value]],
    notes: list[str],
    arguments: argparse.Namespace,
) -> None:
    """Writes the table in the form that is asked for; what is read by machines has no notes."""
    if arguments.html is not None:
        title = f"{ROOT.name}: {len(rows)} rows"
        table = pages.make_table(header, rows, sortable=True)
        write_atomically(
            arguments.html, pages.make_page(title, table, *map(pages.paragraph, notes))
        )
        print(f"{arguments.html}: written")
    elif arguments.csv:
        print(grid.to_csv(header, rows), end="")
    elif arguments.latex:
        print(grid.to_latex(header, rows), end="")
    else:
        print(grid.to_text(header, rows) + "\n".join(notes))

"""Print the journal of the study as Markdown: day by day what was tried, why, and what came of it.

study journal > JOURNAL.md
study journal --group lr-study
"""

import argparse
from collections.abc import Iterator
from itertools import groupby

from ..errors import StudyError
from ..reporting.columns import metric_columns, value_of
from ..runs.drift import find_drift
from ..runs.fingerprint import identity_in
from ..runs.index import Entry, list_runs
from ..runs.record import read_record
from ..study import ROOT

MOST = 5  # changes of a run that are written out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--group", help="the runs of this group alone")


def run(arguments: argparse.Namespace) -> int:
    """Prints the journal; nothing to tell is an error."""
    entries = [each for each in list_runs(ROOT) if each.texts.get("started") and not each.rerun]
    if arguments.group is not None:
        entries = [entry for entry in entries if entry.texts.get("group") == arguments.group]
    if not entries:
        raise StudyError("there is no such run in runs/; type: python run.py")
    before = dict(zip((each.folder for each in entries[1:]), entries, strict=False))
    print(f"# Journal of {ROOT.name}")
    for day, of_day in groupby(entries, key=lambda entry: str(entry.texts["started"])[:10]):
        print(f"\n## {day}")
        for (note, group), runs in groupby(of_day, key=_reason):
            title = " ".join(filter(None, [note, f"(group {group})" if group else ""]))
            print(f"\n{title or 'Without a note'}\n")
            for entry in runs:
                print("\n".join(_lines(entry, before.get(entry.folder))))
    return 0


def _reason(entry: Entry) -> tuple[str, str]:
    """Why a run was made: its note, or its description, and its group."""
    texts = entry.texts
    return texts.get("note") or texts.get("description") or "", texts.get("group") or ""


def _lines(entry: Entry, before: Entry | None) -> Iterator[str]:
    """A run: when, which, what is new, what came of it."""
    time = str(entry.texts["started"])[11:16]
    outcome = ", ".join(_outcome(entry, before)) or "no numbers"
    yield f"- {time} `{entry.folder}`: {entry.status}; {outcome}"
    if entry.texts.get("error"):
        yield f"  - {entry.texts['error']}"
    changes = [] if before is None else _changes(before, entry)
    if changes:
        rest = f", and {len(changes) - MOST} more" if len(changes) > MOST else ""
        yield f"  - since the run before: {'; '.join(changes[:MOST])}{rest}"


def _outcome(entry: Entry, before: Entry | None) -> Iterator[str]:
    """Each metric, and by how much it is more or less than that of the run before."""
    for column in metric_columns([entry]):
        value, old = (None if each is None else value_of(each, column) for each in (entry, before))
        if isinstance(value, (int, float)):
            gap = f" ({value - old:+.2g})" if isinstance(old, (int, float)) else ""
            yield f"{column.replace('.', ' ')} {value:.4g}{gap}"


def _changes(before: Entry, entry: Entry) -> list[str]:
    """What is known of one run and not of the other: values, files of code, data."""
    old, new = (identity_in(read_record(ROOT / each.folder)) for each in (before, entry))
    return [str(change) for change in find_drift(old, new)]

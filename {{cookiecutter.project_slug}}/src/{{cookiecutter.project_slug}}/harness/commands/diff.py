"""Show what differs between two runs: numbers, causes, lines of code.

A run is a folder in runs/, or a record in results/records/.
    study diff runs/A runs/B
"""

import argparse
import difflib
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..runs.comparison import compare
from ..runs.drift import PREPARES, Change
from .printing import print_lines, relative
from .restoring import Impossible, RecordedRun, find, refuse_running, restored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("old", metavar="A", type=Path, help="a run")
    parser.add_argument("new", metavar="B", type=Path, help="another run")


def run(arguments: argparse.Namespace) -> int:
    """Prints what differs; exit code 0 whether something does or not."""
    old, new = find(arguments.old), find(arguments.new)
    for run_ in (old, new):
        print_lines(f"{relative(run_.path)}: altered", run_.find_alterations())
        refuse_running(run_)
    found = compare(old.path, new.path)
    print_lines("numbers", found.numbers or ["all are the same"])
    print_lines("causes", found.causes or ["nothing that is recorded differs"])
    edited = edited_without_effect(old, new, found.changes)
    print_lines("edited, without effect on a number", edited)
    if any(change.kind == "code" for change in found.changes):
        try:
            with restored(new) as study:
                show_code(old, study, found.changes)
        except Impossible as error:
            print(f"the code cannot be shown: {error}")
    return 0


def edited_without_effect(
    old: RecordedRun, new: RecordedRun, changes: Sequence[Change]
) -> list[str]:
    """Files of code whose bytes differ, though what they compute is the same or is not used."""
    if not (old.record.get("code") and new.record.get("code")):
        return []
    left, right = (run.record.get("source") or {} for run in (old, new))
    told = {change.key.removesuffix(PREPARES) for change in changes}
    names = [name for name in sorted({*left, *right}) if left.get(name) != right.get(name)]
    return [name for name in names if name not in told]


def show_code(old: RecordedRun, study: Path, changes: Sequence[Change]) -> None:
    """The lines of code that a run had, against those in `study`, of each file that changed."""
    names = [change.key for change in changes if change.kind == "code"]
    if not names:
        return
    try:
        with restored(old) as before:
            for name in names:
                lines = read_lines(before / name), read_lines(study / name)
                sys.stdout.writelines(difflib.unified_diff(*lines, f"a/{name}", f"b/{name}", n=1))
    except Impossible as error:
        print(f"the code cannot be shown: {error}")


def read_lines(path: Path) -> list[str]:
    """The lines of a text; none of a file that is missing or is no text."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").splitlines(keepends=True)
    return []

"""Run a recorded run again, and compare every metric, epoch and weight.

A RUN is a folder in runs/, or a record in results/records/. Its commit, its uncommitted changes
and its data are restored first.
    study reproduce runs/NAME                 the same run
    study reproduce runs/NAME model.lr=0.01   the same with one thing changed, into runs/
    study reproduce --all                     every published run, as a table
Exit code: 0 identical, or within tolerance on another machine; 3 different; 4 cannot be reproduced;
1 a mistake; 2 wrong usage.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import StudyError
from ..runs.comparison import EXIT_CODES, IDENTICAL, IMPOSSIBLE, Comparison, compare
from ..runs.published import PUBLISHED
from ..study import ROOT
from .printing import print_lines, print_table, relative
from .restoring import Impossible, RecordedRun, find, rerun, restored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("run", metavar="RUN", nargs="?", type=Path)
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="what is to be changed")
    parser.add_argument("--all", action="store_true", help="every published run")
    parser.add_argument(
        "--env", action="store_true", help="first build the environment from the lock of that time"
    )
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Prints the verdict; returns its exit code."""
    if (arguments.run is None) != arguments.all:
        arguments.usage_error("name a run, or --all")
    if wrong := [item for item in arguments.overrides if "=" not in item]:
        arguments.usage_error(f"{wrong[0]}: is no KEY=VALUE; one RUN at a time")
    if arguments.all:
        return reproduce_all(env=arguments.env)
    try:
        return reproduce_one(find(arguments.run), arguments.overrides, env=arguments.env)
    except Impossible as error:
        print(f"{IMPOSSIBLE}: {error}")
        return EXIT_CODES[IMPOSSIBLE]


def reproduce_one(recorded: RecordedRun, overrides: Sequence[str], *, env: bool) -> int:
    """Runs one record again, and prints the verdict and its causes."""
    with restored(recorded) as study:
        folder = rerun(recorded, study, overrides, env=env)
    found = compare(recorded.path, folder)
    if overrides:
        print_lines("changed", found.causes)
        print_lines("numbers", found.numbers or ["all are the same"])
        print(f"recorded in {relative(folder)}")
        return 0
    print(f"{found.verdict}: {relative(recorded.path)}")
    print_lines("numbers", found.numbers)
    print_lines("changed" if found.verdict == IDENTICAL else "causes", found.causes)
    if found.verdict == IDENTICAL:
        shutil.rmtree(folder)
    else:
        print(f"the new run is kept in {relative(folder)}")
        if not env and any(change.kind == "environment" for change in found.changes):
            print("to rule out the environment, add --env: it is then built as it was")
    return EXIT_CODES[found.verdict]


def reproduce_all(*, env: bool) -> int:
    """Every published run again, as a table; the exit code is that of the worst."""
    paths = sorted((ROOT / PUBLISHED).glob("*.json"))
    if not paths:
        raise StudyError(f"{relative(ROOT / PUBLISHED)}: contains no record; type: dvc repro")
    rows = []
    for path in paths:
        print(f"running {path.stem} again ...", file=sys.stderr)
        recorded = RecordedRun(path)
        try:
            with restored(recorded) as study:
                folder = rerun(recorded, study, [], env=env, quiet=True)
            rows.append((path.stem, compare(path, folder)))
            shutil.rmtree(folder)
        except StudyError as error:
            rows.append((path.stem, Comparison(IMPOSSIBLE, reason=str(error))))
    return print_table(rows)

"""Run a recorded run again, and compare every metric, epoch and weight.

A RUN is a folder in runs/, or a record in results/records/. Its commit, its uncommitted changes
and its data are restored first.
    study reproduce runs/NAME                 the same run
    study reproduce runs/NAME model.lr=0.01   the same with one thing changed, into runs/
    study reproduce --all                     every published run, as a table
Exit code: 0 identical, or within tolerance on another machine; 3 different; 4 cannot be reproduced;
5 altered: the record or a file is not as the run wrote it; 1 a mistake; 2 wrong usage.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import StudyError
from ..runs.comparison import (
    ALTERED,
    EXIT_CODES,
    IDENTICAL,
    IMPOSSIBLE,
    UNEXPLAINED,
    Comparison,
    compare,
)
from ..runs.published import PUBLISHED
from ..study import ROOT
from .printing import print_lines, print_table, relative, worst
from .restoring import Impossible, RecordedRun, find, refuse_running, rerun, restored


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
    recorded = find(arguments.run)
    if altered := recorded.find_alterations():
        print(f"{ALTERED}: {relative(recorded.path)}")
        print_lines("not as recorded", altered)
        return EXIT_CODES[ALTERED]
    refuse_running(recorded)
    try:
        return reproduce_one(recorded, arguments.overrides, env=arguments.env)
    except Impossible as error:
        print(f"{IMPOSSIBLE}: {error}")
        return EXIT_CODES[IMPOSSIBLE]


def reproduce_one(recorded: RecordedRun, overrides: Sequence[str], *, env: bool) -> int:
    """Runs one record again, and prints the verdict and its causes."""
    if overrides:
        with restored(recorded) as study:
            folder = rerun(recorded, study, overrides, env=env)
        found = compare(recorded.path, folder)
        print_lines("changed", found.causes)
        print_lines("numbers", found.numbers or ["all are the same"])
        print(f"recorded in {relative(folder)}")
        return 0
    found, folder = prove(recorded, env=env)
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


def prove(recorded: RecordedRun, *, env: bool, quiet: bool = False) -> tuple[Comparison, Path]:
    """Runs a record again and compares; where no cause is known, runs it once more.

    Returns:
        What came of it, and the folder of the new run.
    """
    with restored(recorded) as study:
        folder = rerun(recorded, study, [], env=env, quiet=quiet)
        found = compare(recorded.path, folder)
        if found.causes != [UNEXPLAINED]:
            return found, folder
        print("nothing explains the difference; running it once more ...", file=sys.stderr)
        second = rerun(recorded, study, [], env=env, quiet=quiet)
    again = compare(folder, second)
    shutil.rmtree(second)
    if again.numbers:
        reason = f"nondeterminism: two runs on this machine differ ({again.numbers[0]})"
    else:
        reason = f"{UNEXPLAINED}, and two runs on this machine agree: the cause is not recorded"
    return replace(found, reason=reason), folder


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
            if altered := recorded.find_alterations():
                rows.append((path.stem, Comparison(ALTERED, reason="; ".join(altered))))
                continue
            found, folder = prove(recorded, env=env, quiet=True)
            rows.append((path.stem, found))
            shutil.rmtree(folder)
        except StudyError as error:
            rows.append((path.stem, Comparison(IMPOSSIBLE, reason=str(error))))
    print_table(rows)
    return EXIT_CODES[worst(rows)]

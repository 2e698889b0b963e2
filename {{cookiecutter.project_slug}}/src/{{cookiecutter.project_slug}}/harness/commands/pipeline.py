"""Prove every published number, in a clean checkout of the last commit.

It runs dvc repro --force there. dvc.lock and results/ must then be, byte for byte, those of the
commit. Exit codes as for `study reproduce`.
"""

import argparse
import shutil
from pathlib import Path

from ..errors import StudyError
from ..runs.comparison import DIFFERENT, EXIT_CODES, IDENTICAL, IMPOSSIBLE, Comparison, compare
from ..runs.git import git
from ..runs.published import PUBLISHED
from ..study import ROOT
from .diff import show_code
from .printing import print_table
from .restoring import DVC, Impossible, RecordedRun, call, pull, temporary_folder, work_tree


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """The command has no options."""


def run(_arguments: argparse.Namespace) -> int:
    """Prints the verdict; returns its exit code."""
    if not git(ROOT, "rev-parse", "--verify", "--quiet", "HEAD"):
        hint = "type: git add --all; git commit"
        raise StudyError(f"study pipeline: there is no commit to check out; {hint}")
    try:
        with temporary_folder() as temporary, work_tree(temporary / "tree", "HEAD") as study:
            return _prove(study, temporary / "records")
    except Impossible as error:
        print(f"{IMPOSSIBLE}: {error}")
        return EXIT_CODES[IMPOSSIBLE]


def _prove(study: Path, published: Path) -> int:
    """Runs the pipeline in a checkout, and compares what came out with what was committed."""
    if not (study / "dvc.lock").is_file():
        hint = "type: dvc repro; git add --all; git commit"
        raise StudyError(f"dvc.lock: is in no commit, so there is nothing to compare; {hint}")
    if (study / PUBLISHED).is_dir():
        shutil.copytree(study / PUBLISHED, published)  # as committed: the report writes new ones
    pull(study)
    call([*DVC, "repro", "--force"], study, "dvc repro failed; its error is above")
    changed = git(study, "diff", "--name-only", "--", ".").decode().split()
    if not changed:
        print(f"{IDENTICAL}: dvc.lock and results/ are, byte for byte, those of the commit")
        return 0
    print("not as committed: " + ", ".join(changed))
    rows: list[tuple[str, Comparison]] = []
    for path in sorted((study / "runs" / "published").iterdir()):
        known = published / f"{path.name}.json"
        if known.is_file():
            found = compare(known, path)
            rows.append((path.name, found))
            show_code(RecordedRun(known), study, found.changes)
    code = print_table(rows)
    if all(found.verdict == IDENTICAL for _, found in rows):
        print(f"{DIFFERENT}: the files named above")
        code = EXIT_CODES[DIFFERENT]
    return code

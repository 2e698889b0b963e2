"""Prove every published number, in a clean checkout of the last commit.

It runs dvc repro --force there, and compares what comes out with what is committed.
    identical          dvc.lock and results/ are, byte for byte, those of the commit, or differ
                       only by an edit that changes no number
    within tolerance   on another machine: every run is close enough, and the committed tables,
                       figures and README are what the report makes of the committed records
Exit codes as for `study reproduce`.
"""

import argparse
import shlex
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from ..configuration.composing import read_yaml
from ..errors import StudyError
from ..runs.comparison import (
    ALTERED,
    DIFFERENT,
    EXIT_CODES,
    IDENTICAL,
    IMPOSSIBLE,
    TOLERATED,
    Comparison,
    compare,
)
from ..runs.drift import Change, find_input_drift
from ..runs.git import git
from ..runs.published import PUBLISHED, write_results
from ..runs.stages import (
    find_stage_drift,
    is_in,
    made_of,
    without_compose,
    without_dependency,
)
from ..study import ROOT
from .diff import show_code
from .printing import print_concerned, print_lines, print_table, worst
from .restoring import DVC, Impossible, RecordedRun, call, pull, temporary_folder, work_tree

INPUTS = "results/inputs/"  # written by compose: exact on every machine
LOCK = "requirements.lock"
MADE = "runs/published"
Rows = Sequence[tuple[str, Comparison]]


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """The command has no options."""


def run(_arguments: argparse.Namespace) -> int:
    """Prints the verdict; returns its exit code."""
    if not git(ROOT, "rev-parse", "--verify", "--quiet", "HEAD"):
        hint = "type: git add --all; git commit"
        raise StudyError(f"study pipeline: there is no commit to check out; {hint}")
    try:
        with temporary_folder() as temporary, work_tree(temporary / "tree", "HEAD") as study:
            verdict, reason = _prove(study, temporary)
    except Impossible as error:
        verdict, reason = IMPOSSIBLE, str(error)
    print(f"{verdict}: {reason}")
    return EXIT_CODES[verdict]


def _prove(study: Path, temporary: Path) -> tuple[str, str]:
    """Runs the pipeline in a checkout; returns the verdict, and why."""
    if not (study / "dvc.lock").is_file():
        hint = "type: dvc repro; git add --all; git commit"
        raise StudyError(f"dvc.lock: is in no commit, so there is nothing to compare; {hint}")
    before = temporary / "before"  # what is committed: the pipeline writes over it
    shutil.copytree(study / "results", before / "results")
    shutil.copyfile(study / "dvc.lock", before / "dvc.lock")
    if altered := _altered_records(before):
        print_lines("not as recorded", altered)
        return ALTERED, f"{PUBLISHED.as_posix()}: holds what no run wrote"
    pull(study)
    call([*DVC, "repro", "--force"], study, "dvc repro failed; its error is above")
    rows = _compare_runs(before, study)
    if not rows:
        raise Impossible("no run is published, so nothing was compared; name one in dvc.yaml")
    changed = _changed_files(study)
    if not changed:
        return IDENTICAL, "dvc.lock and results/ are, byte for byte, those of the commit"
    old, new = (without_compose(read_yaml(folder / "dvc.lock")) for folder in (before, study))
    changes = [change for _, found in rows for change in found.changes]
    compared = all(not found.reason for _, found in rows)
    if compared and not any(change.kind == "environment" for change in changes):
        # the packages that changed are imported by no run
        old, new = (without_dependency(lock, LOCK) for lock in (old, new))
    if changed == ["dvc.lock"] and old == new:
        hint = "to renew dvc.lock, type: dvc repro"
        return IDENTICAL, f"results/ is that of the commit; what was edited has no effect; {hint}"
    print("not as committed: " + ", ".join(changed))
    read = {change.key for change in changes if change.kind == "data"}
    told = {str(change) for change in changes}
    causes = {**find_stage_drift(old, new, told=read), **_input_drift(before, study, told)}
    print_concerned("changed since it was committed", causes)
    print_table(rows, told=causes)
    return _judge(rows, changed, causes, before)


def _judge(
    rows: Rows, changed: Sequence[str], causes: Collection[str], before: Path
) -> tuple[str, str]:
    """The verdict on results that are not, byte for byte, those of the commit."""
    verdict = worst(rows)
    if verdict not in (IDENTICAL, TOLERATED):
        return verdict, "what is named above"
    commands, made = made_of(read_yaml(before / "dvc.lock"), MADE)
    if not commands:
        return DIFFERENT, f"no stage makes results of {MADE}, so those that changed are unproved"
    may_differ = [*made, PUBLISHED.as_posix(), "dvc.lock", "README.md"]
    exact = [name for name in changed if name.startswith(INPUTS) or not is_in(name, may_differ)]
    if causes or exact or verdict == IDENTICAL:
        return DIFFERENT, f"every run is {verdict}; the files named above are not"
    if unexplained := _not_from_records(before / PUBLISHED, commands):
        return DIFFERENT, f"{', '.join(unexplained)}: not what the report makes of the records"
    return TOLERATED, "tables, figures and README are what the report makes of the records"


def _input_drift(before: Path, study: Path, told: Collection[str]) -> dict[str, list[str]]:
    """Each value and each file of code that changed, and the experiments and stages it concerns.

    What is `told` of the runs of an experiment is left out.
    """
    found: dict[str, list[str]] = {}
    for path in sorted((study / INPUTS).rglob("*.yaml")):
        old = before / path.relative_to(study)
        for change in find_input_drift(read_yaml(old), read_yaml(path)) if old.is_file() else ():
            if path.parent.name == "stages" or str(change) not in told:
                found.setdefault(str(change), []).append(path.stem)
    return found


def _altered_records(before: Path) -> list[str]:
    """Each published record that is not as it was written."""
    found = []
    for path in sorted((before / PUBLISHED).glob("*.json")):
        found += [f"{path.name}: {line}" for line in RecordedRun(path).find_alterations()]
    return found


def _compare_runs(before: Path, study: Path) -> list[tuple[str, Comparison]]:
    """Each published run against its committed record; prints the lines of code that changed."""
    records = before / PUBLISHED
    rows: list[tuple[str, Comparison]] = []
    shown: list[Change] = []
    made = {path.name for path in (study / "runs" / "published").glob("[!.]*") if path.is_dir()}
    for name in sorted(made | {path.stem for path in records.glob("*.json")}):
        known, folder = records / f"{name}.json", study / "runs" / "published" / name
        if name not in made:
            rows.append((name, Comparison(DIFFERENT, reason="is recorded, and is not in dvc.yaml")))
        elif not known.is_file():
            reason = "its record is not committed; type: dvc repro; git add --all; git commit"
            rows.append((name, Comparison(DIFFERENT, reason=reason)))
        else:
            found = compare(known, folder)
            rows.append((name, found))
            new = [change for change in found.changes if change not in shown]
            shown += new
            show_code(RecordedRun(known), study, new)
    return rows


def _changed_files(study: Path) -> list[str]:
    """What is not as in the commit, new files too."""
    words = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", ".")
    lines = git(study, *words).decode(errors="surrogateescape").split("\0")
    inside = git(study, "rev-parse", "--show-prefix").decode().strip()
    return sorted(line[3:].removeprefix(inside) for line in lines if line)


def _not_from_records(records: Path, commands: Sequence[str]) -> list[str]:
    """Each committed result that the report does not make of the committed records."""
    with temporary_folder() as temporary, work_tree(temporary / "tree", "HEAD") as study:
        write_results(records, study / MADE)
        for command in commands:
            call(shlex.split(command), study, f"{command}: failed", quiet=True)
        return [name for name in _changed_files(study) if not is_in(name, [PUBLISHED.as_posix()])]

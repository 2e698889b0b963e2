"""Show a run: what it is, its numbers, where it is wrong, its files, and how to run it again.

A run is a folder in runs/, or a record in results/records/.
    study show runs/NAME
    study show runs/NAME --html run.html
"""

import argparse
import os
from pathlib import Path
from typing import Any

from ..errors import StudyError
from ..files import write_atomically
from ..reporting import grid
from ..reporting.portrait import Section, describe, describe_history, read_log
from ..study import ROOT
from ..training.results import read_history
from .printing import print_lines, relative
from .restoring import RecordedRun, find


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("run", metavar="RUN", type=Path, help="a run")
    page = (
        "write a page of one file, with learning curves and pictures, which opens without a network"
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help=page)


def run(arguments: argparse.Namespace) -> int:
    """Prints the sections; a file that is not as the run wrote it is an error."""
    found = find(arguments.run)
    record, altered = found.record, found.find_alterations()
    folder = (found.folder or found.path).resolve()
    page = None if arguments.html is None else arguments.html.resolve()
    sections = [*describe(record, folder, _again(found, record))]
    history = record.get("history") or read_history(folder)
    os.chdir(ROOT)
    mistakes, reason = _find_mistakes(record, folder)
    if page is None:
        _print(sections, history, mistakes, reason, folder)
    else:
        from ..reporting.portrait_page import make_portrait  # with matplotlib

        write_atomically(
            page, make_portrait(folder.name, sections, history, mistakes, reason, folder)
        )
        print(f"{arguments.html}: written")
    print_lines(f"{relative(found.path)}: altered", altered)
    return 1 if altered else 0


def _again(found: RecordedRun, record: dict[str, Any]) -> list[str]:
    """The commands that run it again."""
    commit = (record.get("git") or {}).get("commit")
    return [
        f"study reproduce {relative(found.path)}   # restores code and data, and compares",
        *([f"git checkout {commit}"] if commit else []),
        str(record.get("command")),
    ]


def _find_mistakes(record: dict[str, Any], folder: Path) -> tuple[Any, str]:
    """What the model gets wrong on validation; or nothing, and why it cannot be told."""
    if record["status"] != "finished":
        return None, "the run is not finished"
    from ..inference import load_run  # with torch, which takes seconds to import
    from ..reporting.mistakes import find_mistakes

    try:
        return find_mistakes(load_run(folder), "validation"), ""
    except StudyError as error:
        return None, str(error)


def _print(
    sections: list[Section],
    history: list[dict[str, float]],
    mistakes: Any,
    reason: str,
    folder: Path,
) -> None:
    """Every section that is short."""
    sections = [section for section in sections if not section.is_long]
    sections[2:2] = [describe_history(history)] if history else []
    sections += [Section("Log, its last lines", lines=read_log(folder)[-15:])]
    for section in sections:
        _print_section(section)
    if mistakes is None:
        print(f"\nWhere it is wrong\n  cannot be told: {reason}")
        return
    for header, rows in mistakes.tables():
        _print_section(Section("Where it is wrong, on validation", header, rows))
    lines = [f"row {each.row} {each.told}: {each.describe()}" for each in mistakes.worst]
    _print_section(Section("Most surely wrong", lines=lines or ["none is wrong"]))


def _print_section(section: Section) -> None:
    """A title, and what stands below it, indented."""
    if not (section.rows or section.lines):
        return
    print(f"\n{section.title}")
    text = ""
    if section.rows:
        header = section.header or ("", "")
        text = grid.to_text(header, section.rows)
        text = text if section.header else text.partition("\n")[2]
    for line in [*text.splitlines(), *section.lines]:
        print(f"  {line}")

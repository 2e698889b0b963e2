"""Replace the harness by that of a newer version of the template.

Everything else is yours and stays. It stops before it would lose a change of yours to the harness,
and names the file.
    study update                 the newest version
    study update --to v0.3.0     a tag, a branch or a commit of the template
    study update --discard       the same, and loses your changes to the harness
"""

import argparse
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import StudyError
from ..files import to_json, write_atomically
from ..runs.git import git
from ..study import PACKAGE, ROOT
from .printing import print_lines, relative

RECORD = ROOT / ".cruft.json"  # which template the study was made from, in the format of cruft
HARNESS = ROOT / "src" / PACKAGE / "harness"
Files = dict[str, bytes]  # their content by their names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--to", metavar="VERSION", help="by default the newest tag vX.Y.Z")
    parser.add_argument("--discard", action="store_true", help="lose your changes to the harness")


def run(arguments: argparse.Namespace) -> int:
    """Replaces the harness, and prints what changed."""
    record = _read_record()
    with tempfile.TemporaryDirectory() as folder:
        template = _clone(record["template"], Path(folder))
        version = arguments.to or _newest(template)
        known, commit = (_commit(template, name) for name in (record["commit"], version))
        if not commit:
            raise StudyError(f"{version}: is no version of {record['template']}")
        wanted = arguments.to or arguments.discard
        if known and not wanted and _is_part(template, commit, known):
            print(f"nothing newer than {_name(record)}: the template is at {version}")
            return 0
        old = _read_template(template, known) if known else {}
        new = _read_template(template, commit)
    if not _harness_in(new):
        raise StudyError(f"{version}: has no harness")
    if not arguments.discard:
        _refuse_loss(record, _harness_in(old), _harness_in(new))
    _update(record, commit, old, new)
    return 0


def _refuse_loss(record: Mapping[str, Any], old: Files, new: Files) -> None:
    """Stops where a change to the harness would be lost.

    Raises:
        StudyError: it would be.
    """
    discard = "study update --discard"
    if not old:
        reason = "is not in the template any more, so what you changed in the harness is unknown"
        raise StudyError(f"{record['commit']}: {reason}; to replace it all the same: {discard}")
    mine = _read_harness()
    lost = {
        name: how for name, how in _find_changes(old, mine).items() if not _same(name, mine, new)
    }
    if lost:
        print_lines("changed by you", _lines(lost))
        since = git(ROOT, "log", "-1", "--format=%h", "--", str(RECORD)).decode().strip()
        see = f"to see them, type: git diff {since} -- {relative(HARNESS)}; " if since else ""
        raise StudyError(f"these changes would be lost; {see}to lose them, type: {discard}")


def _update(record: dict[str, Any], commit: str, old: Files, new: Files) -> None:
    """Replaces the harness, and prints what changed there and elsewhere in the template."""
    before, mine = _name(record), _read_harness()
    _replace(_harness_in(new))
    _write_record(record, commit, json.loads(new["cookiecutter.json"]).get("_version"))
    print(f"harness: {before} -> {_name(record)}")
    print_lines("replaced", _lines(_find_changes(mine, _harness_in(new))))
    if old:
        kind = record["context"]["cookiecutter"].get("data", "pictures")
        yours = _find_changes(_yours_in(old, kind), _yours_in(new, kind))
        print_lines("changed in the template too; these are yours, and left as they are", [*yours])
    print_lines("from its CHANGELOG", _news(old, new))
    print("to keep it, type: git add --all; git commit -m 'Update the harness'")


# What the study was made from


def _read_record() -> dict[str, Any]:
    """The address, commit and answers that the study was made from.

    Raises:
        StudyError: they are unknown.
    """
    try:
        record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
        _name(record)
        record["template"]  # pylint: disable=pointless-statement
    except FileNotFoundError as error:
        hint = "pipx run cruft link ADDRESS_OF_THE_TEMPLATE --checkout VERSION"
        raise StudyError(f"{relative(RECORD)}: is missing; to write it, type: {hint}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{relative(RECORD)}: is truncated or corrupt ({error!r})") from error
    return record


def _write_record(record: dict[str, Any], commit: str, version: str | None) -> None:
    record["context"]["cookiecutter"] |= {"_commit": commit, "_version": version}
    record |= {"commit": commit, "checkout": None}
    write_atomically(RECORD, to_json(record))


def _name(record: Mapping[str, Any]) -> str:
    """A version, and the first digits of its commit."""
    version = record["context"]["cookiecutter"].get("_version") or "an unknown version"
    return f"{version} ({record['commit'][:7]})"


# The template, read from a clone


def _clone(address: str, folder: Path) -> Path:
    template = folder / "template"
    git(ROOT, "clone", "--quiet", "--no-checkout", "--", address, str(template))
    if not template.is_dir():
        hint = f"to see why, type: git clone {address}"
        raise StudyError(f"{address}: the template cannot be cloned; {hint}")
    return template


def _newest(template: Path) -> str:
    """The newest tag vX.Y.Z; the default branch where there is none."""
    tags = git(template, "tag", "--list", "--sort=-version:refname").decode().split()
    return next((tag for tag in tags if re.fullmatch(r"v\d+\.\d+\.\d+", tag)), "HEAD")


def _commit(template: Path, version: str) -> str:
    """The commit of a tag, a branch or a commit; empty where there is none of that name."""
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options")
    names = (version, f"origin/{version}")  # a branch of the template
    found = (git(template, *words, f"{name}^0").decode().strip() for name in names)
    return next(filter(None, found), "")


def _is_part(template: Path, commit: str, later: str) -> bool:
    """Whether a commit is the other, or comes before it."""
    return git(template, "merge-base", commit, later).decode().strip() == commit


def _read_template(template: Path, commit: str) -> Files:
    """Every file of the template; those of a study are in study/, by their names there."""
    with tarfile.open(fileobj=io.BytesIO(git(template, "archive", "--format=tar", commit))) as tar:
        opened = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        contents = {name: file.read() for name, file in opened.items() if file}
    named = {re.sub(r"^\{[^/]*\}/", "study/", name): text for name, text in contents.items()}
    return {re.sub(r"\{[^/]*\}", PACKAGE, name): text for name, text in named.items()}


def _in(folder: str, files: Files) -> Files:
    return {name[len(folder) :]: files[name] for name in files if name.startswith(folder)}


def _harness_in(template: Files) -> Files:
    return _in(f"study/src/{PACKAGE}/harness/", template)


def _yours_in(template: Files, kind: str) -> Files:
    """What the template writes into a study with this kind of data, besides the harness."""
    harness = HARNESS.relative_to(ROOT).as_posix()
    files = _in("study/", template)
    others = (f"{harness}/", "starters/")
    shared = {name: text for name, text in files.items() if not name.startswith(others)}
    return {**shared, **_in(f"starters/{kind}/", files)}


def _news(old: Files, new: Files) -> list[str]:
    """The lines of the CHANGELOG that the old version does not have."""
    before, after = (files.get("CHANGELOG.md", b"").decode().splitlines() for files in (old, new))
    return [line for line in after if line and line not in before]


# The harness of this study


def _read_harness() -> Files:
    paths = [path for path in HARNESS.rglob("*") if "__pycache__" not in path.parts]
    files = [path for path in paths if path.is_file()]
    return {path.relative_to(HARNESS).as_posix(): path.read_bytes() for path in files}


def _same(name: str, one: Files, other: Files) -> bool:
    return one.get(name) == other.get(name)


def _find_changes(old: Files, new: Files) -> dict[str, str]:
    """What became of each file that is not the same in both."""
    return {
        name: "added" if name not in old else "removed" if name not in new else "changed"
        for name in sorted(old | new)
        if not _same(name, old, new)
    }


def _lines(changes: Mapping[str, str]) -> list[str]:
    return [f"{relative(HARNESS / name)}: {how}" for name, how in changes.items()]


def _replace(files: Files) -> None:
    """Replaces the whole folder: what the new harness does not have is removed."""
    fresh, old = HARNESS.with_name(".harness.new"), HARNESS.with_name(".harness.old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    HARNESS.rename(old)
    fresh.rename(HARNESS)
    shutil.rmtree(old)

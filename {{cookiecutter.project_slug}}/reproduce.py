"""A run from its record, again from nothing, and compared bit for bit.

Type:
    python reproduce.py runs/NAME                 # restores its code and data, runs it, compares
    python reproduce.py runs/NAME model.lr=0.01   # the same with one thing changed, into runs/
    python reproduce.py --all                     # every published run, as a table
    python reproduce.py --diff runs/A runs/B      # what differs between two runs, and why
    python reproduce.py --pipeline                # the last commit's dvc repro --force, compared
A RUN is a folder in runs/, or a record in results/records/. With --env the environment is built
anew first, from the lock of that time.

Exit code: 0 identical, or within tolerance on another machine; 3 different; 4 cannot be reproduced;
1 a mistake; 2 wrong usage.
"""

import argparse
import difflib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from {{ cookiecutter.project_slug }} import StudyError, identity, provenance, records
from {{ cookiecutter.project_slug }}.comparison import (
    EXIT_CODES,
    IDENTICAL,
    IMPOSSIBLE,
    DIFFERENT,
    Comparison,
    compare,
)
from {{ cookiecutter.project_slug }}.files import hash_file

ROOT = Path(__file__).resolve().parent
PUBLISHED = ROOT / "results" / "records"
DVC = (sys.executable, "-m", "dvc")


class Impossible(StudyError):
    """The run cannot be done again; the message says what is missing."""


@dataclass(frozen=True)
class Run:
    """A run that has been recorded."""

    path: Path  # its folder, or its published record

    @property
    def record(self) -> dict[str, Any]:
        """What is known of it."""
        return records.read_record(self.path)

    @property
    def patch(self) -> Path | None:
        """What was in no commit, if it is here."""
        name = self.record.get("patch") or "changes.patch"
        path = (self.path.parent if self.path.is_file() else self.path) / name
        return path if path.is_file() else None


def find(path: Path) -> Run:
    """The run that a path means: DVC restores the results of a published one without its record."""
    known = PUBLISHED / f"{path.name}.json"
    here = path.is_file() or (path / "record.json").is_file() or not known.is_file()
    run = Run(path if here else known)
    if run.record["status"] == "running":
        raise StudyError(
            f"{shown(run.path)}: is running, or was killed; there is nothing to compare"
        )
    return run


def main() -> None:
    """Reads the command line, and leaves with the exit code of the verdict."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    what = parser.add_mutually_exclusive_group()
    parser.add_argument("run", metavar="RUN", nargs="?", type=Path)
    parser.add_argument("overrides", metavar="OVERRIDE", nargs="*")
    what.add_argument("--all", action="store_true", help="every published run")
    what.add_argument("--diff", nargs=2, metavar=("A", "B"), type=Path, help="explain two runs")
    what.add_argument(
        "--pipeline", action="store_true", help="the whole pipeline of the last commit"
    )
    parser.add_argument("--env", action="store_true", help="build the environment first")
    chosen = parser.parse_args()
    if (chosen.run is None) == (not (chosen.all or chosen.diff or chosen.pipeline)):
        parser.error("name a run, or one of --all, --diff A B, --pipeline")
    if wrong := [item for item in chosen.overrides if "=" not in item]:
        parser.error(f"{wrong[0]}: is no KEY=VALUE; one RUN at a time")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is half done is cleared away
    try:
        if chosen.diff:
            sys.exit(show_difference(*map(find, chosen.diff)))
        if chosen.all:
            sys.exit(reproduce_all(env=chosen.env))
        if chosen.pipeline:
            sys.exit(reproduce_pipeline())
        sys.exit(reproduce(find(chosen.run), chosen.overrides, env=chosen.env))
    except Impossible as error:
        print(f"{IMPOSSIBLE}: {error}")
        sys.exit(EXIT_CODES[IMPOSSIBLE])
    except StudyError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def reproduce(run: Run, overrides: Sequence[str], *, env: bool) -> int:
    """Runs one record again, and says what came of it."""
    with restored(run) as study:
        folder = rerun(run, study, overrides, env=env)
    found = compare(run.path, folder)
    if overrides:
        print_lines("changed", found.causes)
        print_lines("numbers", found.numbers or ["all are the same"])
        print(f"recorded in {shown(folder)}")
        return 0
    print(f"{found.verdict}: {shown(run.path)}")
    print_lines("numbers", found.numbers)
    print_lines("changed" if found.verdict == IDENTICAL else "causes", found.causes)
    if found.verdict == IDENTICAL:
        shutil.rmtree(folder)
    else:
        print(f"the new run is kept in {shown(folder)}")
        if not env and any(line.startswith("environment:") for line in found.causes):
            print("to rule the environment out, add --env: it is then built as it was")
    return EXIT_CODES[found.verdict]


def reproduce_all(*, env: bool) -> int:
    """Every published run again, as a table; the exit code is that of the worst."""
    paths = sorted(PUBLISHED.glob("*.json"))
    if not paths:
        raise StudyError(f"{shown(PUBLISHED)}: holds no record; type: dvc repro")
    rows = []
    for path in paths:
        print(f"running {path.stem} again ...", file=sys.stderr)
        try:
            with restored(Run(path)) as study:
                folder = rerun(Run(path), study, [], env=env, quiet=True)
            rows.append((path.stem, compare(path, folder)))
            shutil.rmtree(folder)
        except StudyError as error:
            rows.append((path.stem, Comparison(IMPOSSIBLE, [], [str(error)])))
    return print_table(rows)


def reproduce_pipeline() -> int:
    """The pipeline of the last commit, from raw data on, in a clean work tree."""
    if not provenance.git(ROOT, "rev-parse", "--verify", "--quiet", "HEAD"):
        raise StudyError(
            "--pipeline: there is no commit to check out; type: git add --all; git commit"
        )
    with temporary_folder() as temporary:
        with work_tree(temporary / "tree", "HEAD") as study:
            if not (study / "dvc.lock").is_file():
                hint = "type: dvc repro; git add --all; git commit"
                raise StudyError(
                    f"dvc.lock: is in no commit, so there is nothing to compare; {hint}"
                )
            published = temporary / "records"  # as committed: the report writes what is new
            if (study / "results" / "records").is_dir():
                shutil.copytree(study / "results" / "records", published)
            pull(study)
            call([*DVC, "repro", "--force"], study, "dvc repro failed; what it said stands above")
            changed = provenance.git(study, "diff", "--name-only", "--", ".").decode().split("\n")
            changed = [name for name in changed if name]
            if not changed:
                print(f"{IDENTICAL}: dvc.lock and results/ are, byte for byte, those of the commit")
                return 0
            print("not as committed: " + ", ".join(changed))
            rows = []
            for path in sorted((study / "runs" / "published").iterdir()):
                known = published / f"{path.name}.json"
                if known.is_file():
                    rows.append((path.name, compare(known, path)))
                    show_code(Run(known), study, rows[-1][1].causes)
            code = print_table(rows)
            if rows and all(found.verdict == IDENTICAL for _, found in rows):
                print(f"{DIFFERENT}: the numbers are all the same, the files named above are not")
                code = EXIT_CODES[DIFFERENT]
            return code


def pull(study: Path, *outputs: str) -> None:
    """Fetches what DVC tracks there, as far as the cache here or a remote has it."""
    known = ROOT / ".dvc" / "config.local"  # of this clone: its remotes, with their credentials
    if known.is_file():
        shutil.copyfile(known, study / ".dvc" / "config.local")
    answer = subprocess.run([*DVC, "cache", "dir"], cwd=ROOT, capture_output=True, check=False)
    cache = os.fsdecode(answer.stdout).strip()
    tracked = provenance.git(study, "ls-files", "*.dvc").decode().splitlines()
    targets = [*tracked, *outputs]
    for words in (["cache", "dir", "--local", cache], *(["pull", name] for name in targets)):
        attempt([*DVC, *words, "--quiet"], study)


def show_difference(old: Run, new: Run) -> int:
    """What differs between two runs: the numbers, the causes, and the code line by line."""
    found = compare(old.path, new.path)
    print_lines("numbers", found.numbers or ["all are the same"])
    print_lines("causes", found.causes or ["nothing that is recorded differs"])
    if any(line.startswith("code:") for line in found.causes):
        try:
            with restored(new) as study:
                show_code(old, study, found.causes)
        except Impossible as error:
            print(f"the code cannot be shown: {error}")
    return 0


def show_code(old: Run, study: Path, causes: Sequence[str]) -> None:
    """The lines of code that a run had, against those in `study`, of each file that changed."""
    names = [line.split(": ")[1] for line in causes if line.startswith("code: ")]
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
    """The lines of a text; none of what is not there, or is no text."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").splitlines(keepends=True)
    return []


@contextmanager
def restored(run: Run) -> Iterator[Path]:
    """A folder with the study as it was when the run began: its commit, and what was in none.

    Raises:
        Impossible: the commit or the changes are not here, and the code has moved on since.
    """
    record, patch = run.record, run.patch
    if "config" not in record or not record["config"]:
        raise Impossible(f"{shown(run.path)}: has not begun, or was recorded by version 1")
    known = record.get("git") or {}
    commit = str(known.get("commit", ""))
    if not (patch or known.get("clean", True) or known.get("large_untracked")):
        raise Impossible(
            f"what it ran beside commit {commit} is not here: {shown(run.path)} lacks it"
        )
    here = bool(commit) and bool(provenance.git(ROOT, "cat-file", "-t", commit))
    with temporary_folder() as temporary:
        tree = temporary / "tree"
        if here:
            with work_tree(tree, commit) as study:
                if patch:
                    top = provenance.git(study, "rev-parse", "--show-toplevel").decode().strip()
                    words = ["git", "apply", "--whitespace=nowarn", str(patch.resolve())]
                    call(words, Path(top), f"{shown(patch)}: cannot be applied to {commit}")
                _check_code(study, record, "its uncommitted changes are not here, and ")
                yield study
            return
        copy_present(tree)
        reason = f"its commit {commit} is not here" if commit else "it ran outside git"
        hint = "; type: git fetch --all (--unshallow, where the clone is shallow)" if commit else ""
        _check_code(tree, record, f"{reason}, and ", hint)
        yield tree


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in runs/, on the disk where there is room for runs, that goes when it is left."""
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".reproduce-", dir=ROOT / "runs") as name:
        yield Path(name)


def copy_present(tree: Path) -> None:
    """Copies of the study as it stands here what a run needs; of its data it makes links."""
    (tree / "data").mkdir(parents=True)
    for name in ("conf", "src", "stages"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True)
    for name in ("Makefile", "README.md", "pyproject.toml", "requirements.lock", "run.py"):
        shutil.copyfile(ROOT / name, tree / name)
    for path in (ROOT / "data").glob("[!.]*"):
        if not path.name.startswith("prepared"):  # these are provided by hash
            (tree / "data" / path.name).symlink_to(path, target_is_directory=path.is_dir())


@contextmanager
def work_tree(tree: Path, commit: str) -> Iterator[Path]:
    """The study at a commit, checked out beside this one; yields its folder in it."""
    inside = provenance.git(ROOT, "rev-parse", "--show-prefix").decode().strip()
    words = ["git", "worktree", "add", "--quiet", "--detach", str(tree), commit]
    call(words, ROOT, f"{commit}: cannot be checked out")
    try:
        yield tree / inside
    finally:
        provenance.git(ROOT, "worktree", "remove", "--force", str(tree))


def _check_code(study: Path, record: dict[str, Any], reason: str, hint: str = "") -> None:
    """Whether a folder holds the very code and lock that ran."""
    code, lock = identity.hash_code(study), hash_file(study / "requirements.lock")
    if record["code"] != code:
        raise Impossible(f"{reason}the code has changed since{hint}")
    if record["lock"] != lock:
        raise Impossible(f"{reason}requirements.lock has changed since{hint}")


def rerun(
    run: Run, study: Path, overrides: Sequence[str], *, env: bool, quiet: bool = False
) -> Path:
    """Does the run again, from nothing, in a restored study; returns the folder of the new run."""
    record = run.record
    if record["status"] != "finished":
        raise Impossible(
            f"{shown(run.path)}: is {record['status']}, so there is nothing to compare"
        )
    if record.get("mixed"):
        raise Impossible(f"{shown(run.path)}: went on with other code: {record['mixed'][0]}")
    python = build_environment(study, record) if env else Path(sys.executable)
    changed = {records.key_of(item) for item in overrides}
    if any(key == "data" or key.startswith("data.") for key in changed):
        take_present_data(study, overrides)
    else:
        provide_data(study, record, python)
    provide_inputs(study, record)
    dropped = {*records.OF_THE_PLACE, "test", *changed}
    typed = [item for item in record["overrides"] if records.key_of(item) not in dropped]
    # in a sweep the test split is left alone: what was really done stands in the configuration
    test = [] if "test" in changed else [f"test={str(record['config']['test']).lower()}"]
    own = ["run_dir=runs/again", "force=true", f"rerun_of={record['fingerprint']}"]
    words = [str(python), "run.py", *typed, *test, *overrides, *own]
    try:
        call(words, study, "the run failed; what it said stands above", quiet=quiet)
    except Impossible as error:
        raise (StudyError(str(error)) if overrides else error) from error
    new = records.read_record(study / "runs" / "again")
    differing = [line for line in identity.explain(record, new) if line.startswith("config:")]
    if differing and not overrides:  # where no commit could be restored
        raise Impossible(f"conf/ has changed since: {differing[0]}")
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = ROOT / "runs" / f"{stamp}_again_{record['name']}"
    shutil.move(study / "runs" / "again", folder)
    return folder


def build_environment(study: Path, record: dict[str, Any]) -> Path:
    """The environment of that time, from its lock, in the restored study; returns its Python."""
    version = ".".join(record["python"].split(".")[:2])
    same = sys.version.startswith(f"{version}.")
    base = os.path.realpath(sys.executable) if same else shutil.which(f"python{version}")
    call(["make", "env", f"PYTHON={base or os.path.realpath(sys.executable)}"], study)
    return study / ".venv" / "bin" / "python"


def provide_data(study: Path, record: dict[str, Any], python: Path) -> None:
    """Puts the data of the run, known by their hashes, where it looks for them.

    They are here; or DVC has them in its cache or a remote; or they can be prepared again.

    Raises:
        Impossible: they are in none of these places; the message names the first file.
    """
    name = record["config"]["data"]["folder"]
    if not (problem := _data_problem(ROOT / name, record)):
        with suppress(FileExistsError):  # an absolute path is its own
            (study / name).parent.mkdir(parents=True, exist_ok=True)
            (study / name).symlink_to((ROOT / name).resolve(), target_is_directory=True)
        return
    if (study / ".dvc").is_dir():
        pull(study, name)
    if _data_problem(study / name, record):
        typed = [item for item in record["overrides"] if item.lstrip("+~").startswith("data")]
        attempt([str(python), "stages/prepare.py", *typed], study)
    if _data_problem(study / name, record):
        raise Impossible(f"its data are not here: {problem}; type: dvc pull")


def _data_problem(folder: Path, record: dict[str, Any]) -> str:
    """The first file that is not what the run read, or nothing."""
    for name, known in record["data"].items():
        path = folder / name
        if not path.is_file():
            return f"{shown(path)} is missing"
        if hash_file(path) != known:
            return f"{shown(path)} has changed"
    return ""


def take_present_data(study: Path, overrides: Sequence[str]) -> None:
    """Old code on new data: those that stand here now, and what conf/data/ says of them."""
    shutil.rmtree(study / "data", ignore_errors=True)
    (study / "data").symlink_to(ROOT / "data", target_is_directory=True)
    for item in overrides:
        key, _, value = item.partition("=")
        path = ROOT / "conf" / "data" / f"{value}.yaml"
        if key == "data" and path.is_file():
            shutil.copyfile(path, study / "conf" / "data" / path.name)


def provide_inputs(study: Path, record: dict[str, Any]) -> None:
    """Puts the further files that the run read where they were; git does not know all of them."""
    for name, known in (record.get("inputs") or {}).items():
        for path in (study / name, ROOT / name):
            if path.is_file() and hash_file(path) == known:
                if path != study / name:
                    (study / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, study / name)
                break
        else:
            raise Impossible(f"it read {name}, which has changed since, or is gone")


def call(
    words: Sequence[str | Path], folder: Path, failure: str = "", *, quiet: bool = False
) -> None:
    """Runs a command in a restored study, on that study's code; what it says goes to stderr.

    Raises:
        Impossible: it failed.
    """
    output = subprocess.PIPE if quiet else sys.stderr
    try:
        done = subprocess.run(
            words, cwd=folder, env=_environment(folder), stdout=output, stderr=output, check=False
        )
    except FileNotFoundError as error:
        raise Impossible(f"{words[0]}: is not installed here") from error
    if done.returncode:
        if quiet:
            sys.stderr.buffer.write(done.stdout + done.stderr)
        raise Impossible(failure or f"{' '.join(map(str, words))}: failed")


def attempt(words: Sequence[str], study: Path) -> None:
    """The same in silence, where it may fail: what it was to bring is looked for afterwards."""
    subprocess.run(words, cwd=study, env=_environment(study), capture_output=True, check=False)


def _environment(study: Path) -> dict[str, str]:
    """The environment of a command there: that study's library, and the programs beside Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    library = f"{study / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONPATH": library.rstrip(os.pathsep)}


def print_lines(title: str, lines: Sequence[str]) -> None:
    """A title and what belongs below it; nothing if nothing does."""
    if lines:
        print(f"{title}:", *lines, sep="\n  ")


def print_table(rows: Sequence[tuple[str, Comparison]]) -> int:
    """A line a run: its verdict and why; returns the exit code of the worst."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, found in rows:
        why = "; ".join([*found.numbers[:2], *found.causes]) if found.verdict != IDENTICAL else ""
        print(f"{name:{width}}  {found.verdict:20}  {why}".rstrip())
    worst = max((found.verdict for _, found in rows), key=list(EXIT_CODES).index, default=IDENTICAL)
    print(f"{len(rows)} runs: {worst if rows else 'none is published'}")
    return EXIT_CODES[worst]


def shown(path: Path) -> str:
    """A path as it can be typed from here."""
    return os.path.relpath(path)


if __name__ == "__main__":
    main()

"""A recorded run in a folder of its own: the study as it was then, its data, and the run again."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import StudyError
from ..files import hash_file
from ..runs.code import is_same_code
from ..runs.drift import find_drift, read_changes
from ..runs.git import git
from ..runs.leftovers import scratch_folder
from ..runs.published import PUBLISHED, find_altered_numbers
from ..runs.record import (
    NAME,
    AlteredRecord,
    find_altered_files,
    has_meaning,
    key_of,
    read_record,
)
from ..runs.source import folder_of
from ..study import ROOT
from .printing import relative

DVC = (sys.executable, "-m", "dvc")


class Impossible(StudyError):
    """The run cannot be done again; the message says what is missing."""


@dataclass(frozen=True)
class RecordedRun:
    """A run that has been recorded."""

    path: Path  # its folder, or its published record
    folder: Path | None = None  # where its results are, if not in `path`

    @property
    def record(self) -> dict[str, Any]:
        """What is known of it."""
        return read_record(self.path)

    @property
    def patch(self) -> Path | None:
        """What was in no commit, if it is here."""
        name = self.record.get("patch") or "changes.patch"
        path = (self.path.parent if self.path.is_file() else self.path) / name
        return path if path.is_file() else None

    def find_alterations(self) -> list[str]:
        """Each thing that is not as the run wrote it: its record, or a file whose hash it holds."""
        try:
            record = self.record
        except AlteredRecord:
            return ["its record was edited or damaged after the run wrote it"]
        folder = self.folder or self.path
        found = find_altered_files(folder, record) if folder.is_dir() else []
        return found if self.path.is_dir() else [*found, *find_altered_numbers(self.path, record)]


def find(path: Path) -> RecordedRun:
    """The run that a path means: DVC restores the results of a published run without its record."""
    known = ROOT / PUBLISHED / f"{path.name}.json"
    here = path.is_file() or (path / NAME).is_file() or not known.is_file()
    return RecordedRun(path) if here else RecordedRun(known, path if path.is_dir() else None)


def refuse_running(recorded: RecordedRun) -> None:
    """Refuses a run that has not ended.

    Raises:
        StudyError: there is nothing to compare.
    """
    if recorded.record["status"] == "running":
        reason = "is running, or was killed; there is nothing to compare"
        raise StudyError(f"{relative(recorded.path)}: {reason}")


@contextmanager
def restored(recorded: RecordedRun) -> Iterator[Path]:
    """A folder with the study as it was when the run began: its commit and uncommitted changes.

    Raises:
        Impossible: the commit or the changes are missing, and the code has changed since.
    """
    record, patch = recorded.record, recorded.patch
    if "config" not in record or not record["config"]:
        raise Impossible(f"{relative(recorded.path)}: has not begun, or has a record of version 1")
    known = record.get("git") or {}
    commit = str(known.get("commit", ""))
    if not (patch or known.get("clean", True) or known.get("large_untracked")):
        where = relative(recorded.path)
        raise Impossible(f"its uncommitted changes to {commit} are missing: {where} has no patch")
    here = bool(commit) and bool(git(ROOT, "cat-file", "-t", commit))
    with temporary_folder() as temporary:
        tree = temporary / "tree"
        if here:
            with work_tree(tree, commit) as study:
                if patch:
                    top = git(study, "rev-parse", "--show-toplevel").decode().strip()
                    words = ["git", "apply", "--whitespace=nowarn", str(patch.resolve())]
                    call(words, Path(top), f"{relative(patch)}: cannot be applied to {commit}")
                missing = _left_out(record) or "its uncommitted changes are missing"
                _check_code(study, record, f"{missing}, and ")
                yield study
            return
        copy_present(tree)
        reason = f"its commit {commit} is missing" if commit else "it ran outside git"
        hint = "; type: git fetch --all (--unshallow, where the clone is shallow)" if commit else ""
        _check_code(tree, record, f"{reason}, and ", hint)
        yield tree


def _left_out(record: dict[str, Any]) -> str:
    """The new code and configuration that its patch does not hold, in words."""
    names = (record.get("git") or {}).get("left_out") or ()
    needed = [name for name in names if name in record["source"] or name.startswith("conf/")]
    return f"its patch leaves out {', '.join(needed)}" if needed else ""


def temporary_folder() -> AbstractContextManager[Path]:
    """A folder in runs/, on the disk where there is room for runs, removed afterwards."""
    return scratch_folder(ROOT / "runs")


def copy_present(tree: Path) -> None:
    """Copies what a run needs of the study as it is now; links its data."""
    (tree / "data").mkdir(parents=True)
    for name in ("conf", "src", "stages", "tests/fixtures"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True)
    for name in ("Makefile", "README.md", "pyproject.toml", "requirements.lock", "run.py"):
        shutil.copyfile(ROOT / name, tree / name)
    for path in (ROOT / "data").glob("[!.]*"):
        if not path.name.startswith("prepared"):  # prepared data are found by their hashes
            (tree / "data" / path.name).symlink_to(path, target_is_directory=path.is_dir())


@contextmanager
def work_tree(tree: Path, commit: str) -> Iterator[Path]:
    """The study at a commit, checked out in another folder; yields that of the study in it."""
    inside = git(ROOT, "rev-parse", "--show-prefix").decode().strip()
    words = ["git", "worktree", "add", "--quiet", "--detach", str(tree), commit]
    call(words, ROOT, f"{commit}: cannot be checked out")
    try:
        yield tree / inside
    finally:
        git(ROOT, "worktree", "remove", "--force", str(tree))


def _check_code(study: Path, record: dict[str, Any], reason: str, hint: str = "") -> None:
    """Whether a folder holds the code and the lock of the run."""
    if not is_same_code(study, record):
        raise Impossible(f"{reason}the code has changed since{hint}")
    if record["lock"] != hash_file(study / "requirements.lock"):
        raise Impossible(f"{reason}requirements.lock has changed since{hint}")


def rerun(
    recorded: RecordedRun, study: Path, overrides: Sequence[str], *, env: bool, quiet: bool = False
) -> Path:
    """Runs a record again, from scratch, in a restored study; returns the folder of the new run."""
    record = recorded.record
    if record["status"] != "finished":
        raise Impossible(
            f"{relative(recorded.path)}: is {record['status']}, so there is nothing to compare"
        )
    if mixed := read_changes(record.get("mixed")):
        raise Impossible(f"{relative(recorded.path)}: was resumed with other code: {mixed[0]}")
    python = build_environment(study, record) if env else Path(sys.executable)
    changed = {key_of(item) for item in overrides}
    if any(key == "data" or key.startswith("data.") for key in changed):
        take_present_data(study, overrides)
    else:
        provide_data(study, record, python)
    provide_inputs(study, record)
    source = provide_initial_weights(study, record, env=env, quiet=quiet)
    dropped = {"test", *changed}
    known = [item for item in record["overrides"] if has_meaning(item)]
    typed = [item for item in known if key_of(item) not in dropped]
    # a sweep does not evaluate the test split: what was done is in the configuration
    test = [] if "test" in changed else [f"test={str(record['config']['test']).lower()}"]
    own = ["run_dir=runs/again", "force=true", f"rerun_of={record['fingerprint']}"]
    # with another seed too, the weights that the run started from
    same = [f"initial_weights.run={source}"] if source and changed else []
    ranks = record.get("ranks", 1)
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    words = [
        str(python),
        *(start if ranks > 1 else []),
        "run.py",
        *typed,
        *test,
        *same,
        *overrides,
        *own,
    ]
    try:
        reason = "; ".join(filter(None, ["the run failed; its error is above", _left_out(record)]))
        call(words, study, reason, quiet=quiet)
    except Impossible as error:
        raise (StudyError(str(error)) if overrides else error) from error
    new = read_record(study / "runs" / "again")
    differing = [change for change in find_drift(record, new) if change.kind == "config"]
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

    They are present; or in the cache or a remote of DVC; or they can be prepared again.

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
        # an experiment or a model may name its data set
        chosen = ("data", "experiment=", "model=")
        typed = [item for item in record["overrides"] if item.lstrip("+~").startswith(chosen)]
        attempt([str(python), "stages/prepare.py", *typed], study)
    if _data_problem(study / name, record):
        raise Impossible(f"its data are missing: {problem}; type: dvc pull")


def _data_problem(folder: Path, record: dict[str, Any]) -> str:
    """The first file that is not the one that the run read, or an empty string."""
    for name, known in record["data"].items():
        path = folder / name
        if not path.is_file():
            return f"{relative(path)} is missing"
        if hash_file(path) != known:
            return f"{relative(path)} has changed"
    return ""


def take_present_data(study: Path, overrides: Sequence[str]) -> None:
    """Old code on new data: those that are here now, with their file in conf/data/."""
    shutil.rmtree(study / "data", ignore_errors=True)
    (study / "data").symlink_to(ROOT / "data", target_is_directory=True)
    for item in overrides:
        key, _, value = item.partition("=")
        path = ROOT / "conf" / "data" / f"{value}.yaml"
        if key == "data" and path.is_file():
            shutil.copyfile(path, study / "conf" / "data" / path.name)


def provide_inputs(study: Path, record: dict[str, Any]) -> None:
    """Puts further files that the run read where they were; git does not track all of them."""
    for name, known in (record.get("inputs") or {}).items():
        for path in (study / name, ROOT / name):
            if path.is_file() and hash_file(path) == known:
                if path != study / name:
                    (study / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, study / name)
                break
        else:
            raise Impossible(f"it read {name}, which has changed since or is missing")


def provide_initial_weights(
    study: Path, record: dict[str, Any], *, env: bool, quiet: bool = False
) -> str | None:
    """Puts the weights that the run started from where it looks for them.

    They are present; or in the cache or a remote of DVC; or their run is done again first.

    Returns:
        The run that they are of; None if there is none.

    Raises:
        Impossible: they are missing, and so is the record of their run.
    """
    known = record.get("initial_weights")
    if not known:
        return None
    node = record["config"]["initial_weights"]
    folder, files = folder_of(node), known["files"]
    if _has(ROOT / folder, files):
        (study / folder).mkdir(parents=True, exist_ok=True)
        for name in () if folder.is_absolute() else files:
            shutil.copyfile(ROOT / folder / name, study / folder / name)
    elif (study / ".dvc").is_dir():
        pull(study, *((folder / name).as_posix() for name in files))
    if not node.get("run"):
        if not _has(study / folder, files):
            raise Impossible(f"it starts from {node['file']}, which has changed or is missing")
        return None
    if not (folder.is_absolute() and _has(folder, files)):
        _provide_run(study, folder, known, env=env, quiet=quiet)
    return str(node["run"])


def _provide_run(
    study: Path, folder: Path, known: dict[str, Any], *, env: bool, quiet: bool
) -> None:
    """Puts the record of a run beside its weights; does it again where these are missing."""
    recorded = find(ROOT / folder)
    try:
        same = recorded.record["fingerprint"] == known["fingerprint"]
    except StudyError:
        same = False
    if not same or folder.is_absolute():
        raise Impossible(f"it starts from {folder}, which is another run now, or is missing")
    if _has(study / folder, known["files"]):
        path = recorded.path / NAME if recorded.path.is_dir() else recorded.path
        shutil.copyfile(path, study / folder / NAME)
        return
    print(f"first {folder}, from whose weights it starts ...", file=sys.stderr)
    with restored(recorded) as tree:
        again = rerun(recorded, tree, [], env=env, quiet=quiet)
    shutil.rmtree(study / folder, ignore_errors=True)
    (study / folder).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(again, study / folder)


def _has(folder: Path, files: dict[str, str]) -> bool:
    """Whether a folder holds these files, each with its hash."""
    paths = {name: folder / name for name in files}
    return all(path.is_file() and hash_file(path) == files[name] for name, path in paths.items())


def pull(study: Path, *outputs: str) -> None:
    """Fetches what DVC tracks there, as far as the cache of this study or a remote has it."""
    known = ROOT / ".dvc" / "config.local"  # remotes of this clone, with their credentials
    if known.is_file():
        shutil.copyfile(known, study / ".dvc" / "config.local")
    # the path may hold what this terminal cannot show
    env = os.environ | {"PYTHONIOENCODING": f"{sys.getfilesystemencoding()}:surrogateescape"}
    words = [*DVC, "cache", "dir"]
    answer = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, check=False)
    cache = os.fsdecode(answer.stdout).strip()
    tracked = git(study, "ls-files", "*.dvc").decode().splitlines()
    targets = [*tracked, *outputs]
    for words in (["cache", "dir", "--local", cache], *(["pull", name] for name in targets)):
        attempt([*DVC, *words, "--quiet"], study)


def call(
    words: Sequence[str | Path], folder: Path, failure: str = "", *, quiet: bool = False
) -> None:
    """Runs a command in a restored study, on that study's code; its output goes to stderr.

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
    """Runs a command that may fail, without output: its result is looked for afterwards."""
    subprocess.run(words, cwd=study, env=_environment(study), capture_output=True, check=False)


def _environment(study: Path) -> dict[str, str]:
    """The environment of a command there: that study's library, and the programs of this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    library = f"{study / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONPATH": library.rstrip(os.pathsep)}

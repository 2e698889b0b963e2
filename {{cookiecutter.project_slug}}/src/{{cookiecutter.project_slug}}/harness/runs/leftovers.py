"""What a killed process leaves in runs/, and how the next one removes it.

Whether a process still works in a folder is known by the lock on it: the system releases the locks
of a process that dies, however it dies.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import StudyError
from ..files import remove_stale
from .git import git
from .record import read_record

LOCK = ".lock"
SCRATCH = ".reproduce-"
STAMPED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_.*")  # the name of a new run's folder


def lock_of(folder: Path) -> FileLock:
    """The lock of a folder, which other users of the machine may ask for too."""
    return FileLock(folder / LOCK, mode=0o666)


def is_alive(folder: Path) -> bool:
    """Whether a process works in a folder: if not, a run with the status `running` was killed."""
    if not (folder / LOCK).exists():
        return False
    try:
        with lock_of(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def scratch_folder(runs: Path) -> Iterator[Path]:
    """A folder in runs/, on the disk where there is room for runs, removed afterwards."""
    runs.mkdir(exist_ok=True)
    with lock_of(runs):
        sweep(runs)
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=runs))
        lock = lock_of(folder)
        lock.acquire()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def is_empty(folder: Path) -> bool:
    """Whether nothing of a run is in a folder: at most a lock, and what was about to be written."""
    names = [path.name for path in folder.iterdir()]
    return all(name == LOCK or name.startswith(".") and name.endswith(".tmp") for name in names)


def aside_of(folder: Path) -> Path:
    """Where the previous run of a folder is kept until its replacement has begun."""
    return folder.with_name(f".{folder.name}.old")


def settle(folder: Path) -> None:
    """Drops the run that was replaced; or, if the new one could not be built, puts it back."""
    aside = aside_of(folder)
    if folder.exists() and not is_empty(folder):
        if "started" in read_record(folder):
            shutil.rmtree(aside, ignore_errors=True)
            return
    if folder.exists():
        shutil.rmtree(folder)
    if aside.exists():
        aside.rename(folder)


def sweep(runs: Path) -> None:
    """Removes what killed processes have left in runs/, or puts it back where it was.

    To be called with the lock on runs/: whoever makes a folder there has it until that is locked.
    """
    remove_stale(runs)
    for folder in _folders(runs, ".*.new"):  # a copy: whoever makes one has our lock
        shutil.rmtree(folder, ignore_errors=True)
    for aside in _folders(runs, ".*.old"):
        replaced = aside.with_name(aside.name[1:-4])
        with suppress(StudyError, OSError):
            if not is_alive(replaced):
                settle(replaced)
    for folder in _folders(runs, "[!.]*"):
        is_ours = STAMPED.fullmatch(folder.name) or (folder / LOCK).exists()
        with suppress(OSError):
            if is_ours and is_empty(folder) and not is_alive(folder):
                shutil.rmtree(folder)
    scratch = [path for path in runs.glob(f"{SCRATCH}*") if not is_alive(path)]
    for folder in scratch:
        shutil.rmtree(folder, ignore_errors=True)
    if scratch:
        git(runs.parent, "worktree", "prune")


def _folders(runs: Path, pattern: str) -> list[Path]:
    """The folders of this name in runs/ and in its groups, such as runs/published/."""
    found = [*runs.glob(pattern), *runs.glob(f"[!.]*/{pattern}")]
    return [path for path in found if path.is_dir() and not path.is_symlink()]

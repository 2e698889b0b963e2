"""Which folder a run works in: never two runs in one, and never the same run twice.

A run is known by its fingerprint (see fingerprint.py), which is in its record. Whoever starts a
run looks for that fingerprint in runs/ first: a finished run is not done again, an interrupted
one is resumed, one that another process is working on is waited for.
"""

import itertools
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import StudyError
from ..files import to_json, write_atomically
from .fingerprint import fingerprint
from .reads import changed_inputs
from .record import NAME, VERSION, name_from, read_record

log = logging.getLogger(__name__)
RUNS = Path("runs")
LOCK = ".lock"
DEVICES = ("cuda", "mps", "cpu")


@contextmanager
def claim(
    root: Path,
    identity: Mapping[str, Any],
    values: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    resume: Path | None = None,
) -> Iterator[Path]:
    """Locks a run's folder for as long as the run lasts.

    Args:
        root: The study's folder.
        identity: What the run is known by.
        values: `run_dir`, `force`, `replace` and `device` of the resolved configuration count.
        overrides: The command line, for the name of a new folder.
        resume: The folder to resume in, whatever its fingerprint.

    Yields:
        A new folder; or that of the same run, which may be finished; or `resume`.

    Raises:
        StudyError: the folder contains something that would be lost, or cannot be made.
    """
    folder, lock = _acquire(root, identity, values, overrides, resume)
    try:
        yield folder
    finally:
        with suppress(StudyError, OSError), _lock(RUNS):
            _settle(folder, lock)
        lock.release()


def _acquire(
    root: Path,
    identity: Mapping[str, Any],
    values: Mapping[str, Any],
    overrides: Sequence[str],
    resume: Path | None,
) -> tuple[Path, FileLock]:
    """The folder of a run and its lock, acquired; waits while another process does the same run."""
    is_waiting = False
    while True:
        try:
            RUNS.mkdir(exist_ok=True)
            with _lock(RUNS):  # for a moment: whoever comes first decides for both
                folder = resume or _choose(root, identity, values, overrides)
                lock = _lock(folder)
                lock.acquire(timeout=0)
                if not (
                    folder / NAME
                ).exists():  # visible to all before the lock on runs/ is released
                    head = {"version": VERSION, "fingerprint": fingerprint(identity)}
                    write_atomically(folder / NAME, to_json({**head, "status": "running"}))
            return folder, lock
        except Timeout:
            if not is_waiting:
                log.info("%s: another process is doing this run; waiting for it", folder)
            is_waiting = True
            with suppress(FileNotFoundError), _lock(folder):  # gone: it could not be built
                pass
        except OSError as error:
            reason = f"cannot be read or made ({error.strerror or error})"
            raise StudyError(f"{error.filename or RUNS}: {reason}") from error


def _settle(folder: Path, lock: FileLock) -> None:
    """Drops the run that was replaced; or, if the new one could not be built, puts it back."""
    aside = _aside(folder)
    if "started" in read_record(folder):
        shutil.rmtree(aside, ignore_errors=True)
        return
    lock.release()
    shutil.rmtree(folder)
    if aside.exists():
        aside.rename(folder)


def _lock(folder: Path) -> FileLock:
    """The lock of a folder, which other users of the machine may ask for too."""
    return FileLock(folder / LOCK, mode=0o666)


def is_alive(folder: Path) -> bool:
    """Whether a process works in a folder: if not, a run with the status `running` was killed."""
    if not (folder / LOCK).exists():
        return False
    try:
        with _lock(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True


def status(folder: Path) -> str:
    """The recorded status; `killed` if that is `running` and no process is."""
    recorded = str(read_record(folder)["status"])
    return "killed" if recorded == "running" and not is_alive(folder) else recorded


def read_finished(folder: Path, *, except_budget: bool = False) -> dict[str, Any] | None:
    """The record of the run in a folder, if it is finished.

    With `except_budget`, not if it ended because its time budget was spent: it can be resumed.
    """
    record = read_record(folder)
    resumable = except_budget and record.get("ended_by") == "time budget"
    return record if record["status"] == "finished" and not resumable else None


def find(root: Path, wanted: str, named: Path | None = None) -> list[Path]:
    """The folders in runs/, and `named`, with the run of this fingerprint.

    A run that read files which have changed since is not the same run. The best comes first: what
    is running, what is finished, `named`, what is no rerun.
    """
    found = []
    for path in [*RUNS.glob(f"[!.]*/{NAME}"), *RUNS.glob(f"[!.]*/[!.]*/{NAME}")]:
        with open(path, "rb") as file:
            head = file.read(200)  # the fingerprint is the second key: no need to read them all
        if wanted.encode() in head:
            found.append(path.parent)
    if named is not None and (named / NAME).is_file():
        found = [folder for folder in found if not folder.samefile(named)]
        if _is_readable(named) and read_record(named)["fingerprint"] == wanted:
            found.append(named)
    found.sort(reverse=True)  # the latest first, where nothing else counts
    same = [item for item in found if _is_readable(item) and _inputs_are_unchanged(root, item)]
    return sorted(same, key=lambda folder: _rank(folder, named), reverse=True)


def _is_readable(folder: Path) -> bool:
    """Whether a record can be read; one that cannot is skipped with a warning."""
    try:
        read_record(folder)
    except StudyError as error:
        log.warning("%s; skipped", error)
        return False
    return True


def _rank(folder: Path, named: Path | None) -> tuple[bool, ...]:
    record = read_record(folder)
    finished = record["status"] == "finished"
    return (is_alive(folder), finished, folder == named, not record.get("rerun_of"))


def _inputs_are_unchanged(root: Path, folder: Path) -> bool:
    """Whether every input of the run is unchanged: see reads.py."""
    changed = changed_inputs(root, read_record(folder).get("inputs") or {})
    if changed:
        log.info("%s: is not reused: it read %s, which has changed since", folder, changed[0])
    return not changed


def _choose(
    root: Path, identity: Mapping[str, Any], values: Mapping[str, Any], overrides: Sequence[str]
) -> Path:
    """The folder for a run: one that contains it already, or a new one."""
    named = Path(values["run_dir"]) if values["run_dir"] else None
    known = [] if values["force"] else _find_on_any_device(root, identity, values, named)
    if named is None:
        return known[0] if known else _new_folder(overrides)
    if known and (known[0] == named or is_alive(known[0])):
        return known[0]
    _make_room(named, replace=values["replace"] or values["force"] or named in known)
    if known:
        _copy(known[0], named)
    return named


def _find_on_any_device(
    root: Path, identity: Mapping[str, Any], values: Mapping[str, Any], named: Path | None
) -> list[Path]:
    """The folders of a run; with device=auto also those of another kind of device."""
    known = find(root, fingerprint(identity), named)
    if known or values["device"] != "auto":
        return known
    devices = [device for device in DEVICES if device != identity["device"]]
    others = [fingerprint({**identity, "device": device}) for device in devices]
    elsewhere = [folder for other in others for folder in find(root, other, named)]
    return [folder for folder in elsewhere if status(folder) == "finished"]


def _new_folder(overrides: Sequence[str]) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        suffix = f"-{number}" if number > 1 else ""
        folder = RUNS / f"{stamp}_{name_from(overrides)}{suffix}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise AssertionError("unreachable")


def _make_room(folder: Path, *, replace: bool) -> None:
    """Leaves `folder` empty. Its content is kept aside until the new run has begun."""
    aside = _aside(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not any(path.name != LOCK for path in folder.iterdir()):
        return
    if not (folder / NAME).is_file():
        raise StudyError(f"run_dir={folder}: contains other files; name an empty or a new folder")
    if is_alive(folder):
        raise StudyError(f"run_dir={folder}: another process is working in it; name another folder")
    if not replace:
        hint = "name another folder, or add replace=true to delete it"
        raise StudyError(f"run_dir={folder}: contains another run; {hint}")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    folder.mkdir()


def _aside(folder: Path) -> Path:
    """Where the previous run of a folder is kept until its replacement has begun."""
    return folder.with_name(f".{folder.name}.old")


def _copy(source: Path, target: Path) -> None:
    """Copies a run that was done in another folder."""
    copy = target.with_name(f".{target.name}.new")
    shutil.rmtree(copy, ignore_errors=True)
    try:
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns(LOCK, ".*.tmp"))
        record = {**read_record(copy), "copied_from": source.as_posix()}
        write_atomically(copy / NAME, to_json(record))
    except (OSError, StudyError) as error:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        if _aside(target).exists():
            _aside(target).rename(target)
        reason = getattr(error, "strerror", None) or error
        raise StudyError(f"{target}: cannot be copied from {source} ({reason})") from error
    shutil.rmtree(target)
    copy.rename(target)
    log.info("%s: copied from %s, which is the same run", target, source)

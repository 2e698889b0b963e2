"""Which folder a run works in: never two runs in one, and never the same run twice.

A run is known by its fingerprint (see identity.py), which stands in its record. Whoever starts one
looks for that fingerprint in runs/ first: a run that is finished is not done again, one that was
stopped is gone on with, one that is under way is waited for.
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

from . import StudyError
from .files import to_json, write_atomically
from .identity import fingerprint
from .provenance import changed_inputs
from .records import VERSION, name_from, read_record

log = logging.getLogger(__name__)
RUNS = Path("runs")
LOCK = ".lock"
DEVICES = ("cuda", "mps", "cpu")


@contextmanager
def claim(
    root: Path,
    identity: Mapping[str, Any],
    config: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    resume: Path | None = None,
) -> Iterator[Path]:
    """Holds the folder of a run, against every other process, for as long as the run goes on.

    Args:
        root: The study's folder.
        identity: What the run is known by.
        config: `run_dir`, `force`, `replace` and `device` of the resolved configuration count.
        overrides: The command line, for the name of a new folder.
        resume: The folder to go on in, whatever is known of it.

    Yields:
        A new folder; or that of the same run, which may be finished; or `resume`.

    Raises:
        StudyError: the folder holds something that would be lost, or cannot be made.
    """
    wanted, said = fingerprint(identity), False
    while True:
        try:
            RUNS.mkdir(exist_ok=True)
            with _lock(RUNS):  # for a moment: who comes first decides for both
                folder = resume or _choose(root, identity, config, overrides)
                lock = _lock(folder)
                lock.acquire(timeout=0)
                if not (folder / "record.json").exists():  # known to all, before the lock is let go
                    begun = {"version": VERSION, "fingerprint": wanted, "status": "running"}
                    write_atomically(folder / "record.json", to_json(begun))
            break
        except Timeout:
            if not said:
                log.info("%s: another process is at this very run; waiting for its end", folder)
            said = True
            with suppress(FileNotFoundError), _lock(folder):  # gone: it was not built
                pass
        except OSError as error:
            reason = f"cannot be read or made ({error.strerror or error})"
            raise StudyError(f"{error.filename or RUNS}: {reason}") from error
    try:
        yield folder
    finally:
        with suppress(StudyError, OSError), _lock(RUNS):
            aside = _aside(folder)
            if "started" in read_record(folder):
                shutil.rmtree(aside, ignore_errors=True)
            else:  # what was to be run could not be built: nothing has happened
                lock.release()
                shutil.rmtree(folder)
                if aside.exists():
                    aside.rename(folder)
        lock.release()


def _lock(folder: Path) -> FileLock:
    """The lock of a folder, which other users of the machine may ask for too."""
    return FileLock(folder / LOCK, mode=0o666)


def is_alive(folder: Path) -> bool:
    """Whether a process works in a folder; a run that says `running` and is not was killed."""
    if not (folder / LOCK).exists():
        return False
    try:
        with _lock(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True


def status(folder: Path) -> str:
    """`running`, `finished`, `failed`, `interrupted`, or `killed`: it says running and is dead."""
    said = str(read_record(folder)["status"])
    return "killed" if said == "running" and not is_alive(folder) else said


def read_finished(folder: Path, *, but_for_budget: bool = False) -> dict[str, Any] | None:
    """The record of the run in a folder, if that has ended well.

    With `but_for_budget`, not if it ended because its time was spent: then it can go on.
    """
    record = read_record(folder)
    unfinished = but_for_budget and record.get("ended_by") == "time budget"
    return record if record["status"] == "finished" and not unfinished else None


def find(root: Path, wanted: str, named: Path | None = None) -> list[Path]:
    """The folders in runs/, and `named`, that hold the run with this fingerprint.

    One that read files which have changed since is not the same run. The best comes first: what is
    under way, what is finished, `named`, what is no rerun.
    """
    found = []
    for path in [*RUNS.glob("[!.]*/record.json"), *RUNS.glob("[!.]*/[!.]*/record.json")]:
        with open(path, "rb") as file:
            head = file.read(200)  # the fingerprint is the second key: no need to read them all
        if wanted.encode() in head:
            found.append(path.parent)
    if named is not None and (named / "record.json").is_file():
        found = [folder for folder in found if not folder.samefile(named)]
        if _is_whole(named) and read_record(named)["fingerprint"] == wanted:
            found.append(named)
    found.sort(reverse=True)  # the latest first, where nothing else counts
    same = [folder for folder in found if _is_whole(folder) and _inputs_as_recorded(root, folder)]
    return sorted(same, key=lambda folder: _rank(folder, named), reverse=True)


def _is_whole(folder: Path) -> bool:
    """Whether a record can be read; one that cannot stands in nobody's way."""
    try:
        read_record(folder)
    except StudyError as error:
        log.warning("%s; passed over", error)
        return False
    return True


def _rank(folder: Path, named: Path | None) -> tuple[bool, ...]:
    record = read_record(folder)
    finished = record["status"] == "finished"
    return (is_alive(folder), finished, folder == named, not record.get("rerun_of"))


def _inputs_as_recorded(root: Path, folder: Path) -> bool:
    """Whether every file that the run read, besides what it is known by, is still what it was."""
    changed = changed_inputs(root, read_record(folder).get("inputs") or {})
    if changed:
        log.info("%s: is the same run, but for %s, which has changed since", folder, changed[0])
    return not changed


def _choose(
    root: Path, identity: Mapping[str, Any], config: Mapping[str, Any], overrides: Sequence[str]
) -> Path:
    """The folder for a run: one that holds it already, or one that is made for it."""
    named = Path(config["run_dir"]) if config["run_dir"] else None
    wanted = fingerprint(identity)
    known = [] if config["force"] else find(root, wanted, named)
    if not known and config["device"] == "auto" and not config["force"]:
        # done on another kind of device, such as a cluster's: auto says that any will do
        devices = [device for device in DEVICES if device != identity["device"]]
        others = [fingerprint({**identity, "device": device}) for device in devices]
        known = [folder for other in others for folder in find(root, other, named)]
        known = [folder for folder in known if status(folder) == "finished"]
    if named is None:
        return known[0] if known else _new_folder(overrides)
    if known and (known[0] == named or is_alive(known[0])):
        return known[0]
    _make_room(named, replace=config["replace"] or config["force"] or named in known)
    if known:
        _copy(known[0], named)
    return named


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
    """Leaves `folder` empty. What it held is kept aside until the new run has begun."""
    aside = _aside(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not any(path.name != LOCK for path in folder.iterdir()):
        return
    if not (folder / "record.json").is_file():
        raise StudyError(f"run_dir={folder}: holds other files; name an empty or a new folder")
    if is_alive(folder):
        raise StudyError(f"run_dir={folder}: another run is at work in it; name another folder")
    if not replace:
        hint = "name another folder, or add replace=true to lose it"
        raise StudyError(f"run_dir={folder}: holds another run; {hint}")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    folder.mkdir()


def _aside(folder: Path) -> Path:
    """Where the run that a folder held waits until it is sure that it is replaced."""
    return folder.with_name(f".{folder.name}.old")


def _copy(source: Path, target: Path) -> None:
    """Takes over a run that was done elsewhere."""
    copy = target.with_name(f".{target.name}.new")
    shutil.rmtree(copy, ignore_errors=True)
    try:
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns(LOCK, ".*.tmp"))
        record = {**read_record(copy), "copied_from": source.as_posix()}
        write_atomically(copy / "record.json", to_json(record))
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

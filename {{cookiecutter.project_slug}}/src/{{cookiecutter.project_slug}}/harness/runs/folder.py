"""Which folder a run works in: never two runs in one, and never the same run twice.

A run is known by its fingerprint (see fingerprint.py), which is in its record. Whoever starts a
run looks for that fingerprint in runs/ first: a finished run is not done again, an interrupted
one is resumed, one that another process is working on is waited for.
"""

import itertools
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import StudyError
from .fingerprint import fingerprint
from .leftovers import LOCK, aside_of, is_alive, is_empty, lock_of, settle, sweep
from .reads import changed_inputs, reads_ignored
from .record import NAME, VERSION, name_from, read_record, write_record

log = logging.getLogger(__name__)
RUNS = Path("runs")
DEVICES = ("cuda", "mps", "cpu")
MAX_RANKS = 64  # so many are looked for


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
    with reads_ignored():  # records of other runs are no inputs of this one
        folder, lock = _acquire(root, identity, values, overrides, resume)
    try:
        yield folder
    finally:
        with suppress(StudyError, OSError), reads_ignored(), lock_of(RUNS):
            lock.release()
            settle(folder)
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
            with lock_of(RUNS):  # for a moment: whoever comes first decides for both
                sweep(RUNS)
                folder = resume or _choose(root, identity, values, overrides)
                lock = lock_of(folder)
                lock.acquire(timeout=0)
                for path in folder.glob(".*.tmp"):  # what a killed process was about to write
                    path.unlink(missing_ok=True)
                # visible to all before the lock on runs/ is released
                if not (folder / NAME).exists():
                    head = {"version": VERSION, "fingerprint": fingerprint(identity)}
                    write_record(folder, {**head, "status": "running"})
            return folder, lock
        except Timeout:
            if not is_waiting:
                log.info("%s: another process is doing this run; waiting for it", folder)
            is_waiting = True
            with suppress(FileNotFoundError), lock_of(folder):  # gone: it could not be built
                pass
        except OSError as error:
            reason = f"cannot be read or made ({error.strerror or error})"
            raise StudyError(f"{error.filename or RUNS}: {reason}") from error


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


def count_test_look(folder: Path) -> int:
    """Counts in its record that someone looks at the test split with a finished run.

    Returns:
        How often that was done, training with `test=true` included.

    Raises:
        StudyError: the record cannot be written.
    """
    try:
        with lock_of(folder):
            record = read_record(folder)
            record["test_looks"] = looks_at_test(record) + 1
            write_record(folder, record)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written ({error.strerror})") from error
    return looks_at_test(record)


def looks_at_test(record: Mapping[str, Any]) -> int:
    """How often the test split was looked at with a run; an early record does not count."""
    return int(record.get("test_looks", "test" in (record.get("metrics") or {})))


def find(root: Path, wanted: str, named: Path | None = None) -> list[Path]:
    """The folders in runs/, and `named`, with the run of this fingerprint.

    A run that read files which have changed since is not the same run. The best comes first: what
    is running, what is finished, `named`, what is no rerun.
    """
    found = [folder for folder in _recorded() if _head_of(folder) in (wanted, None)]
    if named is not None and (named / NAME).exists():
        found = [folder for folder in found if not folder.samefile(named)] + [named]
    found.sort(reverse=True)  # the latest first, where nothing else counts
    same = [item for item in found if _is_of(item, wanted) and _inputs_are_unchanged(root, item)]
    return sorted(same, key=lambda folder: _rank(folder, named), reverse=True)


def _recorded() -> list[Path]:
    """The folders in runs/ with a record: of runs, and of runs in a folder of theirs."""
    paths = [*RUNS.glob(f"[!.]*/{NAME}"), *RUNS.glob(f"[!.]*/[!.]*/{NAME}")]
    return [path.parent for path in paths]


def _head_of(folder: Path) -> str | None:
    """The fingerprint in the head of a record: no need to read all of it; None if it has none."""
    try:
        with open(folder / NAME, "rb") as file:
            found = re.search(rb'"fingerprint": "(\w{64})"', file.read(200))
    except OSError:
        return None
    return found[1].decode() if found else None


def _is_of(folder: Path, wanted: str) -> bool:
    """Whether a run has this fingerprint; one whose record cannot be read gets a warning."""
    try:
        return bool(read_record(folder)["fingerprint"] == wanted)
    except StudyError as error:
        log.warning(
            "%s; this run is passed over; if you no longer need it, type: rm -r %s", error, folder
        )
        return False


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
    known = [] if values["force"] else find_on_any_device(root, identity, values, named)
    if not known and not values["force"]:
        _refuse_other_ranks(identity)
    if named is None:
        return known[0] if known else _new_folder(overrides)
    if known and (known[0] == named or is_alive(known[0])):
        return known[0]
    _make_room(named, replace=values["replace"] or values["force"] or named in known)
    if known:
        _copy(known[0], named)
    return named


def find_on_any_device(
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


def _refuse_other_ranks(identity: Mapping[str, Any]) -> None:
    """A run that other ranks did not finish is not resumed, nor is it begun anew by mistake.

    Raises:
        StudyError: there is one.
    """
    numbers = {n for n in range(1, MAX_RANKS + 1) if n != identity["ranks"]}
    others = {fingerprint({**identity, "ranks": number}): number for number in numbers}
    for folder in _recorded():
        number = others.get(_head_of(folder) or "")
        if number is not None and status(folder) in ("interrupted", "killed", "failed"):
            raise StudyError(
                f"{folder}: this run was begun by {number} ranks, not {identity['ranks']}; "
                f"resume it with {number}, or type force=true to begin another"
            )


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
    aside = aside_of(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if is_empty(folder):
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


def _copy(source: Path, target: Path) -> None:
    """Copies a run that was done in another folder."""
    copy = target.with_name(f".{target.name}.new")
    shutil.rmtree(copy, ignore_errors=True)
    try:
        # its configuration is written again: there `run_dir` is another
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns(LOCK, ".*.tmp", "config.yaml"))
        write_record(copy, {**read_record(copy), "copied_from": source.as_posix()})
    except (OSError, StudyError) as error:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        if aside_of(target).exists():
            aside_of(target).rename(target)
        reason = getattr(error, "strerror", None) or error
        raise StudyError(f"{target}: cannot be copied from {source} ({reason})") from error
    shutil.rmtree(target)
    copy.rename(target)
    log.info("%s: copied from %s, which is the same run", target, source)

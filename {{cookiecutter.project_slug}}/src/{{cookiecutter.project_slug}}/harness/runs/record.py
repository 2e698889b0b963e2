"""What went into a run, and what came out: plain files in the run's own folder.

Files:
    config.yaml     the resolved configuration: every value of the run
    record.json     everything else; docs/record.md describes each key
    changes.patch   what was in the work tree and in no commit, if anything was
    run.log         what the run logged
    history.csv     a row an epoch          metrics.json   the final numbers
    best.pt         the weights that the numbers are of
    checkpoint-*.pt weights, optimizer and progress, to resume from: the newest and the previous one
"""

import hashlib
import json
import logging
import os
import platform
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import StudyError
from ..files import hash_file, hash_files, to_json, write_atomically
from ..ranks import rank
from ..training.results import RESULTS, write_metrics
from .code import hash_source, source_in_use
from .drift import Change, find_drift, hardware_drift, write_changes
from .fingerprint import KEYS, describe_origin, fingerprint, identity_in
from .git import describe_git
from .installed import imported_packages
from .machine import (
    describe_environment,
    describe_hardware,
    describe_packages,
    read_energy,
    slurm_job,
)
from .reads import changed_inputs, hash_inputs
from .run import Metrics, Run
from .sealing import is_sealed, seal

log = logging.getLogger(__name__)
VERSION = 4
RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes the run
# Overrides that do not describe what a run computes.
WITHOUT_MEANING = (
    *("run_dir", "force", "replace", "resume", "note", "group", "rerun_of"),
    *("task", "debug", "tracker", "launcher", "search"),
)
NAME = "record.json"
HEAD = ("version", "fingerprint", "status")  # of any record; of a run that has begun also these:
BEGUN = ("config", "overrides", "packages", "hardware", "parts", "code", "data", "lock", "device")
_git_at_first: dict[Path, tuple[dict[str, Any] | None, bytes]] = {}  # of each study


def key_of(override: str) -> str:
    """The key that an override of the command line sets, adds or deletes."""
    return override.lstrip("+~").partition("=")[0]


def has_meaning(override: str) -> bool:
    """Whether an override of the command line describes what a run computes."""
    return key_of(override).partition(".")[0] not in WITHOUT_MEANING


def name_from(overrides: Sequence[str]) -> str:
    """A name from a command line: `model=mlp seed=1` gives `model-mlp_seed-1`.

    It contains no character with a meaning to a shell or to Hydra.
    """
    typed = [item.lstrip("+~") for item in overrides if has_meaning(item)]
    readable = "_".join(typed)
    return re.sub(r"[^\w.-]+", "-", readable, flags=re.ASCII)[:80].strip("-.") or "default"


class AlteredRecord(StudyError):
    """A record is not as the run has written it."""


def read_record(path: Path) -> dict[str, Any]:
    """The record of a run: that in its folder, or a file of its own; of any version.

    Raises:
        AlteredRecord: its seal is not that of its content.
        StudyError: there is none, or it cannot be read, or lacks something.
    """
    file = path if path.is_file() else path / NAME
    try:
        record = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StudyError(f"{path}: is not a run: there is no {file}") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"{file}: cannot be read ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("version"), int):
        raise StudyError(f"{file}: is not a record")
    if record["version"] > VERSION:
        raise StudyError(f"{file}: was written by a newer version of this study; type: git pull")
    if ("seal" in record or record["version"] >= 4) and not is_sealed(record):
        raise AlteredRecord(f"{file}: was edited or damaged after the run wrote it")
    needed = (*HEAD, *BEGUN) if "started" in record and record["version"] > 1 else HEAD
    if record["version"] == 1:
        record = _from_version_1(record)
    if record["version"] == 2:
        record = _from_version_2(record)
    if missing := [key for key in needed if key not in record]:
        raise StudyError(f"{file}: is damaged: it lacks {missing[0]}")
    whole: dict[str, Any] = record
    return whole


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes a record, with its seals, into the folder of its run.

    Raises:
        StudyError: it cannot be written; what was there before is unchanged.
    """
    plain = json.loads(to_json(record))  # as it will be read: no tuples, every key a string
    write_atomically(folder / NAME, to_json(seal(plain)))


def record_config(folder: Path, values: Mapping[str, Any], content: bytes) -> None:
    """Notes that config.yaml of a finished run is about to be written again: DVC had removed it.

    It may differ from the first in what has no effect on a number, such as the name of the folder.
    """
    record = read_record(folder)
    record["files"]["config.yaml"] = hashlib.sha256(content).hexdigest()
    write_record(folder, {**record, "config": values})


def _from_version_1(old: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had one hash for all the code, one for all the data, and no fingerprint."""
    hashes = old.get("hashes", {})
    return {
        **{key: value for key, value in old.items() if key not in ("hashes", "packages")},
        "version": 2,
        "fingerprint": None,
        "config": {},
        "overrides": shlex.split(old.get("command", ""))[2:],
        "code": {"all": hashes.get("code")},
        "data": {"all": hashes.get("data")},
        "lock": hashes.get("lock"),
        "packages": {"installed": old.get("packages", {}), "locked": {}},
    }


def _from_version_2(old: dict[str, Any]) -> dict[str, Any]:
    """Version 2 knew the code by the bytes of every file, and kept changes as lines of text."""
    record = {**old, "version": VERSION, "code": {}, "source": old.get("code") or {}}
    for key in ("mixed", "moved"):
        if key in old:
            record[key] = [_change_from_line(line) for line in old[key]]
    return record


def _change_from_line(line: str) -> dict[str, Any]:
    kind, _, rest = line.partition(": ")
    return write_changes([Change(kind, rest)])[0]


class Record:
    """The record of a run, from its beginning to its end, also if an error or a signal ends it.

    Its status is `running`, then `finished`, `interrupted` or `failed`, with the error. If the
    folder contains the record of an earlier part of the run, that one is continued.

        with Record(run) as record:
            record["ended_by"] = trainer.fit(train, validation)
            record.finish(metrics)
    """

    def __new__(cls, run: Run) -> "Record":
        del run
        return super().__new__(cls if rank() == 0 else _Unwritten)

    def __init__(self, run: Run) -> None:
        self.root, self.folder = run.root, run.folder
        begun = read_record(run.folder)
        self.values = _next_part(run, begun) if "started" in begun else describe(run)
        self.started = datetime.now(timezone.utc)
        self.energy = read_energy(self._card())
        self.handler = _LogFile(self.folder / "run.log", encoding="utf-8")

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.values[key] = value

    def __enter__(self) -> "Record":
        """Writes that the run has begun, and logs into its folder from now on.

        Raises:
            StudyError: the record cannot be written.
        """
        part: dict[str, Any] = {"started": _stamp(self.started), "host": platform.node()}
        part |= {"pid": os.getpid(), "slurm_job": slurm_job()}
        self.values.setdefault("parts", []).append(part)
        self.values.setdefault("started", part["started"])
        self.values |= {"status": "running", "exit_code": None, "error": None}
        self._write()
        log.info("run folder: %s", self.folder)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(self.handler)
        return self

    def finish(self, metrics: Metrics) -> None:
        """Writes metrics.json: the numbers, by split and name; counts a look at the test split."""
        write_metrics(self.folder, metrics)
        self["metrics"] = metrics
        self["test_looks"] = self.values.get("test_looks", 0) + ("test" in metrics)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes how the run ended; a full disk hides no error that ended it."""
        if self.values.get("ranks", 1) > 1:  # the end of another rank has this one ended too
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            if error is None:
                self.values |= {"status": "finished", "exit_code": 0}
                self["files"] = hash_files(self.folder, _files_in(self.folder))
                self._end_part()
            else:
                self._note(error)
                with suppress(StudyError, OSError):
                    self._end_part()
        finally:
            logging.getLogger().removeHandler(self.handler)
            self.handler.close()

    def _note(self, error: BaseException) -> None:
        """Status and error; the traceback goes to the log only."""
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        self["status"] = "interrupted" if interrupted else "failed"
        self["exit_code"] = RESUMABLE if interrupted else 1
        self["error"] = f"{type(error).__name__}: {error}".strip(": ")
        exc_info = (type(error), error, error.__traceback__)
        line = {"msg": self["error"], "levelname": "ERROR", "exc_info": exc_info}
        self.handler.emit(logging.makeLogRecord(line))

    def _end_part(self) -> None:
        """Writes the record of a part that has ended, and what it cost."""
        ended = datetime.now(timezone.utc)
        seconds = round((ended - self.started).total_seconds(), 3)
        part = {"ended": _stamp(ended), "seconds": seconds}
        part |= {key: self[key] for key in ("status", "error")}
        self["parts"][-1] |= part
        self["ended"] = part["ended"]
        self["seconds"] = round(self.values.get("seconds", 0.0) + seconds, 3)
        with suppress(OSError), open(self.folder / "run.log", "rb") as file:
            self["log_lines"] = sum(1 for _ in file)
        self["cost"] = self._cost()
        self["packages"]["imported"] = imported_packages()
        self._write()

    def _write(self) -> None:
        self["inputs"] = hash_inputs(self.root, self.values.get("inputs") or {}, self.folder)
        write_record(self.folder, self.values)

    def _card(self) -> str:
        """The device of the run: the one that was named, or its kind."""
        named = str(self["config"]["device"])
        return named if named != "auto" else str(self["device"])

    def _cost(self) -> dict[str, Any]:
        """Device hours times the price in the configuration, and energy where it is measured."""
        hours = self["seconds"] / 3600 * self.values.get("ranks", 1)
        price = self["config"].get("price_per_hour")
        joules = None
        if self.energy is not None and (now := read_energy(self._card())) is not None:
            earlier = (self.values.get("cost") or {}).get("joules") or 0.0
            joules = now - self.energy + earlier
        return {
            "device_hours": round(hours, 6),
            "price": None if price is None else round(hours * price, 6),
            "joules": joules,
        }


class _Unwritten(Record):
    """What the other ranks have in its place: rank 0 writes the record."""

    def __init__(self, run: Run) -> None:  # pylint: disable=super-init-not-called
        self.root, self.folder = run.root, run.folder
        self.values = {"config": run.values, "overrides": run.overrides, "checks": []}

    def __enter__(self) -> "Record":
        return self

    def finish(self, metrics: Metrics) -> None:
        """Writes nothing."""

    def __exit__(self, *_: object) -> None:
        """Writes nothing."""


class _LogFile(logging.FileHandler):
    """A log that must not stop a run: on a full disk its lines are lost, without an error."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Does nothing; logging would print a traceback for each line."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _files_in(folder: Path) -> list[Path]:
    """What a run has written, besides its record."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if path.name != NAME and not path.name.startswith(".")]


def find_altered_files(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """Each file of a finished run that is not as the record says; of its results also the missing.

    Checkpoints and the log may be deleted to make room.
    """
    altered = []
    for name, known in (record.get("files") or {}).items():
        if (folder / name).is_file():
            if hash_file(folder / name) != known:
                altered.append(f"{name}: is not as the run wrote it")
        elif name in RESULTS:
            altered.append(f"{name}: is missing")
    return altered


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _next_part(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    """The record of a run that is resumed; with other code it has no fingerprint.

    Raises:
        StudyError: the data are others than those that the run began with.
    """
    before = identity_in(record)
    if before["data"] != run.identity["data"]:
        raise StudyError(f"resume={run.folder}: the run began with other data")
    if before["ranks"] != (now := run.identity["ranks"]):
        begun = f"the run was begun by {before['ranks']} ranks, not {now}"
        raise StudyError(f"resume={run.folder}: {begun}; resume it with as many")
    changes = find_drift(before, run.identity)
    inputs = changed_inputs(run.root, record.get("inputs") or {})
    changes += [Change("data", name, "before", "now") for name in inputs]
    for change in changes:
        log.warning("since the run began: %s", change)
    if changes:
        record["fingerprint"] = None
        record["mixed"] = [*record.get("mixed", []), *write_changes(changes)]
    machines = [{"hardware": each} for each in (record["hardware"], describe_hardware())]
    if moved := hardware_drift(*machines):
        log.warning("since the run began: %s", "; ".join(map(str, moved)))
        record["moved"] = [*record.get("moved", []), *write_changes(moved)]
    _close_killed_part(run.folder, record)
    for key in ("files", "metrics"):  # of a run that its time budget had ended: these change now
        record.pop(key, None)
    return record


def _close_killed_part(folder: Path, record: dict[str, Any]) -> None:
    """Ends the part of a process that was killed: it lived at least until it last wrote."""
    part = record["parts"][-1] if record.get("parts") else None
    if record.get("status") != "running" or part is None:
        return
    paths = [path for pattern in WRITTEN for path in folder.glob(pattern)]
    last = max((path.stat().st_mtime for path in paths), default=folder.stat().st_mtime)
    ended = datetime.fromtimestamp(last, timezone.utc)
    lived = (ended - datetime.fromisoformat(part["started"])).total_seconds()
    part |= {"ended": _stamp(ended), "seconds": max(0.0, round(lived, 3)), "status": "killed"}
    record["seconds"] = record.get("seconds", 0.0) + part["seconds"]


WRITTEN = ("checkpoint-*.pt", "run.log", "history.csv")  # while a run lasts


def describe(run: Run) -> dict[str, Any]:
    """What goes into a run, as far as a machine can tell. Writes changes.patch if there are any."""
    root, values = run.root, run.values
    source = source_in_use(root)
    if root not in _git_at_first or source == hash_source(root):
        _git_at_first[root] = describe_git(root)
    git, patch = _git_at_first[root]  # later jobs of a sweep ignore edits made since
    if patch:
        write_atomically(run.folder / "changes.patch", patch)
    return {
        "version": VERSION,
        "fingerprint": fingerprint(run.identity),
        "name": name_from(run.overrides),
        **{key: values.get(key) for key in ("description", "note", "group", "rerun_of")},
        "command": shlex.join(["python", "run.py", *run.overrides]),
        "overrides": list(run.overrides),
        "seed": values["seed"],
        "config": values,
        "git": git,
        **{key: run.identity[key] for key in KEYS},
        "source": source,
        "prepared_from": describe_origin(root, values),
        "packages": describe_packages(root),
        "hardware": describe_hardware(),
        "environment": describe_environment(),
        "checks": ["configuration: keys, types, ranges", "data: parameters, sizes, hashes"],
    }

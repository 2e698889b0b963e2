"""What went into a run, and what came out: plain files in the run's own folder.

Files:
    config.yaml     the resolved configuration: every value of the run
    record.json     all else that is known of it; docs/record.md says what each key means
    changes.patch   what stood in the work tree and in no commit, if anything did
    run.log         what the run said
    history.csv     a row an epoch          metrics.json   the final numbers
    best.pt         the weights that the numbers are of
    checkpoint-*.pt weights, optimizer and progress, to go on from: the newest and the one before
"""

import csv
import io
import json
import logging
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import StudyError, provenance
from .files import hash_file, hash_files, to_json, write_atomically
from .identity import KEYS, explain, explain_hardware, fingerprint, hash_code, of_record

log = logging.getLogger(__name__)
VERSION = 2
RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: the same command, typed again, goes on
# Of the overrides of a run, what says where it stands and not what it is.
OF_THE_PLACE = ("run_dir", "force", "replace", "resume", "note", "group", "rerun_of")
_described: dict[Path, tuple[dict[str, Any] | None, bytes]] = {}  # a study's git, by its root
RESULTS = ("best.pt", "history.csv", "metrics.json")


def key_of(override: str) -> str:
    """The key that an override of the command line sets, adds or deletes."""
    return override.lstrip("+~").partition("=")[0]


def name_from(overrides: Sequence[str]) -> str:
    """A name from a command line: `model=mlp seed=1` gives `model-mlp_seed-1`.

    It holds no character that a shell or Hydra would read as anything else.
    """
    typed = [item.lstrip("+~") for item in overrides if key_of(item) not in OF_THE_PLACE]
    readable = "_".join(typed)
    return re.sub(r"[^\w.-]+", "-", readable, flags=re.ASCII)[:80].strip("-.") or "default"


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a run: its folder's, or a file of its own. One of version 1 is brought up.

    Raises:
        StudyError: there is none, or it cannot be read.
    """
    path = folder if folder.is_file() else folder / "record.json"
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StudyError(f"{folder}: is not a run: there is no {path}") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("version"), int):
        raise StudyError(f"{path}: is not a record")
    if record["version"] > VERSION:
        raise StudyError(f"{path}: was written by a newer version of this study; type: git pull")
    return _from_version_1(record) if record["version"] == 1 else record


def _from_version_1(old: dict[str, Any]) -> dict[str, Any]:
    """The first records had one hash for all the code, one for all the data, and no fingerprint."""
    hashes = old.get("hashes", {})
    return {
        **{key: value for key, value in old.items() if key not in ("hashes", "packages")},
        "version": VERSION,
        "fingerprint": None,
        "config": {},
        "overrides": shlex.split(old.get("command", ""))[2:],
        "code": {"all": hashes.get("code")},
        "data": {"all": hashes.get("data")},
        "lock": hashes.get("lock"),
        "packages": {"installed": old.get("packages", {}), "locked": {}},
    }


def publish(folder: Path, path: Path) -> None:
    """Writes the record of a run with all that it takes to run it again elsewhere.

    Its history comes with it, its uncommitted changes beside it, and the names of hosts do not. One
    that is there and gave the same results stays: those numbers need no other.
    """
    results = hash_files(folder, [folder / name for name in RESULTS])
    if path.exists() and read_record(path).get("files") == results:
        return
    record = read_record(folder) if (folder / "record.json").is_file() else {}
    if record.get("files") != results:  # DVC has restored the results of some other time
        log.warning("%s: its record is of other results; not published", folder)
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    patch = folder / "changes.patch"
    if patch.exists():
        record["patch"] = f"{hash_file(patch)[:16]}.patch"
        write_atomically(path.with_name(record["patch"]), patch.read_bytes())
    record["hardware"].pop("host", None)
    for part in record["parts"]:
        part.pop("host", None)
        part.pop("pid", None)
    write_atomically(path, to_json({**record, "history": read_history(folder)}))


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of history.csv, an epoch each; none if there is no such file."""
    try:
        text = (folder / "history.csv").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    rows = csv.DictReader(io.StringIO(text))
    return [{name: float(value) for name, value in row.items()} for row in rows]


@contextmanager
def recording(
    folder: Path,
    root: Path,
    *,
    identity: Mapping[str, Any],
    config: Mapping[str, Any],
    overrides: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Keeps the record of a run in its folder, with status, times and log, whatever ends it.

    The status is `running`, then `finished`, `interrupted` or `failed`, with the error. A record
    that is already there is that of the run's first part: it is kept and added to.

    Args:
        folder: The run's, from `runs.claim`.
        root: The study's.
        identity: What the run is known by: see `identity.identify`.
        config: The resolved configuration.
        overrides: The command line behind `python run.py`.

    Raises:
        StudyError: the run is resumed on other data, or the record cannot be written.
    """
    record = read_record(folder)
    if "started" in record:
        record = _next_part(root, folder, record, identity)
    else:
        record = describe(root, folder, identity=identity, config=config, overrides=overrides)
    started = datetime.now(timezone.utc)
    part: dict[str, Any] = {"started": _stamp(started), "host": platform.node()}
    part |= {"pid": os.getpid(), "slurm_job": os.environ.get("SLURM_JOB_ID")}
    record.setdefault("parts", []).append(part)
    record.setdefault("started", part["started"])
    record |= {"status": "running", "exit_code": None, "error": None}
    record["inputs"] = provenance.hash_inputs(root, record.get("inputs") or {})
    energy = provenance.read_energy(_card(record))
    write_atomically(folder / "record.json", to_json(record))
    handler = _LogFile(folder / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield record
        record |= {"status": "finished", "exit_code": 0}
        record["files"] = hash_files(folder, [folder / name for name in RESULTS])
    except BaseException as error:
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        record["status"] = "interrupted" if interrupted else "failed"
        record["exit_code"] = RESUMABLE if interrupted else 1
        record["error"] = f"{type(error).__name__}: {error}".strip(": ")
        handler.emit(  # into the file alone: the console is told by whoever catches it
            logging.makeLogRecord(
                {"msg": record["error"], "levelname": "ERROR", "exc_info": sys.exc_info()}
            )
        )
        with suppress(StudyError, OSError):  # a full disk: what went wrong is the error to be told
            record["inputs"] = provenance.hash_inputs(root, record["inputs"])
            _end_part(folder, record, started, energy, handler)
        raise
    else:
        record["inputs"] = provenance.hash_inputs(root, record["inputs"])
        _end_part(folder, record, started, energy, handler)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


class _LogFile(logging.FileHandler):
    """A log that must not stop a run: on a full disk its lines go missing, in silence."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Does nothing; logging would print a traceback a line."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _card(record: Mapping[str, Any]) -> str:
    """The device of a run: the one that was named, or its kind."""
    named = str(record["config"]["device"])
    return named if named != "auto" else str(record["device"])


def _next_part(
    root: Path, folder: Path, record: dict[str, Any], identity: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of a run that goes on; with other code no one fingerprint stands for it."""
    before = of_record(record)
    if before["data"] != identity["data"]:
        raise StudyError(f"resume={folder}: the data are not those that the run began with")
    changed = explain(before, identity)
    inputs = provenance.changed_inputs(root, record.get("inputs") or {})
    changed += [f"data: {name}: changed" for name in inputs]
    for line in changed:
        log.warning("since the run began: %s", line)
    if changed:
        record["fingerprint"] = None
        record["mixed"] = [*record.get("mixed", []), *changed]
    machines = [{"hardware": each} for each in (record["hardware"], provenance.describe_hardware())]
    if moved := explain_hardware(*machines):
        log.warning("since the run began: %s", "; ".join(moved))
        record["moved"] = [*record.get("moved", []), *moved]
    part = record["parts"][-1] if record.get("parts") else None
    if record.get("status") == "running" and part is not None:
        # killed: it lived at least as long as it wrote
        last = datetime.fromtimestamp(max(_written(folder)), timezone.utc)
        lived = (last - datetime.fromisoformat(part["started"])).total_seconds()
        part |= {"ended": _stamp(last), "seconds": max(0.0, round(lived, 3)), "status": "killed"}
        record["seconds"] = record.get("seconds", 0.0) + part["seconds"]
    for path in folder.glob(".*.tmp"):  # what it was about to write
        path.unlink()
    return record


def _written(folder: Path) -> list[float]:
    """When each file that a run writes as it goes was last written."""
    paths = [*folder.glob("checkpoint-*.pt"), *folder.glob("run.log"), *folder.glob("history.csv")]
    return [path.stat().st_mtime for path in paths] or [folder.stat().st_mtime]


def _end_part(
    folder: Path,
    record: dict[str, Any],
    started: datetime,
    energy: float | None,
    handler: logging.Handler,
) -> None:
    """Writes the record of what has ended, and what it cost."""
    handler.flush()
    ended = datetime.now(timezone.utc)
    seconds = round((ended - started).total_seconds(), 3)
    record["parts"][-1] |= {
        "ended": _stamp(ended),
        "seconds": seconds,
        "status": record["status"],
        "error": record["error"],
    }
    record["ended"] = record["parts"][-1]["ended"]
    record["seconds"] = round(record.get("seconds", 0.0) + seconds, 3)
    with suppress(OSError), open(folder / "run.log", "rb") as file:
        record["log_lines"] = sum(1 for _ in file)
    record["cost"] = _cost(record, energy)
    write_atomically(folder / "record.json", to_json(record))


def _cost(record: Mapping[str, Any], energy: float | None) -> dict[str, Any]:
    """Device hours times the price that the configuration names, and energy where it is told."""
    hours = record["seconds"] / 3600
    price = record["config"].get("price_per_hour")
    joules = None
    if energy is not None and (now := provenance.read_energy(_card(record))) is not None:
        joules = now - energy + ((record.get("cost") or {}).get("joules") or 0.0)
    return {
        "device_hours": round(hours, 6),
        "price": None if price is None else round(hours * price, 6),
        "joules": joules,
    }


def describe(
    root: Path,
    folder: Path,
    *,
    identity: Mapping[str, Any],
    config: Mapping[str, Any],
    overrides: Sequence[str],
) -> dict[str, Any]:
    """What goes into a run, as far as a machine can tell. Writes changes.patch if there are any."""
    if root not in _described or hash_code(root) == identity["code"]:
        _described[root] = provenance.describe_git(root)
    git, patch = _described[root]  # of an edit while a sweep runs, its later jobs know nothing
    if patch:
        write_atomically(folder / "changes.patch", patch)
    return {
        "version": VERSION,
        "fingerprint": fingerprint(identity),
        "name": name_from(overrides),
        **{key: config.get(key) for key in ("description", "note", "group", "rerun_of")},
        "command": shlex.join(["python", "run.py", *overrides]),
        "overrides": list(overrides),
        "seed": config["seed"],
        "config": config,
        "git": git,
        **{key: identity[key] for key in KEYS},
        "packages": provenance.describe_packages(root),
        "hardware": provenance.describe_hardware(),
        "environment": provenance.describe_environment(),
        "checks": ["configuration: keys, types, ranges", "data: parameters, sizes, hashes"],
    }

"""What went into a run, and what came out: plain files in the run's own folder.

Files:
    config.yaml     the resolved configuration: every value of the run
    record.json     commit, hashes, command, versions, hardware, status, times
    changes.patch   what stood in the work tree and in no commit, if anything did
    run.log         what the run said
    history.csv     a row an epoch          metrics.json   the final numbers
    best.pt         the weights that the numbers are of
    last.pt         weights, optimizer and progress, to go on from
"""

import hashlib
import itertools
import json
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from . import StudyError

log = logging.getLogger(__name__)
VERSION = 1
# Of the environment only what can change a number is kept: never a secret.
ENVIRONMENT = ("CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_ID")
MAX_PATCH_BYTES = 1_000_000  # an untracked file larger than this is data: named, not copied


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all, even if the machine dies meanwhile."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StudyError(f"{path}: cannot be written ({error.strerror})") from error


def to_json(value: Any) -> bytes:
    """JSON as a person reads it: indented, one key a line, a newline at the end."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(root: Path, paths: Sequence[Path]) -> str:
    """One SHA-256 over the names (relative to `root`) and contents of files, in any order."""
    lines = sorted(f"{path.relative_to(root).as_posix()} {hash_file(path)}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def name_from(overrides: Sequence[str]) -> str:
    """A folder's name from a command line: `model=mlp seed=1` gives `model-mlp_seed-1`.

    It holds no character that a shell or Hydra would read as anything else.
    """
    readable = "_".join(item.lstrip("+~") for item in overrides)
    return re.sub(r"[^\w.-]+", "-", readable, flags=re.ASCII)[:80].strip("-.") or "default"


def take_folder(named: str | None, overrides: Sequence[str], *, force: bool) -> Path:
    """Makes the folder of a new run: the one that is named, or one in runs/ that nobody has.

    Raises:
        StudyError: the folder holds something that would be lost, or cannot be made.
    """
    try:
        return _new_folder(overrides) if named is None else _named_folder(Path(named), force=force)
    except OSError as error:
        raise StudyError(f"{error.filename}: cannot be made ({error.strerror})") from error


def _new_folder(overrides: Sequence[str]) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        suffix = f"-{number}" if number > 1 else ""
        folder = Path("runs", f"{stamp}_{name_from(overrides)}{suffix}")
        try:
            folder.mkdir(parents=True)  # mkdir itself decides which of two runs was first
            return folder
        except FileExistsError:
            continue
    raise AssertionError("unreachable")


def _named_folder(folder: Path, *, force: bool) -> Path:
    if force and (folder / "record.json").is_file():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if any(path.name != "record.json" for path in folder.iterdir()):
            raise FileExistsError
        with open(folder / "record.json", "x", encoding="utf-8") as file:
            file.write("{}")  # ours from now on
    except FileExistsError as error:
        if (folder / "record.json").is_file():
            hint = "holds another run; name another folder, or add force=true to replace it"
        else:
            hint = "holds other files; name an empty or a new folder"
        raise StudyError(f"run_dir={folder}: {hint}") from error
    return folder


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        StudyError: there is none, or it cannot be read.
    """
    try:
        record = json.loads((folder / "record.json").read_bytes())
    except FileNotFoundError as error:
        raise StudyError(f"{folder}: is not a run: it has no record.json") from error
    except ValueError as error:
        raise StudyError(f"{folder}/record.json: cannot be read ({error})") from error
    assert isinstance(record, dict)
    return record


@contextmanager
def recording(
    folder: Path, root: Path, *, overrides: Sequence[str], data: str
) -> Iterator[dict[str, Any]]:
    """Keeps the record of a run in its folder, with status, times and log, whatever ends it.

    The status is `running`, then `finished`, `interrupted` or `failed`, with the error. A record
    that is already there is that of the run's first part: it is kept and added to.

    Raises:
        StudyError: the run is resumed on other data.
    """
    path = folder / "record.json"
    record = read_record(folder) if path.exists() else {}
    started = datetime.now(timezone.utc)
    if record.get("version"):
        before, now = record["hashes"], hash_inputs(root, data)
        if before["data"] != data:
            raise StudyError(f"resume={folder}: the data are not those that the run began with")
        for name, value in now.items():
            if value != before[name]:
                log.warning("the %s is not that with which the run began", name)
        record.setdefault("resumed", []).append(started.isoformat(timespec="seconds"))
    else:
        record = describe(root, folder, overrides=overrides, data=data)
        record["started"] = started.isoformat(timespec="seconds")
    record["status"] = "running"
    record.pop("error", None)
    write_atomically(path, to_json(record))
    handler = logging.FileHandler(folder / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield record
        record["status"] = "finished"
    except BaseException as error:
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        record["status"] = "interrupted" if interrupted else "failed"
        record["error"] = f"{type(error).__name__}: {error}".strip(": ")
        handler.emit(  # into the file alone: the console is told by whoever catches it
            logging.makeLogRecord(
                {"msg": record["error"], "levelname": "ERROR", "exc_info": sys.exc_info()}
            )
        )
        raise
    finally:
        ended = datetime.now(timezone.utc)
        record["ended"] = ended.isoformat(timespec="seconds")
        seconds = (ended - started).total_seconds()
        record["seconds"] = round(record.get("seconds", 0.0) + seconds, 3)
        logging.getLogger().removeHandler(handler)
        handler.close()
        write_atomically(path, to_json(record))


def describe(root: Path, folder: Path, *, overrides: Sequence[str], data: str) -> dict[str, Any]:
    """What goes into a run, as far as a machine can tell.

    Args:
        root: The folder of the study.
        folder: The run's folder; uncommitted changes are written into it as a patch.
        overrides: The command line behind `python run.py`.
        data: The hash of the prepared data.
    """
    packages = {item.metadata["Name"]: item.version for item in metadata.distributions()}
    return {
        "version": VERSION,
        "command": shlex.join(["python", "run.py", *overrides]),
        "git": describe_git(root, folder / "changes.patch"),
        "hashes": hash_inputs(root, data),
        "python": platform.python_version(),
        "packages": dict(sorted(packages.items())),
        "hardware": describe_hardware(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def hash_inputs(root: Path, data: str) -> dict[str, str]:
    """The hashes of code, data and lock, as a record keeps them."""
    code = [root / "run.py", *(root / "src").rglob("*.py")]
    lock = hash_file(root / "requirements.lock")
    return {"code": hash_files(root, code), "data": data, "lock": lock}


def describe_hardware() -> dict[str, Any]:
    """The machine: host, system, processor, cores and graphics cards."""
    import torch  # pylint: disable=import-outside-toplevel  # a record is read without it

    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": cards,
        "cuda": torch.version.cuda,
    }


def _processor() -> str:
    """The model of the processor; Linux alone tells it in a file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return str(re.findall(r"model name\s*:\s*(.*)", text)[0])
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def describe_git(root: Path, patch: Path) -> dict[str, Any] | None:
    """Commit and branch of the study; what is not committed, new files too, goes to `patch`.

    Returns:
        None outside a repository with a commit, or without git. An image has neither: it is told
        its commit when it is built, and says so in GIT_REV.
    """
    if not (commit := _git(root, "rev-parse", "HEAD")):
        revision = os.environ.get("GIT_REV", "")
        clean = not revision.endswith("-dirty")
        return {"commit": revision.removesuffix("-dirty"), "clean": clean} if revision else None
    branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD")
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z").split(b"\0")
    sizes = {}
    for name in filter(None, untracked):
        with suppress(OSError):  # gone meanwhile
            sizes[name] = (root / os.fsdecode(name)).lstat().st_size
    small = [name for name, size in sizes.items() if size <= MAX_PATCH_BYTES]
    # a copy of the index is told of the new files: the user's own stays as it is
    index = patch.with_name(".index.tmp")
    real = root / os.fsdecode(_git(root, "rev-parse", "--git-path", "index").strip())
    try:
        shutil.copyfile(real, index)
        environment = {**os.environ, "GIT_INDEX_FILE": str(index.resolve())}
        for start in range(0, len(small), 500):  # a command line has a limit
            chosen = [os.fsdecode(name) for name in small[start : start + 500]]
            _git(root, "add", "--intent-to-add", "--", *chosen, env=environment)
        changes = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", env=environment)
    except OSError:
        changes = b""
    finally:
        index.unlink(missing_ok=True)
    if changes:
        write_atomically(patch, changes)
    return {
        "commit": commit.decode().strip(),
        "branch": branch.decode().strip(),
        "clean": not changes,
        "large_untracked": [os.fsdecode(name) for name in sizes if name not in small],
    }


def _git(root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    """What git answers, or nothing where it is absent, refuses or knows no commit."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, env=env, capture_output=True, check=False
        )
    except OSError:
        return b""
    return b"" if done.returncode else done.stdout

"""A function as a command: composes its configuration, and turns mistakes into one line."""

import errno
import functools
import inspect
import logging
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ..errors import StudyError
from ..files import remove_stale, temporary_path
from ..ranks import Told, num_ranks, rank
from ..runs.folder import RUNS
from ..runs.reads import watch_reads
from ..runs.record import RESUMABLE
from ..study import ROOT
from ..terminal import settle_streams
from . import guarding
from .composing import CONF, typed_overrides
from .messages import FAILURES, MISTAKES, describe_error, note_failure

log = logging.getLogger(__name__)
FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES)
STOPS = (signal.SIGINT, signal.SIGTERM)
_worker = {"is_busy": False, "is_stopped": False}  # of this process, if a launcher started it


def entrypoint(main: Callable[[DictConfig], Any]) -> Callable[[], Any]:
    """Makes a command of a function: composes `conf/config.yaml` with the command line's overrides.

    A mistake of the user ends in one line on stderr and exit code 1; `hydra.verbose=true` shows
    the traceback. A sweep continues when a job fails, and ends with a line for each that did.
    SIGTERM and Ctrl-C end in exit code 75: the same command resumes the run.
    """

    @functools.wraps(main)
    def task(config: DictConfig) -> Any:
        settle_streams()  # those of a process that a launcher started
        watch_reads(ROOT)
        try:
            with _faults_as_mistakes(), _stoppable():
                guarding.require_sweep()
                return main(config)
        except Told:
            sys.exit(1)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                _note_failure(error)
                if num_ranks() > 1:  # the others are still in this job
                    _exit(describe_error(error, sys.argv[1:]), 1)
            elif isinstance(error, MISTAKES):
                _exit(describe_error(error, sys.argv[1:]), 1)
            raise
        except KeyboardInterrupt:
            if rank():  # the first one says it
                sys.exit(RESUMABLE)
            raise

    composed = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)

    def command() -> Any:
        settle_streams()
        script = Path(inspect.getfile(main)).resolve()
        if ROOT not in script.parents:
            _exit(f"{script}: this environment belongs to the study in {ROOT}; type: make env", 1)
        for word in sys.argv:
            if not word.isprintable() and word.encode(errors="ignore").decode() != word:
                _exit(f"{word!a}: is not UTF-8; type it in a terminal that is set to UTF-8", 1)
        return _run(composed)

    return command


def _run(composed: Callable[[], Any]) -> Any:
    """Calls a composed function, and turns an error or a signal into one line and an exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, instead of printing and leaving
    if num_ranks() > 1:  # torch, not yet imported, warns of a setting that is meant
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    failures = temporary_path(RUNS / "failures")
    with suppress(OSError):  # of a process that was killed and had the same number
        failures.unlink()
    os.environ[FAILURES] = str(failures.absolute())
    for number in STOPS:
        signal.signal(number, _interrupt)
    try:
        return composed()
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        again = "the same command resumes the run"
        if "force=true" in sys.argv:
            again = "to resume the run, type: python run.py resume= and its folder"
        _exit(f"{f'interrupted {error}'.rstrip()}; {again}", RESUMABLE)
    except Exception as error:
        if failures.exists():  # a line for each job of the sweep
            _exit(failures.read_text(encoding="utf-8").rstrip().replace("\n", "\nerror: "), 1)
        if isinstance(error, MISTAKES):
            _exit(describe_error(error, sys.argv[1:]), 1)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the exit code is settled
        with suppress(OSError):  # where nothing can be written, nothing was
            failures.unlink()


@contextmanager
def _faults_as_mistakes() -> Iterator[None]:
    """A full or broken disk is no bug: it gets one line, as a mistake does."""
    try:
        yield
    except OSError as error:
        if error.errno not in FAULTS:
            raise
        name = error.filename2 or error.filename or "a file"
        raise StudyError(f"{name}: cannot be read or written ({error.strerror})") from error


def _interrupt(number: int, _frame: object) -> NoReturn:
    """SIGTERM, as a scheduler sends it, has the effect of Ctrl-C; a second Ctrl-C does not wait."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends it twice
    _stop_jobs(number)
    signal.signal(signal.SIGTERM, _interrupt)
    raise KeyboardInterrupt("by SIGTERM" if number == signal.SIGTERM else "")


def _stop_jobs(number: int) -> None:
    """Stops the jobs in the workers of this process, and waits until each has recorded it.

    A launcher would kill the workers. They get the other signal of the two: where all processes
    got the first, it would be the second of its kind, which does not wait for a checkpoint.
    """
    other = signal.SIGINT if number == signal.SIGTERM else signal.SIGTERM
    told: set[Path] = set()
    while jobs := {*RUNS.glob(f".job-*-of-{os.getpid()}.{platform.node()}-*.tmp")}:
        for job in jobs - told:
            with suppress(ProcessLookupError):
                os.kill(int(job.stem.rpartition("-")[2]), other)
        told |= jobs
        time.sleep(0.02)
        remove_stale(RUNS)  # of a worker that was killed


@contextmanager
def _stoppable() -> Iterator[None]:
    """A job in a worker of a launcher: the process that started it can stop it, and sees it end."""
    if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _stop):
        yield  # in the process that composes, or in one whose launcher has its own signals
        return
    for number in STOPS:
        signal.signal(number, _stop)
    job = temporary_path(RUNS / f"job-{HydraConfig.get().job.num}-of-{os.getppid()}")
    with suppress(OSError):
        job.touch()
    try:
        _worker["is_busy"] = True
        if _worker["is_stopped"]:
            raise KeyboardInterrupt
        yield
    except KeyboardInterrupt as error:
        _worker["is_stopped"] = True  # jobs that wait for this worker are not begun
        raise KeyboardInterrupt(str(error)) from None  # to unpickle a trainer's takes seconds
    finally:
        _worker["is_busy"] = False
        job.unlink(missing_ok=True)


def _stop(_number: int, _frame: object) -> None:
    """Ends the job of a worker, once; between two jobs the worker lives on, or all would die."""
    first, _worker["is_stopped"] = not _worker["is_stopped"], True
    if first and _worker["is_busy"]:
        raise KeyboardInterrupt


def _note_failure(error: Exception) -> None:
    """Logs why a job of a sweep failed, and notes it in a file: the job may be in any process."""
    job = HydraConfig.get().job.num
    line = f"job {job} ({' '.join(typed_overrides())}): {describe_error(error, sys.argv[1:])}"
    if isinstance(error, MISTAKES):
        log.error("error: %s", line)
    else:
        log.exception("error: %s", line)
    note_failure(line)


def _exit(message: str, code: int) -> NoReturn:
    """Prints one line, or with `hydra.verbose=true` the traceback too, and exits."""
    if "hydra.verbose=true" in sys.argv:
        traceback.print_exc()
    if rank():
        message = f"rank {rank()}: {message}"
    with suppress(OSError):
        print(f"error: {message}" if code == 1 else message, file=sys.stderr)
    sys.exit(code)

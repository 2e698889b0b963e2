"""Jobs of Slurm: submits an array through submitit, and follows it to its end.

Each job is the command that a person could type, `python run.py -m ...`. Before its time limit it
gets SIGUSR2: training writes a checkpoint, and the job is put back into the queue, where it goes on
later. SIGTERM, of `scancel` and of preemption, leads to a checkpoint too; what follows is Slurm's.
"""

import io
import json
import logging
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import StudyError, install
from ..files import to_json, write_atomically
from ..runs.machine import slurm_job
from .resources import SlurmKeys

log = logging.getLogger(__name__)
FOLDER = Path("slurm")  # what the jobs print, and which job does which run
NEEDED = ("sbatch", "squeue", "sacct", "scontrol")
FINAL = (
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("BOOT_FAIL", "DEADLINE"),
)
LONGEST = 30.0  # seconds between two looks at the queue
MAX_FAILED = 20  # looks in a row without an answer


@dataclass(frozen=True)
class Ended:
    """How a job ended: its state in Slurm's words, and what it said last."""

    state: str
    said: str

    def __str__(self) -> str:
        return f"{self.state}: {self.said}" if self.said else self.state


@dataclass(frozen=True)
class Job:
    """What runs on the node: `python run.py -m OVERRIDES`, in this very process."""

    overrides: Sequence[str]

    def __call__(self) -> None:
        import submitit

        environment = submitit.JobEnvironment()
        if environment.num_tasks > 1:
            submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        # training catches it; before that nothing is done: who makes no progress is not requeued
        signal.signal(signal.SIGUSR2, lambda *_: None)
        sys.argv = ["run.py", "-m", *self.overrides, "launcher=local"]
        try:
            runpy.run_path("run.py", run_name="__main__")
        except SystemExit as end:
            if "SIGUSR2" in str(end.__context__) and environment.global_rank == 0:
                _requeue()
            raise
        finally:
            # as it exits, Python takes back each handler of its own: the signal would then kill
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _requeue() -> None:
    """Puts this job back into the queue; one that is on its way there already stays so."""
    subprocess.run(["scontrol", "requeue", str(slurm_job())], check=False)


def require_slurm() -> None:
    """Refuses a machine from which no job can be submitted and followed.

    Raises:
        StudyError: names the missing program.
    """
    for name in NEEDED:
        if shutil.which(name) is None:
            hint = "launcher=slurm needs a machine of a cluster; without one: launcher=joblib"
            raise StudyError(f"{name}: there is no such program here; {hint}")
    if find_spec("submitit") is None:
        raise StudyError(f"launcher=slurm: submitit is not installed; type: {install('sweep')}")
    _call("sacct", "--noheader", "--allocations", "--starttime=now")


def submit(jobs: Mapping[str, Sequence[str]], keys: SlurmKeys) -> dict[str, str]:
    """Submits jobs as one array.

    Args:
        jobs: The overrides of each run, by its fingerprint.
        keys: What each job asks for.

    Returns:
        The number of each job, such as `17_3`, by its fingerprint.

    Raises:
        StudyError: Slurm refuses them.
    """
    import submitit

    executor = submitit.SlurmExecutor(folder=FOLDER / "%j", max_num_timeout=0)
    known = {name: getattr(keys, name) for name in ("partition", "account") if getattr(keys, name)}
    if keys.gpus_per_node:
        known["gpus_per_node"] = keys.gpus_per_node
    executor.update_parameters(
        job_name=Path.cwd().name,
        nodes=keys.nodes,
        ntasks_per_node=keys.tasks_per_node,
        cpus_per_task=keys.cpus_per_task,
        mem=f"{round(keys.mem_gb * 1024)}MB",
        time=keys.timeout_min,
        signal_delay_s=keys.signal_delay_s,
        array_parallelism=keys.array_parallelism,
        setup=list(keys.setup),
        # srun does not know what sbatch was told; it waits for the others, once a task has ended
        srun_args=[f"--cpus-per-task={keys.cpus_per_task}", "--wait=60"],
        additional_parameters={"requeue": True, **keys.additional_parameters},
        **known,
    )
    with _undisturbed():  # a job of which nobody knows would be submitted again
        numbers = _submit(executor, jobs)
        (array,) = arrays_of(numbers.values())
        write_atomically(FOLDER / f"{array}.json", to_json(numbers))
    return numbers


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that come in here are delivered at its end."""
    stops = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)


def _submit(executor: Any, jobs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    import submitit

    try:
        with redirect_stderr(io.StringIO()), executor.batch():  # the reason is told below
            submitted = [executor.submit(Job(list(overrides))) for overrides in jobs.values()]
    except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
        text = str(getattr(error, "stderr", "") or error).strip().splitlines()
        reason = next((line for line in text if "error" in line), text[-1] if text else "no reason")
        raise StudyError(f"sbatch: {reason.removeprefix('sbatch: error: ')}") from error
    return {name: job.job_id for name, job in zip(jobs, submitted, strict=True)}


def find_submitted(fingerprints: Collection[str]) -> dict[str, str]:
    """The jobs that do some runs, and wait or run: their numbers, by fingerprint."""
    found: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        with suppress(OSError, ValueError):
            known = json.loads(path.read_bytes())
            found |= {name: known[name] for name in fingerprints if name in known}
    queued = _queued(found.values()) if found else {}
    return {name: number for name, number in found.items() if number in queued}


def wait(numbers: Collection[str]) -> dict[str, Ended]:
    """Waits until each job has ended, and says how, by its number.

    Raises:
        StudyError: Slurm does not answer.
    """
    ended: dict[str, Ended] = {}
    delay, said = 1.0, ""
    num_failed = 0  # calls in a row
    while len(ended) < len(numbers):
        time.sleep(delay)
        delay = min(LONGEST, delay * 1.2)
        left = [number for number in numbers if number not in ended]
        try:
            queued = _queued(left)
            states = _states([number for number in left if number not in queued])
        except StudyError as error:  # its controller is started again, for example
            num_failed += 1
            if num_failed == MAX_FAILED:
                raise StudyError(f"{error}; the jobs go on: type the same command later") from error
            continue
        num_failed = 0
        now = ", ".join(
            f"{count} {word}" for word, count in sorted(Counter(queued.values()).items())
        )
        if now and now != said:
            log.info("jobs of Slurm: %s", now)
        said = now
        for number, state in states.items():
            ended[number] = Ended(state, _last_words(number))
            log.info("job %s of Slurm: %s", number, state)
    return ended


def arrays_of(numbers: Collection[str]) -> list[str]:
    """The arrays that some jobs belong to; of a job that is alone, its own number."""
    return sorted({number.partition("_")[0] for number in numbers})


def _queued(numbers: Collection[str]) -> dict[str, str]:
    """Those of some jobs that wait or run, and how: RUNNING, or PENDING (Resources)."""
    arrays = ",".join(arrays_of(numbers))
    words = ["squeue", "--noheader", "--array", f"--jobs={arrays}", "--format=%F_%K %T (%r)"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode and "Invalid job id" not in done.stderr:  # long ago: it is forgotten
        raise StudyError(f"squeue: {done.stderr.strip()}")
    lines = done.stdout.replace("_N/A", "").replace(" (None)", "").splitlines()  # one is no array
    states = dict(line.split(" ", 1) for line in lines)
    return {number: states[number] for number in numbers if number in states}


def _states(numbers: Collection[str]) -> dict[str, str]:
    """The final state of each of some jobs that has one, with its exit code or signal if not 0."""
    if not numbers:
        return {}
    arrays = ",".join(arrays_of(numbers))
    options = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State,ExitCode")
    found = {}
    for line in _call("sacct", *options, f"--jobs={arrays}").splitlines():
        number, state, code = line.split("|")
        word = state.split()[0]  # CANCELLED by 0
        if number in numbers and word in FINAL:
            exited, _, killed = code.partition(":")
            cause = f"exit code {exited}" if exited != "0" else f"signal {killed}"
            found[number] = word if code == "0:0" else f"{word} ({cause})"
    return found


def _call(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise StudyError(f"{words[0]}: {lines[-1].removeprefix(f'{words[0]}: ')}")
    return done.stdout


def _last_words(number: str) -> str:
    """The last error that the first task of a job printed, and in which file it stands."""
    path = FOLDER / number / f"{number}_0_log.err"
    with suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        found = re.findall(r"^error: (?:job 0 \(.*? launcher=local\): )?(.+)", text, re.M)
        return f"{found[-1] if found else 'see'} ({path})"
    return ""

"""Hydra's launchers of this library: a sweep as jobs of a cluster.

Of Slurm, what is finished is not submitted, and what waits or runs is waited for: the same command,
typed again, submits only what is missing.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ..errors import StudyError
from ..launching import kubernetes, slurm
from ..launching.resources import KubernetesKeys, SlurmKeys
from ..runs.record import key_of
from .composing import compose_job
from .messages import note_failure
from .opening import Known, look_up
from .resolving import resolve

log = logging.getLogger(__name__)
PLACES = ("launcher", "search")  # where a job runs, and who chose its values
ONLY = {"task": "train", "debug": None, "force": False}  # what resumes when it is started again


class ClusterLauncher(Launcher):  # pylint: disable=abstract-method
    """What the launchers of a cluster have in common.

    Args:
        keys: Those of the file in conf/launcher/.

    Raises:
        StudyError: one is out of its range.
    """

    Keys: type[Any]
    context: HydraContext
    config: DictConfig

    def __init__(self, **keys: Any) -> None:
        self.keys = self.Keys(**keys)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Takes the configuration of the sweep; the task itself is what a job types."""
        self.context, self.config = hydra_context, config

    def compose(self, name: str, overrides: Sequence[str]) -> DictConfig:
        """The configuration of a job, checked as the job itself will check it.

        Raises:
            StudyError: names the job.
        """
        config = compose_job(self.context, self.config, overrides)
        with _none_submitted(name):
            for key, needed in ONLY.items():
                if config[key] != needed:
                    hint = "not in a job that may be started again; type launcher=local"
                    raise StudyError(f"{key}={config[key]}: {hint}")
            return resolve(config)


@contextmanager
def _none_submitted(name: str) -> Iterator[None]:
    """Names the job of a mistake."""
    try:
        yield
    except StudyError as error:
        raise StudyError(f"{name}: {error}; nothing was submitted") from error


def typed(job_overrides: Sequence[Sequence[str]]) -> list[list[str]]:
    """What each job types, besides what says where it runs."""
    return [
        [item for item in filter_overrides(overrides) if key_of(item) not in PLACES]
        for overrides in job_overrides
    ]


def names_of(jobs: Sequence[Sequence[str]], first: int) -> list[str]:
    """How each job is called in messages."""
    return [f"job {number} ({' '.join(job)})" for number, job in enumerate(jobs, first)]


class SlurmLauncher(ClusterLauncher):
    """Each job of a sweep is a job of Slurm."""

    Keys = SlurmKeys

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submits what is missing, and waits for all of it.

        Raises:
            StudyError: a job is refused, by its configuration or by Slurm; none is submitted then.
        """
        setup_globals()
        slurm.require_slurm()
        jobs = typed(job_overrides)
        names = names_of(jobs, initial_job_idx)
        configs, known = [], []
        for each in zip(names, job_overrides, strict=True):
            configs.append(self.compose(*each))
            with _none_submitted(each[0]):  # while Hydra knows this job
                known.append(look_up(configs[-1], self.keys.ranks))
        missing = {
            each.fingerprint: job
            for each, job in zip(known, jobs, strict=True)
            if each.metrics is None
        }
        numbers = slurm.find_submitted(missing)
        new = {name: job for name, job in missing.items() if name not in numbers}
        log.info(
            "%d jobs: %d finished, %d in the queue, %d are submitted",
            *(len(jobs), len(jobs) - len(missing), len(numbers), len(new)),
        )
        numbers |= slurm.submit(new, self.keys) if new else {}
        try:
            ended = slurm.wait(numbers.values())
        except KeyboardInterrupt as error:
            arrays = slurm.arrays_of(numbers.values())
            said = f"{error}; the jobs go on (to end them: scancel {' '.join(arrays)})"
            raise KeyboardInterrupt(said.removeprefix("; ")) from error
        states = [ended.get(numbers.get(each.fingerprint, "")) for each in known]
        return [
            self._result(*each)
            for each in zip(names, job_overrides, configs, known, states, strict=True)
        ]

    def _result(
        self,
        name: str,
        overrides: Sequence[str],
        config: DictConfig,
        known: Known,
        ended: slurm.Ended | None,
    ) -> JobReturn:
        """What Hydra is told of a job: the value of its run, or why there is none."""
        # torch takes seconds to import
        from ..training.trainer import NonFiniteLoss

        result = JobReturn(overrides=overrides, status=JobStatus.FAILED)
        if known.metrics is None:
            known = look_up(config, self.keys.ranks)
        if known.metrics is not None:  # whatever became of its job after that
            result.status = JobStatus.COMPLETED
            result.return_value = known.metrics["validation"][config.training.monitor]
            log.info("%s: %.4g", name, result.return_value)
            return result
        if ended is None or ended.state == "COMPLETED":
            ended = slurm.Ended("COMPLETED", "but there is no such finished run in runs/")
        note_failure(f"{name}: {ended}")
        is_diverged = re.search(r": the loss is \S+ at step", str(ended))
        kind = NonFiniteLoss if is_diverged else StudyError  # a search counts what diverged
        result.return_value = kind(f"{name}: {ended}")
        return result


class KubernetesLauncher(ClusterLauncher):
    """Writes a sweep as a Job of Kubernetes, and starts nothing."""

    Keys = KubernetesKeys

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Writes the file, and says what to type.

        Raises:
            StudyError: a job is refused by its configuration, or the sweep is a search.
        """
        setup_globals()
        if not self.config.hydra.sweeper["_target_"].endswith(".BasicSweeper"):
            raise StudyError("launcher=kubernetes: a search waits for the value of each run")
        jobs = typed(job_overrides)
        for each in zip(names_of(jobs, initial_job_idx), job_overrides, strict=True):
            self.compose(*each)
        path = kubernetes.write_job(jobs, self.keys)
        log.info("%s: a pod for each of %d runs; type: kubectl create -f %s", path, len(jobs), path)
        return [JobReturn(status=JobStatus.COMPLETED) for _ in jobs]

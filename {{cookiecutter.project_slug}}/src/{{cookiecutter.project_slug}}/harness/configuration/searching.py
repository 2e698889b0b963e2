"""`search=tpe` and `search=random`: Optuna proposes the values of a sweep, by validation alone.

A search is known by what is searched and by what its runs have in common: values, data, code. What
it has tried is in a database, so that the same command continues it. A proposal depends on the seed
of the search, on its own number and on earlier results, not on where the search was interrupted.
"""

import hashlib
import json
import logging
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ..errors import StudyError, install
from ..runs.code import source_in_use
from ..runs.record import has_meaning, key_of, name_from
from ..study import ROOT
from .checking import require
from .composing import compose_job
from .messages import FAILURES, MISTAKES, describe_error
from .opening import look_up
from .resolving import resolve

if TYPE_CHECKING:  # installed for a search only
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)
Direction = Literal["minimize", "maximize"]
SAMPLERS = {"random": "RandomSampler", "tpe": "TPESampler"}
REFUSED = {
    "test": "a search looks at validation alone; test the point that it names as the best",
    **dict.fromkeys(("task", "debug"), "a search trains whole runs; remove this"),
    **dict.fromkeys(("resume", "run_dir"), "a search has many runs; remove this"),
}
# what these change is not one number to compare
ONE = ("data", "data.monitor", "training.monitor", "data.metrics")


@dataclass
class Search(Sweeper):
    """A sweeper of Hydra, for any launcher. Its arguments are the keys of conf/search/.

    Args:
        sampler: random or tpe.
        n_trials: Points in total, with those of earlier calls of the same command.
        n_jobs: Points that are proposed, and launched, at once; -1 for as many as there are cores.
        seed: Of the proposals.
        storage: The path of the database.
    """

    sampler: str
    n_trials: int
    n_jobs: int
    seed: int
    storage: str
    context: HydraContext = field(init=False)
    composed: DictConfig = field(init=False)
    runner: Launcher = field(init=False)
    typed: list[Override] = field(init=False)
    space: dict[str, "BaseDistribution"] = field(init=False)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Checks the values of the search, and makes the launcher.

        Raises:
            StudyError: names the value; or says what to install.
        """
        try:
            import optuna  # pylint: disable=import-outside-toplevel
        except ImportError as error:
            raise StudyError(
                f"search: optuna is not installed; type: {install('search')}"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.n_jobs = os.cpu_count() or 1 if self.n_jobs == -1 else self.n_jobs
        for key, least in {"n_trials": 1, "n_jobs": 1, "seed": 0}.items():
            value = getattr(self, key)
            require(value >= least, f"hydra.sweeper.{key}", value, f"at least {least}")
        require(self.sampler in SAMPLERS, "hydra.sweeper.sampler", self.sampler, "random or tpe")
        self.context, self.composed = hydra_context, config
        self.runner = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Proposes points and runs them, until there are as many as asked for.

        Raises:
            StudyError: what was typed cannot be searched, or a point failed: each is named.
        """
        from optuna.exceptions import OptunaError  # pylint: disable=import-outside-toplevel
        from sqlalchemy.exc import SQLAlchemyError  # pylint: disable=import-outside-toplevel

        parser = OverridesParser.create(config_loader=self.context.config_loader)
        self.typed = parser.parse_overrides(arguments)
        searched = {item.get_key_element(): item for item in self.typed if item.is_sweep_override()}
        _check_typed(self.typed, list(searched))
        self.space = {key: _distribution(item) for key, item in searched.items()}
        config = self._compose({key: _first(item) for key, item in searched.items()})
        goal = _goal(config)
        lines = sorted(str(item.input_line) for item in searched.values())
        runs = look_up(config, 1).fingerprint, source_in_use(ROOT)  # any code may be searched
        known = json.dumps([lines, goal, self.sampler, self.seed, runs])
        digest = hashlib.sha256(known.encode()).hexdigest()[:8]
        try:
            with _alone(Path(self.storage), digest):
                study = self._open(f"{name_from(lines)}_{digest}", goal[1], afresh=config.force)
                while batch := self._next(study):
                    self._launch(study, batch)
        except (OptunaError, SQLAlchemyError) as error:
            raise StudyError(f"{self.storage}: cannot be used ({describe_error(error)})") from error
        self._report(study, goal[0])

    def _compose(self, point: dict[str, Any]) -> DictConfig:
        """The resolved configuration of a point."""
        return resolve(compose_job(self.context, self.composed, self._words(point)))

    def _words(self, point: dict[str, Any]) -> list[str]:
        """What would be typed to run a point."""
        keys = [(item, item.get_key_element()) for item in self.typed]
        return [
            f"{key}={point[key]}" if key in point else str(item.input_line) for item, key in keys
        ]

    def _open(self, name: str, direction: Direction, *, afresh: bool) -> "Study":
        """The search in the database; afresh, without what it tried before."""
        import optuna  # pylint: disable=import-outside-toplevel

        storage = optuna.storages.RDBStorage(f"sqlite:///{self.storage}")
        if afresh and name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
        study = optuna.create_study(
            study_name=name, storage=storage, direction=direction, load_if_exists=True
        )
        for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            if trial.params.keys() != self.space.keys():  # killed as it was about to be proposed
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return study

    def _points(self, study: "Study") -> list["FrozenTrial"]:
        found = study.get_trials(deepcopy=False)
        return [trial for trial in found if trial.params.keys() == self.space.keys()]

    def _next(self, study: "Study") -> list["FrozenTrial"]:
        """Points that were interrupted, else new ones; none if there are enough."""
        points = self._points(study)
        if all(point.state.is_finished() for point in points):
            for number in range(len(points), min(len(points) + self.n_jobs, self.n_trials)):
                study.sampler = self._sampler(number)
                study.ask(self.space)
            points = self._points(study)
        return [point for point in points if not point.state.is_finished()][: self.n_jobs]

    def _sampler(self, number: int) -> Any:
        """Of one point: a sampler that had proposed others before would depend on how many."""
        from optuna import samplers  # pylint: disable=import-outside-toplevel

        digest = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        return getattr(samplers, SAMPLERS[self.sampler])(seed=int.from_bytes(digest[:4]))

    def _launch(self, study: "Study", batch: list["FrozenTrial"]) -> None:
        """Runs points, and notes what came out.

        Raises:
            Exception: a mistake, or a fault of the machine; the point is tried again next time.
        """
        words = [self._words(point.params) for point in batch]
        returns = self.runner.launch(words, initial_job_idx=batch[0].number)
        faults = [_note(study, *pair) for pair in zip(batch, returns, strict=True)]
        for fault in filter(None, faults):
            raise fault

    def _report(self, study: "Study", monitor: str) -> None:
        """Logs the best point.

        Raises:
            StudyError: a line for each that failed, in this call or an earlier one.
        """
        points = self._points(study)
        values = [point for point in points if point.value is not None]
        if values:
            words = filter(has_meaning, self._words(study.best_params))
            best = f"{monitor} {study.best_value:.4f}: {shlex.join(['python', 'run.py', *words])}"
            log.info("best of %d on validation: %s", len(points), best)
        lines = []
        for point in points:
            if error := study.user_attrs.get(f"error {point.number}"):
                shown = " ".join(f"{key}={value}" for key, value in point.params.items())
                lines.append(f"point {point.number} ({shown}): {error}")
        if lines:
            Path(os.environ[FAILURES]).unlink(missing_ok=True)  # it has those of this call only
            raise StudyError("\nerror: ".join(lines))


def _check_typed(typed: Sequence[Override], searched: Sequence[str]) -> None:
    """Refuses what makes no sense in a search.

    Raises:
        StudyError: names it.
    """
    for item in typed:
        if reason := REFUSED.get(key_of(str(item.input_line))):
            raise StudyError(f"{item.input_line}: {reason}")
    if not searched:
        hint = "'model.lr=tag(log, interval(1.0e-4, 1.0e-1))'"
        raise StudyError(f"search: nothing is searched; type, for example, {hint}")
    for key in searched:
        if key in ONE or key.startswith(f"{ONE[-1]}."):
            raise StudyError(f"{key}: cannot be searched: numbers would not be comparable")


def _distribution(item: Override) -> "BaseDistribution":
    """What Optuna may choose from: the numbers between two, or each of some words.

    Raises:
        StudyError: an interval holds no numbers.
    """
    from optuna import distributions  # pylint: disable=import-outside-toplevel

    value: Any = item.value()
    if not item.is_interval_sweep():
        return distributions.CategoricalDistribution([*item.sweep_string_iterator()])
    whole = isinstance(value.start, int) and isinstance(value.end, int)
    kind = distributions.IntDistribution if whole else distributions.FloatDistribution
    try:
        return kind(value.start, value.end, log="log" in value.tags)
    except ValueError as error:
        raise StudyError(f"{item.input_line}: {error}") from error


def _first(item: Override) -> Any:
    value: Any = item.value()
    return value.start if item.is_interval_sweep() else next(iter(item.sweep_string_iterator()))


def _goal(config: DictConfig) -> tuple[str, Direction]:
    """The number that a run is judged by, and whether to minimize or maximize it.

    Raises:
        StudyError: there is no such metric.
    """
    monitor, metrics = str(config.training.monitor), config.data.metrics
    known = ", ".join(["loss", *map(str, metrics)])
    require(monitor == "loss" or monitor in metrics, "training.monitor", monitor, f"one of {known}")
    is_higher = monitor != "loss" and metrics[monitor].higher_is_better
    return monitor, "maximize" if is_higher else "minimize"


@contextmanager
def _alone(storage: Path, digest: str) -> Iterator[None]:
    """Whether a point was interrupted or is being run is known by this lock.

    Raises:
        StudyError: another process does the same search, or nothing can be written there.
    """
    lock = FileLock(storage.with_name(f".{storage.name}-{digest}.lock"), mode=0o666)
    try:
        storage.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except OSError as error:  # a lock that cannot be made looks as if another had it
        is_taken = isinstance(error, Timeout) and Path(lock.lock_file).exists()
        reason = "another process does this search; wait for it" if is_taken else "cannot be made"
        raise StudyError(f"{storage}: {reason}") from error
    try:
        yield
    finally:
        lock.release()


def _note(study: "Study", point: "FrozenTrial", returned: JobReturn) -> BaseException | None:
    """Tells what came of a point; or returns what hindered it, which says nothing about it."""
    from optuna.trial import TrialState  # pylint: disable=import-outside-toplevel

    from ..training.trainer import NonFiniteLoss  # pylint: disable=import-outside-toplevel

    value = returned._return_value  # pylint: disable=protected-access  # without raising it
    if returned.status == JobStatus.COMPLETED:
        if math.isfinite(value):
            study.tell(point.number, value)
            return None
        value = StudyError(f"what is monitored is {value} on validation")
    elif isinstance(value, MISTAKES) and not isinstance(value, NonFiniteLoss):
        fault: BaseException = value
        return fault
    study.set_user_attr(f"error {point.number}", describe_error(value))
    study.tell(point.number, state=TrialState.FAIL)
    return None

"""`tracker=NAME`: a run is shown elsewhere too. The record stays the truth."""

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from ..errors import StudyError
from ..ranks import rank
from ..runs.fingerprint import flatten
from ..runs.reads import reads_ignored
from ..runs.record import Record
from .building import build

if TYPE_CHECKING:  # torch takes seconds to import
    from ..training.trainer import Trainer

log = logging.getLogger(__name__)


@contextmanager
def track(config: DictConfig, trainer: "Trainer", record: Record) -> Iterator[None]:
    """Tells the tracker of a configuration, if there is one, how a run begins, goes and ends.

    Not where a run is done again to be compared: that one is thrown away.
    """
    if config.get("tracker") is None or config.rerun_of is not None or rank() > 0:
        yield
        return
    arguments = {"name": record.folder.name, "folder": record.folder}
    parameters = flatten(record["config"])
    told = Told(lambda: build(config.tracker, "tracker", **arguments, parameters=parameters))
    trainer.callbacks.add("tracker", told)
    status = "failed"
    try:
        yield
        status = "finished"
    except (KeyboardInterrupt, SystemExit):
        status = "interrupted"
        raise
    finally:
        told.close(trainer.history, status, record.values.get("metrics") or {})


class Told:
    """A callback that tells a tracker each row of the history, once, from the first one on.

    No error of the tracker stops a run, and nothing of it changes a number.

    Args:
        make: Makes the tracker.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self.tracker: Any = None
        self.num_rows = 0
        self.tracker = self._guarded(make)

    def after_epoch(self, trainer: "Trainer", _row: Mapping[str, float]) -> None:
        """Tells what is new; in a run that was resumed, also the epochs before."""
        self._tell(trainer.history)

    def close(
        self, history: Sequence[Mapping[str, float]], status: str, metrics: Mapping[str, Any]
    ) -> None:
        """Tells the rest, and how the run ended."""
        self._tell(history)
        flat = {
            f"final_{split}_{name}": value
            for split, numbers in metrics.items()
            for name, value in numbers.items()
        }
        if self.tracker is not None:
            self._guarded(self.tracker.close, status, flat)

    def _tell(self, history: Sequence[Mapping[str, float]]) -> None:
        for row in history[self.num_rows :]:
            if self.tracker is not None:
                self._guarded(self.tracker.log, row)
        self.num_rows = len(history)

    def _guarded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls it; an error is a warning, and the last that is heard of the tracker."""
        state = random.getstate()  # that of torch is set before each step
        try:
            with reads_ignored():  # what it reads is no input of the run
                return function(*arguments)
        except Exception as error:  # pylint: disable=broad-exception-caught
            self.tracker = None
            kind = "" if isinstance(error, StudyError) else f"tracker: {type(error).__name__}: "
            log.warning("%s; the run goes on without it", " ".join(f"{kind}{error}".split()))
            return None
        finally:
            random.setstate(state)

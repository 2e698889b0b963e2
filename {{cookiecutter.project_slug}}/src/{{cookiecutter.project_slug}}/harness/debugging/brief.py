"""`python run.py debug=brief`: a few steps of everything that a run does, in a temporary folder.

It finds in seconds what would end a run after hours: in validation, in a checkpoint, at the end.
The test split is not opened.
"""

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configuration import build_trainer, open_split
from ..errors import StudyError
from ..reporting.aside import set_up_aside

if TYPE_CHECKING:  # torch takes seconds to import
    from ..training.trainer import Trainer

log = logging.getLogger(__name__)
NUM_STEPS = 3  # of training; a checkpoint is written before the last
NUM_BATCHES = 2  # of validation
BRIEFLY = {"num_epochs": 1, "patience": None, "max_minutes": None}


def brief(config: Any) -> float:
    """Trains, validates, writes a checkpoint, resumes and evaluates; logs each part.

    Args:
        config: Resolved and checked, as of a run.

    Returns:
        The loss on two batches of the validation split.

    Raises:
        StudyError: names the first part that failed, and why.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _Rehearsal(config, Path(folder)).play()


@contextmanager
def _part(name: str) -> Iterator[list[str]]:
    """Logs a part of the rehearsal with its seconds, and what is appended to the list.

    Raises:
        StudyError: any error in it, in one line.
    """
    began, found = time.monotonic(), list[str]()
    try:
        yield found
    except Exception as error:
        kind = "" if isinstance(error, StudyError) else f"{type(error).__name__}: "
        raise StudyError(f"debug=brief: {name}: {kind}{' '.join(str(error).split())}") from error
    seconds = time.monotonic() - began
    log.info("%-11s ok  %5.1f s  %s", name, seconds, ", ".join(found))


@contextmanager
def _quiet() -> Iterator[None]:
    """Logs warnings only: the rows of a history of three steps say nothing."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class _Rehearsal:
    """A run of three steps: what it does is what `run.py` does, on the first rows of each split."""

    def __init__(self, config: Any, folder: Path) -> None:
        self.config, self.folder = config.copy(), folder
        self.config.training.update(BRIEFLY)

    def play(self) -> float:
        """Each part in turn; returns the loss on validation."""
        with _part("data") as found:
            self.device = set_up_aside(self.config)
            self._read(found)
        with _part("model") as found:
            first = self._trainer()
            size = sum(item.numel() for item in first.model.parameters())
            found.append(f"{size:,} weights on {self.device}")
        with _part("train") as found:
            self._advance(first, NUM_STEPS - 1)
            found.append(f"{first.step} steps")
        with _part("checkpoint") as found:
            first.save()
            (path,) = self.folder.glob("checkpoint-*.pt")
            found.append(f"{path.stat().st_size / 1e6:.1f} MB")
        with _part("resume") as found:
            resumed = self._resume(found)
        with _part("validation") as found:
            result = resumed.evaluate(self.validation)
            found.append("  ".join(f"{name} {value:.4g}" for name, value in result.items()))
        with _part("best.pt") as found:
            self._compare_with_best(result)
            found.append("loaded again, with the same numbers")
        log.info("every part works; no run was left behind, and the test split was not opened")
        return result["loss"]

    def _read(self, found: list[str]) -> None:
        """The first rows of each split, and the whole split, which the schedule depends on."""
        from ..checks.data import Rows

        self.full = open_split(self.config, "train")
        whole = open_split(self.config, "validation")
        size = self.config.training.batch_size
        self.train = Rows(self.full[range(min(NUM_STEPS * size, len(self.full)))])
        self.validation = Rows(whole[range(min(NUM_BATCHES * size, len(whole)))])
        found.append(f"{len(self.full)} rows to train on, {len(whole)} to validate")

    def _trainer(self) -> "Trainer":
        """A new trainer, with the weights that a run begins with."""
        from ..training.determinism import seed_everything

        seed_everything(self.config.seed)
        return build_trainer(self.config, self.full, self.device, self.folder)

    def _advance(self, trainer: "Trainer", num_steps: int) -> None:
        """The first steps of an epoch, as `fit` takes them."""
        from ..training.prepared import batches, order_of

        settings = trainer.settings
        size, workers = settings.batch_size, settings.num_workers
        order = order_of(self.train, seed=trainer.seed, epoch=0, batch_size=size)
        trainer.model.train()
        taken = batches(self.train, order, batch_size=size, num_workers=workers)
        for batch, _ in zip(taken, range(num_steps), strict=False):
            trainer.advance(batch)

    def _resume(self, found: list[str]) -> "Trainer":
        """Resumes in a new trainer and trains to the end; compares with one that did not stop."""
        from ..checks.trainer import difference

        resumed, whole = self._trainer(), self._trainer()
        whole.folder = None
        with _quiet():
            resumed.resume()
            for trainer in (resumed, whole):
                trainer.fit(self.train, self.validation)
        found.append(f"{resumed.step} steps, a validation, best.pt")
        if not self.config.deterministic:
            return resumed
        if name := difference(whole.model.state_dict(), resumed.model.state_dict()):
            raise StudyError(f"{name} differs from that of a run that was not interrupted")
        found.append("bit-identical to a run that did not stop")
        return resumed

    def _compare_with_best(self, result: dict[str, float]) -> None:
        """Loads best.pt into a new model and evaluates it."""
        from ..checks.trainer import difference
        from ..training.checkpoints import load_weights

        again = self._trainer()
        again.model.load_state_dict(load_weights(self.folder / "best.pt", self.device))
        found = again.evaluate(self.validation)
        name = difference(result, found)
        if name and self.config.deterministic:
            raise StudyError(f"{name} is {found[name]}, and was {result[name]} before")

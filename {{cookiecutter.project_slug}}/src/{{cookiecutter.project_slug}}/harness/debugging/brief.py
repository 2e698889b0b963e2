"""`python run.py debug=brief`: a few steps of everything that a run does, in a temporary folder.

It finds in seconds what would end a run after hours: in validation, in a checkpoint, at the end.
The test split is not opened.
"""

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configuration import build_trainer, open_split
from ..errors import StudyError
from .aside import set_up_aside

if TYPE_CHECKING:  # torch takes seconds to import
    import torch

    from ..checks.data import Rows
    from ..training.prepared import Split
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
        return _rehearse(config.copy(), Path(folder))


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


def _rehearse(config: Any, folder: Path) -> float:
    """Each part in turn; returns the loss on validation."""
    config.training.update(BRIEFLY)
    with _part("data") as found:
        play = _open(config, folder, found)
    with _part("model") as found:
        first = play.make_trainer()
        size = sum(item.numel() for item in first.model.parameters())
        found.append(f"{size:,} weights on {play.device}")
    with _part("train") as found:
        play.advance(first, NUM_STEPS - 1)
        found.append(f"{first.step} steps")
    with _part("checkpoint") as found:
        first.save()
        (path,) = folder.glob("checkpoint-*.pt")
        found.append(f"{path.stat().st_size / 1e6:.1f} MB")
    with _part("resume") as found:
        resumed = play.resume(found)
    with _part("validation") as found:
        result = resumed.evaluate(play.validation)
        found.append("  ".join(f"{name} {value:.4g}" for name, value in result.items()))
    with _part("best.pt") as found:
        play.compare_with_best(result)
        found.append("loaded again, with the same numbers")
    log.info("every part works; no run was left behind, and the test split was not opened")
    return result["loss"]


def _open(config: Any, folder: Path, found: list[str]) -> "_Rehearsal":
    """The first rows of each split, and the whole split, which the schedule depends on."""
    from ..checks.data import Rows

    device = set_up_aside(config)
    full, whole = open_split(config, "train"), open_split(config, "validation")
    size = config.training.batch_size
    found.append(f"{len(full)} rows to train on, {len(whole)} to validate")
    train = Rows(full[range(min(NUM_STEPS * size, len(full)))])
    validation = Rows(whole[range(min(NUM_BATCHES * size, len(whole)))])
    return _Rehearsal(config, folder, device, full, train, validation)


@dataclass(frozen=True)
class _Rehearsal:
    """A run of three steps: what it does is what `run.py` does, on the first rows of each split."""

    config: Any
    folder: Path
    device: "torch.device"
    full: "Split"
    train: "Rows"
    validation: "Rows"

    def make_trainer(self) -> "Trainer":
        """A new trainer, with the weights that a run begins with."""
        from ..training.determinism import seed_everything

        seed_everything(self.config.seed)
        return build_trainer(self.config, self.full, self.device, self.folder)

    def advance(self, trainer: "Trainer", num_steps: int) -> None:
        """The first steps of an epoch, as `fit` takes them."""
        from ..training.prepared import batches, order_of

        settings = trainer.settings
        size, workers = settings.batch_size, settings.num_workers
        order = order_of(self.train, seed=trainer.seed, epoch=0, batch_size=size)
        trainer.model.train()
        taken = batches(self.train, order, batch_size=size, num_workers=workers)
        for batch, _ in zip(taken, range(num_steps), strict=False):
            trainer.advance(batch)

    def resume(self, found: list[str]) -> "Trainer":
        """Resumes in a new trainer and trains to the end; compares with one that did not stop."""
        from ..checks.trainer import difference

        resumed, whole = self.make_trainer(), self.make_trainer()
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

    def compare_with_best(self, result: dict[str, float]) -> None:
        """Loads best.pt into a new model and evaluates it."""
        from ..checks.trainer import difference
        from ..training.checkpoints import load_weights

        again = self.make_trainer()
        again.model.load_state_dict(load_weights(self.folder / "best.pt", self.device))
        found = again.evaluate(self.validation)
        name = difference(result, found)
        if name and self.config.deterministic:
            raise StudyError(f"{name} is {found[name]}, and was {result[name]} before")

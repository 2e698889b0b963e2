"""Step, epoch, evaluation, fit: a plain PyTorch loop that resumes to the bit."""

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from . import StudyError
from .checkpoints import load_checkpoint, save_checkpoint, to_bytes, write_history
from .data import Batch, batches
from .metrics import MeanLoss, Metric, num_targets
from .files import write_atomically
from .reproducibility import permutation, seed_step

log = logging.getLogger(__name__)
MetricFactories = Mapping[str, Callable[[], Metric]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is trained; conf/training/ gives every value and says what it does.

    Raises:
        ValueError: a value is out of its range.
    """

    num_epochs: int
    batch_size: int
    num_accumulation_steps: int
    max_gradient_norm: float | None
    patience: int | None
    max_minutes: float | None
    monitor: str
    precision: str
    compile: bool
    num_workers: int
    checkpoint_steps: int | None
    checkpoint_minutes: float | None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "num_workers" else 1
            whole = field.type in (int, int | None)
            if value is None or isinstance(value, (str, bool)):
                continue
            if value < least if whole else not value > 0:
                bound = f"at least {least}" if whole else "above 0"
                raise ValueError(f"{field.name}={value}: must be {bound}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision={self.precision}: must be float32 or bfloat16")


class NonFiniteLoss(StudyError):
    """The loss became infinite or not a number."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did so between two steps, behind a checkpoint."""


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision for `bfloat16`; nothing at all for `float32`."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`."""
    if device.type == "cpu":
        return batch
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def split_batch(batch: Batch, num_pieces: int) -> Iterator[tuple[Batch, float]]:
    """Yields pieces of a batch, each with its share of the targets: the shares sum to 1."""
    if num_pieces == 1:
        yield batch, 1.0
        return
    total = num_targets(batch["target"])
    chunks = {name: tensor.chunk(num_pieces) for name, tensor in batch.items()}
    for values in zip(*chunks.values(), strict=True):
        piece = dict(zip(chunks, values, strict=True))
        yield piece, num_targets(piece["target"]) / max(total, 1)


def backward(
    model: Callable[..., dict[str, Tensor]],
    batch: Batch,
    *,
    device: torch.device,
    num_pieces: int = 1,
    precision: str = "float32",
    augmentation: Callable[[Batch], Batch] | None = None,
) -> Tensor:
    """Adds the gradients of the batch's mean loss, piece by piece.

    Returns:
        That loss: a detached scalar, on the device.
    """
    total: Tensor | None = None
    for piece, share in split_batch(batch, num_pieces):
        piece = to_device(piece, device)
        if augmentation is not None:
            piece = augmentation(piece)
        with autocast(device, precision):
            loss = model(**piece)["loss"]
        if num_pieces > 1:
            loss = loss * share
        loss.backward()  # type: ignore[no-untyped-call]
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    return total


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Dataset[Batch],
    *,
    metrics: MetricFactories,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
    num_workers: int = 0,
) -> dict[str, float]:
    """The mean loss and every metric over a split, with the model in evaluation mode."""
    counters: dict[str, Metric] = {"loss": MeanLoss()}
    counters |= {name: factory() for name, factory in metrics.items()}
    was_training = model.training
    model.eval()
    order = np.arange(len(split))  # type: ignore[arg-type]
    for batch in batches(split, order, batch_size=batch_size, num_workers=num_workers):
        batch = to_device(batch, device)
        with autocast(device, precision):
            outputs = model(**batch)
        for counter in counters.values():
            counter.update(outputs, batch)
    model.train(was_training)
    return {name: counter.compute() for name, counter in counters.items()}


@contextlib.contextmanager
def catch_signals() -> Iterator[list[str]]:
    """Yields a list that fills with the names of SIGINT and SIGTERM when they come.

    A second signal of the same kind does what it always does. Outside the main thread, where
    Python delivers no signals, the list stays empty.
    """
    received: list[str] = []
    previous: dict[int, Any] = {}

    def note(number: int, _frame: object) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(number, previous[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)


class Trainer:
    """A model in training, and all that it carries from one step to the next.

    Args:
        model: Already on `device`.
        optimizer: Of the model's parameters.
        scheduler: Stepped once behind each optimizer step.
        settings: See `Settings`.
        metrics: Called for each evaluation to make a new metric; by name.
        seed: Order of the data and every random number of torch are functions of it and the step.
        device: Where batches go.
        folder: Where checkpoints, `best.pt` and `history.csv` are kept; None writes nothing.
        augmentation: Applied to each training batch, on the device; never in evaluation.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        settings: Settings,
        metrics: MetricFactories,
        seed: int,
        device: torch.device,
        folder: Path | None = None,
        augmentation: Callable[[Batch], Batch] | None = None,
    ) -> None:
        if settings.monitor not in ("loss", *metrics):
            known = ", ".join(["loss", *metrics])
            raise StudyError(f"training.monitor={settings.monitor}: must be one of {known}")
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.settings, self.metrics = settings, metrics
        self.seed, self.device, self.folder = seed, device, folder
        self.augmentation = augmentation
        self.forward = torch.compile(model) if settings.compile else model
        self.step = 0  # optimizer steps done
        self.epoch_loss = 0.0  # summed over the steps of the epoch that is under way
        self.history: list[dict[str, float]] = []
        self.best_weights: dict[str, Tensor] | None = None
        self._pending: list[Tensor] = []  # losses not yet fetched from the device
        self.spent = 0.0  # seconds in training, up to the last checkpoint
        self._saved = time.monotonic()

    def fit(self, train: Dataset[Batch], validation: Dataset[Batch]) -> str:
        """Trains to the end, and leaves the best weights in the model.

        Returns:
            Why it ended: `epochs`, `patience` or `time budget`.

        Raises:
            NonFiniteLoss: at the first step whose loss is infinite or not a number.
            Interrupted: SIGINT or SIGTERM came; the step was finished and a checkpoint written.
        """
        num_steps = math.ceil(len(train) / self.settings.batch_size)  # type: ignore[arg-type]
        total = self.settings.num_epochs * num_steps
        minutes = self.settings.max_minutes
        self._saved = time.monotonic()
        deadline = math.inf if minutes is None else self._saved + 60 * minutes - self.spent
        ended = ""
        with (
            catch_signals() as signals,
            logging_redirect_tqdm(),
            tqdm(total=total, initial=self.step, disable=None, leave=False) as progress,
        ):
            while not ended:
                self.model.train()
                rest = self._rest_of_epoch(train, num_steps)
                while (batch := self._next(rest, signals)) is not None:
                    self.train_step(batch)
                    progress.update()
                    self._save_when_due(now=bool(signals))
                    if signals:
                        raise Interrupted(f"by {signals[0]} after step {self.step}")
                    if time.monotonic() > deadline:
                        break
                # not so if time ran out; so too if a run resumes behind the last step of an epoch
                if self.step == (len(self.history) + 1) * num_steps:
                    with self._outliving_workers(signals):
                        self._end_epoch(validation, num_steps)
                if self.step == total:
                    ended = "epochs"
                elif self.out_of_patience():
                    ended = "patience"
                elif time.monotonic() > deadline:
                    ended = "time budget"
        if ended == "time budget":
            self.spent, self._saved = 0.0, time.monotonic()  # to go on means to grant another
        self._finish()
        return ended

    def _next(self, batches_left: Iterator[Batch], signals: Sequence[str]) -> Batch | None:
        """The next batch, or None behind the last."""
        with self._outliving_workers(signals):
            return next(batches_left, None)
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _outliving_workers(self, signals: Sequence[str]) -> Iterator[None]:
        """A signal to the whole process group ends the processes that load batches at once."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            time.sleep(0.2)  # it may reach this process last
            if not signals:
                raise
            self.save()
            raise Interrupted(f"by {signals[0]} after step {self.step}") from error

    def _rest_of_epoch(self, train: Dataset[Batch], num_steps: int) -> Iterator[Batch]:
        """The batches of the epoch that is under way, from the step that comes next."""
        epoch = len(self.history)
        if epoch == self.settings.num_epochs or self.out_of_patience():
            return iter(())  # resumed at the very end
        done = self.step - epoch * num_steps
        size = self.settings.batch_size
        order = permutation(len(train), seed=self.seed, epoch=epoch)  # type: ignore[arg-type]
        workers = self.settings.num_workers
        return batches(train, order[done * size :], batch_size=size, num_workers=workers)

    def train_step(self, batch: Batch) -> None:
        """One optimizer step: a function of the weights, the batch, the seed and the step."""
        seed_step(self.seed, self.step, self.device)
        self.optimizer.zero_grad()
        loss = backward(
            self.forward,
            batch,
            device=self.device,
            num_pieces=self.settings.num_accumulation_steps,
            precision=self.settings.precision,
            augmentation=self.augmentation,
        )
        if self.settings.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_gradient_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        self._pending.append(loss)
        if len(self._pending) == 50:  # asking a GPU after each step would make it wait
            self._fetch_losses()

    def _fetch_losses(self) -> None:
        """Adds the pending losses to the epoch's sum, and checks each."""
        if not self._pending:
            return
        first = self.step - len(self._pending)
        for offset, value in enumerate(torch.stack(self._pending).tolist(), start=1):
            if not math.isfinite(value):
                raise NonFiniteLoss(
                    f"the loss is {value} at step {first + offset}: try a smaller model.lr, "
                    "or training.max_gradient_norm=1.0"
                )
            self.epoch_loss += value
        self._pending.clear()

    def _end_epoch(self, validation: Dataset[Batch], num_steps: int) -> None:
        """Validates, keeps the weights if they are the best so far, and writes the history."""
        self._fetch_losses()
        result = self.evaluate(validation)
        row: dict[str, float] = {
            "epoch": self.step // num_steps,
            "step": self.step,
            "lr": float(self.scheduler.get_last_lr()[0]),
            "train_loss": self.epoch_loss / num_steps,
        }
        self.history.append(row | {f"validation_{name}": value for name, value in result.items()})
        self.epoch_loss = 0.0
        if self.best_row() is self.history[-1]:
            weights = self.model.state_dict()
            self.best_weights = {name: value.clone() for name, value in weights.items()}
        log.info("  ".join(f"{name} {value:.4g}" for name, value in self.history[-1].items()))
        if self.folder is not None:
            write_history(self.folder / "history.csv", self.history)

    def evaluate(self, split: Dataset[Batch]) -> dict[str, float]:
        """The loss and every metric over a split."""
        return evaluate(
            self.model,
            split,
            metrics=self.metrics,
            batch_size=self.settings.batch_size,
            device=self.device,
            precision=self.settings.precision,
            num_workers=self.settings.num_workers,
        )

    def best_row(self) -> dict[str, float]:
        """The row of the history with the best monitored value on validation; the first of equals.

        A value that is not a number is worse than any other.
        """
        name = self.settings.monitor
        higher = name != "loss" and self.metrics[name]().higher_is_better

        def key(row: dict[str, float]) -> float:
            value = row[f"validation_{name}"]
            return -math.inf if math.isnan(value) else value if higher else -value

        return max(self.history, key=key)

    def out_of_patience(self) -> bool:
        """Whether the last `patience` epochs brought nothing better."""
        if self.settings.patience is None or not self.history:
            return False
        return len(self.history) - int(self.best_row()["epoch"]) >= self.settings.patience

    def _save_when_due(self, *, now: bool) -> None:
        """A checkpoint every so many steps, every so many minutes, and when it is time to go."""
        steps, minutes = self.settings.checkpoint_steps, self.settings.checkpoint_minutes
        now |= steps is not None and self.step % steps == 0
        now |= minutes is not None and time.monotonic() - self._saved >= 60 * minutes
        if now:
            self.save()

    def _finish(self) -> None:
        """Writes a checkpoint and `best.pt`, and loads the best weights into the model."""
        self.save()
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)
        if self.folder is not None:
            write_history(self.folder / "history.csv", self.history)
            write_atomically(self.folder / "best.pt", to_bytes(self.model.state_dict()))

    def save(self) -> None:
        """Writes a checkpoint: everything that `resume` needs to go on, bit for bit."""
        self._fetch_losses()  # weights that are behind a loss that is not finite are never saved
        now = time.monotonic()
        self.spent, self._saved = self.spent + now - self._saved, now
        if self.folder is None:
            return
        log_file = self.folder / "run.log"
        state = {
            "step": self.step,
            "epoch_loss": self.epoch_loss,
            "history": self.history,
            "model": self.model.state_dict(),
            "best": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "spent": self.spent,
            "log_bytes": log_file.stat().st_size if log_file.exists() else 0,
        }
        save_checkpoint(self.folder, state)

    def resume(self) -> None:
        """Goes on from the newest whole checkpoint in its folder, if there is one.

        The log is cut back to where it was then: what is done again is said again.

        Raises:
            StudyError: the checkpoint is of another model.
        """
        assert self.folder is not None
        found = load_checkpoint(self.folder)
        log_file, log_bytes = self.folder / "run.log", 0
        if found is not None:
            log_bytes = self._load(*found)
        if log_file.exists() and log_file.stat().st_size > log_bytes:
            os.truncate(log_file, log_bytes)
        if found is not None:
            log.info("goes on behind step %d", self.step)

    def _load(self, path: Path, state: Mapping[str, Any]) -> int:
        """Takes over a checkpoint; returns how long the log was then, in bytes."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.step, self.epoch_loss = state["step"], state["epoch_loss"]
            self.history, self.best_weights = state["history"], state["best"]
            self.spent = state["spent"]
            return int(state["log_bytes"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise StudyError(f"{path}: is not a checkpoint of this model ({reason})") from error

"""Epochs, evaluation, checkpoints: a plain PyTorch loop that resumes bit-identically."""

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..errors import StudyError
from ..files import write_atomically
from ..ranks import num_ranks, rank
from . import distributed
from .callbacks import Callbacks
from .checkpoints import load_checkpoint, save_checkpoint, to_bytes
from .determinism import seed_step
from .groups import divide, hold, rates
from .prepared import Batch, batches, order_of
from .results import write_history
from .settings import Settings
from .step import MetricFactories, backward, evaluate

log = logging.getLogger(__name__)
GO_ON, END = range(2)  # what any rank of several asks for; above that, it is the number of a signal


class NonFiniteLoss(StudyError):
    """The loss became infinite or not a number."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did so between two steps, after writing a checkpoint."""


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Yields a list that fills with the numbers of SIGINT and SIGTERM when they come.

    SIGUSR2 is among them where it has a handler: a job of Slurm gets it before its time limit.

    A second Ctrl-C has its usual effect. A second SIGTERM has none: Slurm sends it twice when it
    preempts. Outside the main thread, where Python delivers no signals, the list stays empty.
    """
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, _frame: object) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(number, previous[number])

    if threading.current_thread() is threading.main_thread():
        is_asked = getattr(signal, "SIGUSR2", None)
        for number in (signal.SIGINT, signal.SIGTERM, is_asked):
            if number is None or (number == is_asked and not callable(signal.getsignal(number))):
                continue
            previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)


def _interrupted(number: int, step: int) -> Interrupted:
    return Interrupted(f"by {signal.Signals(number).name} after step {step}")


class Trainer:
    """A model in training, and everything that it carries from one step to the next.

    For a training step of your own, write a subclass with another `train_step` in a file of yours
    and name it in conf/training/; the same checks apply to it.

    Args:
        model: Already on `device`.
        optimizer: Of the model's parameters.
        scheduler: Stepped once after each optimizer step.
        settings: See `Settings`.
        metrics: By name; each is called for every evaluation to make a new metric.
        higher_is_better: The direction of each metric.
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
        higher_is_better: Mapping[str, bool],
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
        self.higher_is_better = {"loss": False, **higher_is_better}
        self.seed, self.device, self.folder = seed, device, folder
        self.augmentation = augmentation
        self.callbacks = Callbacks()
        self.parts = divide(model, settings)
        hold(self.parts, epoch=1)
        self.forward: nn.Module = model
        if settings.compile:
            self.forward = torch.compile(model)  # type: ignore[assignment]
        self._own_forward = self.forward
        self.is_distributed = False  # whether each rank of several computes its part of a batch
        self._learning: list[bool] = []  # of each parameter, when the ranks were last connected
        self.step = 0  # optimizer steps done
        self.epoch_loss = 0.0  # sum over the steps of the current epoch
        self.history: list[dict[str, float]] = []
        self.best_weights: dict[str, Tensor] | None = None
        self._pending: list[Tensor] = []  # losses not yet fetched from the device
        self.spent = 0.0  # seconds in training, up to the last checkpoint
        self._saved = time.monotonic()

    @distributed.together()
    def fit(self, train: Dataset[Batch], validation: Dataset[Batch]) -> str:
        """Trains to the end, and leaves the best weights in the model.

        Returns:
            Why it ended: `epochs`, `patience` or `time budget`.

        Raises:
            NonFiniteLoss: at the first step whose loss is infinite or not a number.
            Interrupted: SIGINT or SIGTERM came; the step was finished and a checkpoint written.
            LostRank: another rank ended.
        """
        num_steps = math.ceil(len(train) / self.settings.batch_size)  # type: ignore[arg-type]
        total = self.settings.num_epochs * num_steps
        self._saved = time.monotonic()
        deadline = self._deadline()
        ended = ""
        with (
            catch_signals() as signals,
            logging_redirect_tqdm(),
            tqdm(
                total=total, initial=self.step, disable=rank() > 0 or None, leave=False
            ) as progress,
        ):
            while not ended:
                self.model.train()
                hold(self.parts, epoch=len(self.history) + 1)
                self._connect()
                self._train_epoch(
                    self._rest_of_epoch(train, num_steps), signals, deadline, progress
                )
                # not if the time ran out; also if a run resumes after the last step of an epoch
                if self.step == (len(self.history) + 1) * num_steps:
                    self._end_epoch(validation, num_steps)
                ended = self._reason_to_end(total, deadline)
        if (asked := self._asked_to(signals)) > END:  # during the last validation
            self.save()
            self._asked_to(())
            raise _interrupted(asked, self.step)
        if ended == "time budget":
            self.spent, self._saved = 0.0, time.monotonic()  # to resume means to grant another
        self._finish()
        return ended

    def _deadline(self) -> float:
        """When the time budget is spent, on the monotonic clock."""
        minutes = self.settings.max_minutes
        return math.inf if minutes is None else self._saved + 60 * minutes - self.spent

    def _connect(self) -> None:
        """Lets the ranks sum the gradients of what learns in this epoch."""
        learning = [item.requires_grad for item in self.model.parameters()]
        if self.is_distributed and learning != self._learning:
            self.forward = distributed.wrap(self._own_forward, self.device)
            self._learning = learning

    def _asked_to(self, signals: Sequence[int], deadline: float = math.inf) -> int:
        """GO_ON, END or the number of a signal: what that or the clock asks for, on any rank."""
        asked = signals[0] if signals else END if time.monotonic() > deadline else GO_ON
        return distributed.agree(asked) if self.is_distributed else asked

    def _train_epoch(
        self,
        batches_left: Iterator[Batch],
        signals: Sequence[int],
        deadline: float,
        progress: "tqdm[Any]",
    ) -> None:
        """Every step that is left of an epoch, or as many as the time allows."""
        for batch in batches_left:
            self.advance(batch)
            progress.update()
            asked = self._asked_to(signals, deadline)
            self._save_when_due(now=asked > END)
            if asked > END:
                self._asked_to(())  # no rank ends, and has the others ended, while one still writes
                raise _interrupted(asked, self.step)
            if asked == END:
                break

    def _reason_to_end(self, total: int, deadline: float) -> str:
        """Why training ends here; empty if it does not."""
        if self.step == total:
            return "epochs"
        if self.out_of_patience():
            return "patience"
        return "time budget" if self._asked_to((), deadline) == END else ""

    def _rest_of_epoch(self, train: Dataset[Batch], num_steps: int) -> Iterator[Batch]:
        """The batches of the current epoch, from the next step on."""
        epoch = len(self.history)
        if epoch == self.settings.num_epochs or self.out_of_patience():
            return iter(())  # resumed at the very end
        done = self.step - epoch * num_steps
        size = self.settings.batch_size
        order = order_of(train, seed=self.seed, epoch=epoch, batch_size=size)
        return batches(
            train,
            order[done * size :],
            batch_size=size,
            num_workers=self.settings.num_workers,
            part_of=distributed.part_of if self.is_distributed else np.asarray,
        )

    def advance(self, batch: Batch) -> None:
        """One step: a function of the weights, the batch, the seed and the number of the step."""
        seed_step(self.seed, self.step, self.device, rank=rank() if self.is_distributed else 0)
        loss = self.train_step(batch)
        self.step += 1
        if self.is_distributed:
            loss = distributed.mean(loss)
            if self.step == 1:
                distributed.require_same_weights(self.model)
        self._pending.append(loss)
        if len(self._pending) == 50:  # asking a GPU after each step would make it wait
            self._fetch_losses()
        self.callbacks.call("after_step", self, loss)

    def train_step(self, batch: Batch) -> Tensor:
        """Moves the weights by one batch. Override it for a step of your own.

        Returns:
            The mean loss of the batch: a detached scalar, on the device. Over several ranks, as
            `backward` gives it: the mean over the ranks is that of the batch.
        """
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
        return loss

    def own_state(self) -> dict[str, Any]:
        """What a subclass adds to the checkpoint: tensors and plain values, such as the state of
        a second optimizer."""
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `own_state` gave."""

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
        if self.is_distributed:
            distributed.require_same_weights(self.model)
        self.callbacks.call("before_validation", self)
        result = self.evaluate(validation)
        epoch = self.step // num_steps
        row: dict[str, float] = {
            "epoch": epoch,
            "step": self.step,
            **rates(self.parts, float(self.scheduler.get_last_lr()[0]), epoch),
            "train_loss": self.epoch_loss / num_steps,
        }
        self.history.append(row | {f"validation_{name}": value for name, value in result.items()})
        self.epoch_loss = 0.0
        if self.best_row() is self.history[-1]:
            weights = self.model.state_dict()
            self.best_weights = {name: value.clone() for name, value in weights.items()}
        log.info("  ".join(f"{name} {value:.4g}" for name, value in self.history[-1].items()))
        if self.folder is not None:
            write_history(self.folder, self.history)
        self.callbacks.call("after_epoch", self, self.history[-1])

    @distributed.together()
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
            is_distributed=self.is_distributed,
        )

    def best_row(self) -> dict[str, float]:
        """The row of the history with the best monitored value on validation; the first of equals.

        A value that is not a number is worse than any other.
        """
        name = self.settings.monitor
        higher = self.higher_is_better[name]

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
        """A checkpoint every so many steps, every so many minutes, and when a signal came."""
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
            write_history(self.folder, self.history)
            write_atomically(self.folder / "best.pt", to_bytes(self.model.state_dict()))

    def _num_ranks(self) -> int:
        return num_ranks() if self.is_distributed else 1

    def save(self) -> None:
        """Writes a checkpoint: everything that `resume` needs for bit-identical results."""
        self._fetch_losses()  # weights after a non-finite loss are never saved
        now = time.monotonic()
        self.spent, self._saved = self.spent + now - self._saved, now
        if self.folder is None:
            return
        log_file = self.folder / "run.log"
        state = {
            "ranks": self._num_ranks(),
            "step": self.step,
            "epoch_loss": self.epoch_loss,
            "history": self.history,
            "model": self.model.state_dict(),
            "best": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "spent": self.spent,
            "log_bytes": log_file.stat().st_size if log_file.exists() else 0,
            "own": self.own_state(),
            "callbacks": self.callbacks.state_dict(),
        }
        save_checkpoint(self.folder, state)

    def resume(self) -> None:
        """Resumes from the newest intact checkpoint in its folder, if there is one.

        The log is truncated to where it was then: what is done again is logged again.

        Raises:
            StudyError: the checkpoint is of another model, or of another number of ranks.
        """
        found = distributed.share(self._find) if self.is_distributed else self._find()
        log_bytes = 0 if found is None else self._load(*found)
        if self.folder is not None:
            log_file = self.folder / "run.log"
            if log_file.exists() and log_file.stat().st_size > log_bytes:
                os.truncate(log_file, log_bytes)
        if found is not None:
            log.info("resumed after step %d", self.step)

    def _find(self) -> tuple[Path, dict[str, Any]] | None:
        assert self.folder is not None
        return load_checkpoint(self.folder)

    def _load(self, path: Path, state: Mapping[str, Any]) -> int:
        """Restores a checkpoint; returns how long the log was then, in bytes."""
        if (ranks := state.get("ranks", 1)) != self._num_ranks():
            raise StudyError(f"{path}: the run was begun by {ranks} ranks, not {self._num_ranks()}")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.step, self.epoch_loss = state["step"], state["epoch_loss"]
            self.history, self.best_weights = state["history"], state["best"]
            self.spent = state["spent"]
            self.load_own_state(state.get("own", {}))
            self.callbacks.load_state_dict(state.get("callbacks", {}))
            return int(state["log_bytes"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise StudyError(f"{path}: is not a checkpoint of this model ({reason})") from error

"""Callbacks: what a researcher adds to training without writing another `train_step`.

A callback is an object with at least one of these methods:
    after_step(trainer, loss)     after each optimizer step; the loss is a detached scalar, on the
                                  device: to read it makes a GPU wait
    before_validation(trainer)    at the end of each epoch, before the model is evaluated
    after_epoch(trainer, row)     after the epoch's row of the history and its best weights are kept

What it carries from step to step it gives by `state_dict()`, as tensors and plain values, and takes
back by `load_state_dict(state)`: the checkpoint holds it, so a resumed run is bit-identical. State
that it does not give is lost when a run is interrupted. What came after the last checkpoint is done
again: `after_epoch` may be called twice for the same epoch. `trainer.folder` is None in the checks,
and of several ranks on all but the first, which alone writes.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import StudyError

HOOKS = ("after_step", "before_validation", "after_epoch")


class Callbacks:
    """The callbacks of a trainer, in the order in which they were added."""

    def __init__(self) -> None:
        self._members: dict[str, Any] = {}
        self._functions: dict[str, list[tuple[str, Callable[..., Any]]]] = {
            hook: [] for hook in HOOKS
        }

    def add(self, name: str, callback: Any) -> None:
        """Adds a callback.

        Args:
            name: Where it stands in the configuration, for messages and in the checkpoint.
            callback: See the head of this file.

        Raises:
            StudyError: it has none of the methods.
        """
        found = [hook for hook in HOOKS if callable(getattr(callback, hook, None))]
        if not found:
            known = ", ".join(HOOKS)
            raise StudyError(f"{name}: {type(callback).__name__} has none of the methods {known}")
        self._members[name] = callback
        for hook in found:
            self._functions[hook].append((name, getattr(callback, hook)))

    def call(self, hook: str, *arguments: Any) -> None:
        """Calls this method of each callback that has it.

        Raises:
            StudyError: one raised an error; the message names both.
        """
        for name, function in self._functions[hook]:
            try:
                function(*arguments)
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise StudyError(f"{name}: {hook} failed with {reason}") from error

    def state_dict(self) -> dict[str, Any]:
        """The state of each callback that has one, by its name."""
        return {
            name: callback.state_dict()
            for name, callback in self._members.items()
            if hasattr(callback, "state_dict")
        }

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave.

        Raises:
            KeyError: there is no state of a callback that has one.
        """
        for name, callback in self._members.items():
            if hasattr(callback, "state_dict"):
                callback.load_state_dict(states[name])

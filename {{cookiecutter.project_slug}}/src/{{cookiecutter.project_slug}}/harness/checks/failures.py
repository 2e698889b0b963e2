"""How a check says that it failed, or that it does not apply."""

import traceback
from pathlib import Path


class Failed(AssertionError):
    """A check failed: which tensor, what the check saw, and what it expected.

    Args:
        tensor: The input, output or parameter, with its name.
        seen: What the check saw.
        expected: What it expected instead.
        cause: The usual cause of this very failure; None for the usual cause of the check.
    """

    def __init__(self, tensor: str, seen: str, expected: str, cause: str | None = None) -> None:
        super().__init__(f"{tensor}: {seen}; expected: {expected}")
        self.tensor, self.where, self.cause = tensor, "", cause

    def __str__(self) -> str:
        return f"{self.where}{super().__str__()}\nusual cause: {self.cause}"


class NotApplicable(Exception):
    """A check does not apply to this model; the message gives the reason."""


class OptedOut(NotApplicable):
    """The spec opts out of a check; the message gives the reason."""


def failing_line(error: Exception) -> str:
    """The innermost line of a traceback that is in neither an installed package nor this folder."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if "site-packages" not in path.parts and path.parent != Path(__file__).parent:
            return f"{path.name}, line {frame.lineno}, `{frame.line}`"
    return "the model"


def one_line(error: Exception) -> str:
    """The type of an exception and the first line of its message."""
    if isinstance(error, KeyError) and error.args:
        key = error.args[0]
        key = f"of {len(key)} bytes" if isinstance(key, bytes) else repr(key)
        return f"KeyError: there is no key {key}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines and isinstance(error, AssertionError):
        return "an assertion does not hold"
    return f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"

"""One line for a mistake: what is wrong, and the nearest right name where there is one."""

import difflib
import re
from collections.abc import Sequence

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from ..errors import StudyError
from .composing import known_keys

MISTAKES = (StudyError, HydraException, OmegaConfBaseException)


def describe_error(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """One line for an error.

    Args:
        error: Of this library, of Hydra, of OmegaConf or any other.
        overrides: What was typed: of the keys of these options the nearest one is suggested.
    """
    if isinstance(error, StudyError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        if error.options:
            return f"{group}={option}: there is no such option{suggest(option, error.options)}"
    if isinstance(error, OverrideParseException):
        hint = "put a value that holds , or { in quotes: 'KEY=\"VALUE\"'"
        return f"{error.override}: cannot be read as KEY=VALUE; {hint}"
    text = f"{error}\n{error.__cause__ or ''}"
    if found := re.search(r"Could not override '([^']+)'", text):
        return _describe_unknown_key(found[1].lstrip("+~"), text, known_keys(overrides))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = "" if isinstance(error, MISTAKES) else f"{type(error).__name__}: "
    return kind + " ".join(lines[:2])


def _describe_unknown_key(key: str, text: str, known: Sequence[str]) -> str:
    """A key that is not there; where a whole group was typed, the key inside it that is not."""
    if key in known and (inside := re.search(r"Key '([^']+)' is not in struct", text)):
        inner = f"{key}.{inside[1]}"
        siblings = [name for name in known if name.rpartition(".")[0] == key]
        near = difflib.get_close_matches(inner, siblings, n=1, cutoff=0.9)
        hint = suggest(inner, near) if near else f"; to add it: +{inner}=VALUE"
        return f"{inner}: there is no such key{hint}"
    return f"{key}: there is no such key{suggest(key, known)}"


def suggest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the nearest one, or all if they are few."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; there are: {', '.join(sorted(known))}" if 0 < len(known) <= 12 else ""

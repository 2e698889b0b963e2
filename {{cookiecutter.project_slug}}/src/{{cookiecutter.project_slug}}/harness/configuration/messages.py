"""One line for a mistake: what is wrong, and the nearest right name where there is one."""

import difflib
import os
import re
from collections.abc import Sequence
from contextlib import suppress

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from ..errors import StudyError, suggest
from .composing import CONF, known_keys

SET_BY_THE_RUN = {"training.optimizer.lr": "; type: model.lr=VALUE"}
FAILURES = "STUDY_FAILURES"  # the environment variable that names the file of failed jobs
MISTAKES = (StudyError, HydraException, OmegaConfBaseException)


def describe_error(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """One line for an error.

    Args:
        error: Of this library, of Hydra, of OmegaConf or any other.
        overrides: What was typed: of the keys of these options the nearest one is suggested.
    """
    if isinstance(error, StudyError):
        return str(error)
    if line := _describe_missing(error, overrides):
        return line
    if isinstance(error, OverrideParseException):
        hint = "put a value that holds , { or ö in quotes: 'KEY=\"VALUE\"'"
        return f"{error.override}: cannot be read as KEY=VALUE; {hint}"
    text = f"{error}\n{error.__cause__ or ''}"
    if found := re.search(r"Could not override '([^']+)'", text):
        return _describe_unknown_key(found[1].lstrip("+~"), text, known_keys(overrides))
    if found := re.search(r"Error merging override (.*)", text):
        return f"{found[1]}: must be a value, a [list] or keys, as what is there"
    return _first_lines(error)


def note_failure(line: str) -> None:
    """Keeps a line for the end of a sweep: why a job failed, in whatever process it ran."""
    with suppress(OSError), open(os.environ[FAILURES], "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def _is_without_files(group: str) -> bool:
    """Whether this is a group of which no file is left: git keeps no empty folder."""
    named = re.search(
        rf"^ *- {re.escape(group)}: null\b", (CONF / "config.yaml").read_text("utf-8"), re.M
    )
    return named is not None and not any((CONF / group).glob("*.yaml"))


def _describe_missing(error: BaseException, overrides: Sequence[str]) -> str:
    """A file of conf/ that was typed, or stands in a list of defaults, and is not there."""
    for group, option in (item.split("=", 1) for item in overrides if "=" in item):
        if _is_without_files(group):
            return f"{group}={option}: there is no conf/{group}/{option}.yaml, nor any other there"
    if not isinstance(error, MissingConfigException):
        return ""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if error.options:
        return f"{group}={option}: there is no such option{suggest(option, error.options)}"
    if found := re.match(r"In '(.+)': Could not find '(.+)'", str(error)):
        hint = "there is no such file; correct its list of defaults"
        return f"conf/{found[1]}.yaml names conf/{found[2]}.yaml: {hint}"
    return ""


def _first_lines(error: BaseException) -> str:
    text = re.sub(r"\n\s*(full_key|object_type|reference_type)[:=].*", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(error, MISTAKES):
        return re.sub(r"^\w+ raised while resolving interpolation: ", "", " ".join(lines[:2]))
    return f"{type(error).__name__}: {' '.join(lines[:2])}"


def _describe_unknown_key(key: str, text: str, known: Sequence[str]) -> str:
    """A key that is not there; where a whole group was typed, the key inside it that is not."""
    if key in SET_BY_THE_RUN:
        return f"{key}: is set by the run itself{SET_BY_THE_RUN[key]}"
    if key in known and (inside := re.search(r"Key '([^']+)' is not in struct", text)):
        inner = f"{key}.{inside[1]}"
        siblings = [name for name in known if name.rpartition(".")[0] == key]
        near = difflib.get_close_matches(inner, siblings, n=1, cutoff=0.9)
        hint = suggest(inner, near) if near else f"; to add it: +{inner}=VALUE"
        return f"{inner}: there is no such key{hint}"
    parent, _, last = key.rpartition(".")
    beside = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent]
    if parent in known and not difflib.get_close_matches(last, beside, n=1, cutoff=0.6):
        return f"{key}: there is no such key; to add it: +{key}=VALUE"
    return f"{key}: there is no such key{suggest(key, known)}"

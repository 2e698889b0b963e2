"""What a run really does: its configuration checked and resolved; on resume= that of the run."""

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import StudyError
from ..ranks import num_ranks
from ..runs.record import key_of, read_record
from .checking import check_config, check_data, check_tracker, refuse_unused, require
from .composing import CONF, composed_of, flatten, naming_variables, typed_overrides
from .messages import describe_error
from .reading import find_key, load

log = logging.getLogger(__name__)


def resolve(config: DictConfig) -> DictConfig:
    """The configuration of the run that a command line asks for.

    Raises:
        StudyError: names the key, the value and what it must be.
    """
    if config.resume is not None:
        config = _of_interrupted(config.resume)
    elif config.test and not _may_test():
        log.info("a sweep does not evaluate the test split; to evaluate it, type test=true")
        config.test = False
    _check(config, typed_overrides(), _follow_and_check)
    return config


def _follow_and_check(config: DictConfig) -> None:
    with naming_variables():
        OmegaConf.resolve(config)
    check_config(config)
    if num_ranks() > 1 and (config.get("debug") or config.get("task", "train") != "train"):
        word = f"debug={config.debug}" if config.get("debug") else f"task={config.task}"
        raise StudyError(f"{word}: not with several ranks; type it after python, without torchrun")
    try:
        check_tracker(config)
    except StudyError as error:
        if config.resume is None:
            raise
        log.warning("%s; the run is resumed without its tracker", error)
        config.tracker = None


def check(config: DictConfig, overrides: Sequence[str]) -> None:
    """Checks a configuration; a wrong value that stands in a file is named by its place there.

    Args:
        config: As composed.
        overrides: What was typed.

    Raises:
        StudyError: names the key, the value and what it must be.
    """
    _check(config, overrides, check_config)


def resolve_data(config: DictConfig) -> DictConfig:
    """The configuration of a stage that prepares data: its `data` checked, the rest as it is.

    Raises:
        StudyError: names the key, the value and what it must be.
    """
    _check(config, typed_overrides(), check_data)
    return config


def _check(
    config: DictConfig, overrides: Sequence[str], checked: Callable[[DictConfig], None]
) -> None:
    try:
        checked(config)
        if not config.resume:  # of a run that has begun, values are left
            folders, _ = composed_of(overrides)
            paths = [path for folder in folders for path in folder.rglob("*.yaml")]
            texts = [path.read_text(encoding="utf-8") for path in paths]
            refuse_unused(config, [*texts, *overrides])
    except (StudyError, OmegaConfBaseException) as error:
        message = describe_error(error)
        if not isinstance(error, StudyError):
            message = _culprit(config, message) + _explain_missing(message, overrides)
        raise StudyError(_place(message, overrides) + message) from error


def _culprit(config: DictConfig, message: str) -> str:
    """The key whose ${...} names what is not there, or cannot be followed; nothing if unknown."""
    flat, missing = flatten(OmegaConf.to_container(config)), re.search(r"'(.+)' not found", message)
    if missing:
        texts = {key: str(value) for key, value in flat.items() if not isinstance(value, dict)}
        broken = [key for key, text in texts.items() if missing[1] + "}" in text]
    else:
        broken = [key for key in flat if not _can_be_followed(config, key)]
    return f"{broken[0]}: " if broken else ""


def _explain_missing(message: str, overrides: Sequence[str]) -> str:
    """Which data sets have what a model asks for, if those that were chosen lack it."""
    missing = re.search(r"'data\.(\w+)' not found", message)
    if not missing:
        return message
    _, choices = composed_of(overrides)
    having = [
        path.stem for path in sorted((CONF / "data").glob("*.yaml")) if missing[1] in load(path)
    ]
    found = f"data={choices.get('data')} has no {missing[1]}"
    return f"{found}; type data={' or data='.join(having)}" if having else found


def _can_be_followed(config: DictConfig, key: str) -> bool:
    with suppress(OmegaConfBaseException):
        OmegaConf.select(config, key)
        return True
    return False


def _place(message: str, overrides: Sequence[str]) -> str:
    """Where the key that a message begins with stands in conf/; nothing if it was typed."""
    found = re.match(r"[\w.]+", message)
    key = found[0] if found else ""
    for item in map(key_of, overrides):
        if f"{key}.".startswith(f"{item}.") or item.startswith(f"{key}."):
            return ""
    _, choices = composed_of(overrides)
    place = find_key(CONF, key, choices)
    return f"{place}: " if place else ""


def _may_test() -> bool:
    """A sweep evaluates the test split only if its command line says so: it would select by it."""
    asked = any(item.lstrip("+").startswith("test=") for item in typed_overrides())
    return asked or HydraConfig.get().mode != RunMode.MULTIRUN


def _of_interrupted(name: object) -> DictConfig:
    """The configuration of a run that is not finished; nothing of it can be changed."""
    require(isinstance(name, str), "resume", name, "the folder of a run")
    folder = Path(str(name))
    others = [item for item in typed_overrides() if not item.startswith("resume=")]
    if others:
        raise StudyError(f"{others[0]}: a resumed run keeps its configuration; remove this")
    record = read_record(folder)
    if record.get("status") == "finished" and record.get("ended_by") != "time budget":
        raise StudyError(f"resume={folder}: is finished; its numbers are in {folder}/metrics.json")
    path = folder / "config.yaml"
    if not path.exists():
        raise StudyError(
            f"resume={folder}: was killed before it began, so there is nothing to resume; "
            "type the command of the run again"
        )
    config = load(path)
    if not isinstance(config, DictConfig):
        raise StudyError(f"{path}: cannot be read (it holds no keys)")
    config.resume = name
    return config

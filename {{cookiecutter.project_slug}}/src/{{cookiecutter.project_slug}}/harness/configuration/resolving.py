"""What a run really does: its configuration checked and resolved; on resume= that of the run."""

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import StudyError
from ..runs.record import read_record
from .checking import check_config
from .composing import typed_overrides
from .messages import describe_error

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
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise StudyError(describe_error(error)) from error
    check_config(config)
    return config


def _may_test() -> bool:
    """A sweep evaluates the test split only if its command line says so: it would select by it."""
    asked = any(item.lstrip("+").startswith("test=") for item in typed_overrides())
    return asked or HydraConfig.get().mode != RunMode.MULTIRUN


def _of_interrupted(name: str) -> DictConfig:
    """The configuration of a run that is not finished; nothing of it can be changed."""
    folder = Path(name)
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
    try:
        config = OmegaConf.load(path)
    except Exception as error:  # whatever a YAML parser raises
        raise StudyError(f"{path}: cannot be read ({error})") from error
    assert isinstance(config, DictConfig)
    config.resume = name
    return config

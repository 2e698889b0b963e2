"""From conf/ and a command line to one resolved configuration, and to plain values.

A value out of the environment may be a secret: what is written names the variable instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from ..errors import StudyError
from ..runs.machine import ENVIRONMENT
from ..study import PACKAGE, ROOT, conf_of
from . import guarding, reading

CONF = ROOT / "conf" if (ROOT / "conf").is_dir() else conf_of(PACKAGE)
# hydra.searchpath: ["${conf_of:other_study}"] adds the configurations of another study
OmegaConf.register_new_resolver("conf_of", lambda name: f"file://{conf_of(name)}", replace=True)
guarding.install(CONF)
_is_naming = ContextVar("_is_naming", default=False)


@contextmanager
def naming_variables() -> Iterator[None]:
    """In here `${oc.env:NAME}` stays as it is, to be read when it is used; see ENVIRONMENT."""
    token = _is_naming.set(True)
    try:
        yield
    finally:
        _is_naming.reset(token)


def _read_variable(name: str, *default: str | None) -> str | None:
    value: str | None = oc.env(name, *default)
    if _is_naming.get() and name not in ENVIRONMENT and value is not None:
        return "${oc.env:" + name + "}" if (value,) != default else value
    return value


OmegaConf.register_new_resolver("oc.env", _read_variable, replace=True)


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """The configuration of a run, as `python run.py` would see it. For tests and notebooks."""
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return hydra.compose(config_name, overrides=list(overrides))


def composed_of(overrides: Sequence[str]) -> tuple[list[Path], dict[str, str | None]]:
    """What a command line is composed of: this job's, or that of what was typed.

    Returns:
        The folders with YAML files, and the option that is taken of each group.
    """
    if HydraConfig.initialized():
        found = HydraConfig.get().runtime
    else:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            composed = hydra.compose("config", list(overrides), return_hydra_config=True)
        found = composed.hydra.runtime
    folders = [Path(item.path) for item in found.config_sources if item.schema == "file"]
    return folders, {str(key): value for key, value in found.choices.items()}


def compose_job(context: HydraContext, sweep: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a job of a sweep, not yet resolved; from now on Hydra knows that job."""
    composed = context.config_loader.load_sweep_config(sweep, list(overrides))
    HydraConfig.instance().set_config(composed)
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def to_values(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain dictionaries, lists and values."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def from_values(values: Mapping[str, Any]) -> DictConfig:
    """A configuration from plain values, such as those of a record."""
    return OmegaConf.create(dict(values))


def to_record(config: DictConfig) -> dict[str, Any]:
    """The same, to be written: a variable of the environment by its name."""
    with naming_variables():
        return to_values(config)


def to_yaml(values: Any) -> bytes:
    """Plain values or a configuration, resolved, as YAML; variables by their names."""
    with naming_variables():
        return OmegaConf.to_yaml(values, resolve=True).encode()


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file that a program wrote, of any length."""
    return yaml.load(path.read_bytes(), Loader=reading.LOADER)


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Every key of plain values, groups too, with dots; and what it holds."""
    flat: dict[str, Any] = {}
    if isinstance(node, dict):
        for key, value in node.items():
            flat |= {f"{prefix}{key}": value, **flatten(value, f"{prefix}{key}.")}
    return flat


def known_keys(overrides: Sequence[str]) -> list[str]:
    """The keys of the options that were typed, such as model=linear."""
    options = []
    for item in overrides:
        key, _, value = item.partition("=")
        if (CONF / key).is_dir():
            options.append(f"{key}={value.partition(',')[0]}")
    with suppress(HydraException, StudyError):  # an option that is no name, for example
        return list(flatten(OmegaConf.to_container(compose(options))))
    return []


def typed_overrides() -> list[str]:
    """What was typed after `python run.py`, or its equivalent in this job of a sweep."""
    typed: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)  # ${...} is left as it is
    return list(typed)

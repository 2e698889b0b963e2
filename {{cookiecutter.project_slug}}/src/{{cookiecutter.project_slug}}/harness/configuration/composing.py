"""From conf/ and a command line to one resolved configuration, and to plain values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ..files import write_atomically
from ..study import PACKAGE, ROOT, conf_of

CONF = ROOT / "conf" if (ROOT / "conf").is_dir() else conf_of(PACKAGE)
# hydra.searchpath: ["${conf_of:other_study}"] adds the configurations of another study
OmegaConf.register_new_resolver("conf_of", lambda name: f"file://{conf_of(name)}", replace=True)


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """The configuration of a run, as `python run.py` would see it. For tests and notebooks."""
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return hydra.compose(config_name, overrides=list(overrides))


def to_values(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain dictionaries, lists and values."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def to_yaml(values: Any) -> bytes:
    """Plain values or a configuration, resolved, as YAML."""
    return OmegaConf.to_yaml(values, resolve=True).encode()


def write_config(config: DictConfig, folder: Path) -> None:
    """Writes config.yaml, resolved, into a run's folder."""
    write_atomically(folder / "config.yaml", to_yaml(config))


def keys_of(node: Any, prefix: str = "") -> list[str]:
    """Every key of a configuration, groups too, with dots."""
    keys = []
    if isinstance(node, dict):
        for key, value in node.items():
            keys += [f"{prefix}{key}", *keys_of(value, f"{prefix}{key}.")]
    return keys


def known_keys(overrides: Sequence[str]) -> list[str]:
    """The keys of the options that were typed, such as model=linear."""
    options = []
    for item in overrides:
        key, _, value = item.partition("=")
        if (CONF / key).is_dir():
            options.append(f"{key}={value.partition(',')[0]}")
    return keys_of(OmegaConf.to_container(compose(options)))


def typed_overrides() -> list[str]:
    """What was typed after `python run.py`, or its equivalent in this job of a sweep."""
    return list(HydraConfig.get().overrides.task)

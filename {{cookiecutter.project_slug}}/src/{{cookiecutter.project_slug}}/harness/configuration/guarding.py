"""What Hydra may do on its own: it calls what its configuration names, and writes where it says.

Its callbacks, launcher, sweeper and logging are named by strings, which anybody can type; they are
looked at when they are composed, before anything of them is called.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from ..errors import StudyError
from ..ranks import num_ranks
from ..runs.machine import ENVIRONMENT
from ..study import allowed_targets
from .checking import bind
from .reading import check_files
from .targets import find

PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")
SCHEMES = ("", "file", "structured")
PACKAGES = ("pkg://hydra.", "pkg://hydra_plugins.")  # any other would be imported
CALLED = ("callbacks", "launcher", "sweeper")
NAMED = ("hydra.launcher._target_", "hydra.sweeper._target_")
SEARCH = f"{__package__}.searching.Search"
OWN = {  # those of this library, which Hydra does not know, and where each may be named
    SEARCH: "hydra.sweeper",
    f"{__package__}.launchers.SlurmLauncher": "hydra.launcher",
    f"{__package__}.launchers.KubernetesLauncher": "hydra.launcher",
}
LOGGING = ("hydra_logging", "job_logging")
CLASSES = (
    "logging.Formatter",
    "logging.NullHandler",
    "logging.StreamHandler",
    "colorlog.ColoredFormatter",
)
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
# Each run makes a folder of its own; Hydra would write over what is there.
FIXED = {"run.dir": ".", "sweep.dir": "runs", "sweep.subdir": ".", "output_subdir": None}
FIXED |= {"job.chdir": None}
_load, _initialize = ConfigLoaderImpl.load_configuration, ConfigRepository.initialize_sources
_instantiate = Plugins._instantiate  # pylint: disable=protected-access


def install(folder: Path) -> None:
    """From now on, what Hydra composes of a folder in this process is looked at."""

    def load(
        loader: ConfigLoaderImpl,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        **named: bool,
    ) -> DictConfig:
        check_files(folder)
        check_choices(folder, overrides)
        try:
            config = _load(loader, config_name, overrides, run_mode, **named)
        except (AttributeError, TypeError, ValueError) as error:  # not what Hydra expects there
            raise _explain(error, overrides, loader.repository.group_exists) from error
        check_hydra(config.hydra)
        if run_mode == RunMode.MULTIRUN:
            check_ranks(config.hydra)
            params = config.hydra.sweeper.get("params") or {}
            typed = [*overrides, *(f"{key}={val}" for key, val in params.items())]
            check_sweep(folder, typed, is_grid=config.hydra.sweeper.get("_target_") != SEARCH)
        return config

    def initialize(repository: ConfigRepository, config_search_path: ConfigSearchPath) -> None:
        for path in (item.path or "" for item in config_search_path.get_path()):
            scheme = path.rpartition("://")[0]
            if scheme not in SCHEMES and not f"{path}.".startswith(PACKAGES):
                raise StudyError(f"{path}: must be a folder; type file://FOLDER")
            if scheme in ("", "file") and Path(path.removeprefix("file://")) != folder:
                check_files(Path(path.removeprefix("file://")))
        _initialize(repository, config_search_path)

    def rerun(path: str, _overrides: list[str]) -> NoReturn:
        raise StudyError(f"{path}: is a pickle, which can call anything; type the run's command")

    def instantiate(plugins: Plugins, config: DictConfig) -> Plugin:
        target = config.get("_target_")
        if target not in OWN:
            return _instantiate(plugins, config)
        module, _, name = target.rpartition(".")
        found = getattr(importlib.import_module(module), name)  # it imports this file
        bind(config, getattr(found, "Keys", found), OWN[target])
        keys: Any = OmegaConf.to_container(config, resolve=True)
        plugin: Plugin = found(**{key: value for key, value in keys.items() if key != "_target_"})
        return plugin

    setattr(Plugins, "_instantiate", instantiate)
    setattr(sys.modules["hydra.main"], "_get_rerun_conf", rerun)  # of --experimental-rerun
    setattr(ConfigLoaderImpl, "load_configuration", load)
    setattr(ConfigRepository, "initialize_sources", initialize)


def _explain(
    error: Exception, overrides: Sequence[str], is_group: Callable[[str], bool]
) -> StudyError:
    """Names what was typed and cannot be composed."""
    keys = {item: item.partition("=")[0] for item in overrides}
    keys = {item: key for item, key in keys.items() if key != "hydra.mode"}
    if "Config group" in str(error):
        wrong, said = [item for item, key in keys.items() if is_group(key)], str(error)
    else:
        parts = set(re.findall(r"'(\w+)'", str(error)))
        wrong = [item for item, key in keys.items() if parts & {*key.split(".")}] or [*keys]
        said = "a key inside a list or a value cannot be set"
    return StudyError(f"{' '.join(wrong) or 'conf'}: {said}")


def check_choices(folder: Path, overrides: Sequence[str]) -> None:
    """Refuses what names no file of a group.

    Raises:
        StudyError: names the group and its files.
    """
    for item in overrides:
        key, _, value = item.lstrip("+").partition("=")
        names = re.split(r"[\[\],\s]+", value)
        wrong = [name for name in names if name == "null" or "{" in name or ".." in name.split("/")]
        if (wrong or not any(names)) and "=" in item and _options(folder, key):
            known = ", ".join(_options(folder, key))
            raise StudyError(f"{key}={value}: there is no such option; there are: {known}")


def _options(folder: Path, group: str) -> list[str]:
    return sorted(path.stem for path in (folder / group).glob("*.yaml")) if group else []


def check_sweep(folder: Path, overrides: Sequence[str], *, is_grid: bool = True) -> None:
    """Refuses a sweep over nothing, which would end at once and look like a success.

    A grid has no intervals.

    Raises:
        StudyError: names the key.
    """
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_interval_sweep():
            if is_grid:
                raise StudyError(f"{override.input_line}: type search=tpe or search=random too")
        elif override.is_sweep_override():
            value = override.value()
            names = _options(folder, override.get_key_element())
            found = value.filter(names) if isinstance(value, Glob) else override.sweep_iterator()
            if not any(True for _ in found):
                raise StudyError(f"{override.input_line}: has no value; nothing would be run")


def check_ranks(config: DictConfig) -> None:
    """Refuses a sweep that the ranks of one run would not do alike.

    Raises:
        StudyError: names the key.
    """
    for name in ("launcher", "sweeper"):
        if num_ranks() > 1 and ".core_plugins." not in config[name]["_target_"]:
            hint = "start it without torchrun: launcher=slurm gives each job its ranks"
            raise StudyError(f"hydra/{name}: not in a process of several ranks; {hint}")


def require_sweep() -> None:
    """Refuses a launcher or a search of this library where Hydra does not ask it.

    Raises:
        StudyError: there is no -m.
    """
    config = HydraConfig.get()
    for name, group in {"launcher": "launcher", "sweeper": "search"}.items():
        if config.mode == RunMode.RUN and getattr(config, name)["_target_"] in OWN:
            words = f"{group}={config.runtime.choices[group]}"
            raise StudyError(f"{words}: type it after -m, as: python run.py -m {words} ...")


def check_hydra(config: DictConfig) -> None:
    """Refuses what Hydra must not call, and folders that it must not write to.

    Raises:
        StudyError: names the key.
    """
    if not isinstance(config.verbose, (bool, str, ListConfig)):
        raise StudyError(f"hydra.verbose={config.verbose}: must be true, false or names of loggers")
    for key, value in FIXED.items():
        found = OmegaConf.select(config, key)
        if found != value and (value is not None or found):
            hint = "; to choose a run's folder, type run_dir=FOLDER" if key == "run.dir" else ""
            shown = "null" if value is None else value
            raise StudyError(f"hydra.{key}={found}: must be {shown}{hint}")
    for name, value in config.job.env_set.items():
        if name not in ENVIRONMENT and os.environ.get(name) != value:
            raise StudyError(f"hydra.job.env_set.{name}: type {name}=VALUE before the command")
    for path, key, value in _values(config, CALLED):
        # of a launcher or sweeper Hydra itself asks whether it is a plugin; not of what is inside
        is_own = key == "_target_" and OWN.get(value) == path.removesuffix("._target_")
        is_plugin = is_own or (path in NAMED and str(value).startswith(PLUGINS))
        if key == "_target_" and not is_plugin:
            find(value, path.removesuffix("._target_"), allowed_targets(added=True))
    for path, key, value in _values(config, LOGGING):
        wrong = key in ("()", "class") and value not in CLASSES
        if wrong or ("://" in str(value) and value not in STREAMS):
            raise StudyError(f"{path}={value}: must be one of {', '.join((*CLASSES, *STREAMS))}")


def _values(node: Any, keys: Any, path: str = "hydra") -> Iterator[tuple[str, str, Any]]:
    """The values below some keys of a node, each with its path and its key."""
    for key in keys:
        if OmegaConf.is_missing(node, key):
            continue
        value, place = node[key], f"{path}.{key}"
        if not isinstance(value, (DictConfig, ListConfig)):
            yield place, str(key), value
        elif OmegaConf.is_interpolation(node, key):
            raise StudyError(f"{place}: must be typed out, not " "${taken from elsewhere}")
        else:
            inner = value if isinstance(value, DictConfig) else range(len(value))
            yield from _values(value, inner, place)

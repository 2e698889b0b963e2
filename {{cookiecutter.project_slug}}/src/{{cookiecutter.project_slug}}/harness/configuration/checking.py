"""Every key, type and range of a configuration, checked before anything is written."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import StudyError
from ..training.settings import Settings
from .messages import suggest
from .targets import locate, targets


@dataclass
class Knobs:
    """The keys of conf/config.yaml and their types."""

    data: Any
    model: Any
    training: Any
    metrics: Any
    seed: int
    device: str
    deterministic: bool
    num_threads: int
    test: bool
    preflight: bool
    run_dir: str | None
    replace: bool
    force: bool
    resume: str | None
    description: str | None
    note: str | None
    group: str | None
    price_per_hour: float | None
    tolerance: Any
    rerun_of: str | None


@dataclass
class Tolerance:
    """How far a number of a run may differ on another machine."""

    relative: float
    absolute: float


@dataclass
class Model:
    """The keys of conf/model/: the network, the learning rate that it was tuned for, and which
    checks do not apply to it, with the reason."""

    network: Any
    lr: float
    opt_outs: dict[str, str] = field(default_factory=dict)


def check_config(config: DictConfig) -> None:
    """Checks every key and type, and converts values to their types.

    Raises:
        StudyError: names the key, the value and what it must be.
    """
    bind(config, Knobs, "")
    for key in ("data", "model", "training", "metrics"):
        require(isinstance(config[key], DictConfig), key, config[key], "a group of keys")
    for key in ("model.network", "training.trainer", "training.optimizer", "training.schedule"):
        require("_target_" in (OmegaConf.select(config, key) or {}), key, None, "given a _target_")
    bind(config.model, Model, "model")
    require(0 <= config.seed < 2**63, "seed", config.seed, "from 0 to 2^63 - 1")
    require(config.model.lr > 0, "model.lr", config.model.lr, "above 0")
    folder = config.data.get("folder")
    require(isinstance(folder, str), "data.folder", folder, "the path of a folder")
    require(config.num_threads > 0, "num_threads", config.num_threads, "at least 1")
    price = config.price_per_hour
    require((price or 0) >= 0, "price_per_hour", price, "at least 0")
    require(isinstance(config.tolerance, DictConfig), "tolerance", config.tolerance, "two keys")
    bind(config.tolerance, Tolerance, "tolerance")
    bind(config.training, Settings, "training", also=("trainer", "optimizer", "schedule"))
    for path, node in targets(config):
        bind(node, locate(node["_target_"], path), path, partial=True)
    read_settings(config)


def read_settings(config: DictConfig) -> Settings:
    """The part of `config.training` that the trainer reads.

    Raises:
        StudyError: a value is out of its range.
    """
    try:
        return Settings(**{item.name: config.training[item.name] for item in fields(Settings)})
    except ValueError as error:
        raise StudyError(f"training.{error}") from error


def require(condition: bool, path: str, value: object, bound: str) -> None:
    """Refuses a value that is out of its range."""
    if not condition:
        raise StudyError(f"{path}={value}: must be {bound}")


def bind(
    node: DictConfig,
    function: Callable[..., Any],
    path: str,
    *,
    also: Sequence[str] = (),
    partial: bool = False,
) -> None:
    """Compares the keys of a node with the arguments of a function, and converts their types.

    Args:
        node: A part of the configuration.
        function: What its keys are the arguments of, letter for letter.
        path: Of the node, for messages.
        also: Keys that are allowed besides.
        partial: Whether the program gives further arguments itself.

    Raises:
        StudyError: a key is unknown or missing, or its value has another type.
    """
    parameters = inspect.signature(function).parameters
    names = [name for name, item in parameters.items() if item.kind.name != "VAR_KEYWORD"]
    prefix = f"{path}." if path else ""
    try:
        hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except NameError:  # some of torch's annotations name what is not there
        hints = {}
    for key in [str(key) for key in node if not str(key).startswith("_")]:
        if key in names:
            value = convert(node[key], hints.get(key, Any), f"{prefix}{key}")
            if value is not node[key]:
                node[key] = value
        elif key not in also and len(names) == len(parameters):
            raise StudyError(f"{prefix}{key}: there is no such key{suggest(key, names)}")
    for name in names:
        if parameters[name].default is inspect.Parameter.empty and name not in node and not partial:
            raise StudyError(f"{prefix}{name}: is missing")


def convert(value: Any, hint: Any, path: str) -> Any:
    """A value in the type of its annotation; unchanged where OmegaConf has no such type."""
    known = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if hint is Any or (
        isinstance(value, (bool, int, float, str, NoneType)) and type(value) in known
    ):
        return value  # OmegaConf does the same, a thousand times slower
    if get_origin(hint) is Sequence:
        hint = list[get_args(hint)]  # type: ignore[misc]  # the one sequence that OmegaConf knows
    try:
        schema = OmegaConf.structured(make_dataclass("Argument", [("value", hint)]))
    except (OmegaConfBaseException, TypeError, ValueError):
        return value
    try:
        return OmegaConf.merge(schema, {"value": value}).value
    except OmegaConfBaseException as error:
        name = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
        raise StudyError(f"{path}={value}: must be of type {name}") from error

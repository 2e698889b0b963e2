"""Every key, type and range of a configuration, checked before anything is written."""

import difflib
import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import StudyError, suggest
from ..training.settings import Group, Settings
from .targets import check_form, locate, targets


@dataclass
class Knobs:
    """The keys of conf/config.yaml and their types."""

    data: Any
    model: Any
    training: Any
    report: Any
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
    task: str = "train"  # younger than some studies
    initial_weights: Any = None  # younger than some studies
    debug: str | None = None  # younger than some studies
    tracker: Any = None  # younger than some studies


@dataclass
class Tolerance:
    """How far a number of a run may differ on another machine."""

    relative: float
    absolute: float


@dataclass
class InitialWeights:
    """The keys of initial_weights: an earlier run or a file, and what of it is not taken."""

    run: str | None = None
    file: str | None = None
    drop: list[str] = field(default_factory=list)
    strict: bool = True


@dataclass
class Model:
    """The keys of conf/model/: the network, the learning rate that it was tuned for, and which
    checks do not apply to it, with the reason."""

    network: Any
    lr: float
    opt_outs: dict[str, str] = field(default_factory=dict)


@dataclass
class Prepare:
    """The keys of data.prepare, where a reader is named: how splits are drawn, and the class that
    is fitted on the training rows, if any. Those of SHARES must be there if `split` takes them."""

    read: Any
    encode: Any = None
    split: Any = None
    split_seed: int = 0
    validation_fraction: float = 0
    test_fraction: float = 0


SHARES = ("split_seed", "validation_fraction", "test_fraction")


@dataclass
class MetricChoice:
    """The keys of a metric in data.metrics: its class, its direction, and how it is shown."""

    compute: Any
    higher_is_better: bool
    unit: str | None = None
    digits: int = 4


@dataclass
class Padding:
    """The keys of data.padding: which fields are cut to the longest row of a batch, by what mask,
    and how many batches are sorted by length together."""

    mask: str
    fields: list[str]
    bucket_size: int | None = None


@dataclass
class Report:
    """The keys of report."""

    split: str


GROUPS = ("data", "model", "training", "report", "data.metrics")
BUILT = ("model.network", "training.trainer", "training.optimizer", "training.schedule")
# the keys of conf/data/
FREE = ("folder", "prepare", "padding", "augmentation", "metrics", "fixture", "spec")
MAX_THREADS = 4096
MAX_DIGITS = 12
TASKS = ("train", "find_lr")
DEBUG = ("overfit", "brief", "profile")
SPLITS = ("validation", "test")  # whose numbers may be shown


def check_config(config: DictConfig) -> None:
    """Checks every key and type, and converts values to their types.

    Raises:
        StudyError: names the key, the value and what it must be.
    """
    bind(config, Knobs, "")
    for key in GROUPS:
        value = OmegaConf.select(config, key)
        require(isinstance(value, DictConfig), key, value, "a group of keys")
    for key in BUILT:
        _require_target(config, key)
    bind(config.report, Report, "report")
    require(config.report.split in SPLITS, "report.split", config.report.split, " or ".join(SPLITS))
    bind(config.model, Model, "model")
    task = config.get("task", "train")
    require(task in TASKS, "task", task, " or ".join(TASKS))
    debug = config.get("debug")
    require(
        debug in (None, *DEBUG), "debug", debug, f"null, {', '.join(DEBUG[:-1])} or {DEBUG[-1]}"
    )
    require(debug is None or task == "train", "task", task, f"train, with debug={debug}")
    require(0 <= config.seed < 2**63, "seed", config.seed, "from 0 to 2^63 - 1")
    require(0 < config.model.lr < 1e38, "model.lr", config.model.lr, "above 0, and a float32")
    threads = config.num_threads
    require(0 < threads <= MAX_THREADS, "num_threads", threads, f"from 1 to {MAX_THREADS}")
    price = config.price_per_hour
    require(0 <= (price or 0) < math.inf, "price_per_hour", price, "at least 0")
    folder = config.run_dir
    own = not folder or (Path(folder).name not in ("", "..") and Path(folder) != Path("runs"))
    require(own, "run_dir", folder, "a folder of its own, such as runs/NAME")
    require(isinstance(config.tolerance, DictConfig), "tolerance", config.tolerance, "two keys")
    bind(config.tolerance, Tolerance, "tolerance")
    for key, value in config.tolerance.items():
        require(value >= 0, f"tolerance.{key}", value, "at least 0")
    check_initial_weights(config.get("initial_weights"))
    also = ("trainer", "optimizer", "schedule", "callbacks")
    bind(config.training, Settings, "training", also=also)
    _check_callbacks(config)
    groups = config.training.get("groups") or {}
    require(isinstance(groups, (dict, DictConfig)), "training.groups", groups, "a group of keys")
    for name, node in groups.items():
        path = f"training.groups.{name}"
        require(isinstance(node, DictConfig), path, node, "such as {parameters: [body], lr: 0.1}")
        bind(node, Group, path)
    read_settings(config)
    # not the tracker: a run is read where it is not installed
    _check_targets(OmegaConf.masked_copy(config, [str(key) for key in config if key != "tracker"]))
    check_data(config)


def _check_callbacks(config: DictConfig) -> None:
    """What is called during training: each has a name and a class."""
    callbacks = config.training.get("callbacks")
    is_group = callbacks is None or isinstance(callbacks, DictConfig)
    require(is_group, "training.callbacks", callbacks, "a group of keys")
    for name in callbacks or ():
        _require_target(config, f"training.callbacks.{name}")


def check_tracker(config: DictConfig) -> None:
    """Checks what is told of a run, if anything, and that its package is installed.

    Raises:
        StudyError: names the key, the value and what it must be; or says what to install.
    """
    if config.get("tracker") is not None:
        _require_target(config, "tracker")
        _check_targets(config.tracker, "tracker")


def check_initial_weights(node: Any) -> None:
    """Checks that it is null, or names an earlier run or a file.

    Raises:
        StudyError: names the key, the value and what it must be.
    """
    if node is None:
        return
    require(
        isinstance(node, DictConfig), "initial_weights", node, "null, or such as {run: runs/NAME}"
    )
    bind(node, InitialWeights, "initial_weights")
    named = [key for key in ("run", "file") if node.get(key)]
    require(len(named) == 1, "initial_weights", node, "given a run or a file, and not both")


def check_data(config: DictConfig) -> None:
    """Checks what concerns the data alone: all that preparing them needs.

    Raises:
        StudyError: names the key, the value and what it must be.
    """
    data = config.get("data")
    if not isinstance(data, DictConfig):
        raise StudyError(f"data={data}: must be a group of keys")
    require(isinstance(data.get("folder"), str), "data.folder", data.get("folder"), "a path")
    for key in [key for key in ("prepare", "spec") if key in data]:
        present = isinstance(data[key], DictConfig) or (key == "spec" and data[key] is None)
        require(present, f"data.{key}", data[key], "a group of keys")
    if "read" in (data.get("prepare") or {}):  # a stage of one's own may do without
        _require_target(config, "data.prepare.read")
        bind(data.prepare, Prepare, "data.prepare")
        if data.prepare.get("encode") is not None:
            _require_target(config, "data.prepare.encode")
        _check_split(config)
    if data.get("augmentation") is not None:
        _require_target(config, "data.augmentation")
    if isinstance(data.get("metrics"), DictConfig):
        _check_metrics(config)
    if data.get("padding") is not None:
        _check_padding(data.padding)
    _check_targets(data, "data")
    _refuse_nan(OmegaConf.to_container(config, resolve=False), "")


def _check_split(config: DictConfig) -> None:
    """What divides the rows, and that no value beside it is missing or idle."""
    prepare = config.data.prepare
    if prepare.get("split") is not None:
        _require_target(config, "data.prepare.split")
    taken = shares_of(prepare)
    for key in SHARES:
        if key in taken and key not in prepare:
            raise StudyError(f"data.prepare.{key}: is missing")
        if key in prepare and key not in taken:
            raise StudyError(f"data.prepare.{key}: data.prepare.split takes none; remove it")


def shares_of(prepare: DictConfig) -> list[str]:
    """Those keys of `data.prepare` that its `split` takes: all, where none is named."""
    if prepare.get("split") is None:
        return list(SHARES)
    target = locate(prepare.split["_target_"], "data.prepare.split")
    return [key for key in SHARES if key in inspect.signature(target).parameters]


def _check_metrics(config: DictConfig) -> None:
    """Each metric of the data: what computes it, and how it is shown."""
    for name, choice in config.data.metrics.items():
        path = f"data.metrics.{name}"
        require(isinstance(choice, DictConfig), path, choice, "a group of keys")
        require(str(name) != "loss", path, choice, "called otherwise: each run has its loss")
        bind(choice, MetricChoice, path)
        _require_target(config, f"{path}.compute")
        digits = choice.get("digits", 0)
        require(0 <= digits <= MAX_DIGITS, f"{path}.digits", digits, f"from 0 to {MAX_DIGITS}")


def describe_report(config: DictConfig) -> dict[str, Any]:
    """What the report shows of an experiment: the split, and each metric with how it is shown."""
    metrics = {}
    for name, choice in config.data.metrics.items():
        full = MetricChoice(**choice)
        metrics[str(name)] = {
            "higher_is_better": full.higher_is_better,
            "unit": full.unit,
            "digits": full.digits,
        }
    return {"split": config.report.split, "metrics": metrics}


def _check_padding(node: Any) -> None:
    """What is cut to the longest row of a batch."""
    require(isinstance(node, DictConfig), "data.padding", node, "a group of keys")
    bind(node, Padding, "data.padding")
    size = node.get("bucket_size")
    require(size is None or size > 0, "data.padding.bucket_size", size, "at least 1, or null")


def _require_target(config: DictConfig, key: str) -> None:
    node = OmegaConf.select(config, key)
    is_named = isinstance(node, DictConfig) and "_target_" in node
    require(is_named, key, node, "given a _target_")


def _check_targets(node: DictConfig, path: str = "") -> None:
    """What may be named there, with the arguments that it takes."""
    for place, inner in targets(node, path):
        check_form(inner, place)
        target = locate(inner["_target_"], place)
        if any(base.__name__ == "LBFGS" for base in getattr(target, "__mro__", ())):
            hint = "override train_step in a Trainer of your own (training.trainer)"
            raise StudyError(f"{place}: LBFGS evaluates the loss several times a step; {hint}")
        bind(inner, target, place, partial=True)


def _refuse_nan(value: Any, path: str) -> None:
    """A value that is not a number equals nothing, not even itself: such a run is not found."""
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_nan(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            _refuse_nan(item, path)
    else:
        require(value == value, path, value, "a number")  # pylint: disable=comparison-with-itself


def refuse_unused(config: DictConfig, texts: Sequence[str]) -> None:
    """A key of data that nothing takes is a slip of the hand: others may be named freely.

    Args:
        config: Of a run.
        texts: Where `${data.KEY}` may stand: the files of conf/, and what was typed.

    Raises:
        StudyError: names the key.
    """
    used = {name for text in texts for name in re.findall(r"\$\{(?:data\.|\.+)(\w+)", text)}
    for key in map(str, config.data):
        if key not in FREE and key not in used:
            near = difflib.get_close_matches(key, FREE, n=1)
            use = "; to use it, write ${data." + key + "} where it is needed"
            hint = suggest(key, near) if near else use
            raise StudyError(f"data.{key}: there is no such key, and nothing takes it{hint}")


def read_settings(config: DictConfig) -> Settings:
    """The part of `config.training` that the trainer reads.

    Raises:
        StudyError: a value is out of its range.
    """
    values = OmegaConf.to_container(config.training, resolve=True)
    assert isinstance(values, dict)
    known = {item.name: values[item.name] for item in fields(Settings) if item.name in values}
    place = "training"
    try:
        groups = {}
        for name, keys in (known.get("groups") or {}).items():
            place = f"training.groups.{name}"
            groups[name] = Group(**keys)
        place = "training"
        return Settings(**{**known, "groups": groups})
    except ValueError as error:
        raise StudyError(f"{place}.{error}") from error


def require(condition: bool, path: str, value: object, bound: str) -> None:
    """Refuses a value that is out of its range."""
    if not condition:
        raise StudyError(f"{path}={_shorten(value)}: must be {bound}")


def _shorten(value: object) -> str:
    return str(value) if len(str(value)) < 80 else f"{str(value)[:76]} ..."


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
            value = convert(given := node[key], hints.get(key, Any), f"{prefix}{key}")
            if value is not given:  # what comes out of the environment stays where it was
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
        raise StudyError(f"{path}={_shorten(value)}: must be of type {name}") from error

"""The one module that knows Hydra: composes, checks and builds, and turns mistakes into one line.

Configuration is data. What a `_target_` may name is decided here: this package, torch.nn and
torch.optim, by where the object is defined and not only by how it is spelt.
"""

import difflib
import functools
import importlib
import inspect
import logging
import math
import os
import re
import signal
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin, get_type_hints

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import StudyError
from .files import write_atomically
from .provenance import watch_reads
from .records import RESUMABLE, read_record

if TYPE_CHECKING:  # torch takes seconds to import: functions that need it do so themselves
    import torch
    from torch import nn
    from torch.utils.data import Dataset

    from .data import Batch
    from .training import Settings, Trainer

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]  # of the study
ALLOWED = (f"{__package__}.", "torch.nn.", "torch.optim.")
MISTAKES = (StudyError, HydraException, OmegaConfBaseException)
FAILURES = "STUDY_FAILURES"  # the environment variable that names the file of failed jobs


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """The configuration of a run, as `python run.py` would see it. For tests and notebooks."""
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return hydra.compose(config_name, overrides=list(overrides))


def entrypoint(main: Callable[[DictConfig], Any]) -> Callable[[], Any]:
    """Makes a command of a function: composes `conf/config.yaml` with the command line's overrides.

    A person's mistake ends in one line on stderr and exit code 1; `hydra.verbose=true` shows
    the traceback. A sweep goes on when a job fails, and ends with a line for each that did.
    SIGTERM and Ctrl-C end in exit code 75: the same command, typed again, goes on.
    """

    @functools.wraps(main)
    def task(config: DictConfig) -> Any:
        watch_reads(ROOT)
        try:
            return main(config)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                _note_failure(error)
            elif isinstance(error, MISTAKES):
                _leave(explain(error), 1)
            raise

    composed = hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")

    def command() -> Any:
        script = Path(inspect.getfile(main)).resolve()
        if ROOT not in script.parents:
            _leave(f"{script}: this environment belongs to the study in {ROOT}; type: make env", 1)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, instead of printing and leaving
        failures = Path("runs", f".failures-{uuid.uuid4().hex}")
        os.environ[FAILURES] = str(failures.absolute())
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            return composed(task)()
        except KeyboardInterrupt as error:
            again = "the same command, typed again, goes on from there"
            if "force=true" in sys.argv:
                again = "to go on, type resume= and the run's folder"
            _leave(f"{f'interrupted {error}'.rstrip()}; {again}", RESUMABLE)
        except Exception as error:
            if failures.exists():  # a line for each job of the sweep
                _leave(failures.read_text(encoding="utf-8").rstrip().replace("\n", "\nerror: "), 1)
            if isinstance(error, MISTAKES):
                _leave(explain(error), 1)
            raise
        finally:
            with suppress(OSError):  # where nothing can be written, nothing was
                failures.unlink()

    return command


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """SIGTERM, as a scheduler sends it, ends what is going on as Ctrl-C does."""
    raise KeyboardInterrupt("by SIGTERM")


def _note_failure(error: Exception) -> None:
    """Says why a job of a sweep failed, and notes it in a file: the job may be in any process."""
    job = HydraConfig.get().job.num
    line = f"job {job} ({' '.join(typed_overrides())}): {explain(error)}"
    if isinstance(error, MISTAKES):
        log.error("error: %s", line)
    else:
        log.exception("error: %s", line)
    with suppress(OSError), open(os.environ[FAILURES], "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def _leave(message: str, code: int) -> NoReturn:
    """Prints one line, or with `hydra.verbose=true` the traceback too, and exits."""
    if any(item.startswith("hydra.verbose=") and "false" not in item for item in sys.argv):
        traceback.print_exc()
    print(f"error: {message}" if code == 1 else message, file=sys.stderr)
    sys.exit(code)


def explain(error: BaseException) -> str:
    """One line for a mistake: what is wrong, and the nearest right name where there is one."""
    if isinstance(error, StudyError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        if error.options:
            return f"{group}={option}: there is no such option{suggest(option, error.options)}"
    if isinstance(error, OverrideParseException):
        hint = "a value that holds , or { stands in quotes: 'KEY=\"VALUE\"'"
        return f"{error.override}: cannot be read as KEY=VALUE; {hint}"
    text = f"{error}\n{error.__cause__ or ''}"
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1].lstrip("+~")
        return f"{key}: there is no such key{suggest(key, _known_keys())}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = "" if isinstance(error, MISTAKES) else f"{type(error).__name__}: "
    return kind + " ".join(lines[:2])


def suggest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the nearest one, or all if they are few."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; there are: {', '.join(sorted(known))}" if len(known) <= 12 else ""


def _known_keys() -> list[str]:
    """The keys of the options that were typed, such as model=linear."""
    options = []
    for item in sys.argv[1:]:
        key, _, value = item.partition("=")
        if (ROOT / "conf" / key).is_dir():
            options.append(f"{key}={value.partition(',')[0]}")
    return _keys(OmegaConf.to_container(compose(options)))


def _keys(node: Any, prefix: str = "") -> list[str]:
    """Every key of a configuration, branches too, with dots."""
    keys = []
    if isinstance(node, dict):
        for key, value in node.items():
            keys += [f"{prefix}{key}", *_keys(value, f"{prefix}{key}.")]
    return keys


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
    task: str
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


def check(config: DictConfig) -> None:
    """Checks every key and type, before anything is written, and converts values to their types.

    Raises:
        StudyError: names the key, the value and what it must be.
    """
    bind(config, Knobs, "")
    for key in ("data", "model", "training", "metrics"):
        require(isinstance(config[key], DictConfig), key, config[key], "a group of keys")
    for key in ("model.network", "training.optimizer", "training.schedule"):
        require("_target_" in (OmegaConf.select(config, key) or {}), key, None, "given a _target_")
    bind(config.model, Model, "model")
    require(0 <= config.seed < 2**63, "seed", config.seed, "from 0 to 2^63 - 1")
    require(config.model.lr > 0, "model.lr", config.model.lr, "above 0")
    folder = config.data.get("folder")
    require(isinstance(folder, str), "data.folder", folder, "the path of a folder")
    require(config.task in ("train", "check"), "task", config.task, "train or check")
    require(config.num_threads > 0, "num_threads", config.num_threads, "at least 1")
    require(
        (config.price_per_hour or 0) >= 0, "price_per_hour", config.price_per_hour, "at least 0"
    )
    require(isinstance(config.tolerance, DictConfig), "tolerance", config.tolerance, "two keys")
    bind(config.tolerance, Tolerance, "tolerance")
    from .training import Settings

    bind(config.training, Settings, "training", also=("optimizer", "schedule"))
    for path, node in targets(config):
        bind(node, locate(node["_target_"], path), path, partial=True)
    settings(config)


@dataclass
class Tolerance:
    """How far a number of a run may be off on another machine."""

    relative: float
    absolute: float


@dataclass
class Model:
    """The keys of conf/model/: the network, the learning rate that it was tuned for, and which
    checks do not hold for it, with the reason."""

    network: Any
    lr: float
    opt_outs: dict[str, str] = field(default_factory=dict)


def require(condition: bool, path: str, value: object, bound: str) -> None:
    """Refuses a value that is out of its range."""
    if not condition:
        raise StudyError(f"{path}={value}: must be {bound}")


def targets(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Every part of a configuration that names a `_target_`, with its path."""
    if isinstance(node, ListConfig):
        for index, item in enumerate(node):
            yield from targets(item, f"{path}[{index}]")
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key in node:
            yield from targets(node[key], f"{path}.{key!s}".lstrip("."))


def locate(name: str, path: str) -> Callable[..., Any]:
    """The class or function that a `_target_` names.

    Raises:
        StudyError: it does not exist, or is defined outside the allowed packages.
    """
    refused = f"{path}._target_={name}: must be in {', '.join(item + '*' for item in ALLOWED)}"
    if not str(name).startswith(ALLOWED):
        raise StudyError(refused)
    module, _, attribute = name.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise StudyError(f"{path}._target_={name}: there is no module {module}") from error
    target: Callable[..., Any] | None = getattr(found, attribute, None)
    if target is None:
        known = [key for key, value in vars(found).items() if callable(value)]
        hint = suggest(attribute, [key for key in known if not key.startswith("_")])
        raise StudyError(f"{path}._target_={name}: {module} has no {attribute}{hint}")
    # my_study.data.np.save is spelt like ours and is not: ask where it was defined
    if not callable(target) or not f"{getattr(target, '__module__', '')}.".startswith(ALLOWED):
        raise StudyError(refused)
    return target


def bind(
    node: DictConfig,
    function: Callable[..., Any],
    path: str,
    *,
    also: Sequence[str] = (),
    partial: bool = False,
) -> None:
    """Holds the keys of a node against the arguments of a function, and their types.

    Args:
        node: A part of the configuration.
        function: What its keys are the arguments of, letter for letter.
        path: Where the node stands, for messages.
        also: Keys that are allowed besides.
        partial: Whether the program gives further arguments itself.
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
    """A value as its annotation says; what OmegaConf has no type for passes as it is."""
    known = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if hint is Any or (
        isinstance(value, (bool, int, float, str, NoneType)) and type(value) in known
    ):
        return value  # OmegaConf would say the same, a thousand times slower
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


def factory(node: DictConfig, path: str) -> Callable[..., Any]:
    """The `_target_` of a node with its keys filled in, to be called with the rest.

    Raises:
        StudyError: the target, or one inside it, is not allowed.
    """
    for place, inner in targets(node, path):
        locate(inner["_target_"], place)
    made: Callable[..., Any] = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    return made


def build(node: DictConfig | None, path: str, **arguments: Any) -> Any:
    """Calls the `_target_` of a node with its keys and the given arguments; None gives None.

    Raises:
        StudyError: the target is not allowed, or refuses its arguments.
    """
    if node is None:
        return None
    for key in [key for key in arguments if key in node]:
        raise StudyError(f"{path}.{key}: is given by the run itself; drop this")
    try:
        return factory(node, path)(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise StudyError(f"{path}: {error}") from error


def settings(config: DictConfig) -> "Settings":
    """The part of `config.training` that the trainer reads.

    Raises:
        StudyError: a value is out of its range.
    """
    from .training import Settings

    try:
        return Settings(**{item.name: config.training[item.name] for item in fields(Settings)})
    except ValueError as error:
        raise StudyError(f"training.{error}") from error


def build_trainer(config: DictConfig, train: "Dataset[Batch]", device: "torch.device") -> "Trainer":
    """Joins what the configuration names: network, optimizer with the model's rate, schedule."""
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    from .training import Trainer

    model = build(config.model.network, "model.network").to(device)
    lr = config.model.lr
    optimizer = build(
        config.training.optimizer, "training.optimizer", params=model.parameters(), lr=lr
    )
    num_rows = len(train)  # type: ignore[arg-type]
    num_steps = config.training.num_epochs * math.ceil(num_rows / config.training.batch_size)
    # what only a run knows goes to a schedule that takes it and whose YAML leaves it open
    known = {"max_lr": lr, "total_steps": num_steps, "T_max": num_steps}
    node = config.training.schedule
    takes = inspect.signature(locate(node["_target_"], "training.schedule")).parameters
    known = {key: value for key, value in known.items() if key in takes and key not in node}
    scheduler = build(node, "training.schedule", optimizer=optimizer, **known)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise StudyError("training.schedule: must depend on the step alone, not on a metric")
    return Trainer(
        model,
        optimizer=optimizer,
        scheduler=scheduler,
        settings=settings(config),
        metrics={name: factory(node, f"metrics.{name}") for name, node in config.metrics.items()},
        seed=config.seed,
        device=device,
        augmentation=build(config.data.augmentation, "data.augmentation"),
    )


def rebuild(
    values: Mapping[str, Any], train: "Dataset[Batch]", device: "torch.device"
) -> "Trainer":
    """A trainer of plain values, checked and seeded: what `python run.py` makes of them."""
    from .reproducibility import seed_everything

    config = OmegaConf.create(dict(values))
    check(config)
    seed_everything(config.seed)
    return build_trainer(config, train, device)


def make_network(values: Mapping[str, Any]) -> "nn.Module":
    """The network of plain values."""
    made: nn.Module = build(OmegaConf.create(values["model"]["network"]), "model.network")
    return made


def read_fixture(values: Mapping[str, Any]) -> Any:
    """The few rows of `data.fixture`, as `data.prepare.read` reads the whole.

    Raises:
        StudyError: there is no such file, or it is not such a table.
    """
    fixture = values["data"].get("fixture")
    require(isinstance(fixture, str), "data.fixture", fixture, "the path of a small table")
    read = OmegaConf.create({**values["data"]["prepare"]["read"], "path": fixture})
    return build(read, "data.prepare.read")


def chosen(group: str) -> str:
    """Which file of a group this run is configured by, as one would type it."""
    return f"{group}={HydraConfig.get().runtime.choices.get(group)}"


def typed_overrides() -> list[str]:
    """What was typed behind `python run.py`, or stands for it in this job of a sweep."""
    return list(HydraConfig.get().overrides.task)


def to_values(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain dictionaries, lists and values."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def write(config: DictConfig, folder: Path) -> None:
    """Writes config.yaml, resolved, into a run's folder."""
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True).encode())


def settle(config: DictConfig) -> tuple[DictConfig, Path | None]:
    """What this run really does: checked, resolved, and with `resume=` what that run did.

    Returns:
        The configuration, and the folder of the run to resume or None.

    Raises:
        StudyError: names the key, the value and what it must be.
    """
    folder = None if config.resume is None else Path(config.resume)
    if folder is not None:
        config = _of_interrupted(folder)
    elif config.test and not _may_test():
        log.info("the test split is left alone in a sweep; to evaluate it, type test=true")
        config.test = False
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise StudyError(explain(error)) from error
    check(config)
    return config, folder


def _may_test() -> bool:
    """A sweep evaluates the test split only if its command line says so: it would pick by it."""
    asked = any(item.lstrip("+").startswith("test=") for item in typed_overrides())
    return asked or HydraConfig.get().mode != RunMode.MULTIRUN


def _of_interrupted(folder: Path) -> DictConfig:
    """The configuration of a run that has not ended; nothing of it can be changed."""
    others = [item for item in typed_overrides() if not item.startswith("resume=")]
    if others:
        raise StudyError(f"{others[0]}: a resumed run goes on as it began; drop this")
    record = read_record(folder)
    if record.get("status") == "finished" and record.get("ended_by") != "time budget":
        raise StudyError(f"resume={folder}: is finished; its numbers are in {folder}/metrics.json")
    try:
        config = OmegaConf.load(folder / "config.yaml")
    except Exception as error:  # whatever a YAML parser raises
        raise StudyError(f"{folder}/config.yaml: cannot be read ({error})") from error
    assert isinstance(config, DictConfig)
    return config

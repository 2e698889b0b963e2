"""From a checked configuration to objects: network, optimizer, trainer, raw data."""

import functools
import inspect
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ..errors import StudyError
from ..ranks import num_ranks, rank
from ..runs.reads import reads_ignored
from ..runs.source import find_source
from .checking import check_config, read_settings, require, shares_of
from .targets import check_form, locate, targets

if TYPE_CHECKING:  # torch takes seconds to import: functions that need it do so themselves
    import torch
    from torch import nn
    from torch.utils.data import Dataset

    from ..training.prepared import Batch, Split
    from ..training.trainer import Trainer


def factory(node: DictConfig, path: str) -> Callable[..., Any]:
    """The `_target_` of a node with its keys filled in, to be called with the rest.

    Raises:
        StudyError: the target, or one inside it, is not allowed.
    """
    for place, inner in targets(node, path):
        check_form(inner, place)
        locate(inner["_target_"], place)  # each, before the first is called
    values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    made: Callable[..., Any] = _make({**values, "_partial_": True}, path)
    return made


def build(node: DictConfig | None, path: str, **arguments: Any) -> Any:
    """Calls the `_target_` of a node with its keys and the given arguments; None gives None.

    Raises:
        StudyError: the target is not allowed, or refuses its arguments.
    """
    if node is None:
        return None
    for key in [key for key in arguments if key in node]:
        raise StudyError(f"{path}.{key}: is set by the run itself; remove it")
    return _call(factory(node, path), path, arguments)


def _make(value: Any, path: str) -> Any:
    """Plain values, in which each part that names a `_target_` is built, the innermost first."""
    if isinstance(value, list):
        return [_make(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    made = {key: _make(item, f"{path}.{key}") for key, item in value.items()}
    if "_target_" not in made:
        return made
    target, partial = locate(made.pop("_target_"), path), made.pop("_partial_", False)
    return functools.partial(target, **made) if partial else _call(target, path, made)


def _call(function: Callable[..., Any], path: str, arguments: Mapping[str, Any]) -> Any:
    """Calls what a part of the configuration names; an argument that it refuses is a mistake."""
    try:
        return function(**arguments)
    except OSError as error:
        reason = f"{error.filename or 'a file'}: cannot be read ({error.strerror or error})"
        raise StudyError(f"{path}: {reason}") from error
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, EOFError) as error:
        says_little = isinstance(error, (ArithmeticError, LookupError))  # KeyError: 'width'
        reason = repr(error) if says_little else str(error)
        raise StudyError(f"{path}: {' '.join(reason.split())}") from error
    except pickle.UnpicklingError as error:
        raise StudyError(
            f"{path}: its weights file holds more than weights, or is damaged"
        ) from error


def build_trainer(
    config: DictConfig,
    train: "Dataset[Batch]",
    device: "torch.device",
    folder: Path | None = None,
) -> "Trainer":
    """Joins what the configuration names: network, optimizer with the model's rate, schedule.

    Args:
        config: Checked.
        train: The split to train on; its size gives the number of steps.
        device: Where the model runs.
        folder: Where the run writes; None writes nothing. Of several ranks, the first one writes.

    Raises:
        StudyError: a part cannot be built; the message names it.
    """
    from ..training.distributed import synchronize_statistics

    model = _build_network(config.model.network)
    _load_initial_weights(config.get("initial_weights"), model)
    is_distributed = folder is not None and num_ranks() > 1  # a check trains in one process
    if is_distributed:
        model = synchronize_statistics(model, config.training.num_accumulation_steps)
    model = model.to(device)
    optimizer = _build_optimizer(config, model)
    num_rows = len(train)  # type: ignore[arg-type]
    num_steps = config.training.num_epochs * math.ceil(num_rows / config.training.batch_size)
    trainer: Trainer = build(
        config.training.trainer,
        "training.trainer",
        model=model,
        optimizer=optimizer,
        scheduler=_build_schedule(config, optimizer, num_steps),
        settings=read_settings(config),
        metrics={
            name: functools.partial(build, choice.compute, f"data.metrics.{name}.compute")
            for name, choice in config.data.metrics.items()
        },
        higher_is_better={
            name: choice.higher_is_better for name, choice in config.data.metrics.items()
        },
        seed=config.seed,
        device=device,
        folder=folder if rank() == 0 else None,
        augmentation=build(config.data.augmentation, "data.augmentation"),
    )
    trainer.is_distributed = is_distributed
    for name, node in (config.training.get("callbacks") or {}).items():
        path = f"training.callbacks.{name}"
        trainer.callbacks.add(path, build(node, path))
    return trainer


def _load_initial_weights(node: DictConfig | None, model: "nn.Module") -> None:
    """Puts the weights into a fresh model that `initial_weights` names, if it does."""
    from ..training.initial_weights import load_initial_weights, read_weights

    source = find_source(node)  # once more, so that what is loaded is what the run is known by
    if node is None or source is None:
        return
    with reads_ignored():
        weights = read_weights(source.folder / name for name in source.files)
    drop, strict = list(node.get("drop", ())), node.get("strict", True)
    load_initial_weights(model, weights, drop=drop, strict=strict)


def _build_optimizer(config: DictConfig, model: "nn.Module") -> "torch.optim.Optimizer":
    from ..training.groups import divide, optimizer_groups, scale_rates

    node, path = config.training.optimizer, "training.optimizer"
    params = optimizer_groups(divide(model, read_settings(config)))
    optimizer: torch.optim.Optimizer = build(node, path, params=params, lr=config.model.lr)
    scale_rates(optimizer)
    return optimizer


def _build_schedule(
    config: DictConfig, optimizer: "torch.optim.Optimizer", num_steps: int
) -> "torch.optim.lr_scheduler.LRScheduler":
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    node, path = config.training.schedule, "training.schedule"
    # these depend on the run: given to a schedule that has the argument, unless its YAML sets it
    known = {"max_lr": config.model.lr, "total_steps": num_steps, "T_max": num_steps}
    takes = inspect.signature(locate(node["_target_"], path)).parameters
    known = {key: value for key, value in known.items() if key in takes and key not in node}
    try:
        scheduler: Any = build(node, path, optimizer=optimizer, **known)
    except StudyError as error:
        if "momentum" not in str(error):
            raise
        raise StudyError(f"{error}; type +{path}.cycle_momentum=false") from error
    if isinstance(scheduler, ReduceLROnPlateau):
        raise StudyError(f"{path}: must depend on the step alone, not on a metric")
    made: torch.optim.lr_scheduler.LRScheduler = scheduler
    return made


def rebuild_trainer(
    values: Mapping[str, Any], train: "Dataset[Batch]", device: "torch.device"
) -> "Trainer":
    """A trainer from plain values, checked and seeded, as `python run.py` builds it, but afresh.

    The weights that it would start from may not be there yet.
    """
    from ..training.determinism import seed_everything

    config = OmegaConf.create({**values, "initial_weights": None})
    check_config(config)
    seed_everything(config.seed)
    return build_trainer(config, train, device)


def build_network(values: Mapping[str, Any]) -> "nn.Module":
    """The network of plain values.

    Raises:
        StudyError: it cannot be built, or has a layer of no width.
    """
    return _build_network(OmegaConf.create(values["model"]["network"]))


def _build_network(node: DictConfig) -> "nn.Module":
    from torch.nn.parameter import is_lazy

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element")  # it is refused
        made: nn.Module = build(node, "model.network")
    for name, value in made.named_parameters():
        if not is_lazy(value) and not value.numel():
            raise StudyError(f"model.network: {name} has the shape {list(value.shape)}: no weights")
    return made


def read_raw(config: DictConfig) -> Any:
    """The raw data, as `data.prepare.read` reads them: name to array, an instance a row.

    Of rows that memory does not hold, it is an iterator of such dictionaries.

    Raises:
        StudyError: the reader is not allowed, or refuses what it reads.
    """
    return _read(config.data.prepare.read)


def _read(node: DictConfig) -> Any:
    """What a reader returns; where it is a generator, one whose errors are mistakes of the data."""
    path = "data.prepare.read"
    found = build(node, path)
    if not isinstance(found, Iterator):
        return found
    return iter(lambda: _call(lambda: next(found, None), path, {}), None)


def build_splitter(config: DictConfig) -> Any:
    """What divides the rows: `data.prepare.split`; None where there is none.

    Raises:
        StudyError: it is not allowed, or refuses its arguments.
    """
    prepare = config.data.prepare
    if prepare.get("split") is None:
        return None
    taken = shares_of(prepare)
    return build(prepare.split, "data.prepare.split", **{key: prepare[key] for key in taken})


def build_encoder(config: DictConfig, state: Mapping[str, Any] | None = None) -> Any:
    """What turns raw fields into numbers: `data.prepare.encode`; None where there is none.

    Args:
        config: Checked.
        state: Of one that was fitted; None builds one that is not.

    Raises:
        StudyError: it is not allowed, or refuses its arguments or the state.
    """
    encoder = build(config.data.prepare.get("encode"), "data.prepare.encode")
    if encoder is not None and state is not None:
        _call(encoder.load_state_dict, "data.prepare.encode", {"state": state})
    return encoder


def open_split(config: DictConfig, name: str) -> "Split":
    """A split of the prepared data of a configuration.

    Raises:
        StudyError: they are not prepared.
    """
    from ..training.prepared import Split

    padding = config.data.get("padding")
    plain: Any = None if padding is None else OmegaConf.to_container(padding)
    return Split(config.data.folder, name, plain)


def read_fixture(values: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """The few rows of `data.fixture`, as the whole data are read, their encoder, not fitted, and
    what divides rows.

    Raises:
        StudyError: there is no such file, or it is not such a table.
    """
    fixture = values["data"].get("fixture")
    require(isinstance(fixture, str), "data.fixture", fixture, "the path of a small table")
    read = OmegaConf.create({**values["data"]["prepare"]["read"], "path": fixture})
    config = OmegaConf.create(dict(values))
    return _read(read), build_encoder(config), build_splitter(config)

"""From a checked configuration to objects: network, optimizer, trainer, raw data."""

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from ..errors import StudyError
from .checking import check_config, read_settings, require
from .targets import locate, targets

if TYPE_CHECKING:  # torch takes seconds to import: functions that need it do so themselves
    import torch
    from torch import nn
    from torch.utils.data import Dataset

    from ..training.prepared import Batch
    from ..training.trainer import Trainer


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
        raise StudyError(f"{path}.{key}: is set by the run itself; remove it")
    try:
        return factory(node, path)(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise StudyError(f"{path}: {error}") from error


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
        folder: Where the run writes; None writes nothing.

    Raises:
        StudyError: a part cannot be built; the message names it.
    """
    model = build(config.model.network, "model.network").to(device)
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
        metrics={name: factory(node, f"metrics.{name}") for name, node in config.metrics.items()},
        seed=config.seed,
        device=device,
        folder=folder,
        augmentation=build(config.data.augmentation, "data.augmentation"),
    )
    return trainer


def _build_optimizer(config: DictConfig, model: "nn.Module") -> "torch.optim.Optimizer":
    from torch.optim import LBFGS

    node, path = config.training.optimizer, "training.optimizer"
    if locate(node["_target_"], path) is LBFGS:
        hint = "override train_step in a Trainer of your own (training.trainer)"
        raise StudyError(f"{path}: LBFGS evaluates the loss several times a step; {hint}")
    optimizer: torch.optim.Optimizer = build(
        node, path, params=model.parameters(), lr=config.model.lr
    )
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
    """A trainer from plain values, checked and seeded, as `python run.py` builds it."""
    from ..training.determinism import seed_everything

    config = OmegaConf.create(dict(values))
    check_config(config)
    seed_everything(config.seed)
    return build_trainer(config, train, device)


def build_network(values: Mapping[str, Any]) -> "nn.Module":
    """The network of plain values."""
    made: nn.Module = build(OmegaConf.create(values["model"]["network"]), "model.network")
    return made


def read_raw(config: DictConfig) -> Any:
    """The raw data, as `data.prepare.read` reads them: name to array, an instance a row.

    Raises:
        StudyError: the reader is not allowed, or refuses what it reads.
    """
    return build(config.data.prepare.read, "data.prepare.read")


def read_fixture(values: Mapping[str, Any]) -> Any:
    """The few rows of `data.fixture`, as `data.prepare.read` reads the whole.

    Raises:
        StudyError: there is no such file, or it is not such a table.
    """
    fixture = values["data"].get("fixture")
    require(isinstance(fixture, str), "data.fixture", fixture, "the path of a small table")
    read = OmegaConf.create({**values["data"]["prepare"]["read"], "path": fixture})
    return build(read, "data.prepare.read")

"""Which parameters learn, from which epoch on, and at which rate."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import StudyError
from .patterns import find
from .settings import Settings


@dataclass(frozen=True)
class Part:
    """Parameters of a model that learn together.

    Attributes:
        name: In the history; empty for what no group names.
        factor: Of `model.lr`, at each step of the schedule.
        from_epoch: The first epoch in which they learn; infinite if they are frozen.
        parameters: Of the named parts, those that the model itself has not frozen.
        modules: Those with statistics, such as a batch norm, that are held as long.
    """

    name: str
    factor: float
    from_epoch: float
    parameters: Sequence[nn.Parameter]
    modules: Sequence[nn.Module]


Kind = tuple[str, float, float]  # name, factor and first epoch of a part
FROZEN: Kind = ("", 0.0, math.inf)
REST: Kind = ("", 1.0, 1)


def divide(model: nn.Module, settings: Settings) -> list[Part]:
    """The parts of a model by `training.freeze` and `training.groups`; the rest comes first.

    A name that is frozen and in a group is frozen.

    Raises:
        StudyError: a pattern means nothing, a name is in two groups, or nothing learns at first.
    """
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    owners: dict[str, Kind] = {}
    for pattern in settings.freeze:
        owners |= dict.fromkeys(find(pattern, names, "training.freeze"), FROZEN)
    for key, pattern, kind in _patterns(settings):
        found = find(pattern, names, key)
        for name in found:
            if owners.setdefault(name, kind) not in (kind, FROZEN):
                raise StudyError(f"{key}: {name}: is in two groups")
        if all(owners[name] == FROZEN for name in found):
            raise StudyError(f"{key}: {pattern}: is frozen by training.freeze")
    parts = [
        Part(
            *kind,
            [
                item
                for name, item in model.named_parameters()
                if owners.get(name, REST) == kind and (item.requires_grad or kind == REST)
            ],
            [module for name, module in _with_statistics(model) if owners.get(name, REST) == kind],
        )
        for kind in dict.fromkeys([REST, *owners.values()])
    ]
    if not any(part.parameters for part in parts if part.from_epoch <= 1):
        raise StudyError("training.freeze: no parameter learns in the first epoch")
    return parts


def _patterns(settings: Settings) -> Iterator[tuple[str, str, Kind]]:
    """Of each pattern of a group: the key, the pattern, and what it asks for."""
    for name, group in settings.groups.items():
        key = f"training.groups.{name}.parameters"
        for place, pattern in enumerate(group.parameters, start=1):
            if group.decay is None:
                yield key, pattern, (name, group.lr, group.from_epoch)
            else:  # the last pattern is that nearest to the output
                factor = group.lr * group.decay ** (len(group.parameters) - place)
                yield key, pattern, (f"{name}_{place}", factor, group.from_epoch)


def _with_statistics(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Each module with buffers of its own, and the full name of the first of them."""
    for path, module in model.named_modules():
        for name, _ in module.named_buffers(path, recurse=False):
            yield name, module
            break


def hold(parts: Sequence[Part], epoch: int) -> None:
    """Freezes what does not learn in an epoch, the first being 1; for a model in training mode.

    A frozen module with statistics is in evaluation mode: else a batch norm would go on learning
    them. Dropout of a frozen part stays as it is.
    """
    for part in parts:
        if part.from_epoch > 1:
            learns = epoch >= part.from_epoch
            for parameter in part.parameters:
                parameter.requires_grad_(learns)
            for module in part.modules:
                module.training = learns


def optimizer_groups(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """What an optimizer is given: the parameters of each part that ever learns."""
    learning = [part for part in parts if part.from_epoch < math.inf and part.parameters]
    return [
        {"params": list(part.parameters), **({"factor": part.factor} if part.name else {})}
        for part in learning
    ]


def scale_rates(optimizer: torch.optim.Optimizer) -> None:
    """Lets each group of an optimizer step at the scheduled rate times its `factor`.

    A schedule sees one rate and treats all groups alike, so whatever it is, it keeps their ratio.
    """
    if any("factor" in group for group in optimizer.param_groups):
        optimizer.register_step_pre_hook(_scale)
        optimizer.register_step_post_hook(_restore)


def _scale(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        group["scheduled_lr"], group["lr"] = group["lr"], group["lr"] * group.get("factor", 1.0)


def _restore(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group.pop("scheduled_lr")


def rates(parts: Sequence[Part], scheduled: float, epoch: int) -> dict[str, float]:
    """The columns of the history: `lr`, and of each named part `lr_NAME`, 0 while it is frozen."""
    named = {
        f"lr_{part.name}": scheduled * part.factor if epoch >= part.from_epoch else 0.0
        for part in parts
        if part.name
    }
    return {"lr": scheduled, **named}

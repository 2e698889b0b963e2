"""What a `_target_` may name: its place decides the kind, where it was defined whether it is known.

A configuration is data: it chooses among classes that are made to be chosen, and calls nothing
else. No module is imported whose name is not allowed.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ..errors import StudyError, suggest
from ..study import allowed_targets

# of a harness, what may be named
SPLITS = ("Random", "Stratified", "ByGroup", "ByTime", "Given", "Folds")
HARNESS = (
    *("harness.training.trainer.Trainer", "harness.training.metrics.MeanLoss"),
    "harness.training.schedules.WarmupCosine",
    *(f"harness.training.splits.{name}" for name in SPLITS),
)
TRACKERS = "harness.tracking."  # each file in it is one
TORCH = ("torch.nn.", "torch.optim.")
PROCESSES = "torch.nn.parallel."  # these talk to other devices and machines
MODULE = "torch.nn.Module"
OPTIMIZER = "torch.optim.Optimizer"
SCHEDULE = "torch.optim.lr_scheduler.LRScheduler"
METRIC = "a class with update() and compute()"
SPLITTER = "a class with assign()"
TRACKER = "a class with log() and close()"
METHODS = {METRIC: ("update", "compute"), SPLITTER: ("assign",), TRACKER: ("log", "close")}
OWN = "a class or function of the study's own files"
FUNCTION = "a function of the study's own files"
# Places in a configuration, and what each may name: a subclass of these, or what is described.
PLACES = {
    r"model\.network.*": (MODULE, FUNCTION),
    r"training\.optimizer": (OPTIMIZER,),
    r"training\.schedule": (SCHEDULE,),
    r"training\.callbacks\.[^.\[]+": (OWN,),
    r"training\.trainer": (f"{__package__.rpartition('.')[0]}.training.trainer.Trainer",),
    r"data\.metrics\.[^.\[]+\.compute": (METRIC,),
    r"data\.prepare\.(read|encode)": (OWN,),
    r"data\.prepare\.split": (SPLITTER,),
    r"data\.augmentation": (OWN, MODULE),
    r"tracker": (TRACKER,),
    r".*": (OWN, MODULE, OPTIMIZER, SCHEDULE),  # an argument of one of these
}
# Arguments by which a file becomes code: a pickle may call anything.
PICKLES = {"allow_pickle": True, "weights_only": False}


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


def check_form(node: DictConfig, path: str) -> None:
    """Refuses what is no plain name with plain arguments.

    Raises:
        StudyError: names the key.
    """
    if OmegaConf.is_interpolation(node, "_target_"):
        raise StudyError(f"{path}._target_: must be typed out, not " "${taken from elsewhere}")
    for key, value in node.items():
        hint = "arguments are given by their names"
        if str(key).startswith("_") and key not in ("_target_", "_partial_"):
            raise StudyError(f"{path}.{key!s}: there is no such key; {hint}")
        if key in PICKLES and bool(value) is PICKLES[key]:
            raise StudyError(f"{path}.{key}={value}: a pickle can call anything; keep data as .npy")
    partial = node.get("_partial_", False)
    if not isinstance(partial, bool):
        raise StudyError(f"{path}._partial_={partial}: must be true or false")


def locate(name: Any, path: str) -> Callable[..., Any]:
    """The class or function that a `_target_` names.

    Raises:
        StudyError: it does not exist, is defined elsewhere, or is not what its place takes.
    """
    target = find(name, path, allowed_targets())
    kinds = next(kinds for place, kinds in PLACES.items() if re.fullmatch(place, path, re.DOTALL))
    # who allows a package decides about its functions, which have no kind
    is_added = inspect.isfunction(target) and _name(target).startswith(allowed_targets(added=True))
    if not is_added and not any(_is_a(kind, target) for kind in kinds):
        described = " or ".join(map(_describe, kinds))
        raise StudyError(f"{path}._target_={name}: must name {described}")
    return target


def find(name: Any, path: str, allowed: tuple[str, ...]) -> Callable[..., Any]:
    """The class or function of this name that is defined in an allowed package, and not in others.

    Raises:
        StudyError: there is none.
    """
    if not isinstance(name, str) or not _is_public(name) or not _is_known(name, allowed):
        raise StudyError(_refusal(name, path, allowed))
    module, _, attribute = name.rpartition(".")
    try:
        found = vars(importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name and not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise StudyError(f"{path}._target_={name}: there is no module {module}") from error
    if attribute not in found:
        known = [key for key, value in found.items() if callable(value)]
        hint = suggest(attribute, [key for key in known if not key.startswith("_")])
        raise StudyError(f"{path}._target_={name}: {module} has no {attribute}{hint}")
    target: Any = found[attribute]
    # my_study.data.np.save is spelt like ours and is not: ask where it was defined
    is_made = inspect.isclass(target) or inspect.isfunction(target)
    if not is_made or not _is_known(_name(target), allowed):
        raise StudyError(_refusal(name, path, allowed))
    made: Callable[..., Any] = target
    return made


def _is_a(kind: str, target: Callable[..., Any]) -> bool:
    """Whether a class or function is what a place takes."""
    if kind in (OWN, FUNCTION):
        is_own = not _name(target).startswith(TORCH) and not _is_harness(_name(target))
        return is_own and (kind == OWN or not inspect.isclass(target))
    if kind in METHODS:
        return inspect.isclass(target) and all(hasattr(target, name) for name in METHODS[kind])
    module, _, base = kind.rpartition(".")
    return inspect.isclass(target) and issubclass(
        target, getattr(importlib.import_module(module), base)
    )


def _name(target: Any) -> str:
    """Where a class or function was defined, whatever name it was found under."""
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"


def _is_public(name: str) -> bool:
    return all(part.isidentifier() and not part.startswith("_") for part in name.split("."))


def _is_known(name: str, allowed: tuple[str, ...]) -> bool:
    inside = name.partition(".")[2]
    if _is_harness(name) and inside not in HARNESS and not inside.startswith(TRACKERS):
        return False
    return name.startswith(allowed) and not name.startswith(PROCESSES)


def _is_harness(name: str) -> bool:
    return name.split(".")[1:2] == ["harness"]


def _describe(kind: str) -> str:
    return kind if " " in kind else f"a subclass of {kind}"


def _refusal(name: object, path: str, allowed: tuple[str, ...]) -> str:
    shown = name if str(name).isprintable() else repr(name)
    known = ", ".join(f"{item}*" for item in allowed) or "a package that is allowed"
    hint = "to allow another package, name it under [tool.study] in pyproject.toml"
    return f"{path}._target_={shown}: must be defined in {known}, and not in a harness; {hint}"

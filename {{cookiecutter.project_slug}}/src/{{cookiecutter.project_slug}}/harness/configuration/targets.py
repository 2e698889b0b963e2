"""What a `_target_` may name: decided by where an object is defined, not only by its spelling."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig

from ..errors import StudyError
from ..study import allowed_targets
from .messages import suggest

TRAINER = ".harness.training.trainer.Trainer"  # of a harness, the one thing to be named


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
    if not _is_allowed(str(name)):
        raise StudyError(_refusal(name, path))
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
    defined = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
    if not callable(target) or not _is_allowed(defined):
        raise StudyError(_refusal(name, path))
    return target


def _is_allowed(name: str) -> bool:
    is_harness = name.split(".")[1:2] == ["harness"]
    return name.startswith(allowed_targets()) and (not is_harness or name.endswith(TRAINER))


def _refusal(name: str, path: str) -> str:
    known = ", ".join(f"{item}*" for item in allowed_targets())
    hint = "to allow another package, name it under [tool.study] in pyproject.toml"
    return f"{path}._target_={name}: must be in {known}; {hint}"

"""What a model is given and must give: declared once for a data set, and held against its rows."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ..training.prepared import Batch
from ..training.metrics import IGNORED

KINDS = ("float", "index", "mask", "logits", "probabilities")
TASKS = ("classification", "regression")


@dataclass(frozen=True, kw_only=True)
class Field:
    """A named tensor of a batch, or of a model's outputs.

    Args:
        shape: Of one instance, without the batch: numbers, and names such as `length` for what
            differs from batch to batch; a name stands for the same number everywhere in a batch.
        kind: `float`; `index`, whole numbers from `low` to `high`; `mask`, booleans, true where an
            instance has something; of outputs also `logits` and `probabilities`, class axis last.
        low: The least value; None for none.
        high: The greatest value, itself allowed; None for none.
        mask: The mask that says which positions count; None if all do.
        padding: The value at the other positions.
    """

    shape: Sequence[int | str]
    kind: str = "float"
    low: float | None = None
    high: float | None = None
    mask: str | None = None
    padding: float = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind}: must be one of {', '.join(KINDS)}")
        if self.kind == "index" and None in (self.low, self.high):
            raise ValueError("low, high: an index needs both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low={self.low}: is above high={self.high}")

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value, infinite where there is none."""
        return (
            -math.inf if self.low is None else self.low,
            math.inf if self.high is None else self.high,
        )


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The task of a model.

    Args:
        task: `classification`, where `target` is the index of a class, or `regression`.
        inputs: What `forward` is given, by name; masks too.
        target: What is to be predicted.
        outputs: What `forward` returns besides `loss`, by name; the first is the prediction.
        causal: The input whose positions (its first axis) may not see later ones; None for none.
        opt_outs: The name of a check that does not hold here, and the reason.

    Raises:
        ValueError: says which part contradicts which.
    """

    task: str
    inputs: Mapping[str, Field]
    target: Field
    outputs: Mapping[str, Field]
    causal: str | None = None
    opt_outs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task={self.task}: must be one of {', '.join(TASKS)}")
        if not self.inputs or not self.outputs:
            raise ValueError("inputs, outputs: a task has at least one of each")
        if (self.task == "classification") != (self.target.kind == "index"):
            raise ValueError(f"target: a {self.target.kind} is no target of a {self.task}")
        masks = [name for name, item in self.inputs.items() if item.kind == "mask"]
        for name, item in [*self.inputs.items(), ("target", self.target), *self.outputs.items()]:
            if item.mask is not None and item.mask not in masks:
                raise ValueError(f"{name}.mask={item.mask}: there is no such input of kind mask")
        for name, item in self.outputs.items():
            if item.kind == "probabilities" and tuple(item.shape[-1:]) != (self.num_classes,):
                raise ValueError(f"{name}: the last axis of probabilities is that of the classes")
        if self.causal is not None and not (
            self.causal in self.inputs and self.inputs[self.causal].shape
        ):
            raise ValueError(f"causal={self.causal}: there is no such input with positions")
        for name, reason in self.opt_outs.items():
            if not str(reason or "").strip():
                raise ValueError(f"opt_outs.{name}: needs a reason")

    @property
    def num_classes(self) -> int:
        """Of a classification: how many values the target can take."""
        return int((self.target.high or 0) - (self.target.low or 0)) + 1

    @property
    def prediction(self) -> str:
        """The name of the output that is held against the target."""
        return next(iter(self.outputs))

    @property
    def features(self) -> list[str]:
        """The inputs that carry information: all but what says which positions count."""
        every = [*self.inputs.values(), self.target, *self.outputs.values()]
        masks = {item.mask for item in every}
        return [name for name in self.inputs if name not in masks]

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Spec":
        """Reads a spec from plain values, as they stand in a YAML file.

        Raises:
            ValueError: names the key that is wrong.
        """
        values = dict(values)
        _refuse_unknown(values, cls, "")
        for key in ("inputs", "outputs"):
            read = {name: _field(item, f"{key}.{name}") for name, item in values[key].items()}
            values[key] = read
        values["target"] = _field(values["target"], "target")
        values["opt_outs"] = values.get("opt_outs") or {}
        return cls(**values)

    def check_batch(self, batch: Batch) -> None:
        """Holds a batch against the spec.

        Raises:
            ValueError: names the tensor, what it is and what it must be.
        """
        declared = {**self.inputs, "target": self.target}
        if set(batch) != set(declared):
            raise ValueError(f"has {_names(batch)}; the spec says {_names(declared)}")
        sizes: dict[str, int] = {"batch": len(batch["target"])}
        for name, item in declared.items():
            check_shape(name, item, batch[name], sizes)
            try:
                check_values(item, batch[name], valid(batch, item))
            except ValueError as error:
                raise ValueError(f"`{name}`: {error}") from error

    def check_signature(self, forward: Callable[..., Any]) -> None:
        """Holds the arguments of `forward` against the inputs.

        Raises:
            ValueError: it lacks one, or asks for another.
        """
        parameters = inspect.signature(forward).parameters.values()
        if any(item.kind in (item.VAR_KEYWORD, item.VAR_POSITIONAL) for item in parameters):
            return
        names = {item.name for item in parameters}
        wanted = {item.name for item in parameters if item.default is item.empty}
        if missing := {*self.inputs, "target"} - names:
            raise ValueError(f"forward does not take {_names(missing)}")
        if unknown := wanted - set(self.inputs):
            raise ValueError(f"forward asks for {_names(unknown)}, which must have a default")


def _refuse_unknown(values: Mapping[str, Any], kind: Any, path: str) -> None:
    known = [item.name for item in fields(kind)]
    for key in values:
        if key not in known:
            raise ValueError(f"{path}{key}: there is no such key; there are: {', '.join(known)}")
    needed = {"shape"} if kind is Field else {"task", "inputs", "target", "outputs"}
    for key in sorted(needed - set(values)):
        raise ValueError(f"{path}{key}: is missing")


def _field(values: Mapping[str, Any], path: str) -> Field:
    _refuse_unknown(values, Field, f"{path}.")
    try:
        return Field(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}.{error}") from error


def _names(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def check_shape(name: str, item: Field, values: Tensor, sizes: dict[str, int]) -> None:
    """Holds the shape of a tensor against its field.

    Args:
        name: For the message.
        item: What is declared.
        values: The tensor.
        sizes: What each named axis is in this batch: added to where it is new.

    Raises:
        ValueError: says what the shape is and must be.
    """
    axes = ["batch", *item.shape]
    wanted = "[" + ", ".join(map(str, axes)) + "]"
    fits = len(axes) == values.dim()
    for axis, size in zip(axes, values.shape, strict=False):
        fits = fits and size == (axis if isinstance(axis, int) else sizes.setdefault(axis, size))
    if not fits:
        known = ", ".join(f"{axis} is {sizes[axis]}" for axis in axes if axis in sizes)
        raise ValueError(f"`{name}`: has shape {list(values.shape)}, not {wanted}, where {known}")


def valid(batch: Batch, item: Field) -> Tensor | None:
    """Which positions count, shape [batch, ...]; None if all do."""
    return None if item.mask is None else batch[item.mask].bool()


def over(counted: Tensor, values: Tensor) -> Tensor:
    """A mask with as many axes as the values that it goes along with."""
    return counted.reshape(counted.shape + (1,) * (values.dim() - counted.dim()))


def check_values(item: Field, values: Tensor, counted: Tensor | None = None) -> None:
    """Holds the values of a tensor against its field.

    Raises:
        ValueError: says what was seen and what must be.
    """
    if item.kind == "mask":
        if values.dtype is not torch.bool:
            raise ValueError(f"is {values.dtype}; a mask is torch.bool")
        return
    if values.is_floating_point() == (item.kind == "index"):
        raise ValueError(f"is {values.dtype}; the spec says {item.kind}")
    seen = values if counted is None else values[counted]
    if item.kind == "index":
        seen = seen[seen != IGNORED]
    if not seen.numel():
        return
    if not torch.isfinite(seen).all():
        raise ValueError("holds values that are infinite or not a number")
    least, greatest = float(seen.min()), float(seen.max())
    slack = 0 if item.kind == "index" else 1e-5 * max(1, abs(least), abs(greatest))
    low, high = item.bounds
    if least < low - slack or greatest > high + slack:
        raise ValueError(
            f"goes from {least:.6g} to {greatest:.6g}; the spec says {low:g} to {high:g}"
        )

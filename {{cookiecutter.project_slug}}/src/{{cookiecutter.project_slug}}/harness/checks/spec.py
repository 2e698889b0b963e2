"""The inputs, the target and the outputs of a model: declared once for each data set."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ..training.metrics import IGNORED
from ..training.prepared import Batch

KINDS = ("float", "index", "mask", "logits", "probabilities")
TASKS = ("classification", "regression", "unsupervised")
LOSSES = {"cross_entropy": "classification", "mse": "regression", "mae": "regression"}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A tensor of a batch, or of a model's outputs.

    Args:
        shape: The shape of one instance, without the batch axis: numbers, and names such as
            `length` for sizes that differ between batches. In one batch a name is one number.
        kind: `float`; `index`, integers from `low` to `high`; `mask`, booleans, true where an
            instance has a value. For outputs also `logits` and `probabilities`, class axis last.
        low: The smallest allowed value; None for no bound.
        high: The largest allowed value; None for no bound.
        mask: The input that masks this tensor (true: the position counts); None if all count.
        padding: The value at positions that do not count.
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
        """The smallest and the largest allowed value; infinite where there is no bound."""
        return (
            -math.inf if self.low is None else self.low,
            math.inf if self.high is None else self.high,
        )


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The task of a model.

    Args:
        task: `classification`, where `target` is the index of a class, `regression`, or
            `unsupervised` (an autoencoder, a contrastive loss): without a target.
        inputs: The arguments of `forward`, by name, with the masks and without the target.
        target: The tensor to predict; None if the task is unsupervised.
        outputs: What `forward` returns besides `loss`, by name; the first is the prediction.
        causal: The input of a causal model: an output at a position (first axis) must not depend
            on later positions. None if the model is not causal.
        ordered: The input whose order of positions (first axis) counts: words, not a set.
        loss: What `loss` is the mean of, over all targets that count: `cross_entropy` (of one class
            of several, or of yes and no), `mse` or `mae`. None for any other loss.
        coupled: Whether the loss of a row depends on the other rows of its batch: a contrastive
            loss, or one that balances experts.
        opt_outs: Checks that do not hold here, by name, with the reason.

    Raises:
        ValueError: two parts contradict each other; the message names them.
    """

    task: str
    inputs: Mapping[str, Field]
    outputs: Mapping[str, Field]
    target: Field | None = None
    causal: str | None = None
    ordered: str | None = None
    loss: str | None = None
    coupled: bool = False
    opt_outs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task={self.task}: must be one of {', '.join(TASKS)}")
        if not self.inputs or not self.outputs:
            raise ValueError("inputs, outputs: a task has at least one of each")
        self._check_target()
        masks = [name for name, item in self.inputs.items() if item.kind == "mask"]
        for name, item in [*self.fields.items(), *self.outputs.items()]:
            if item.mask is not None and item.mask not in masks:
                raise ValueError(f"{name}.mask={item.mask}: there is no such input of kind mask")
        for name, item in self.outputs.items():
            wrong = self.target is not None and item.shape[-1:] != (self.num_classes,)
            if item.kind == "probabilities" and name == self.prediction and wrong:
                raise ValueError(f"{name}: the last axis of probabilities is that of the classes")
        for key, axis in (("causal", self.causal), ("ordered", self.ordered)):
            if axis is not None and not (axis in self.inputs and self.inputs[axis].shape):
                raise ValueError(f"{key}={axis}: there is no such input with positions")
        if not isinstance(self.coupled, bool):
            raise ValueError(f"coupled={self.coupled}: must be true or false")
        for name, reason in self.opt_outs.items():
            if not str(reason or "").strip():
                raise ValueError(f"opt_outs.{name}: needs a reason")

    def _check_target(self) -> None:
        """Raises ValueError if target or loss is not one of the task."""
        if self.task == "unsupervised":
            if self.target is not None or self.loss is not None:
                raise ValueError("target, loss: an unsupervised task has neither")
            return
        if self.target is None:
            raise ValueError(f"target: is missing; a {self.task} has one")
        if (self.task == "classification") != (self.target.kind == "index"):
            raise ValueError(f"target: a {self.target.kind} is no target of a {self.task}")
        if self.loss is not None and LOSSES.get(self.loss) != self.task:
            known = ", ".join(name for name, task in LOSSES.items() if task == self.task)
            raise ValueError(f"loss={self.loss}: must be one of {known}, or null for another one")
        if self.loss is not None and self.coupled:
            raise ValueError(f"coupled=true: {self.loss} is not; set loss=null")

    @property
    def fields(self) -> dict[str, Field]:
        """What a batch contains: the inputs, and the target if there is one."""
        return {**self.inputs, **({} if self.target is None else {"target": self.target})}

    @property
    def num_classes(self) -> int:
        """The number of values that the target of a classification can take."""
        return 1 if self.target is None else len(self.labels)

    @property
    def labels(self) -> range:
        """The classes of a classification."""
        assert self.target is not None
        return range(int(self.target.low or 0), int(self.target.high or 0) + 1)

    @property
    def prediction(self) -> str:
        """The name of the output that is compared with the target."""
        return next(iter(self.outputs))

    @property
    def features(self) -> list[str]:
        """The names of the inputs that are not the mask of another field."""
        every = [*self.fields.values(), *self.outputs.values()]
        masks = {item.mask for item in every}
        return [name for name in self.inputs if name not in masks]

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Spec":
        """Makes a spec from plain values, as a YAML file gives them.

        Raises:
            ValueError: a key is unknown, missing or wrong; the message names it.
        """
        values = dict(values)
        _refuse_unknown(values, cls, "")
        for key in ("inputs", "outputs"):
            read = {name: _field(item, f"{key}.{name}") for name, item in values[key].items()}
            values[key] = read
        if values.get("target") is not None:
            values["target"] = _field(values["target"], "target")
        values["opt_outs"] = values.get("opt_outs") or {}
        return cls(**values)

    def check_batch(self, batch: Batch) -> None:
        """Compares the names, shapes, types and ranges of a batch with the spec.

        Raises:
            ValueError: one differs; the message names the tensor and both values.
        """
        if set(batch) != set(self.fields):
            raise ValueError(f"has {_names(batch)}; the spec says {_names(self.fields)}")
        sizes: dict[str, int] = {}
        for name, item in self.fields.items():
            check_shape(name, item, batch[name], sizes)
            try:
                check_values(item, batch[name], valid(batch, item))
            except ValueError as error:
                raise ValueError(f"`{name}`: {error}") from error

    def check_signature(self, forward: Callable[..., Any]) -> None:
        """Compares the arguments of `forward` with the inputs.

        Raises:
            ValueError: `forward` lacks an argument, or requires one that is no input.
        """
        parameters = inspect.signature(forward).parameters.values()
        if any(item.kind in (item.VAR_KEYWORD, item.VAR_POSITIONAL) for item in parameters):
            return
        names = {item.name for item in parameters}
        wanted = {item.name for item in parameters if item.default is item.empty}
        if missing := set(self.fields) - names:
            raise ValueError(f"forward does not take {_names(missing)}")
        if unknown := wanted - set(self.inputs):
            raise ValueError(f"forward requires {_names(unknown)}, which must have a default")


def _refuse_unknown(values: Mapping[str, Any], kind: Any, path: str) -> None:
    known = [item.name for item in fields(kind)]
    for key in values:
        if key not in known:
            raise ValueError(f"{path}{key}: there is no such key; there are: {', '.join(known)}")
    needed = {"shape"} if kind is Field else {"task", "inputs", "outputs"}
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
    """Compares the shape of a tensor with its field.

    Args:
        name: The name of the tensor, for the message.
        item: The field.
        values: The tensor.
        sizes: The size of each named axis in this batch; a new name is added.

    Raises:
        ValueError: the shape differs; the message gives both.
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
    """The mask of a field, shape [batch, ...]: true where a position counts; None if all count."""
    return None if item.mask is None else batch[item.mask].bool()


def expand_mask(counted: Tensor, values: Tensor) -> Tensor:
    """The mask with trailing axes of size 1, so that it broadcasts over the values."""
    return counted.reshape(counted.shape + (1,) * (values.dim() - counted.dim()))


def check_values(item: Field, values: Tensor, counted: Tensor | None = None) -> None:
    """Compares the type and the range of a tensor with its field.

    Raises:
        ValueError: one differs; the message gives both.
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

"""A model under test with rows and a spec, and small functions on batches and outputs."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..training.determinism import mix, seed_everything
from ..training.metrics import IGNORED
from ..training.prepared import Batch
from ..training.spec import Field, Spec, expand_mask, valid
from ..training.trainer import Trainer
from .failures import NotApplicable

Outputs = Mapping[str, Tensor]
Forward = Callable[[nn.Module, Batch], Outputs]
Values = Mapping[str, Any]


def call_by_name(model: nn.Module, batch: Batch) -> Outputs:
    """Calls a model that takes its inputs by name and returns a dictionary."""
    outputs: Outputs = model(**batch)
    return outputs


def call_plain(loss: Callable[[Tensor, Tensor], Tensor], output: str = "logits") -> Forward:
    """For `Case.forward`: calls a module that returns its prediction and no loss.

    Args:
        loss: From prediction and target to a scalar, for example `F.cross_entropy`.
        output: The name of the prediction in the spec.
    """

    def forward(model: nn.Module, batch: Batch) -> Outputs:
        inputs = {name: values for name, values in batch.items() if name != "target"}
        prediction = model(*inputs.values()) if len(inputs) == 1 else model(**inputs)
        outputs = {output: prediction}
        return outputs | ({"loss": loss(prediction, batch["target"])} if "target" in batch else {})

    return forward


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model under test, rows to feed it, and their spec: the argument of every check.

    Args:
        make: Makes the model, with weights drawn from torch's generator: a class, or a function
            without arguments. A module is enough for the checks that need no second model.
        batch: At least 8 rows, with a field `target` if the task has one; better 24, with every
            class.
        spec: The fields of the batch and the outputs of the model.
        name: The model or its configuration, for messages.
        seed: The seed of the weights and of everything that a check draws.
        device: Where the model runs.
        forward: How to call the model; see `call_plain`.
        values: A configuration, as `build` takes it.
        build: Makes a trainer from a configuration, for the checks of training and of knobs.
        splits: `train` and `validation` (and `test`), for the checks of data and training; None
            splits the rows of the batch.
        others: Other values of a knob, by its dotted name, where they cannot be guessed (for a
            number they can).
        idle: Knobs that must not change a number, by dotted name, with the reason.
        contexts: Values of other knobs, or of all `training`, to be tried where a knob has no
            effect otherwise: patience has an effect only if the model stops improving.

    Raises:
        ValueError: the batch is too small.
    """

    make: Callable[[], nn.Module] | nn.Module
    batch: Batch
    spec: Spec
    name: str = "model"
    seed: int = 0
    device: torch.device = torch.device("cpu")
    forward: Forward = call_by_name
    values: Values | None = None
    build: Callable[[Values], Trainer] | None = None
    splits: Mapping[str, Dataset[Batch]] | None = None
    others: Mapping[str, Sequence[Any]] | None = None
    idle: Mapping[str, str] | None = None
    contexts: Sequence[Values] | None = None

    def __post_init__(self) -> None:
        if self.spec.target is not None and "target" not in self.batch:
            raise ValueError("batch: needs a `target`, which the spec declares")
        if self.num_rows < 8:
            raise ValueError("batch: needs at least 8 rows")

    @property
    def num_rows(self) -> int:
        """The number of rows of the batch."""
        return num_rows(self.batch)

    def target(self) -> Field:
        """The field of the target; raises NotApplicable if the task has none."""
        if self.spec.target is None:
            raise NotApplicable("the task has no target")
        return self.spec.target

    def rows(self) -> Batch:
        """A copy of the batch, on the device."""
        return {name: values.clone().to(self.device) for name, values in self.batch.items()}

    def fresh(self, number: int = 0) -> nn.Module:
        """A new model in evaluation mode. Another number gives another seed."""
        seed_everything(mix(self.seed, number))
        model = copy.deepcopy(self.make) if isinstance(self.make, nn.Module) else self.make()
        return model.to(self.device).eval()

    def trained(self, num_steps: int = 3) -> nn.Module:
        """A model after a few steps, in evaluation mode: layers that begin at zero have changed."""
        model = self.fresh()
        for _ in self.train(model, self.rows(), lr=0.01, num_steps=num_steps):
            pass
        return model.eval()

    def train(
        self, model: nn.Module, batch: Batch, *, lr: float, num_steps: int
    ) -> Iterator[Outputs]:
        """Trains on one batch with Adam, in training mode, and yields the outputs of each step."""
        parameters = [item for item in model.parameters() if item.requires_grad]
        if not parameters:
            raise NotApplicable("the model has no trainable parameter")
        optimizer = torch.optim.Adam(parameters, lr=lr)
        for step in range(num_steps):
            seed_everything(mix(self.seed, 1, step))
            model.train()
            optimizer.zero_grad()
            outputs = self.forward(model, batch)
            outputs["loss"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield outputs

    def has_loss(self, batch: Batch) -> bool:
        """Whether `forward` returns a loss: if it gets the target, or if the task has none."""
        return "target" in batch or self.spec.target is None

    def predictions(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The declared outputs for the inputs of a batch, without the target and the loss."""
        outputs = self.outputs(model, without_target(batch))
        return {name: outputs[name] for name in self.spec.outputs}

    def outputs(self, model: nn.Module, batch: Batch, number: int = 0) -> dict[str, Tensor]:
        """The declared outputs, and the loss where there is one, without gradients.

        Each call with a number draws the same random numbers. Positions that a mask excludes are
        zero.
        """
        seed_everything(mix(self.seed, 2, number))
        with torch.no_grad():
            found = self.forward(model, batch)
        outputs = {name: found[name] for name in self.spec.outputs}
        for name, item in self.spec.outputs.items():
            if (counted := valid(batch, item)) is not None:
                outputs[name] = outputs[name].masked_fill(~expand_mask(counted, outputs[name]), 0)
        return outputs | ({"loss": found["loss"]} if self.has_loss(batch) else {})

    def precise(self, model: nn.Module) -> tuple[nn.Module, Batch, float]:
        """Model and rows in float64 if the model allows it, and the tolerance for equal outputs.

        Rounding alone makes outputs differ in float32, and hardly in float64.
        """
        batch = self.rows()
        if self.device.type != "mps":
            try:
                wide = copy.deepcopy(model).double()
                doubled = {
                    name: values.double() if values.is_floating_point() else values
                    for name, values in batch.items()
                }
                self.outputs(wide, doubled)
                return wide, doubled, 1e-5  # some layers still compute in float32
            except (RuntimeError, TypeError):  # a layer takes one type only
                pass
        return model, batch, 1e-4

    def other_values(self, name: str, batch: Batch, number: int = 0) -> Tensor:
        """Other values of an input or the target: each differs, and is within its range."""
        item = self.spec.fields[name]
        values = batch[name]
        seed_everything(mix(self.seed, 3, number))
        if item.kind == "index":
            least, count = int(item.low or 0), int((item.high or 0) - (item.low or 0)) + 1
            step = torch.randint(1, max(count, 2), values.shape).to(values.device)
            other = least + (values - least + step) % count
            other = torch.where(values == IGNORED, values, other)
        elif item.kind == "mask":
            other = torch.rand(values.shape).to(values.device) < 0.5
        elif item.low is not None and item.high is not None:
            drawn = torch.rand(values.shape).to(values)
            other = item.low + (item.high - item.low) * drawn
        else:
            spread = values.std(0, correction=0)
            spread = torch.where(spread > 0, spread, torch.ones_like(spread))
            other = values + spread * torch.randn(values.shape).to(values)
            other = other.clamp(*item.bounds)
        counted = valid(batch, item)
        return other if counted is None else torch.where(expand_mask(counted, other), other, values)


def flatten(values: Values, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each leaf of nested dictionaries with its dotted name."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def num_rows(batch: Batch) -> int:
    """The number of rows of a batch."""
    return len(next(iter(batch.values())))


def take(batch: Batch, rows: Any) -> Batch:
    """Some rows of a batch."""
    return {name: values[rows] for name, values in batch.items()}


def without_target(batch: Batch) -> Batch:
    """The inputs of a batch."""
    return {name: values for name, values in batch.items() if name != "target"}


def close(left: Tensor, right: Tensor, tolerance: float) -> bool:
    """Whether two tensors differ by at most `tolerance` times the largest absolute value."""
    if left.shape != right.shape:
        return False
    scale = float(left.detach().abs().max()) if left.numel() else 0.0
    return bool(((left - right).abs() <= tolerance * max(scale, 1e-6)).all())


def first_difference(left: Outputs, right: Outputs, tolerance: float) -> tuple[str, float] | None:
    """The first output that differs between two calls, and by how much; None if none differs."""
    for name, values in left.items():
        if values.shape != right[name].shape:
            return name, float("inf")
        if not close(values, right[name], tolerance):
            return name, float((values - right[name]).abs().max())
    return None

"""What one look at a model shows: shapes, ranges, the first loss, gradients, registration."""

import functools
import math
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Batch
from .case import Case, Failed, NotApplicable, check, explain, take, without_target
from .fitting import counted_targets
from .spec import check_shape, check_values, valid

NUM_SEEDS = 5


@check("the data were prepared otherwise, or conf/data/ says what was true of another data set")
def the_batch_is_as_specified(case: Case) -> None:
    """Names, shapes, types and ranges of a batch are those of the spec, and `forward` takes them.

    Catches: a spec that is out of date, pixels that nobody divided by 255, a class index that
    begins at 1, a mask of integers, an argument of `forward` that no batch has.
    False alarms: 0 of 270 runs on models that are right.
    Source: this study: whatever rests on a spec is worth what the spec is worth.
    """
    try:
        case.spec.check_batch(case.batch)
        if case.forward.__name__ == "call_by_name":
            case.spec.check_signature(case.fresh().forward)
    except ValueError as error:
        name, _, seen = str(error).partition("`: ")
        tensor = f"{name}`" if seen else "the batch"
        raise Failed(tensor, seen or str(error), "what the spec says") from error


@check(
    "a `view` or `reshape` with a fixed batch size, a loss without `.mean()`, or a loss that was "
    "detached (`.item()`, `.detach()`, `torch.no_grad`)"
)
def outputs_have_their_fields_and_shapes(case: Case) -> None:
    """Every output is there in its shape, in both modes, for any number of rows; the loss is one.

    Catches: an output that is missing in one mode, a batch size written into the model, a loss per
    instance, a loss without a graph.
    False alarms: 0 of 270 runs on models that are right.
    Source: AllenNLP's model tests (Gardner et al., 2018).
    """
    model, batch = case.fresh(), case.rows()
    for training in (True, False):
        model.train(training)
        for num_rows in (len(batch["target"]), 3, 2):
            part = take(batch, slice(num_rows))
            for inputs in (part, without_target(part)):
                _check_outputs(case, _call(case, model, inputs, num_rows), inputs, training)


def _call(case: Case, model: nn.Module, batch: Batch, num_rows: int) -> Mapping[str, Tensor]:
    try:
        return case.forward(model, batch)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        with_target = "with" if "target" in batch else "without"
        seen = f"{explain(error)}, for {num_rows} rows {with_target} a target"
        raise Failed("`forward`", seen, "outputs for any number of rows") from error


def _check_outputs(case: Case, outputs: Mapping[str, Tensor], batch: Batch, training: bool) -> None:
    mode = f"{'training' if training else 'evaluation'} mode"
    sizes = {"batch": len(next(iter(batch.values())))}
    for name, item in {**case.spec.inputs, **case.spec.outputs}.items():
        values = batch[name] if name in batch else outputs.get(name)
        if not isinstance(values, Tensor):
            raise Failed(f"output `{name}`", f"is missing in {mode}", "a tensor, as the spec says")
        try:
            check_shape(name, item, values, sizes)
        except ValueError as error:
            seen, _, expected = str(error).partition(", not ")
            seen = seen.partition(": ")[2]
            raise Failed(f"output `{name}`", f"{seen} in {mode}", expected) from error
    loss = outputs.get("loss")
    if "target" not in batch:
        if loss is not None:
            raise Failed("output `loss`", f"is there without a target in {mode}", "no loss")
        return
    if not isinstance(loss, Tensor):
        raise Failed("output `loss`", f"is missing in {mode}", "a scalar, the mean loss")
    if loss.shape != ():
        raise Failed(
            "output `loss`", f"has shape {list(loss.shape)} in {mode}", "a scalar, the mean"
        )
    if not torch.isfinite(loss):
        raise Failed("output `loss`", f"is {loss.detach()} in {mode}", "one finite number")
    if not loss.requires_grad and training:
        raise Failed("output `loss`", "has no gradient", "a loss that can be differentiated")


@check(
    "a softmax over the wrong axis (`dim=0` is the batch) or before a loss that has its own, a "
    "ReLU behind the last layer, a division by zero"
)
def outputs_are_finite_and_in_range(case: Case) -> None:
    """Outputs are finite and in their range; probabilities sum to 1 over classes; logits are free.

    Catches: a softmax over the batch, a softmax or ReLU on what the loss takes for logits.
    False alarms: 0 of 270 runs on models that are right.
    Source: AllenNLP; the names of mistakes from "A Recipe for Training Neural Networks"
    (Karpathy, 2019).
    """
    batch = case.rows()
    lows = []
    for number in range(NUM_SEEDS):
        outputs = case.outputs(case.fresh(number), batch)
        for name, item in case.spec.outputs.items():
            try:
                check_values(item, outputs[name], valid(batch, item))
            except ValueError as error:
                raise Failed(f"output `{name}`", str(error), "values as the spec says") from error
            if item.kind == "probabilities":
                _check_probabilities(name, outputs[name], valid(batch, item))
        lows.append(_least_logit(case, outputs))
    if None not in lows and min(low for low in lows if low is not None) >= 0:
        raise Failed(
            f"output `{case.spec.prediction}`",
            f"not one of its values is negative, in {NUM_SEEDS} models",
            "logits, which can be any number",
        )


def _check_probabilities(name: str, values: Tensor, counted: Tensor | None) -> None:
    values = values if counted is None else values[counted]
    sums = values.sum(-1)
    if values.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        raise Failed(
            f"output `{name}`",
            f"sums to {sums.min():.4g} to {sums.max():.4g} over the classes of an instance",
            "probabilities, which sum to 1 over the last axis",
        )


def _least_logit(case: Case, outputs: Mapping[str, Tensor]) -> float | None:
    """The least logit; None where that says nothing: none declared, or a last layer of zeros."""
    prediction = case.spec.outputs[case.spec.prediction]
    values = outputs[case.spec.prediction]
    if prediction.kind != "logits" or not values.any():
        return None
    return float(values.min())


@check(
    "weights that are drawn too large, a loss that is a sum and not a mean, targets that were "
    "not normalised, a bias that does not begin at the targets' mean"
)
def the_first_loss_is_that_of_guessing(case: Case) -> None:
    """Before training a model knows nothing: log(classes), or the variance of the target.

    The mean over 5 seeds may be 1 nat above log(classes) (twice it for two classes), which weights
    drawn by Xavier's rule can reach, and down to half of it. Of a regression: 0.3 to 3 times the
    variance of the target, or its standard deviation for an absolute error.
    Catches: a bad initialisation, a summed loss, a target on the wrong scale.
    False alarms: 0 of 270 runs on models that are right.
    Source: "A Recipe for Training Neural Networks" (Karpathy, 2019).
    """
    if isinstance(case.make, nn.Module):
        raise NotApplicable("needs new models: give a class or a function that makes one")
    batch = case.rows()
    losses = [float(case.outputs(case.fresh(number), batch)["loss"]) for number in range(NUM_SEEDS)]
    mean = sum(losses) / NUM_SEEDS
    if case.spec.task == "classification":
        chance = math.log(case.spec.num_classes)
        bounds = [(0.5 * chance, chance + min(1, chance))]
        guess = f"log({case.spec.num_classes}) = {chance:.3g}"
    else:
        variance = float(batch["target"][counted_targets(case, batch)].var(correction=0))
        bounds = [(0.3 * scale, 3 * scale) for scale in (variance, math.sqrt(variance))]
        guess = f"the variance of the target, {variance:.3g}"
    if not any(low <= mean <= high for low, high in bounds):
        raise Failed(
            "output `loss`", f"is {mean:.4g} before training, mean of 5 models", f"about {guess}"
        )


@check(
    "a layer that `forward` never uses, a `.detach()`, `.data`, `torch.no_grad` or `argmax` on the "
    "way, or two layers stored under one name"
)
def every_parameter_gets_a_gradient(case: Case) -> None:
    """Each trainable parameter gets a finite gradient that is not zero, in one of three steps.

    Dropout is off. A step is taken in between: behind a layer that begins at zero all others wait.
    Catches: a layer that is not used, or is cut off from the loss.
    False alarms: 0 of 270 runs on models that are right.
    Source: AllenNLP's `ensure_model_can_train_save_and_load`.
    """
    model, batch = case.fresh(), case.rows()
    names = {name for name, item in model.named_parameters() if item.requires_grad}
    if not names:
        raise NotApplicable("the model has no trainable parameter")
    missing = set(names)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        # an LSTM on a GPU has no gradient in evaluation mode but without cuDNN
        with torch.backends.cudnn.flags(enabled=False):
            case.forward(model, batch)["loss"].backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                continue
            if not torch.isfinite(parameter.grad).all():
                raise Failed(
                    f"parameter `{name}`", "its gradient is not finite", "a finite gradient"
                )
            if parameter.grad.any():
                missing.discard(name)
        optimizer.step()
    if missing:
        first = sorted(missing)[0]
        seen = (
            "gets no gradient"
            if len(missing) == 1
            else f"and {len(missing) - 1} more get no gradient"
        )
        raise Failed(
            f"parameter `{first}`", seen, "one that is not zero, for each trainable parameter"
        )


@check(
    "an optimizer that was made of a part of the model, or before a layer was replaced; a frozen "
    "layer that is changed by hand; a rate of zero"
)
def a_step_moves_what_is_trainable_and_nothing_else(case: Case) -> None:
    """Up to three steps of the trainer move each trainable parameter and no other.

    Catches: an optimizer without the head, a frozen layer that moves, a step that is never taken.
    False alarms: 0 of 270 runs on models that are right.
    Source: research practice; `build` makes the very trainer of the run.
    """
    trainer = build(case)
    before = {name: item.detach().clone() for name, item in trainer.model.named_parameters()}
    rows = take(case.rows(), slice(8))
    for _ in range(3):  # the first rate of a warm-up may be zero
        trainer.train_step(rows)
    for name, parameter in trainer.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        if moved != parameter.requires_grad:
            seen = "moved" if moved else "stayed as it was"
            expected = "a change" if parameter.requires_grad else "no change: it is frozen"
            raise Failed(f"parameter `{name}`", f"{seen} in three steps", expected)


def build(case: Case) -> Any:
    """A new trainer of the case's configuration."""
    if case.build is None or case.values is None:
        raise NotApplicable("needs a trainer: give values and build")
    return case.build(case.values)


@check(
    "a list or dictionary of layers (use nn.ModuleList, nn.ModuleDict), a tensor as a plain "
    "attribute (use nn.Parameter or register_buffer), a layer that is made in `forward`"
)
def everything_is_registered(case: Case) -> None:
    """Every tensor and layer is a parameter, a buffer or a submodule: trained, moved and saved.

    Catches: layers in a plain list, a tensor that stays behind on the CPU, a parameter that is made
    at the first call, after the optimizer.
    False alarms: 0 of 270 runs on models that are right.
    Source: the commonest question about torch.nn.
    """
    model, batch = case.fresh(), case.rows()
    known = {id(item) for item in [*model.parameters(), *model.buffers(), *model.modules()]}
    for name, module in model.named_modules():
        for path, item in _hidden(module, name or type(module).__name__):
            if id(item) not in known:
                kind = "a tensor" if isinstance(item, Tensor) else "a layer"
                raise Failed(f"`{path}`", f"is {kind} that torch does not know of", "registration")
    before = {name for name, _ in model.named_parameters()}
    case.outputs(model, batch)
    if made := sorted({name for name, _ in model.named_parameters()} - before):
        raise Failed(
            f"parameter `{made[0]}`", "is made in `forward`", "one that the optimizer is given"
        )


def _hidden(module: nn.Module, name: str) -> Iterator[tuple[str, Any]]:
    """The tensors and layers in a module's own attributes and in those of its class."""
    own = {key: value for key, value in vars(module).items() if key not in _INTERNAL}
    for kind in type(module).__mro__:
        if not kind.__module__.startswith("torch."):
            own = {**vars(kind), **own}
    for key, value in own.items():
        yield from _inside(value, f"{name}.{key}", depth=4)


_INTERNAL = set(vars(nn.Module()))


def _inside(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (Tensor, nn.Module)):
        yield path, value
    elif depth:
        for key, item in _parts(value):
            yield from _inside(item, f"{path}{key}", depth - 1)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """What a container holds, with how one would write it."""
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, functools.partial):
        return _parts([*value.args, *value.keywords.values()])
    if isinstance(value, types.FunctionType) and value.__closure__:
        cells = zip(value.__code__.co_freevars, value.__closure__, strict=True)
        return [(f".{name}", cell.cell_contents) for name, cell in cells if not _empty(cell)]
    inside = getattr(value, "__dict__", None)
    plain = not isinstance(value, (type, types.ModuleType, types.FunctionType))
    if plain and isinstance(inside, dict) and not type(value).__module__.startswith("torch"):
        return [(f".{key}", item) for key, item in inside.items()]
    return []


def _empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:  # a name that was never bound
        return True

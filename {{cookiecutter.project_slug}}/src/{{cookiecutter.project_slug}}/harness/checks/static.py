"""Checks without training: shapes, ranges, the first loss, gradients, registration."""

import functools
import math
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..training.prepared import Batch
from ..training.spec import check_shape, check_values, valid
from ..training.trainer import Trainer
from . import fitting
from .case import Case, Values, close, take, without_target
from .failures import Failed, NotApplicable, one_line
from .fitting import counted_targets
from .running import check

NUM_SEEDS = 5


@check(
    "a `view` or `reshape` with a fixed batch size, a loss without `.mean()`, or a loss that was "
    "detached (`.item()`, `.detach()`, `torch.no_grad`)"
)
def outputs_have_their_fields_and_shapes(case: Case) -> None:
    """Each output has its shape, in both modes, for any number of rows; the loss is a scalar.

    Catches: an output that is missing in one mode, a hard-coded batch size, a loss for each
    instance, a loss without a graph.
    False alarms: 0 of 270 runs on correct models.
    Source: AllenNLP's model tests (Gardner et al., 2018).
    """
    model, batch = case.fresh(), case.rows()
    for training in (True, False):
        model.train(training)
        for num_rows in (case.num_rows, 3, 2):
            part = take(batch, slice(num_rows))
            for inputs in [part] if case.spec.target is None else [part, without_target(part)]:
                _check_outputs(case, _call(case, model, inputs, num_rows), inputs, training)


def _call(case: Case, model: nn.Module, batch: Batch, num_rows: int) -> Mapping[str, Tensor]:
    """The outputs of a model; raises Failed if it raises."""
    try:
        return case.forward(model, batch)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        with_target = "with" if case.has_loss(batch) else "without"
        seen = f"raises, with {num_rows} rows {with_target} a target: {one_line(error)}"
        cause = "a `view` or `reshape` with a fixed batch size, a target that is not optional"
        raise Failed("`forward`", seen, "outputs for any number of rows", cause) from error


def _check_outputs(case: Case, outputs: Mapping[str, Tensor], batch: Batch, training: bool) -> None:
    """Raises Failed if an output is missing or has another shape, or the loss is not a scalar."""
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
    if not case.has_loss(batch):
        if loss is not None:
            raise Failed("output `loss`", f"is present without a target in {mode}", "no loss")
        return
    if not isinstance(loss, Tensor):
        raise Failed("output `loss`", f"is missing in {mode}", "a scalar, the mean loss")
    if loss.shape != ():
        raise Failed(
            "output `loss`", f"has shape {list(loss.shape)} in {mode}", "a scalar, the mean"
        )
    if not torch.isfinite(loss):
        raise Failed("output `loss`", f"is {loss.detach()} in {mode}", "a finite number")
    if not loss.requires_grad and training:
        raise Failed("output `loss`", "has no gradient", "a loss that can be differentiated")


@check(
    "a softmax over the wrong axis (`dim=0` is the batch), a division by zero, an output in units "
    "that differ from those of the spec"
)
def outputs_are_finite_and_in_range(case: Case) -> None:
    """Outputs are finite and in range; probabilities sum to 1; some logit is negative.

    Catches: a softmax over the batch, a softmax or ReLU on the logits.
    False alarms: 0 of 270 runs on correct models.
    Source: AllenNLP; "A Recipe for Training Neural Networks" (Karpathy, 2019).
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
            f"no logit is negative in any of {NUM_SEEDS} models before training",
            "logits, which can be any number",
            "a softmax, sigmoid or ReLU after the last layer",
        )


def _check_probabilities(name: str, values: Tensor, counted: Tensor | None) -> None:
    """Raises Failed if the probabilities of an instance do not sum to 1."""
    values = values if counted is None else values[counted]
    sums = values.sum(-1)
    if values.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        raise Failed(
            f"output `{name}`",
            f"sums to {sums.min():.4g} to {sums.max():.4g} over the classes of an instance",
            "probabilities, which sum to 1 over the last axis",
        )


def _least_logit(case: Case, outputs: Mapping[str, Tensor]) -> float | None:
    """The smallest logit; None if the prediction has no logits, or all of them are zero."""
    prediction = case.spec.outputs[case.spec.prediction]
    values = outputs[case.spec.prediction]
    if prediction.kind != "logits" or not values.any():
        return None
    return float(values.min())


@check(
    "initial weights that are too large (an output layer tied to an embedding of variance 1), a "
    "norm over the wrong axis, a summed loss, targets that were not normalised"
)
def the_first_loss_is_that_of_guessing(case: Case) -> None:
    """The loss before training is about log(classes), or the variance of the target.

    The mean over 5 seeds must be at least half of log(classes), and at most 1.2 nats above it
    (twice it for two classes), which Xavier's initialisation can reach. For a regression: 0.3 to 3
    times the variance of the target, or its standard deviation for an absolute error.
    Catches: a bad initialisation, a summed loss, a target on the wrong scale.
    False alarms: 0 of 270 runs on correct models.
    Source: "A Recipe for Training Neural Networks" (Karpathy, 2019).
    """
    if isinstance(case.make, nn.Module):
        raise NotApplicable("needs new models: give a class or a function that makes one")
    case.target()
    batch = case.rows()
    losses = [_first_loss(case, number, batch) for number in range(NUM_SEEDS)]
    mean = sum(losses) / NUM_SEEDS
    if case.spec.task == "classification":
        chance = math.log(case.spec.num_classes)
        bounds = [(0.5 * chance, chance + min(1.2, chance))]
        guess = f"log({case.spec.num_classes} classes) = {chance:.3g}"
    else:
        variance = float(batch["target"][counted_targets(case, batch)].var(correction=0))
        bounds = [(0.3 * scale, 3 * scale) for scale in (variance, math.sqrt(variance))]
        guess = f"the variance of the target, {variance:.3g}"
    if not any(low <= mean <= high for low, high in bounds):
        seen = f"is {mean:.4g} before training, mean of {NUM_SEEDS} models"
        cause = "a loss with the wrong sign, or one that measures no error" if mean < 0 else None
        raise Failed("output `loss`", seen, f"about {guess}", cause)


def _first_loss(case: Case, number: int, batch: Batch) -> float:
    """The loss of a new model; of its predictions alone if a coupled loss has other terms."""
    outputs = case.outputs(case.fresh(number), batch)
    return fitting.error(case, outputs, batch) if case.spec.coupled else float(outputs["loss"])


@check(
    "a layer that `forward` never uses; a `.detach()`, `.data`, `torch.no_grad` or `argmax` before "
    "the loss; two layers stored under one name"
)
def every_parameter_gets_a_gradient(case: Case) -> None:
    """Each trainable parameter gets a finite, non-zero gradient in at least one of three steps.

    The model is in evaluation mode. A layer of zeros blocks gradients until the second step.
    Catches: a layer, or a half, third or quarter of one, that is not used or is cut off from the
    loss; an embedding of which only one row is looked up.
    False alarms: 0 of 270 runs on correct models.
    Source: AllenNLP's `ensure_model_can_train_save_and_load`.
    """
    model, batch = case.fresh(), case.rows()
    names = {name for name, item in model.named_parameters() if item.requires_grad}
    if not names:
        raise NotApplicable("the model has no trainable parameter")
    total = {name: torch.zeros_like(item) for name, item in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        # with cuDNN an LSTM has no gradient in evaluation mode
        with torch.backends.cudnn.flags(enabled=False):
            case.forward(model, batch)["loss"].backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                continue
            if not torch.isfinite(parameter.grad).all():
                seen = "its gradient is not finite"
                raise Failed(f"parameter `{name}`", seen, "a finite gradient")
            total[name] += parameter.grad.abs()
        optimizer.step()
    missing = sorted(name for name in names if not total[name].any())
    if missing:
        names_shown = ", ".join(f"`{name}`" for name in missing[:4])
        expected = "a gradient that is not zero, in one of three steps"
        tensor = f"parameter {names_shown}{', ...' if missing[4:] else ''}"
        raise Failed(tensor, "no gradient, or one of zero", expected)
    for name, module in model.named_modules():
        _check_parts(name, module, total)


def _check_parts(name: str, module: nn.Module, total: Mapping[str, Tensor]) -> None:
    """Raises Failed if a half, third or quarter of a layer gets no gradient."""
    for key, parameter in module.named_parameters(recurse=False):
        path = f"{name}.{key}".lstrip(".")
        if not parameter.requires_grad or path not in total or parameter.dim() < 2:
            continue
        gradient = total[path].flatten(1).any(1)
        if isinstance(module, nn.Embedding) and len(gradient) > 1 and gradient.sum() == 1:
            seen, cause = "only one of its rows is used", "an index that is always the same"
            raise Failed(f"parameter `{path}`", seen, "several rows in use", cause)
        for number in (2, 3, 4) if isinstance(module, (*LAYERS, nn.MultiheadAttention)) else ():
            for index, part in enumerate(gradient.chunk(number)):
                # fewer than four units may be dead by chance
                if len(gradient) % number == 0 and len(part) >= 4 and not part.any():
                    seen = f"part {index + 1} of {number} of it gets no gradient"
                    cause = "a `chunk` or `split` of which one part is never used, or used twice"
                    raise Failed(f"parameter `{path}`", seen, "a gradient for every part", cause)


LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@check(
    "an activation that was forgotten between two layers; if a deep linear network or a low-rank "
    "layer is intended, opt out"
)
def layers_are_more_than_one_linear_map(case: Case) -> None:
    """If a layer follows another, the prediction is not a linear function of the numeric inputs.

    The prediction at the midpoint of two rows is not the midpoint of their predictions, in float64.
    Catches: a missing activation, so that several layers are equivalent to one.
    False alarms: 0 of 150 runs on correct models.
    Source: Goodfellow, Bengio and Courville, Deep Learning (2016), section 6.1.
    """
    model, batch, _ = case.precise(case.trained())
    numbers = [name for name in case.spec.features if batch[name].is_floating_point()]
    if not numbers:
        raise NotApplicable("no input is numeric")
    inputs = without_target(batch)
    stacked = _stacked_layer(case, model, inputs)
    if stacked is None:
        raise NotApplicable("no layer follows another")
    others = {**inputs, **{name: case.other_values(name, inputs) for name in numbers}}
    middle = {**inputs, **{name: (inputs[name] + others[name]) / 2 for name in numbers}}
    ends = [case.predictions(model, item)[case.spec.prediction] for item in (inputs, others)]
    if close((ends[0] + ends[1]) / 2, case.predictions(model, middle)[case.spec.prediction], 1e-9):
        seen = f"follows another layer, and `{case.spec.prediction}` is linear in the inputs"
        raise Failed(f"layer `{stacked}`", seen, "a nonlinearity between the two")


def _stacked_layer(case: Case, model: nn.Module, inputs: Batch) -> str | None:
    """The first layer whose input depends on parameters; None if there is none."""
    found: list[str] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            if any(isinstance(item, Tensor) and item.requires_grad for item in given):
                found.append(name)

        return hook

    handles = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    ]
    case.forward(model, inputs)
    for handle in handles:
        handle.remove()
    return found[0] if found else None


@check(
    "an optimizer that was given a part of the model, or made before a layer was replaced; a "
    "frozen layer that is changed by hand; a learning rate of zero"
)
def a_step_moves_what_is_trainable_and_nothing_else(case: Case) -> None:
    """Three steps of the trainer change each trainable parameter and no other.

    Another seed draws other values for none but a trainable one: nothing trains the others.
    Catches: an optimizer without the head, a frozen layer that changes, a step that is never taken,
    a layer that was frozen as it was drawn.
    False alarms: 0 of 270 runs on correct models.
    Source: research practice; `build` makes the same trainer as the run.
    """
    trainer = build(case)
    before = {name: item.detach().clone() for name, item in trainer.model.named_parameters()}
    buffers = {name: item.clone() for name, item in trainer.model.named_buffers()}
    rows = take(case.rows(), slice(8))
    for _ in range(3):  # a warm-up may begin with a rate of zero
        trainer.advance(rows)
    for name, parameter in trainer.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        if moved != parameter.requires_grad:
            seen = "changed" if moved else "did not change"
            expected = "a change" if parameter.requires_grad else "no change: it is frozen"
            raise Failed(f"parameter `{name}`", f"{seen} in three steps", expected)
    others = dict(case.fresh(1).named_parameters())
    for name, parameter in case.fresh(0).named_parameters():
        if not parameter.requires_grad and not torch.equal(parameter, others[name]):
            expected = "weights that are trained, or that were learnt before"
            seen = "is frozen, and differs between two seeds"
            raise Failed(f"parameter `{name}`", seen, expected, FROZEN)
    for name, module in trainer.model.named_modules():
        if list(module.parameters()) and not any(p.requires_grad for p in module.parameters()):
            for key, values in module.named_buffers(recurse=False):
                if not torch.equal(values, buffers[f"{name}.{key}".lstrip(".")]):
                    seen = "changes in three steps, though its layer is frozen"
                    cause = "a batch norm in training mode: requires_grad=False does not stop it"
                    raise Failed(f"buffer `{name}.{key}`", seen, "no change", cause)


FROZEN = "requires_grad=False on random weights; make random features that are meant a buffer"


def program(case: Case) -> tuple[Values, Callable[[Values], Trainer]]:
    """The configuration of a case, and the function that makes a trainer from it."""
    if case.build is None or case.values is None:
        raise NotApplicable("needs a trainer: give values and build")
    return case.values, case.build


def build(case: Case) -> Trainer:
    """A new trainer, from the configuration of a case."""
    values, make = program(case)
    return make(values)


@check(
    "a list or dictionary of layers (use nn.ModuleList, nn.ModuleDict), a tensor as a plain "
    "attribute (use nn.Parameter or register_buffer), a layer that is created in `forward`"
)
def everything_is_registered(case: Case) -> None:
    """Each tensor and layer is a parameter, a buffer or a submodule: trained, moved and saved.

    Catches: layers in a plain list, a tensor that stays on the CPU, a parameter that is created at
    the first call, after the optimizer; one layer used twice, units that begin as copies.
    False alarms: 0 of 270 runs on correct models.
    Source: the most common question about torch.nn.
    """
    model, batch = case.fresh(), case.rows()
    known = {id(item) for item in [*model.parameters(), *model.buffers(), *model.modules()]}
    _check_shared(model)
    for name, module in model.named_modules():
        for path, item in _hidden(module, name or type(module).__name__):
            if id(item) not in known:
                kind = "a tensor" if isinstance(item, Tensor) else "a layer"
                seen = f"is {kind} that is in neither parameters() nor state_dict()"
                raise Failed(f"`{path}`", seen, "a registered one")
    before = {name for name, _ in model.named_parameters()}
    case.outputs(model, batch)
    if made := sorted({name for name, _ in model.named_parameters()} - before):
        expected = "a parameter that exists before the optimizer"
        raise Failed(f"parameter `{made[0]}`", "is created in `forward`", expected)


def _check_shared(model: nn.Module) -> None:
    """Raises Failed if a layer is registered twice, or if its units begin as copies."""
    names: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        if (other := names.setdefault(id(module), name)) != name:
            cause = "`[layer] * n`, which repeats one layer; if weights are tied by design, opt out"
            raise Failed(f"`{name}`", f"is the same layer as `{other}`", "another layer", cause)
        weight = getattr(module, "weight", None)
        if isinstance(module, LAYERS) and isinstance(weight, nn.Parameter) and len(weight) > 1:
            if weight.requires_grad and weight.any() and (weight == weight[:1]).all():
                seen = "all its units begin equal, and remain equal"
                cause = "weights that were set to a constant, or drawn once for all units"
                raise Failed(f"`{name}`", seen, "random weights", cause)


def _hidden(module: nn.Module, name: str) -> Iterator[tuple[str, Any]]:
    """Yields the tensors and layers in the attributes of a module and of its class."""
    own = {key: value for key, value in vars(module).items() if key not in _INTERNAL}
    for kind in type(module).__mro__:
        if not kind.__module__.startswith("torch."):
            own = {**vars(kind), **own}
    for key, value in own.items():
        if not hasattr(module, f"{key}_g"):  # torch.nn.utils.weight_norm keeps its product there
            yield from _inside(value, f"{name}.{key}", depth=4)


_INTERNAL = set(vars(nn.Module()))


def _inside(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yields the tensors and layers in a value, down to a depth, with their paths."""
    if isinstance(value, (Tensor, nn.Module)):
        yield path, value
    elif depth:
        for key, item in _parts(value):
            yield from _inside(item, f"{path}{key}", depth - 1)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """The items of a container, each with the expression that selects it."""
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
    except ValueError:  # an unbound name
        return True

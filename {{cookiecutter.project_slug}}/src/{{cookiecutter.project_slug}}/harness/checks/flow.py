"""Checks of information flow: from each input, and from no other row, target or later position."""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..training.metrics import IGNORED
from ..training.prepared import Batch
from ..training.spec import expand_mask, valid
from .case import Case, close, first_difference, take, without_target
from .failures import Failed, NotApplicable
from .fitting import RATES, memorise, without_dropout
from .running import check

Tensors = dict[str, Tensor]
NUM_POSITIONS = 64  # positions of an input that are changed one by one,
NUM_ROWS = 16  # in this many rows


@check(
    "an input that is overwritten or never used in `forward`, a slice that is one too short, a "
    "multiplication by zero, a pooling over too many axes"
)
def each_input_influences_the_output(case: Case) -> None:
    """Other values of an input change the outputs: of the whole input, and of each position.

    Catches: an input that is ignored, or its sign, or one of its columns, pixels or tokens.
    False alarms: 0 of 270 runs on correct models.
    Source: research practice ("a model must not ignore an input").
    """
    model, batch, _ = case.precise(case.trained())
    inputs = take(without_target(batch), slice(NUM_ROWS))
    before = case.predictions(model, inputs)
    for name in case.spec.features:
        others = [case.other_values(name, inputs, number) for number in range(2)]
        after = [case.predictions(model, {**inputs, name: other}) for other in others]
        if all(_equal(before, outputs) for outputs in after):
            raise Failed(f"input `{name}`", "other values change no output", "a change")
        if case.spec.inputs[name].kind != "mask":  # an entry of a mask may need another
            _check_sign(case, model, inputs, name)
            _check_positions(case, model, inputs, name, others)


def _check_sign(case: Case, model: nn.Module, inputs: Batch, name: str) -> None:
    """Raises Failed if the sign of a numeric input changes no output."""
    item = case.spec.inputs[name]
    if item.kind == "float" and (item.low is None or item.low < 0):
        opposite = {**inputs, name: -inputs[name]}
        if _equal(case.predictions(model, inputs), case.predictions(model, opposite)):
            cause = "an `abs`, a square or an even function of the input"
            raise Failed(f"input `{name}`", "its sign changes no output", "a change", cause)


def _check_positions(
    case: Case, model: nn.Module, inputs: Batch, name: str, others: Sequence[Tensor]
) -> None:
    """Raises Failed if one position of an input (a column, a pixel, a token) has no effect."""
    before = case.predictions(model, inputs)
    for position in _positions(inputs[name], valid(inputs, case.spec.inputs[name])):
        where: Any = (slice(None), *position)
        for other in others:
            changed = inputs[name].clone()
            changed[where] = other[where]
            if not _equal(before, case.predictions(model, {**inputs, name: changed})):
                break
        else:
            index = ", ".join(map(str, position))
            seen = f"other values at [:, {index}] change no output"
            raise Failed(f"input `{name}`", seen, "a change of some output")


def _positions(values: Tensor, counted: Tensor | None) -> list[tuple[int, ...]]:
    """Positions of an instance, evenly spaced; none if an instance is a single value."""
    every = list(itertools.product(*map(range, values.shape[1:]))) if values.dim() > 1 else []
    if counted is not None:  # a position that is padding in every row has no effect
        depth = counted.dim() - 1
        filled = counted.any(0)
        every = [item for item in every if filled[item[:depth]]]
    return every[:: math.ceil(len(every) / NUM_POSITIONS) or 1]


def _equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether two calls give bit-identical outputs."""
    return all(torch.equal(values, right[name]) for name, values in left.items())


@check(
    "another input that is encoded twice, an input of which only the mask or the length is used, a "
    "pooling that loses the difference"
)
def each_input_alone_can_be_fitted(case: Case) -> None:
    """Rows that differ in one input only, and in the target, can be memorised: for each input.

    Catches: an input that reaches the output and cannot be used: averaged out, or far too weak.
    False alarms: 0 of 60 runs on correct models.
    Source: own; models with two inputs whose shared encoder dropped one of them.
    """
    case.target()
    if len(case.spec.features) < 2:
        raise NotApplicable("there is one input: three_instances_are_fitted_perfectly covers it")
    for name in case.spec.features:
        batch = _rows_that_differ_in(case, name)
        memorised, outputs, rate = memorise(case, batch)
        if not memorised:
            loss = float(outputs["loss"])
            seen = f"rows that differ only in it cannot be memorised: the loss stays at {loss:.3g}"
            seen += f" (Adam at {rate:g}, the best of {len(RATES)} rates)"
            raise Failed(f"input `{name}`", seen, "rows that can be memorised")


def _rows_that_differ_in(case: Case, name: str) -> Batch:
    """Copies of the longest row, each with other values of one input and another target."""
    batch = case.rows()
    masks = [batch[key] for key, item in case.spec.inputs.items() if item.kind == "mask"]
    filled = [mask.reshape(len(mask), -1).sum(1) for mask in masks]
    row = int(torch.stack(filled).sum(0).argmax()) if masks else 0
    item, target = case.spec.inputs[name], case.target()
    num_rows = 2
    if target.kind == "index":
        num_rows = min(3, case.spec.num_classes)
    if item.kind == "index":
        num_rows = min(num_rows, int((item.high or 0) - (item.low or 0)) + 1)
    rows = take(batch, [row] * num_rows)
    if item.kind == "index":
        number = torch.arange(num_rows).reshape(-1, *[1] * (rows[name].dim() - 1)).to(rows[name])
        low, high = int(item.low or 0), int(item.high or 0)
        changed = low + (rows[name] - low + number) % (high - low + 1)
    else:
        changed = torch.cat(
            [case.other_values(name, batch, number)[row : row + 1] for number in range(num_rows)]
        )
    counted = valid(rows, item)
    if counted is not None:
        changed = torch.where(expand_mask(counted, changed), changed, rows[name])
    return {**rows, name: changed, "target": _distinct_targets(case, rows)}


def _distinct_targets(case: Case, rows: Batch) -> Tensor:
    """A different target for each row, the same at all positions that count."""
    target, field = rows["target"], case.target()
    number = torch.arange(len(target)).reshape(-1, *[1] * (target.dim() - 1)).to(target)
    if field.kind == "index":
        return torch.where(
            target == IGNORED, target, (number + int(field.low or 0)).expand_as(target)
        )
    mean, spread = case.batch["target"].mean(), case.batch["target"].std(correction=0)
    return (mean + spread * (2 * number - 1)).expand_as(target).clone()


@check(
    "a target that `forward` uses for more than the loss (perhaps after `if self.training:`), "
    "teacher forcing, a prediction computed from parts of the loss"
)
def predictions_do_not_see_the_target(case: Case) -> None:
    """Predictions are the same with the target, with another target and without a target.

    Catches: a model that reads the answer, in training or in evaluation mode.
    False alarms: 0 of 270 runs on correct models.
    Source: Kaufman et al., "Leakage in Data Mining" (2012).
    """
    case.target()
    model, batch, _ = case.precise(case.trained())
    other = {**batch, "target": case.other_values("target", batch)}
    for training in (False, True):
        model.train(training)
        seen = [_predictions(case, model, item) for item in (batch, other, without_target(batch))]
        mode = "training" if training else "evaluation"
        for outputs, what in zip(seen[1:], ("another target", "no target"), strict=True):
            if (apart := first_difference(seen[0], outputs, 0)) is not None:
                text = f"changes by {apart[1]:.3g} in {mode} mode, with {what} in the batch"
                raise Failed(f"output `{apart[0]}`", text, "bit-identical outputs")


def _predictions(case: Case, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The outputs without the loss; the state of the model is restored."""
    state = {name: values.clone() for name, values in model.state_dict().items()}
    outputs = case.outputs(model, batch)
    model.load_state_dict(state)  # in training mode a batch norm changes
    outputs.pop("loss", None)
    return outputs


@check(
    "the index of the row (`torch.arange(len(batch))`), the order of the batch or the target "
    "reaches the prediction"
)
def contradictions_are_not_fitted(case: Case) -> None:
    """Two equal rows with different targets cannot both be learned: the loss is at least log 2.

    Catches: a prediction that depends on more than the inputs: the target, an index, a cache.
    False alarms: 0 of 270 runs on correct models.
    Source: own; the check finds a leak without knowing how it works.
    """
    case.target()
    rows = take(case.rows(), [0, 0])
    if case.spec.task == "regression":
        rows["target"] = _distinct_targets(case, rows)
    else:
        rows["target"] = torch.cat([rows["target"][:1], case.other_values("target", rows)[1:]])
    model, prediction = case.fresh(), case.spec.prediction
    for step, _ in enumerate(case.train(model, rows, lr=0.01, num_steps=60), 1):
        if step % 10:
            continue
        outputs = case.outputs(model.eval(), rows)
        first, second = outputs[prediction]
        apart = float((first - second).abs().max())
        if apart > 1e-4 * max(float(first.abs().max()), float(rows["target"].abs().max())):
            text = f"differs by {apart:.3g} between two rows with equal inputs, after {step} steps"
            raise Failed(f"output `{prediction}`", text, "the same for both")
        loss = float(outputs["loss"])
        if case.spec.task == "classification" and loss < 0.8 * math.log(2):
            text = f"falls to {loss:.3g} for two rows with equal inputs and different targets"
            cause = "a loss of something else; if the loss is focal or weights the classes, opt out"
            raise Failed("output `loss`", text, f"at least about log(2) = {math.log(2):.3g}", cause)


@check(
    "a softmax, mean, norm or attention over axis 0, a `view` that mixes rows, swapped axes "
    "(batch_first), batch statistics in evaluation mode"
)
def nothing_leaks_across_the_batch(case: Case) -> None:
    """The outputs of a row do not depend on the other rows: the first, a middle and the last row.

    Catches: attention over the batch, a softmax over it, a `view` across it, a running sum.
    False alarms: 0 of 270 runs on correct models.
    Source: "A Recipe for Training Neural Networks" (Karpathy, 2019): use backprop to chart
    dependencies.
    """
    model, batch, tolerance = case.precise(case.trained())
    inputs = without_target(batch)
    before = case.predictions(model, inputs)
    for row in sorted({0, case.num_rows // 2, case.num_rows - 1}):
        others = {}
        for name, values in inputs.items():
            other = case.other_values(name, inputs) if name in case.spec.features else values
            others[name] = torch.cat([other[:row], values[row : row + 1], other[row + 1 :]])
        after = case.predictions(model, others)
        _compare_rows(before, after, row, row, tolerance, "when only other rows change")


def _compare_rows(
    before: dict[str, Tensor],
    after: dict[str, Tensor],
    row: int,
    now: int,
    tolerance: float,
    when: str,
) -> None:
    """Raises Failed if row `row` of one call differs from row `now` of the other."""
    for name, values in before.items():
        scale = float(values.abs().max())
        apart = float((after[name][now] - values[row]).abs().max()) if values[row].numel() else 0.0
        if not apart <= tolerance * max(scale, 1e-6):
            raise Failed(
                f"output `{name}`", f"row {row} changes by {apart:.3g} {when}", "no change"
            )


@check(
    "a batch norm that uses the statistics of the batch in evaluation mode, other arithmetic over "
    "the batch, padding that depends on the longest row"
)
def a_batch_of_one_equals_its_row(case: Case) -> None:
    """A row alone has the same outputs as in a batch.

    Catches: `squeeze()`, which also drops a batch axis of size 1; a dependence on the batch size.
    False alarms: 0 of 270 runs on correct models.
    Source: AllenNLP's `ensure_batch_predictions_are_consistent`.
    """
    model, batch, tolerance = case.precise(case.trained())
    inputs = without_target(batch)
    together = case.predictions(model, inputs)
    for row in (0, case.num_rows - 1):
        alone = case.predictions(model, take(inputs, slice(row, row + 1)))
        for name, values in alone.items():
            if values.shape != (1, *together[name].shape[1:]):
                expected = f"{[1, *together[name].shape[1:]]}"
                seen = f"row {row} alone gives shape {list(values.shape)}"
                raise Failed(f"output `{name}`", seen, expected, "a `squeeze()` without an axis")
        _compare_rows(together, alone, row, 0, tolerance, "in a batch of one")


@check("a use of the row's index, or a `view` or `transpose` that mixes rows")
def permuting_the_batch_permutes_the_output(case: Case) -> None:
    """Permuting the rows permutes the outputs, and leaves the loss the same.

    Catches: a dependence on the row's index; targets that are matched to other rows.
    False alarms: 0 of 270 runs on correct models.
    Source: equivariance; Cohen and Welling, 2016.
    """
    model, batch, tolerance = case.precise(case.trained())
    order = torch.randperm(case.num_rows).to(case.device)
    before, after = case.outputs(model, batch), case.outputs(model, take(batch, order))
    permuted = {
        name: values if name == "loss" else values[order] for name, values in before.items()
    }
    if (apart := first_difference(permuted, after, tolerance)) is not None:
        text = f"changes by {apart[1]:.3g} when the rows are permuted"
        cause = "targets that are shifted against the rows, rows weighted by their index"
        is_loss = apart[0] == "loss"
        expected = "the same loss" if is_loss else "the same rows in the new order"
        raise Failed(f"output `{apart[0]}`", text, expected, cause if is_loss else None)


@check(
    "a mean or maximum over all positions, an attention without its key mask, a reversed LSTM that "
    "begins in the padding, a loss or normalisation that includes the padding"
)
def padding_changes_nothing(case: Case) -> None:
    """Other values at masked positions, and more padding, change neither outputs nor loss.

    In training mode they change no running statistic either. A model that takes no longer rows, as
    with a table of positions, gets the shorter ones without their last padding, and with it.
    Catches: a mask that is ignored, inverted or forgotten in one place; a loss over padding.
    False alarms: 0 of 60 runs on correct models.
    Source: AllenNLP; the most common mistake in models of sequences.
    """
    model, batch, tolerance = case.precise(case.trained())
    masks = {item.mask for item in case.spec.fields.values() if item.mask is not None}
    if not masks:
        raise NotApplicable("no input has a mask")
    batch = _with_room(case, model, batch)
    before = case.outputs(model, batch)
    garbage = _garbage(case, batch)
    padded, restore = _with_padding(case, batch)
    in_training = _in_training(case, model, batch)
    pairs = [
        ("with other values at masked positions", before, case.outputs(model, garbage)),
        ("with two more positions of padding", before, restore(case.outputs(model, padded))),
        (
            "in training mode, with other values at masked positions",
            in_training,
            _in_training(case, model, garbage),
        ),
    ]
    if first_difference(in_training, _in_training(case, model, batch, 1), 0) is None:  # no noise
        after = restore(_in_training(case, model, padded))
        pairs.append(("in training mode, with two more positions of padding", in_training, after))
    for when, expected, after in pairs:
        if (apart := first_difference(expected, after, tolerance)) is not None:
            raise Failed(f"output `{apart[0]}`", f"changes by {apart[1]:.3g} {when}", "no change")


def _with_room(case: Case, model: nn.Module, batch: Batch) -> Batch:
    """The batch; or, if a longer one is refused, its rows that end in padding, two shorter."""
    try:
        case.outputs(model, _with_padding(case, batch)[0])
        return batch
    except (IndexError, RuntimeError):
        masks, axes = _padded(case)
        filled = torch.stack([batch[name][:, -2:].any(1) for name in masks]).any(0)
        if (~filled).sum() < 2:
            return batch  # the check raises the same error
    shorter = take(batch, ~filled)
    for name, item in case.spec.fields.items():
        for dim in [dim for dim, axis in enumerate(item.shape, 1) if axis in axes]:
            shorter[name] = shorter[name].narrow(dim, 0, shorter[name].shape[dim] - 2)
    return shorter


def _padded(case: Case) -> tuple[list[str], list[str]]:
    """The masks of padding, and the axes that can grow with them."""
    masks = [name for name, item in case.spec.inputs.items() if item.kind == "mask"]
    used = {item.mask for item in [*case.spec.fields.values(), *case.spec.outputs.values()]}
    masks = [name for name in masks if name in used]
    axes = [case.spec.inputs[name].shape[0] for name in masks]
    return masks, [axis for axis in axes if isinstance(axis, str)]  # a fixed size cannot grow


def _garbage(case: Case, batch: Batch) -> Batch:
    """The batch with other values at masked positions."""
    changed = dict(batch)
    for name, item in case.spec.fields.items():
        counted = valid(batch, item)
        if counted is None or (name == "target" and item.padding == IGNORED):
            continue
        everywhere = {
            key: torch.ones_like(values) if key == item.mask else values
            for key, values in batch.items()
        }
        changed[name] = torch.where(
            expand_mask(counted, batch[name]), batch[name], case.other_values(name, everywhere)
        )
    return changed


def _in_training(case: Case, model: nn.Module, batch: Batch, number: int = 0) -> dict[str, Tensor]:
    """Outputs and running statistics of a copy in training mode, without dropout."""
    copied = copy.deepcopy(model).train()
    with without_dropout(copied):
        outputs = case.outputs(copied, batch, number)
    moved = {name: item for name, item in copied.named_buffers() if item.is_floating_point()}
    return outputs | moved


def _with_padding(case: Case, batch: Batch) -> tuple[Batch, Callable[[Tensors], Tensors]]:
    """The batch with two positions of padding added to masked axes; and what takes them off again.

    The padding is added at the end, or at the beginning if that is where the rows are padded.
    """
    masks, axes = _padded(case)
    left = all(batch[name][:, -1].all() for name in masks) and not all(
        batch[name][:, 0].all() for name in masks
    )
    changed = dict(batch)
    for name, item in case.spec.fields.items():
        for dim in [dim for dim, axis in enumerate(item.shape, 1) if axis in axes]:
            empty = torch.zeros_like(changed[name].narrow(dim, 0, 1)).expand(
                [2 if index == dim else size for index, size in enumerate(changed[name].shape)]
            )
            empty = empty + (0 if item.kind == "mask" else item.padding)
            parts = [empty.to(changed[name].dtype), changed[name]]
            changed[name] = torch.cat(parts if left else parts[::-1], dim=dim)

    def restore(outputs: Tensors) -> Tensors:
        outputs = dict(outputs)
        for name, item in case.spec.outputs.items():
            for dim in [dim for dim, axis in enumerate(item.shape, 1) if axis in axes]:
                size = outputs[name].shape[dim] - 2
                outputs[name] = outputs[name].narrow(dim, 2 if left else 0, size)
        return outputs

    return changed, restore


@check(
    "an attention without a causal mask or with one that is shifted by one, a bidirectional layer, "
    "a convolution padded on both sides, a normalisation over positions"
)
def no_position_sees_a_later_one(case: Case) -> None:
    """In a causal model the outputs up to a position do not depend on later positions.

    Catches: any dependence on the future, also by a single position.
    False alarms: 0 of 30 runs on correct models.
    Source: "A Recipe for Training Neural Networks" (Karpathy, 2019).
    """
    if case.spec.causal is None:
        raise NotApplicable("the spec names no causal input")
    model, batch, tolerance = case.precise(case.trained())
    name, inputs = case.spec.causal, without_target(batch)
    before, other = case.predictions(model, inputs), case.other_values(case.spec.causal, batch)
    axis = case.spec.inputs[name].shape[:1]
    for position in range(1, inputs[name].shape[1]):
        changed = torch.cat([inputs[name][:, :position], other[:, position:]], dim=1)
        after = case.predictions(model, {**inputs, name: changed})
        for output, values in before.items():
            shape = case.spec.outputs[output].shape
            if shape[:1] == axis and (len(shape) > 1 or isinstance(axis[0], str)):
                early, late = values[:, :position], after[output][:, :position]
                if not close(early, late, tolerance):
                    apart = float((early - late).abs().max())
                    seen = f"changes by {apart:.3g} before position {position}"
                    seen += f" when `{name}` changes only from there on"
                    raise Failed(f"output `{output}`", seen, "no change")


@check(
    "a positional encoding that is never added, or added along the axis of the batch; a mean over "
    "tokens without positions; a recurrent or convolutional layer of width 1"
)
def the_order_of_positions_counts(case: Case) -> None:
    """Two neighbours that change places change the outputs of other positions, or of the row.

    Those of the two positions themselves do not count, and in a causal model none before them.
    Catches: position information that is lost: two orders of the same tokens are one to the model.
    False alarms: 0 of 198 runs on correct models.
    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.5: attention alone does
    not know the order of its inputs.
    """
    if case.spec.ordered is None:
        raise NotApplicable("the spec names no ordered input")
    model, batch, _ = case.precise(case.trained())
    name, inputs = case.spec.ordered, without_target(batch)
    before = case.predictions(model, inputs)
    for position in range(inputs[name].shape[1] - 1):
        swapped = _swap(case, inputs, position)
        after = case.predictions(model, {**inputs, name: swapped})
        if any(_moves(case, output, before, after, position) for output in before):
            return
    expected = "another output for another order"
    raise Failed(f"input `{name}`", "two orders of its positions give the same outputs", expected)


def _swap(case: Case, inputs: Batch, position: int) -> Tensor:
    """The ordered input, with a position and the next exchanged where both count."""
    name = case.spec.ordered or ""
    order = list(range(inputs[name].shape[1]))
    order[position : position + 2] = position + 1, position
    swapped, counted = inputs[name][:, order], valid(inputs, case.spec.inputs[name])
    if counted is None:
        return swapped
    both = counted[:, position] & counted[:, position + 1]
    return torch.where(expand_mask(both, swapped), swapped, inputs[name])


def _moves(
    case: Case, output: str, before: dict[str, Tensor], after: dict[str, Tensor], position: int
) -> bool:
    """Whether an output differs at another position than the two that were exchanged."""
    left, right = before[output], after[output]
    if case.spec.outputs[output].shape[:1] == case.spec.inputs[case.spec.ordered or ""].shape[:1]:
        others = [*range(position), *range(position + 2, left.shape[1])]
        if case.spec.causal is not None:
            others = [other for other in others if other > position]
        left, right = left[:, others], right[:, others]
    return bool(left.numel()) and not close(left, right, 1e-6)

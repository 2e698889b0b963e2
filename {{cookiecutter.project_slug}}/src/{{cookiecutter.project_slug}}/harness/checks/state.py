"""Checks of state: saved weights, seeds, evaluation mode, the batch, extreme values, devices."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..training.checkpoints import to_bytes
from ..training.determinism import mix, seed_everything
from ..training.prepared import Batch
from .case import Case, first_difference
from .failures import Failed, NotApplicable, failing_line, one_line
from .fitting import INNER, Dropout
from .running import check


@check(
    "a tensor that is neither parameter nor buffer, `persistent=False` on a random or learned "
    "buffer, a number or counter kept as a plain attribute, an overridden `state_dict`"
)
def saved_weights_restore_the_model(case: Case) -> None:
    """A model of another seed that loads the saved weights gives the same outputs, then and later.

    The weights are saved after five steps, so that running statistics have changed, and loaded with
    `torch.load(weights_only=True)`. Both models then train for one more step.
    Catches: state that is not in the checkpoint.
    False alarms: 0 of 270 runs on correct models.
    Source: AllenNLP's `ensure_model_can_train_save_and_load`.
    """
    model, batch = case.trained(5), case.rows()
    content = io.BytesIO(to_bytes(model.state_dict()))
    other = case.fresh(1)
    other.load_state_dict(torch.load(content, weights_only=True, map_location=case.device))
    for when in ("", " after one more step"):
        before, after = case.outputs(model.eval(), batch), case.outputs(other.eval(), batch)
        if (apart := first_difference(before, after, 0)) is not None:
            seen = f"differs by {apart[1]:.3g} after weights are saved and loaded{when}"
            raise Failed(f"output `{apart[0]}`", seen, "bit-identical outputs")
        for item in (model, other):
            for _ in case.train(item, batch, lr=0.01, num_steps=1):
                pass


@check("a generator without the run's seed, os.urandom or the clock, the order of a set")
def the_same_seed_gives_the_same_bits(case: Case) -> None:
    """Eight training steps with one seed are bit-identical when repeated; another seed differs.

    Catches: randomness that ignores the seed, and a fixed seed that the model sets itself.
    False alarms: 0 of 270 runs on correct models.
    Source: Pineau et al., "Improving Reproducibility in Machine Learning Research" (2021).
    """
    states = [_state_after_steps(case, number) for number in (0, 0, 1)]
    for name, values in states[0].items():
        if not torch.equal(values, states[1][name]):
            seen = "differs between two runs of one seed"
            raise Failed(f"`{name}`", seen, "bit-identical values")
    if not isinstance(case.make, nn.Module):
        first, second = case.fresh(0), case.fresh(1)
        weights = [(name, item) for name, item in first.named_parameters() if item.requires_grad]
        drawn = [(name, item) for name, item in weights if (item != item.reshape(-1)[0]).any()]
        others = dict(second.named_parameters())
        if drawn and all(torch.equal(item, others[name]) for name, item in drawn):
            expected = "other weights for another seed"
            raise Failed("parameters", "are the same for two seeds", expected, SEEDED)
    _check_generator(case)


def _state_after_steps(case: Case, number: int) -> dict[str, Tensor]:
    """The losses of eight steps, and the state of the model after them."""
    model = case.fresh(number)
    losses = [out["loss"].detach() for out in case.train(model, case.rows(), lr=0.01, num_steps=8)]
    return {"loss": torch.stack(losses), **model.state_dict()}


def _check_generator(case: Case) -> None:
    """Raises Failed if the model seeds torch's generator."""
    drawn = []
    for number in range(2):
        model = case.fresh(number)
        built = torch.rand(4)
        seed_everything(mix(case.seed, 6, number))
        case.forward(model.train(), case.rows())
        drawn.append((built, torch.rand(4)))
    for index, when in enumerate(("is made", "is called")):
        if torch.equal(drawn[0][index], drawn[1][index]):
            seen = f"is set to a fixed state when the model {when}"
            raise Failed("torch's generator", seen, "numbers that depend on the seed", SEEDED)


SEEDED = "`torch.manual_seed`, or a generator with a fixed seed, inside the model"


@check(
    "`F.dropout(x)` without `training=self.training`, noise that is not switched off, a running "
    "statistic or cache that is updated in evaluation, an overridden `train()`"
)
def evaluation_is_pure_and_dropout_acts_in_training(case: Case) -> None:
    """In evaluation mode calls agree and change nothing; in training mode dropout has an effect.

    Catches: noise in evaluation, state that evaluation changes, an unused dropout layer.
    False alarms: 0 of 270 runs on correct models.
    Source: AllenNLP; torch.nn.Module.eval.
    """
    model, batch = case.trained(), case.rows()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    seen = []
    with torch.no_grad():
        for number in range(2):
            seed_everything(mix(case.seed, 7, number))
            seen.append({name: case.forward(model, batch)[name] for name in case.spec.outputs})
            case.forward(model, {name: values.flip(0) for name, values in batch.items()})
    if (apart := first_difference(seen[0], seen[1], 0)) is not None:
        text = f"differs by {apart[1]:.3g} between two calls in evaluation mode"
        raise Failed(f"output `{apart[0]}`", text, "bit-identical outputs")
    for name, values in model.state_dict().items():
        if not torch.equal(values, before[name]):
            raise Failed(f"`{name}`", "changes in evaluation mode", "no change", UPDATED)
    noisy, dropout, unused = _in_training(case, model.train(), batch)
    if unused:
        text = "a dropout layer that is never called"
        raise Failed(f"`{unused[0]}`", text, "one with an effect in training mode")
    _check_noise(case, seen[0], noisy, dropout, changed=_has_changed(model, before))


def _in_training(
    case: Case, model: nn.Module, batch: Batch
) -> tuple[list[dict[str, Tensor]], bool, list[str]]:
    """Outputs in training mode for two seeds, whether dropout is used, and its unused layers."""
    modules = dict(model.named_modules())
    layers = {name: m for name, m in modules.items() if isinstance(m, Dropout) and m.p > 0}
    inner = [m for m in modules.values() if isinstance(m, INNER) and m.dropout > 0]
    called: set[nn.Module] = set()
    handles = [
        item.register_forward_hook(lambda module, *_: called.add(module))
        for item in layers.values()
    ]
    noisy = []
    for number in range(2):
        seed_everything(mix(case.seed, 8, number))
        with torch.no_grad():
            found = case.forward(model, batch)
        noisy.append({name: found[name] for name in case.spec.outputs})
    for handle in handles:
        handle.remove()
    unused = [name for name in layers if layers[name] not in called]
    acts = bool(called) or any(getattr(item, "num_layers", 2) > 1 for item in inner)
    return noisy, acts, [name for name in unused if not _is_inside_fused(model, name)]


def _has_changed(model: nn.Module, before: Mapping[str, Tensor]) -> bool:
    """Whether a parameter or buffer differs from before."""
    return any(not torch.equal(item, before[name]) for name, item in model.state_dict().items())


def _check_noise(
    case: Case,
    quiet: dict[str, Tensor],
    noisy: Sequence[dict[str, Tensor]],
    dropout: bool,
    *,
    changed: bool,
) -> None:
    """Compares the outputs of two seeds in training mode, and those in evaluation mode."""
    prediction, differ = case.spec.prediction, first_difference(noisy[0], noisy[1], 0) is not None
    if dropout and not differ:
        seen = "is the same for two seeds in training mode, despite dropout"
        raise Failed(f"output `{prediction}`", seen, "dropout with an effect in training mode")
    apart = first_difference(noisy[0], quiet, 1e-4)
    if apart is not None and not differ and not changed:  # a batch norm changes
        seen = f"differs by {apart[1]:.3g} between the modes, equally for two seeds"
        raise Failed(f"output `{apart[0]}`", seen, "noise that depends on the seed, or none")
    dropped = (noisy[0][prediction] == 0) & (quiet[prediction] != 0)
    if case.spec.outputs[prediction].kind == "logits" and dropped.any():
        seen = "some values are zero in training mode: dropout follows the last layer"
        cause = "dropout that is applied to the logits"
        raise Failed(f"output `{prediction}`", seen, "dropout before the last layer", cause)


def _is_inside_fused(model: nn.Module, name: str) -> bool:
    """Whether a layer is part of a transformer of torch, which may not call it."""
    parent = model.get_submodule(name.rpartition(".")[0])
    return type(parent).__module__.startswith("torch.nn.modules.transformer")


UPDATED = "a running statistic, counter or cache that is updated in evaluation too"


@check("an operation in place on an input (`+=`, `mul_`, `masked_fill_`, `x[...] =`)")
def the_batch_is_left_as_it_was(case: Case) -> None:
    """The forward and the backward pass do not change the batch, in both modes.

    Catches: inputs edited in place: the next model, or the next epoch, would get other data.
    False alarms: 0 of 270 runs on correct models.
    Source: research practice.
    """
    for training in (True, False):
        model, batch = case.fresh().train(training), case.rows()
        loss = case.forward(model, batch)["loss"]
        if loss.requires_grad and training:
            loss.backward()  # type: ignore[no-untyped-call]
        for name, values in case.rows().items():
            if not torch.equal(values, batch[name]):
                kind = "`target`" if name == "target" else f"input `{name}`"
                raise Failed(kind, "is changed by a call of the model", "an unchanged batch")


@check(
    "`log(softmax(x))` or `log(1 - p)` by hand, a division by a norm, count or standard deviation "
    "that can be zero (add an epsilon), a square root at zero"
)
def extreme_values_stay_finite(case: Case) -> None:
    """Outputs, loss and gradients are finite for zeros, for inputs times 50 and for huge logits.

    Indices take their smallest and their largest value. Larger weights make the logits larger.
    Catches: arithmetic that overflows, an index out of range.
    False alarms: 0 of 270 runs on correct models.
    Source: Goodfellow, Bengio and Courville, Deep Learning (2016), section 4.1.
    """
    batch = case.rows()
    for what, extreme in _extremes(case, batch):
        _check_finite(case, case.fresh(), extreme, what)
    model = case.trained()
    for _ in range(12):
        largest = float(case.outputs(model, batch)[case.spec.prediction].abs().max())
        if not 0 < largest < 300:
            break
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(2)
    if largest < 1e6:
        wrong = [{**batch, key: case.other_values(key, batch)} for key in batch if key == "target"]
        for item in (batch, *wrong):
            _check_finite(case, model, item, "after larger weights saturate the outputs")


def _extremes(case: Case, batch: Batch) -> Iterator[tuple[str, Batch]]:
    """Yields a description and a batch: zeros, large numbers, extreme indices."""
    zeros, large, smallest, largest = dict(batch), dict(batch), dict(batch), dict(batch)
    for name, item in case.spec.fields.items():
        if item.kind == "index":
            for extreme, value in ((smallest, item.low), (largest, item.high)):
                filled = torch.full_like(batch[name], int(value or 0))
                extreme[name] = torch.where(batch[name] < int(item.low or 0), batch[name], filled)
        elif item.kind == "float" and name != "target":  # within the bounds of the spec
            zeros[name] = torch.zeros_like(batch[name]).clamp(*item.bounds)
            large[name] = (50 * batch[name]).clamp(*item.bounds)
    yield "for inputs of zero", zeros
    yield "for inputs times 50", large
    yield "for the smallest indices", smallest
    yield "for the largest indices", largest


def _check_finite(case: Case, model: nn.Module, batch: Batch, when: str) -> None:
    """Raises Failed if an output, the loss or a gradient is not finite."""
    model.zero_grad()
    with torch.backends.cudnn.flags(enabled=False):
        try:
            outputs = case.forward(model, batch)
        except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:
            cause = "an embedding with one row too few, a table of positions that is too short"
            raise Failed("`forward`", f"{one_line(error)}, {when}", "no error", cause) from error
        for name in [*case.spec.outputs, "loss"]:
            if not torch.isfinite(outputs[name]).all():
                seen = f"is infinite or not a number {when}"
                raise Failed(f"output `{name}`", seen, "finite numbers")
        outputs["loss"].backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            text = f"its gradient is infinite or not a number {when}"
            raise Failed(f"parameter `{name}`", text, "a finite gradient")


@check(
    "`torch.zeros(n)`, `torch.arange(n)` or a mask created without `device=x.device`, `.cuda()`, "
    '`.cpu()` or `.to("cuda")` in `forward`, a tensor that is not a buffer'
)
def no_device_is_hard_coded(case: Case) -> None:
    """The model runs on torch's `meta` device, which refuses tensors of another device.

    Values that leave the device (`.item()`, lengths on the CPU) are replaced by ones.
    Catches: a model that works on the CPU and fails on a GPU; the check needs no GPU.
    False alarms: 0 of 270 runs on correct models.
    Source: the meta device of PyTorch.
    """
    reasons = [_mixes_devices(case, training) for training in (True, False)]
    if None not in reasons:
        raise NotApplicable(f"the model needs the values of a tensor: {reasons[0]}")


def _mixes_devices(case: Case, training: bool) -> str | None:
    """Raises Failed if the model mixes devices; returns why that cannot be decided, or None."""
    model = case.fresh().train(training).to("meta")
    batch = {name: values.to("meta") for name, values in case.batch.items()}
    try:
        with torch.no_grad(), _Ones():
            outputs = case.forward(model, batch)
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        text = str(error).splitlines()[0] if str(error) else ""
        if any(word in text for word in MIXED):
            seen = f"mixes the device of its inputs (here torch's `meta`) with another: {text}"
            raise Failed(failing_line(error), seen, "the device of the inputs only") from error
        return text
    for name, values in outputs.items():
        if isinstance(values, Tensor) and values.device.type != "meta":
            seen = f"is on {values.device}"
            raise Failed(f"output `{name}`", seen, "the device of the inputs")
    return None


# words of torch's messages about tensors on two devices, or on a device that is missing
MIXED = ("expected device", "two devices", "same device", "CUDA", "not linked")


class _Ones(TorchFunctionMode):
    """Replaces the values of a tensor on the meta device, which has none, by ones."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,  # pylint: disable=unused-argument
    ) -> Any:
        name, source = getattr(func, "__name__", ""), args[0] if args else None
        if isinstance(source, Tensor) and source.device.type == "meta":
            if name in ("item", "__int__", "__float__", "__bool__", "__index__"):
                return {"__float__": 1.0, "__bool__": True}.get(name, 1)
            if name in ("cpu", "numpy", "tolist") or (name == "to" and "cpu" in map(str, args[1:])):
                ones = torch.ones(source.shape, dtype=source.dtype)
                return getattr(ones, name)() if name in ("numpy", "tolist") else ones
        if name in BY_INDEX and _devices([*args, *(kwargs or {}).values()]) == {"cpu", "meta"}:
            raise RuntimeError(f"{name}: expected all tensors on the same device")
        return func(*args, **(kwargs or {}))


# functions whose index may be on the CPU for the meta device, and not for a GPU
BY_INDEX = ("embedding", "gather", "index_select", "scatter", "scatter_add", "take_along_dim")


def _devices(values: Sequence[Any]) -> set[str]:
    """The devices of tensors; scalars are left out, because they may be on any device."""
    flat = [
        item
        for value in values
        for item in (value if isinstance(value, (list, tuple)) else [value])
    ]
    return {item.device.type for item in flat if isinstance(item, Tensor) and item.dim()}

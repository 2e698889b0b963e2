"""What happens inside a model for one instance: which inputs count, activations, attention."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import StudyError
from ..inference import LoadedRun
from ..training.prepared import Batch
from ..training.step import to_device

STEPS = 64  # of the path along which gradients are summed


def attribute(run: LoadedRun, batch: Batch) -> dict[str, np.ndarray]:
    """How much each value of an instance speaks for its prediction, or against it, by captum.

    Of numbers by integrated gradients from 0 (Sundararajan et al., "Axiomatic attribution for deep
    networks", 2017); of indices, which have no gradient, by leaving each out.

    Args:
        run: A finished run.
        batch: One encoded instance: each tensor [1, ...].

    Returns:
        An array of the shape of the instance for each input that is no mask.

    Raises:
        StudyError: captum is not installed, or the prediction of the model is no number.
    """
    try:
        from captum.attr import FeatureAblation, IntegratedGradients
    except ImportError as error:
        raise StudyError("captum is not installed; type: make notebooks") from error
    batch, found = to_device(batch, run.device), {}
    index = _predicted_class(run, batch)
    for name in run.spec.features:
        forward = _scores(run.model, batch, name, run.spec.prediction, index)
        if batch[name].is_floating_point():
            method = IntegratedGradients(forward)
            gains = method.attribute(batch[name], n_steps=STEPS, internal_batch_size=STEPS)
        else:
            padding = int(run.spec.inputs[name].padding)
            gains = FeatureAblation(forward).attribute(batch[name], baselines=padding)
        found[name] = gains[0].detach().float().cpu().numpy()
    return found


def _predicted_class(run: LoadedRun, batch: Batch) -> int | None:
    """The class of the largest logit; None of a regression, or of yes and no."""
    with torch.inference_mode():
        output = run.model(**batch)[run.spec.prediction][0]
    return int(output.argmax()) if output.ndim == 1 and output.numel() > 1 else None


def _scores(
    model: nn.Module, batch: Batch, name: str, prediction: str, index: int | None
) -> Callable[[Tensor], Tensor]:
    """The prediction as a function of one input, with the others as they are."""

    def forward(values: Tensor) -> Tensor:
        others = {key: each.expand(len(values), *each.shape[1:]) for key, each in batch.items()}
        output: Tensor = model(**{**others, name: values})[prediction]
        if index is not None:
            return output[:, index]
        if output[0].numel() != 1:
            raise StudyError(f"{prediction}: is no single number, so nothing speaks for it")
        return output.reshape(len(values))

    return forward


def layers(model: nn.Module) -> list[str]:
    """The names of the modules of a model, from the outside in."""
    return [name for name, _ in model.named_modules() if name]


@torch.inference_mode()
def activations(run: LoadedRun, batch: Batch, layer: str) -> np.ndarray:
    """What a layer gives for an instance, without the axis of the batch.

    Raises:
        StudyError: it does not run for this instance, or gives no tensor.
    """
    found: list[Any] = []
    module = run.model.get_submodule(layer)
    handle = module.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    try:
        run.model(**to_device(batch, run.device))
    finally:
        handle.remove()
    tensors = [each[0] if isinstance(each, tuple) else each for each in found]
    values = next((each for each in tensors if isinstance(each, Tensor)), None)
    if values is None:
        raise StudyError(f"{layer}: gives no tensor for this instance")
    values = values.squeeze(0)
    shown: np.ndarray = values.float().cpu().numpy()
    return shown


@torch.inference_mode()
def attention(run: LoadedRun, batch: Batch) -> list[np.ndarray]:
    """The weights of each attention of an instance: [heads, queries, keys]; a list, maybe empty."""
    with _attention_noted() as found:
        run.model(**to_device(batch, run.device))
    return [weights[0].float().cpu().numpy() for weights in found]


@contextmanager
def _attention_noted() -> Iterator[list[Tensor]]:
    """A list that fills with the weights of each scaled_dot_product_attention in this context."""
    found: list[Tensor] = []

    class Noting(TorchFunctionMode):
        """Computes once more what the fused kernel keeps to itself."""

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            if func is F.scaled_dot_product_attention:
                found.append(_weights(*args, **kwargs))
            return func(*args, **kwargs)

    with Noting():
        yield found


def _weights(
    query: Tensor,
    key: Tensor,
    _value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The softmax over the keys. Shape: [batch, heads, queries, keys]."""
    del dropout_p
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -math.inf)
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if is_bool else scores + attn_mask
    return scores.softmax(dim=-1)

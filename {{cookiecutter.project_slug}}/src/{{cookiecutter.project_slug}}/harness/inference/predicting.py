"""Raw fields through the encoder and the model: what the spec declares of each instance."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..errors import StudyError
from ..training.prepared import Batch
from ..training.step import autocast, to_device

if TYPE_CHECKING:
    from .loading import LoadedRun

REFUSALS = (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError)


def encode(run: "LoadedRun", fields: Mapping[str, np.ndarray]) -> Batch:
    """Raw fields as a batch, padded to its full length, so that no row depends on the others.

    Raises:
        StudyError: the encoder refuses a row, or the result is not as the spec says.
    """
    try:
        if run.encoder is not None:
            encoded = run.encoder.encode(fields)
            fields = {name: encoded[name] for name in run.spec.inputs}
        batch = {name: _to_tensor(values, run) for name, values in fields.items()}
        run.spec.check_inputs(batch)
        return batch
    except REFUSALS as error:
        reason = f"KeyError: {error}" if isinstance(error, KeyError) else str(error)
        raise StudyError(" ".join(reason.split())) from error


def _to_tensor(values: np.ndarray, run: "LoadedRun") -> torch.Tensor:
    """An array as a tensor; numbers that no encoder has made get the type of the weights."""
    tensor = torch.from_numpy(np.array(values))  # a copy: a reader's array may be read-only
    is_raw = run.encoder is None and tensor.is_floating_point()
    return tensor.to(_dtype_of(run.model)) if is_raw else tensor


def _dtype_of(model: nn.Module) -> torch.dtype:
    types = (each.dtype for each in model.parameters() if each.is_floating_point())
    return next(types, torch.float32)


@torch.inference_mode()
def predict(run: "LoadedRun", batch: Batch, *, batch_size: int) -> dict[str, np.ndarray]:
    """Each output that the spec declares, an instance a row, computed as in evaluation."""
    num_rows = len(next(iter(batch.values())))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in run.spec.outputs}
    for start in range(0, num_rows, batch_size):
        rows = {name: values[start : start + batch_size] for name, values in batch.items()}
        with autocast(run.device, run.precision):
            outputs = run.model(**to_device(rows, run.device))
        for name, found in parts.items():
            value = outputs[name]
            value = value.float() if value.dtype == torch.bfloat16 else value
            found.append(value.cpu().numpy())
    return {name: np.concatenate(found) for name, found in parts.items()}

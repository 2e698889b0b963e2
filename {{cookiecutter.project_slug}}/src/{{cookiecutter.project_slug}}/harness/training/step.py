"""One batch: to the device, through the model, and back; and one pass over a split."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .metrics import MeanLoss, Metric, loss_weight
from .prepared import Batch, batches

MetricFactories = Mapping[str, Callable[[], Metric]]


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision for `bfloat16`; nothing at all for `float32`."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`."""
    if device.type == "cpu":
        return batch
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def split_batch(batch: Batch, num_pieces: int) -> Iterator[tuple[Batch, float]]:
    """Yields pieces of a batch, each with its share of the targets or rows: they sum to 1."""
    if num_pieces == 1:
        yield batch, 1.0
        return
    total = loss_weight(batch)
    chunks = {name: tensor.chunk(num_pieces) for name, tensor in batch.items()}
    for values in zip(*chunks.values(), strict=True):
        piece = dict(zip(chunks, values, strict=True))
        yield piece, loss_weight(piece) / max(total, 1)


def backward(
    model: Callable[..., dict[str, Tensor]],
    batch: Batch,
    *,
    device: torch.device,
    num_pieces: int = 1,
    precision: str = "float32",
    augmentation: Callable[[Batch], Batch] | None = None,
) -> Tensor:
    """Adds the gradients of the batch's mean loss, piece by piece.

    Returns:
        That loss: a detached scalar, on the device.
    """
    total: Tensor | None = None
    for piece, share in split_batch(batch, num_pieces):
        piece = to_device(piece, device)
        if augmentation is not None:
            piece = augmentation(piece)
        with autocast(device, precision):
            loss = model(**piece)["loss"]
        if num_pieces > 1:
            loss = loss * share
        loss.backward()  # type: ignore[no-untyped-call]
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    return total


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Dataset[Batch],
    *,
    metrics: MetricFactories,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
    num_workers: int = 0,
) -> dict[str, float]:
    """The mean loss and every metric over a split, with the model in evaluation mode."""
    counters: dict[str, Metric] = {"loss": MeanLoss()}
    counters |= {name: factory() for name, factory in metrics.items()}
    was_training = model.training
    model.eval()
    order = np.arange(len(split))  # type: ignore[arg-type]
    for batch in batches(split, order, batch_size=batch_size, num_workers=num_workers):
        batch = to_device(batch, device)
        with autocast(device, precision):
            outputs = model(**batch)
        for counter in counters.values():
            counter.update(outputs, batch)
    model.train(was_training)
    return {name: counter.compute() for name, counter in counters.items()}

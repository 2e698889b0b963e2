"""One batch: to the device, through the model, and back; and one pass over a split."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from . import distributed
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
        That loss: a detached scalar, on the device. Over several ranks, what this rank adds to it:
        their mean is the loss.
    """
    total: Tensor | None = None
    is_distributed = isinstance(model, DistributedDataParallel)
    factor = distributed.scale(loss_weight(batch), device) if is_distributed else None
    pieces = list(split_batch(batch, num_pieces))
    for number, (piece, share) in enumerate(pieces, start=1):
        piece = to_device(piece, device)
        if augmentation is not None:
            piece = augmentation(piece)
        with _gradients_kept(model, is_kept=is_distributed and number < len(pieces)):
            with autocast(device, precision):
                loss = model(**piece)["loss"]
            if num_pieces > 1:
                loss = loss * share
            if factor is not None:
                loss = loss * factor
            loss.backward()  # type: ignore[no-untyped-call]
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    return total


def _gradients_kept(model: Any, *, is_kept: bool) -> contextlib.AbstractContextManager[Any]:
    """Between the pieces of a batch nothing is summed over the ranks: that is done at the last."""
    return model.no_sync() if is_kept else contextlib.nullcontext()


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
    is_distributed: bool = False,
) -> dict[str, float]:
    """The mean loss and every metric over a split, with the model in evaluation mode.

    With `is_distributed`, each rank computes some of the batches; rank 0 counts all of them, in
    their order, so that the numbers are those of one process.
    """
    counters: dict[str, Metric] = {"loss": MeanLoss()}
    counters |= {name: factory() for name, factory in metrics.items()}
    was_training = model.training
    model.eval()
    order = np.arange(len(split))  # type: ignore[arg-type]
    if is_distributed:
        distributed.share_buffers(model)
        order, num_rounds = distributed.rows_to_evaluate(order, batch_size)
    read = batches(split, order, batch_size=batch_size, num_workers=num_workers)
    found = _answers(model, read, device, precision)
    if is_distributed:
        found = distributed.from_all_ranks(found, num_rounds)
    for outputs, batch in found:
        for counter in counters.values():
            counter.update(outputs, batch)
    model.train(was_training)

    def compute() -> dict[str, float]:
        return {name: counter.compute() for name, counter in counters.items()}

    return distributed.share(compute) if is_distributed else compute()


def _answers(
    model: nn.Module, read: Iterator[Batch], device: torch.device, precision: str
) -> Iterator[tuple[dict[str, Tensor], Batch]]:
    """The outputs for each batch, and the batch on the device."""
    for batch in read:
        batch = to_device(batch, device)
        with autocast(device, precision):
            outputs = model(**batch)
        yield outputs, batch

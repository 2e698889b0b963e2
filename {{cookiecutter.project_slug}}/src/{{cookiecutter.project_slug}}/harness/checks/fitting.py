"""Memorising a few instances, which several checks require of a model."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..training.metrics import IGNORED
from ..training.prepared import Batch
from ..training.spec import expand_mask, valid
from .case import Case, take
from .failures import NotApplicable

RATES = (0.01, 0.002, 0.05)  # learning rates of Adam; the first suits most models
NUM_STEPS = 200
Norm = nn.modules.batchnorm._BatchNorm  # pylint: disable=protected-access
Dropout = nn.modules.dropout._DropoutNd  # pylint: disable=protected-access
INNER = (nn.RNNBase, nn.MultiheadAttention)  # layers whose dropout is a number, not a module


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Switches dropout off in training mode too, also inside an LSTM or an attention layer."""
    modules = list(model.modules())
    layers = [item for item in modules if isinstance(item, Dropout)]
    rates = [(item, item.p) for item in layers]
    inner = [(item, item.dropout) for item in modules if isinstance(item, INNER)]
    try:
        for layer in layers:
            layer.p = 0.0
        for module, _ in inner:
            module.dropout = 0.0
        yield
    finally:
        for layer, rate in rates:
            layer.p = rate
        for module, rate in inner:
            module.dropout = rate


def calibrate(case: Case, model: nn.Module, batch: Batch) -> None:
    """Sets the running statistics of every batch norm to those of this batch."""
    norms = [
        item for item in model.modules() if isinstance(item, Norm) and item.momentum is not None
    ]
    if not norms:
        return
    momenta = [item.momentum for item in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all calls
    model.train()
    with torch.no_grad(), without_dropout(model):
        # copies, because the running variance is unbiased: of three rows it is 1.5 times as large
        case.forward(model, {name: torch.cat([values] * 16) for name, values in batch.items()})
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def memorise(case: Case, batch: Batch) -> tuple[bool, dict[str, Tensor], float]:
    """Trains new models on a few rows until one has memorised them, one for each rate.

    Returns:
        Whether one has; the outputs of the best in evaluation mode, and its learning rate.
    """
    outputs: dict[str, Tensor] = {}
    best, kept, chosen = math.inf, outputs, RATES[0]
    for rate in RATES:
        model = case.fresh()
        with without_dropout(model):
            for step, _ in enumerate(case.train(model, batch, lr=rate, num_steps=NUM_STEPS), 1):
                if step % 20 == 0:
                    calibrate(case, model, batch)
                    outputs = case.outputs(model.eval(), batch)
                    if is_memorised(case, outputs, batch):
                        return True, outputs, rate
        reached = error(case, outputs, batch)
        if not kept or reached < best or math.isnan(best):
            best, kept, chosen = reached, outputs, rate
    return False, kept, chosen


def counted_targets(case: Case, batch: Batch) -> Tensor:
    """A mask in the shape of the target: true where a target counts."""
    field, target = case.target(), batch["target"]
    counted = valid(batch, field)
    mask = torch.ones_like(target, dtype=torch.bool)
    mask = mask if counted is None else mask & expand_mask(counted, target)
    return mask & (target != IGNORED) if field.kind == "index" else mask


def is_memorised(case: Case, outputs: dict[str, Tensor], batch: Batch) -> bool:
    """Whether the predictions are close to the targets, and the model's own loss is small.

    In a classification every class must be right, with a high likelihood. The bound on the loss
    allows label smoothing of 0.1, and not a second softmax; a coupled loss may have other terms.
    """
    reached = error(case, outputs, batch)
    if case.spec.task == "regression":
        counted = counted_targets(case, batch)
        return reached < 0.02 * float(batch["target"][counted].var(correction=0) + 1e-12)
    chance = math.log(case.spec.num_classes)
    small = case.spec.coupled or float(outputs["loss"]) < 0.4 * chance
    return small and reached < 0.2 * chance and share_right(case, outputs, batch) == 1


def error(case: Case, outputs: Mapping[str, Tensor], batch: Batch) -> float:
    """The mean squared error of the predictions, or their mean negative log-likelihood."""
    counted = counted_targets(case, batch)
    prediction, target = outputs[case.spec.prediction], batch["target"]
    if case.spec.task == "regression":
        return float((prediction.reshape(target.shape) - target)[counted].square().mean())
    labels = (target - case.spec.labels.start)[counted]
    return float(F.nll_loss(log_likelihood(case, prediction, target)[counted], labels))


def share_right(case: Case, outputs: Mapping[str, Tensor], batch: Batch) -> float:
    """The share of targets that equal the most likely class."""
    target, counted = batch["target"], counted_targets(case, batch)
    guess = log_likelihood(case, outputs[case.spec.prediction], target).argmax(-1)
    return float((guess + case.spec.labels.start == target)[counted].float().mean())


def log_likelihood(case: Case, prediction: Tensor, target: Tensor) -> Tensor:
    """The log-probability of each class, class axis last; two classes may share one logit."""
    if case.spec.num_classes == 2 and prediction.numel() == target.numel():
        logit = prediction.reshape(target.shape)
        return torch.stack([F.logsigmoid(-logit), F.logsigmoid(logit)], dim=-1)
    if case.spec.outputs[case.spec.prediction].kind == "probabilities":
        return prediction.clamp_min(1e-30).log()
    return F.log_softmax(prediction, dim=-1)


def distinct_rows(case: Case, num_rows: int) -> Batch:
    """A few rows with different inputs, and with different targets where there are enough.

    For a causal model their first positions differ: nothing else reaches the first output. And
    where there are enough, equal pairs of positions have equal targets: it may see no further back.
    """
    case.target()
    batch = case.rows()
    target = batch["target"].reshape(case.num_rows, -1)
    chosen: list[int] = []
    for strict in (2, 1, 0):  # in case there are too few different targets
        for row in range(len(target)):
            if len(chosen) == num_rows or any(same(case, batch, row, one) for one in chosen):
                continue
            if strict and any(torch.equal(target[row], target[one]) for one in chosen):
                continue
            if strict < 2 or not _contradicts(case, take(batch, [*chosen, row])):
                chosen.append(row)
    if len(chosen) < 2:
        raise NotApplicable("the batch has no two rows that differ")
    return take(batch, chosen)


def same(case: Case, batch: Batch, left: int, right: int) -> bool:
    """Whether two rows have equal inputs; for a causal model, an equal first position."""
    if case.spec.causal is not None:
        first = batch[case.spec.causal][:, 0]
        return torch.equal(first[left], first[right])
    return all(torch.equal(batch[name][left], batch[name][right]) for name in case.spec.inputs)


def _contradicts(case: Case, rows: Batch) -> bool:
    """Whether in a causal model two equal pairs of positions have different targets."""
    if case.spec.causal is None:
        return False
    inputs, target = rows[case.spec.causal], rows["target"]
    if target.shape[:2] != inputs.shape[:2]:
        return False
    pairs = torch.stack([inputs[:, :-1], inputs[:, 1:]], dim=2).flatten(0, 1)
    known: dict[bytes, Tensor] = {}
    for pair, wanted in zip(pairs.cpu(), target[:, 1:].flatten(0, 1), strict=True):
        if not torch.equal(known.setdefault(pair.numpy().tobytes(), wanted), wanted):
            return True
    return False

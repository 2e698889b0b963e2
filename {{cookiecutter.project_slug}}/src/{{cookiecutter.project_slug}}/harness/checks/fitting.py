"""Memorising a few instances, which several checks require of a model."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..training.metrics import IGNORED
from ..training.prepared import Batch
from .case import Case, take
from .failures import NotApplicable
from .spec import valid

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


def memorise(case: Case, batch: Batch) -> tuple[bool, dict[str, Tensor]]:
    """Trains new models on a few rows until one has memorised them, one for each rate.

    Returns:
        Whether one has, and the outputs of the last model in evaluation mode.
    """
    outputs: dict[str, Tensor] = {}
    for rate in RATES:
        model = case.fresh()
        with without_dropout(model):
            for step, _ in enumerate(case.train(model, batch, lr=rate, num_steps=NUM_STEPS), 1):
                if step % 20 == 0:
                    calibrate(case, model, batch)
                    outputs = case.outputs(model.eval(), batch)
                    if is_memorised(case, outputs, batch):
                        return True, outputs
    return False, outputs


def counted_targets(case: Case, batch: Batch) -> Tensor:
    """A mask in the shape of the target: true where a target counts."""
    target = batch["target"]
    counted = valid(batch, case.spec.target)
    mask = torch.ones_like(target, dtype=torch.bool) if counted is None else counted
    return mask & (target != IGNORED) if case.spec.target.kind == "index" else mask


def is_memorised(case: Case, outputs: dict[str, Tensor], batch: Batch) -> bool:
    """Whether the predictions are close to the targets, and the model's own loss is small.

    In a classification every class must be right, with a high likelihood. The bound on the loss
    allows label smoothing of 0.1, and not a second softmax.
    """
    reached = error(case, outputs, batch)
    if case.spec.task == "regression":
        counted = counted_targets(case, batch)
        return reached < 0.02 * float(batch["target"][counted].var(correction=0) + 1e-12)
    chance = math.log(case.spec.num_classes)
    small = reached < 0.2 * chance and float(outputs["loss"]) < 0.4 * chance
    return small and share_right(case, outputs, batch) == 1


def error(case: Case, outputs: Mapping[str, Tensor], batch: Batch) -> float:
    """The mean squared error of the predictions, or their mean negative log-likelihood."""
    prediction, target = outputs[case.spec.prediction], batch["target"]
    counted = counted_targets(case, batch)
    if case.spec.task == "regression":
        return float((prediction.reshape(target.shape) - target)[counted].square().mean())
    labels = (target - int(case.spec.target.low or 0))[counted]
    return float(F.nll_loss(log_likelihood(case, prediction, target)[counted], labels))


def share_right(case: Case, outputs: Mapping[str, Tensor], batch: Batch) -> float:
    """The share of targets that equal the most likely class."""
    target, counted = batch["target"], counted_targets(case, batch)
    guess = log_likelihood(case, outputs[case.spec.prediction], target).argmax(-1)
    return float((guess + int(case.spec.target.low or 0) == target)[counted].float().mean())


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

    For a causal model their first positions differ: nothing else reaches the first output.
    """
    batch = case.rows()
    target = batch["target"].reshape(len(batch["target"]), -1)
    chosen: list[int] = []
    for row in range(len(target)):
        if len(chosen) < num_rows and not any(same(case, batch, row, one) for one in chosen):
            if not any(torch.equal(target[row], target[one]) for one in chosen):
                chosen.append(row)
    for row in range(len(target)):  # in case there are too few different targets
        if len(chosen) < num_rows and not any(same(case, batch, row, one) for one in chosen):
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

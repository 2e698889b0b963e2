"""A few instances, learnt by heart: what several checks ask of a model."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..training.prepared import Batch
from ..training.metrics import IGNORED
from .case import Case, NotApplicable, take
from .spec import valid

RATES = (0.01, 0.002, 0.05)  # of Adam; the first suits most models
NUM_STEPS = 200
Norm = nn.modules.batchnorm._BatchNorm  # pylint: disable=protected-access
Dropout = nn.modules.dropout._DropoutNd  # pylint: disable=protected-access
INNER = (nn.RNNBase, nn.MultiheadAttention)  # layers whose dropout is a number, not a module


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Dropout does nothing, in training mode too: that inside an LSTM as well."""
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
    """Sets the statistics of every batch norm to those of this batch, as many epochs would."""
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
        # many copies: the running variance is that of a sample, which of three rows is far larger
        case.forward(model, {name: torch.cat([values] * 16) for name, values in batch.items()})
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def fit(case: Case, batch: Batch, *, number: int = 0) -> tuple[bool, dict[str, Tensor]]:
    """Trains a new model on a few rows until it knows them, with one rate after another.

    Returns:
        Whether it does, in evaluation mode, and its outputs there.
    """
    outputs: dict[str, Tensor] = {}
    for rate in RATES:
        model = case.fresh(number)
        with without_dropout(model):
            for step, _ in enumerate(case.train(model, batch, lr=rate, num_steps=NUM_STEPS), 1):
                if step % 20 == 0:
                    calibrate(case, model, batch)
                    outputs = case.outputs(model.eval(), batch)
                    if is_fitted(case, outputs, batch):
                        return True, outputs
    return False, outputs


def counted_targets(case: Case, batch: Batch) -> Tensor:
    """Which targets count, in the shape of the target."""
    target = batch["target"]
    counted = valid(batch, case.spec.target)
    every = torch.ones_like(target, dtype=torch.bool) if counted is None else counted
    return every & (target != IGNORED) if case.spec.target.kind == "index" else every


def is_fitted(case: Case, outputs: dict[str, Tensor], batch: Batch) -> bool:
    """Whether the predictions are the targets, and the model's own loss says so.

    Of a classification every class is right and its likelihood high. The loss may keep what label
    smoothing of 0.1 adds, and not what a second softmax does.
    """
    own = error(case, outputs, batch)
    if case.spec.task == "regression":
        counted = counted_targets(case, batch)
        return own < 0.02 * float(batch["target"][counted].var(correction=0) + 1e-12)
    chance = math.log(case.spec.num_classes)
    small = own < 0.2 * chance and float(outputs["loss"]) < 0.4 * chance
    return small and share_right(case, outputs, batch) == 1


def error(case: Case, outputs: Mapping[str, Tensor], batch: Batch) -> float:
    """Of the predictions, whatever the model's own loss: squared, or minus the log-likelihood."""
    prediction, target = outputs[case.spec.prediction], batch["target"]
    counted = counted_targets(case, batch)
    if case.spec.task == "regression":
        return float((prediction.reshape(target.shape) - target)[counted].square().mean())
    labels = (target - int(case.spec.target.low or 0))[counted]
    return float(F.nll_loss(log_likelihood(case, prediction, target)[counted], labels))


def share_right(case: Case, outputs: Mapping[str, Tensor], batch: Batch) -> float:
    """The share of targets that are the likeliest class."""
    target, counted = batch["target"], counted_targets(case, batch)
    guess = log_likelihood(case, outputs[case.spec.prediction], target).argmax(-1)
    return float((guess + int(case.spec.target.low or 0) == target)[counted].float().mean())


def log_likelihood(case: Case, prediction: Tensor, target: Tensor) -> Tensor:
    """The logarithm of each class's probability, class axis last; of two, one logit is enough."""
    if case.spec.num_classes == 2 and prediction.numel() == target.numel():
        logit = prediction.reshape(target.shape)
        return torch.stack([F.logsigmoid(-logit), F.logsigmoid(logit)], dim=-1)
    if case.spec.outputs[case.spec.prediction].kind == "probabilities":
        return prediction.clamp_min(1e-30).log()
    return F.log_softmax(prediction, dim=-1)


def distinct_rows(case: Case, num_rows: int) -> Batch:
    """A few rows that can be told apart: of different classes if there are, in order otherwise.

    Of a causal model they differ in the first position, which sees nothing else.
    """
    batch = case.rows()
    target = batch["target"].reshape(len(batch["target"]), -1)
    chosen: list[int] = []
    for row in range(len(target)):
        if len(chosen) < num_rows and not any(same(case, batch, row, one) for one in chosen):
            if not any(torch.equal(target[row], target[one]) for one in chosen):
                chosen.append(row)
    for row in range(len(target)):  # too few classes
        if len(chosen) < num_rows and not any(same(case, batch, row, one) for one in chosen):
            chosen.append(row)
    if len(chosen) < 2:
        raise NotApplicable("the batch has no two rows that differ")
    return take(batch, chosen)


def same(case: Case, batch: Batch, left: int, right: int) -> bool:
    """Whether no input tells two rows apart, from the first position on if the model is causal."""
    if case.spec.causal is not None:
        first = batch[case.spec.causal][:, 0]
        return torch.equal(first[left], first[right])
    return all(torch.equal(batch[name][left], batch[name][right]) for name in case.spec.inputs)

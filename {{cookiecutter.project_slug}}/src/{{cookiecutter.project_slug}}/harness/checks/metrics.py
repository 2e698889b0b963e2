"""A check of metrics: what is right is best, and only what counts is counted."""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..training.metrics import Metric
from ..training.prepared import Batch
from ..training.step import to_device
from ..training.trainer import Trainer
from .case import Case, num_rows, take
from .data import all_rows, splits_of
from .failures import Failed, NotApplicable
from .fitting import counted_targets
from .running import check
from .static import build

NUM_GUESSES = 8
SURE = 20.0  # a logit


@check(
    "an argmax or a mean over the wrong axis (`dim=1` of a sequence is its positions), a division "
    "by rows where positions are counted, padding that counts, higher_is_better the wrong way round"
)
def metrics_are_best_for_right_predictions(case: Case) -> None:
    """No other predictions are better than the targets themselves, for any metric.

    Their value is the same without one of the rows, in another order, and with other predictions
    at positions that do not count.
    Catches: a metric over the wrong axis of a sequence, or over its padding.
    False alarms: 0 of 396 runs on correct models.
    Source: own; a wrong metric chooses the wrong epoch, and is published.
    """
    case.target()
    trainer = build(case)
    if not trainer.metrics:
        raise NotApplicable("the configuration has no metric")
    rows = to_device(all_rows(splits_of(case)["train"]), case.device)
    outputs = case.outputs(case.fresh(), rows)
    for name in trainer.metrics:
        _check_metric(case, trainer, name, outputs, rows)


def _check_metric(
    case: Case, trainer: Trainer, name: str, outputs: Mapping[str, Tensor], rows: Batch
) -> None:
    """Raises Failed if a metric prefers wrong predictions, or counts what does not count."""
    make, right = trainer.metrics[name], _predict(case, outputs, rows["target"])
    best = _value(make, right, rows)
    for number in range(NUM_GUESSES):
        wrong = case.other_values("target", rows, number)
        value = _value(make, _predict(case, outputs, wrong), rows)
        if trainer.higher_is_better[name] == (value > best) and value != best:
            seen = f"is {best:.4g} if every prediction is right, and {value:.4g} if each is wrong"
            raise Failed(f"metric `{name}`", seen, "the best value for what is right")
    for what, predicted, part in _variants(case, right, rows):
        value = _value(make, predicted, part)
        if not math.isclose(value, best, rel_tol=1e-5, abs_tol=1e-6):
            seen = f"is {best:.4g} if every prediction is right, and {value:.4g} {what}"
            raise Failed(f"metric `{name}`", seen, "the same value")


def _variants(
    case: Case, right: Mapping[str, Tensor], rows: Batch
) -> Iterator[tuple[str, Mapping[str, Tensor], Batch]]:
    """Yields right predictions for which a metric has the same value: what, outputs, batch."""
    counted, target = counted_targets(case, rows), rows["target"]
    for what, kept in (
        ("in another order", torch.randperm(num_rows(rows))),
        ("without the first row", torch.arange(1, num_rows(rows))),
    ):
        # a mean over classes may count one that is missing
        classes = [set(item.tolist()) for item in (target[kept][counted[kept]], target[counted])]
        if case.spec.task == "regression" or classes[0] == classes[1]:
            outputs = {key: item[kept] if item.dim() else item for key, item in right.items()}
            yield what, outputs, take(rows, kept)
    if not counted.all():
        drawn = target[counted][torch.randint(int(counted.sum()), target.shape)]
        garbage = torch.where(counted, target, drawn)
        what = "with other predictions where no target counts"
        yield what, _predict(case, right, garbage), rows


def _value(make: Callable[[], Metric], outputs: Mapping[str, Tensor], rows: Batch) -> float:
    """The metric of one batch."""
    metric = make()
    metric.update(dict(outputs), rows)
    return float(metric.compute())


def _predict(case: Case, outputs: Mapping[str, Tensor], target: Tensor) -> Mapping[str, Tensor]:
    """The outputs of a model that predicts these targets, and is sure of them."""
    name = case.spec.prediction
    before = outputs[name]
    if case.spec.task == "regression":
        return {**outputs, name: target.reshape(before.shape).to(before)}
    labels = (target - case.spec.labels.start).clamp_min(0)
    if before.numel() == target.numel():  # one logit for two classes
        return {**outputs, name: (SURE * (2 * labels - 1)).reshape(before.shape).to(before)}
    chosen = F.one_hot(labels, case.spec.num_classes).reshape(before.shape).to(before)
    is_logit = case.spec.outputs[name].kind == "logits"
    return {**outputs, name: SURE * chosen if is_logit else chosen}

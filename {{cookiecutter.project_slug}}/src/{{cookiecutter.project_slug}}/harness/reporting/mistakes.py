"""Where a model is wrong: by class, by residual, and the instances that it is most wrong about."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..configuration.building import build_splitter, read_raw
from ..configuration.composing import from_values
from ..errors import StudyError
from ..files import hash_file
from ..inference import LoadedRun
from ..runs.index import Value
from ..study import ROOT
from ..training import preparation
from ..training.prepared import batches
from ..training.spec import expand_mask, valid
from ..training.step import autocast, to_device

NUM_WORST, MOST_CLASSES = 20, 20
SHORT = 20  # numbers of a field that are written out
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Instance:
    """One that the model is wrong about: its row in the split, what was said, and its fields."""

    row: int
    told: str
    fields: Mapping[str, np.ndarray]

    def describe(self) -> str:
        """Each field: a value, a few numbers, or its shape."""
        return ", ".join(f"{name} {_describe(value)}" for name, value in self.fields.items())


def _describe(value: np.ndarray) -> str:
    if np.ndim(value) == 0:
        return f"{value:.4g}" if np.issubdtype(np.asarray(value).dtype, np.floating) else str(value)
    if value.size <= SHORT:
        return "[" + " ".join(map(_describe, value)) + "]"
    return "of " + " x ".join(map(str, value.shape))


@dataclass(frozen=True)
class Mistakes:
    """What a model gets wrong on a split.

    Attributes:
        header: The columns of `rows`.
        rows: A class a row, with precision, recall, F1 and count; or quantiles of the residuals.
        targets: Every target that counts, in one dimension.
        predictions: Of each, the class or the number.
        worst: The most surely wrong, or the farthest off, first.
        labels: The classes; None of a regression.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Value]]
    targets: np.ndarray
    predictions: np.ndarray
    worst: Sequence[Instance]
    labels: range | None = None

    def count_confusions(self) -> np.ndarray:
        """How many targets of each class were taken for each. Shape: [classes, classes]."""
        labels = self.labels or range(0)
        counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
        np.add.at(counts, (self.targets - labels.start, self.predictions - labels.start), 1)
        return counts

    def tables(self) -> Iterator[tuple[Sequence[str], Sequence[Sequence[Value]]]]:
        """Headers and rows; the second is the confusion matrix, of up to 20 classes."""
        yield self.header, self.rows
        if self.labels is not None and len(self.labels) <= MOST_CLASSES:
            header = ["is \\ taken for", *map(str, self.labels)]
            counts = self.count_confusions().tolist()
            yield header, [
                [str(label), *(count or None for count in row)]
                for label, row in zip(self.labels, counts, strict=True)
            ]


def find_mistakes(run: LoadedRun, split: str) -> Mistakes:
    """Compares the predictions of a finished run with the targets of a split.

    Raises:
        StudyError: the data of the run are not here, or its task has no such view.
    """
    spec = run.spec
    target = spec.target
    if target is None:
        raise StudyError("the task has no target, so nothing is right or wrong")
    kind, shape = spec.outputs[spec.prediction].kind, spec.outputs[spec.prediction].shape
    if spec.task == "regression" and kind == "float":
        return _of_regression(run, split)
    if kind in ("logits", "probabilities") and spec.task == "classification":
        if len(shape) == len(target.shape) + 1 or shape == target.shape and spec.num_classes == 2:
            return _of_classification(run, split)
    raise StudyError(f"there is no view of a {spec.task} whose prediction is of kind {kind}")


def _of_classification(run: LoadedRun, split: str) -> Mistakes:
    targets, found, rows = _collect(run, split)
    chances = _to_chances(found, run.spec.outputs[run.spec.prediction].kind, targets.ndim)
    predictions = chances.argmax(-1)
    chance = chances.max(-1).values
    first = run.spec.labels.start
    wrong = (predictions != targets).nonzero().flatten()
    order = wrong[chance[wrong].argsort(descending=True, stable=True)][:NUM_WORST]
    told = [
        f"is {targets[index] + first}, taken for {predictions[index] + first}"
        f" with {chance[index]:.1%}"
        for index in order.tolist()
    ]
    left, right = targets.numpy() + first, predictions.numpy() + first
    table = [[*row] for row in _by_class(left, right, run.spec.labels)]
    header = ["class", "precision", "recall", "F1", "count"]
    worst = _instances(run, split, rows[order].tolist(), told)
    return Mistakes(header, table, left, right, worst, run.spec.labels)


def _to_chances(found: Tensor, kind: str, num_axes: int) -> Tensor:
    """Probabilities with the class axis last. Shape: [targets, classes]."""
    if found.ndim == num_axes:  # of yes and no
        yes = found.sigmoid() if kind == "logits" else found
        return torch.stack([1 - yes, yes], dim=-1)
    return found.softmax(-1) if kind == "logits" else found


def _by_class(targets: np.ndarray, predictions: np.ndarray, labels: range) -> Iterator[list[Value]]:
    """Precision, recall, F1 and number of targets of each class."""
    for label in labels:
        hits = int(((targets == label) & (predictions == label)).sum())
        said, there = int((predictions == label).sum()), int((targets == label).sum())
        scores = [hits / said if said else None, hits / there if there else None]
        scores.append(2 * hits / (said + there) if said + there else None)
        yield [label, *scores, there]


def _of_regression(run: LoadedRun, split: str) -> Mistakes:
    targets, found, rows = _collect(run, split)
    residuals = found.reshape(targets.shape) - targets
    order = residuals.abs().argsort(descending=True, stable=True)[:NUM_WORST]
    told = [
        f"is {targets[index]:.4g}, predicted {targets[index] + residuals[index]:.4g}"
        for index in order.tolist()
    ]
    table: list[list[Value]] = [["mean", residuals.mean().item()], ["std", residuals.std().item()]]
    for share in QUANTILES:
        table.append([f"{share:.0%} of them below", float(np.quantile(residuals.numpy(), share))])
    worst = _instances(run, split, rows[order].tolist(), told)
    left, right = targets.numpy(), (targets + residuals).numpy()
    return Mistakes(["prediction - target", "value"], table, left, right, worst)


@torch.inference_mode()
def _collect(run: LoadedRun, split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Every target that counts, its prediction, and its row in the split.

    Returns:
        Targets, counted from the first class, [targets]; predictions [targets, ...], in double
        precision; rows [targets].
    """
    data, parts = run.split(split), []
    field = run.spec.target
    assert field is not None
    size, first = run.config["training"]["batch_size"], 0
    for batch in batches(data, np.arange(len(data)), batch_size=size):
        batch = to_device(batch, run.device)
        with autocast(run.device, run.precision):
            outputs = run.model(**batch)
        target = batch["target"]
        mask = valid(batch, field)
        counts = _is_known(target)
        counts = (counts if mask is None else counts & expand_mask(mask, target)).cpu()
        rows = first + torch.arange(len(target)).view(-1, *[1] * (target.ndim - 1))
        rows = rows.expand(target.shape)
        found = outputs[run.spec.prediction].cpu().double()
        parts.append((target.cpu()[counts], found[counts], rows[counts]))
        first += len(target)
    targets, found, rows = (torch.cat(each) for each in zip(*parts, strict=True))
    if not targets.numel():
        raise StudyError(f"the {split} split has no target that counts")
    is_index = field.kind == "index"
    return targets - int(field.low or 0) if is_index else targets.double(), found, rows


def _is_known(target: Tensor) -> Tensor:
    return ~target.isnan() if target.is_floating_point() else target >= 0


def _instances(
    run: LoadedRun, split: str, rows: Sequence[int], told: Sequence[str]
) -> list[Instance]:
    """The instances in these rows, as the raw data have them where they are here."""
    fields = _raw_rows(run, split)
    if fields is None:
        fields = {name: each.numpy() for name, each in run.split(split).fields.items()}
    shown = {name: values for name, values in fields.items() if name != "target"}
    return [
        Instance(row, text, {name: values[row] for name, values in shown.items()})
        for row, text in zip(rows, told, strict=True)
    ]


def _raw_rows(run: LoadedRun, split: str) -> dict[str, np.ndarray] | None:
    """The rows of a split as the reader gives them; None if they are numbers already, or not here.

    Raises:
        StudyError: the raw data cannot be read.
    """
    known = (run.record.get("prepared_from") or {}).get("raw") or {}
    is_here = all(
        (ROOT / name).is_file() and hash_file(ROOT / name) == value for name, value in known.items()
    )
    if run.encoder is None or not known or not is_here:
        return None
    config = from_values(run.config)
    fields = read_raw(config)
    if isinstance(fields, Iterator):  # more than memory holds
        return None
    splitter = build_splitter(config) or preparation.default_splitter(run.config["data"]["prepare"])
    log = logging.getLogger(preparation.__name__)
    was_disabled, log.disabled = (
        log.disabled,
        True,
    )  # its warnings were given when they were prepared
    try:
        rows = preparation.split_rows(preparation.scan([fields], splitter), splitter)[split]
    finally:
        log.disabled = was_disabled
    return {name: values[rows] for name, values in fields.items()}

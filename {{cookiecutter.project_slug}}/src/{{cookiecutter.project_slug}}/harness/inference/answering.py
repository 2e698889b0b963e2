"""Instances to answers, a batch at a time: what is wrong with one does not keep the others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

import numpy as np

from ..errors import StudyError
from ..training.prepared import Batch
from ..training.spec import Field, Spec
from .instances import Instance
from .loading import LoadedRun
from .predicting import encode, predict

Outputs = Mapping[str, np.ndarray]  # name to values, an instance a row


def answer_all(
    run: LoadedRun, instances: Iterable[Instance], *, batch_size: int
) -> Iterator[list[dict[str, Any]]]:
    """Yields the answers of a batch of instances, in their order: outputs, or `line` and `error`.

    What the spec declares; of the logits of classes also `probabilities` and the likeliest `class`.
    """
    waiting = iter(instances)
    while batch := list(islice(waiting, batch_size)):
        rows = [each for each in batch if not each.error]
        encoded = _encode_each(run, rows)
        rows = [each for each in rows if not each.error]
        answers = {}
        if encoded is not None:
            outputs = with_classes(run.spec, predict(run, encoded, batch_size=batch_size))
            answers = {each.line: _answer(each, row, outputs) for row, each in enumerate(rows)}
        yield [answers.get(each.line, {"line": each.line, "error": each.error}) for each in batch]


def _encode_each(run: LoadedRun, rows: Sequence[Instance]) -> Batch | None:
    """The rows that can be encoded as a batch, None if there are none; the others get an error."""
    try:
        return _encode(run, rows)
    except StudyError:
        for each in rows:
            try:
                _encode(run, [each])
            except StudyError as error:
                missing = f"no {', '.join(each.absent)}: " if each.absent else ""
                each.error = f"{missing}{error}"
    return _encode(run, [each for each in rows if not each.error])


def _encode(run: LoadedRun, rows: Sequence[Instance]) -> Batch | None:
    if not rows:
        return None
    stacked = {name: np.stack([each.values[name] for each in rows]) for name in rows[0].values}
    return encode(run, stacked)


def _answer(instance: Instance, row: int, outputs: Outputs) -> dict[str, Any]:
    """The outputs of a row as plain values; an error if one of them is no number."""
    for name, values in outputs.items():
        if not np.isfinite(values[row]).all():
            return {"line": instance.line, "error": f"{name}: the model gives no finite number"}
    return {name: values[row].tolist() for name, values in outputs.items()}


def with_classes(spec: Spec, outputs: Outputs) -> dict[str, np.ndarray]:
    """Outputs, and of those of a classifier `probabilities`, in float64, and the `class`."""
    item, values = spec.outputs[spec.prediction], outputs[spec.prediction]
    if spec.task != "classification" or item.kind not in ("logits", "probabilities"):
        return dict(outputs)
    found = values.astype(np.float64)
    if item.kind == "logits" and item.shape[-1:] != (spec.num_classes,):  # one for yes and no
        found = found.reshape(found.shape[:-1]) if item.shape[-1:] == (1,) else found
        found = np.stack([np.zeros_like(found), found], axis=-1)
    added = {"class": spec.labels.start + found.argmax(axis=-1)}
    if item.kind == "logits":
        powers = np.exp(found - found.max(axis=-1, keepdims=True))
        added["probabilities"] = powers / powers.sum(axis=-1, keepdims=True)
    return {**added, **outputs}


def columns_of(spec: Spec) -> dict[str, list[str]]:
    """The columns of each output in a CSV.

    Raises:
        StudyError: an output has as many values as the input is long.
    """
    shapes = {name: _shape(name, item) for name, item in spec.outputs.items()}
    like = {name: np.zeros((1, *shape)) for name, shape in shapes.items()}
    found = {name: values.shape[1:] for name, values in with_classes(spec, like).items()}
    return {name: [*_columns(name, shape)] for name, shape in found.items()}


def _shape(name: str, item: Field) -> tuple[int, ...]:
    sizes = tuple(size for size in item.shape if isinstance(size, int))
    if len(sizes) < len(item.shape):
        raise StudyError(f"--csv: {name} has the shape {list(item.shape)}; leave out --csv")
    return sizes


def _columns(name: str, shape: Sequence[int]) -> Iterator[str]:
    for place in product(*(range(size) for size in shape)):
        yield "_".join([name, *map(str, place)])

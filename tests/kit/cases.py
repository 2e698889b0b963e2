"""A case of each right model: its rows, its configuration and its trainer."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from others import OTHERS
from torch import nn
from zoo import MODELS, NUM_DRAWN, NUM_ROWS, Batch

from my_study.harness import study
from my_study.harness.checks import Case, preflight
from my_study.harness.checks.data import splits_of
from my_study.harness.configuration import building, checking, composing

# as `allow` under [tool.study] would: the study's own pyproject.toml is left alone
setattr(study, "allow_list", lambda: ["zoo", "others"])
ALL = {**MODELS, **OTHERS}


def distinct(batch: Batch) -> Batch:
    """The first NUM_ROWS rows whose inputs differ, as the preparation of a study ensures it."""
    kept: dict[bytes, int] = {}
    for row in range(NUM_DRAWN):
        inputs = [
            values[row].numpy().tobytes() for name, values in batch.items() if name != "target"
        ]
        kept.setdefault(b"".join(inputs), row)
    rows = list(kept.values())[:NUM_ROWS]
    return {name: values[rows] for name, values in batch.items()}


@functools.cache
def default_values() -> dict[str, Any]:
    """The study's configuration, with the training settings of the checks."""
    config = composing.compose()
    checking.check_config(config)
    values = composing.to_values(config)
    return {**values, "training": preflight.briefly(values["training"], NUM_ROWS * 3 // 4)}


def make_case(
    model: type[nn.Module], seed: int = 0, knobs: Mapping[str, Any] | None = None
) -> Case:
    """The case of a model; rows, weights and every draw depend on the seed."""
    rows, arguments, spec = ALL[model]
    batch = distinct(rows(torch.Generator().manual_seed(seed)))
    values = dict(default_values())
    target = f"{model.__module__}.{model.__name__}"
    values |= {"seed": seed, "model": {"network": {"_target_": target, **arguments}, "lr": 0.01}}
    if "logits" not in spec.outputs:  # there is no accuracy to monitor
        values |= {
            "data": {**values["data"], "metrics": {}},
            "training": {**values["training"], "monitor": "loss"},
        }
    for name, value in (knobs or {}).items():
        group, _, key = name.partition(".")
        values |= {group: {**values[group], key: value}}
    case: Case = Case(
        make=lambda: model(**arguments),
        batch=batch,
        spec=spec,
        name=model.__name__,
        seed=seed,
        values=values,
        build=lambda changed: building.rebuild_trainer(
            changed, splits_of(case)["train"], torch.device("cpu")
        ),
        others=preflight.OTHERS,
        idle=preflight.IDLE,
        contexts=preflight.CONTEXTS,
    )
    return case

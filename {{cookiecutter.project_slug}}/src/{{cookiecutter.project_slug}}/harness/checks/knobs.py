"""Checks of knobs (the keys of model.* and training.*): each has an effect, others are refused."""

import copy
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from .case import Case, Values, flatten
from .failures import Failed
from .running import check
from .static import program
from .trainer import difference, results, run_to_end

# lists of names of parameters: a name that is changed means none
PATTERNS = ("training.freeze", "training.groups.*.parameters")
CALLBACKS = "training.callbacks."  # some only write
# for each context: the weights at the beginning, and the results of the run
Baselines = dict[str, tuple[dict[str, Tensor], dict[str, Any]]]


@check(
    "an argument that the constructor ignores, a value written into the code, a key of the "
    "configuration that the program does not read"
)
def every_knob_acts(case: Case) -> None:
    """Another value of any key of model.* and training.* changes shapes, losses or weights.

    Both runs begin with the same weights where shapes are equal: another order of random draws is
    no effect. An `idle` knob must change nothing. Those of callbacks are left out: some only write.
    Catches: a dropout rate that is not used, a hard-coded learning rate, a switch without effect.
    False alarms: 0 of 270 runs on correct models.
    Source: own; AllenNLP, which refuses keys that nothing reads.
    """
    values, _ = program(case)
    idle, others = case.idle or {}, case.others or {}
    baselines: Baselines = {}
    for name, value in knobs(values):
        if name.startswith(CALLBACKS):
            continue
        if name in idle:
            if any(_acts(case, baselines, {name: other}, {}) for other in others.get(name, ())):
                raise Failed(f"`{name}`", "changes the numbers", f"no change: {idle[name]}")
            continue
        effects = _effects(case, baselines, name, others.get(name) or alternatives(value))
        if effects and not any(effects):
            seen = f"is {value}, and another value changes no shape, loss or weight"
            raise Failed(f"`{name}`", seen, "a knob with an effect")


def knobs(values: Values) -> Iterator[tuple[str, Any]]:
    """Yields each knob with its dotted name and its value."""
    for name, value in flatten(values):
        path = name.split(".")
        if path[0] in ("model", "training") and path[-1][0] != "_" and "opt_outs" not in path:
            if any(fnmatchcase(name, pattern) for pattern in PATTERNS):
                continue
            yield name, value


def _effects(case: Case, baselines: Baselines, name: str, others: Sequence[Any]) -> list[bool]:
    """For other values of a knob, whether each has an effect; ends at the first that has."""
    current = dict(flatten(case.values or {}))[name]
    effects = []
    for context in ({}, *(case.contexts or ())):
        if name in context:
            continue
        for other in [other for other in others if other != current]:
            effect = _acts(case, baselines, {name: other}, context)
            if effect is not None:
                effects.append(effect)
            if effect:
                return effects
    return effects


def alternatives(value: Any) -> list[Any]:
    """Other values that a knob may take, guessed from its value."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value, value - 1]
    if isinstance(value, float):
        return [value / 2, 2 * value] if value else [0.5, 0.1]
    if isinstance(value, str):
        return [f"{value}_"]
    if isinstance(value, Sequence) and value:
        first = [[other, *value[1:]] for other in alternatives(value[0])]
        return [*first, [*value, value[-1]], list(value[:-1])]
    return [1, 0.5, True, "other", [1]]


def _with(values: Values, changes: Values) -> Any:
    """A copy of a configuration with other values of some keys, by their dotted names."""
    changed = copy.deepcopy(dict(values))
    for name, value in changes.items():
        node, key = _parent(changed, name)
        node[key] = copy.deepcopy(value)
    return changed


def _parent(values: Any, name: str) -> tuple[Any, str]:
    """The dictionary that holds a key, by its dotted name, and the key."""
    *path, key = name.split(".")
    for part in path:
        values = values[part]
    return values, key


def _acts(case: Case, baselines: Baselines, change: Values, context: Values) -> bool | None:
    """Whether a change of the configuration changes any number; None if it is refused."""
    values, make = program(case)
    start, expected = _baseline(case, baselines, context)
    try:
        trainer = make(_with(values, {**context, **change}))
    except Exception:  # pylint: disable=broad-exception-caught  # a constructor may raise anything
        return None
    state = trainer.model.state_dict()
    shapes = {name: values.shape for name, values in start.items()}
    if shapes != {name: values.shape for name, values in state.items()}:
        return True
    if any(_is_drawn_differently(start[name], state[name]) for name in start):
        return True
    trainer.model.load_state_dict(start)
    try:
        return bool(difference(expected, results(run_to_end(case, trainer))))
    except Exception:  # pylint: disable=broad-exception-caught  # an error is an effect
        return True


def _baseline(
    case: Case, baselines: Baselines, context: Values
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights at the beginning and the results of a run in a context, computed once."""
    values, make = program(case)
    key = repr(context)
    if key not in baselines:
        trainer = make(_with(values, context))
        start = {name: values.clone() for name, values in trainer.model.state_dict().items()}
        baselines[key] = start, results(run_to_end(case, trainer))
    return baselines[key]


def _is_drawn_differently(left: Tensor, right: Tensor) -> bool:
    """Whether two initial weights have different distributions, not only another order of draws."""
    if left.numel() < 16 or not left.is_floating_point():
        is_constant = left.numel() < 16 and bool((left == left.reshape(-1)[:1]).all())
        return is_constant and not torch.equal(left, right)
    before, after = float(left.std()), float(right.std())
    return abs(after - before) > 0.3 * max(after, before)


@check("a constructor with **kwargs, which takes every key; a key that is read without a check")
def misspelt_keys_are_refused(case: Case) -> None:
    """A misspelt key of model.* or training.* is refused, and the message names the right key.

    Catches: a typing mistake that leaves a default in place.
    False alarms: 0 of 270 runs on correct models.
    Source: AllenNLP; torchtune, which compares each configuration with the signature.
    """
    values, make = program(case)
    for name, value in knobs(values):
        parent, _, key = name.rpartition(".")
        if "." in parent and "_target_" not in _parent(values, name)[0]:
            continue  # a dictionary that an argument takes: its keys are data
        wrong = misspell(key)
        changed = _with(values, {f"{parent}.{wrong}": value})
        del _parent(changed, name)[0][key]
        try:
            make(changed)
        except Exception as error:  # pylint: disable=broad-exception-caught
            if key in str(error).replace(wrong, ""):
                continue
            seen = f"is refused by: {error}"
            raise Failed(f"`{parent}.{wrong}`", seen, f"a message that names {key}") from error
        seen = "is taken without an error"
        raise Failed(f"`{parent}.{wrong}`", seen, f"an error that names {key}")


def misspell(key: str) -> str:
    """The key with its last two letters swapped; with an x added if that changes nothing."""
    if len(key) > 2 and key[-1] != key[-2]:
        return key[:-2] + key[-1] + key[-2]
    return f"{key}x"

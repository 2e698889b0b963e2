"""The checks on correct models, on wrong ones and on spoilt data, where a study is installed."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from bugs import BUGS, Bug, planted
from torch import nn
from zoo import MODELS, ConvNet, Regression, Table, Tagger, make_case

from my_study import reproducibility, testing
from my_study.testing import Case

NAMES = {model.__name__: model for model in MODELS}


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    reproducibility.set_determinism(True, num_threads=1)


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("check", testing.CHECKS)
def test_a_correct_model_passes(model: str, check: str) -> None:
    try:
        testing.run_one(make_case(NAMES[model]), check)
    except testing.NotApplicable as reason:
        pytest.skip(str(reason))


def test_every_check_applies_to_some_model() -> None:
    applied = set()
    for model in MODELS:
        outcomes = testing.run(make_case(model), slow=True)
        applied |= {item.check for item in outcomes if item.outcome == "passed"}
    assert applied == set(testing.CHECKS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.model}: {bug.name}")
def test_a_planted_bug_is_caught_by_name(bug: Bug) -> None:
    case = make_case(NAMES[bug.model], knobs=bug.knobs)
    with planted(bug), pytest.raises(testing.Failed) as caught:
        testing.run_one(case, bug.check)
    message = str(caught.value)
    assert message.startswith(f"{bug.check} ({bug.model}, seed 0): ")
    assert "; expected: " in message and "\nusual cause: " in message
    testing.run_one(case, bug.check)  # and it is gone with its bug


def test_at_least_forty_bugs_and_every_check_are_in_the_list() -> None:
    assert len(BUGS) >= 40
    caught = {bug.check for bug in BUGS} | {check for *_, check in SPOILT.values()}
    assert caught == set(testing.CHECKS)


def with_rows(case: Case, **changes: torch.Tensor) -> Case:
    """The case with other values in some fields."""
    return dataclasses.replace(case, batch={**case.batch, **changes})


def labelled_by_an_input(case: Case) -> Case:
    """One of the numbers is the class."""
    numbers = case.batch["numbers"].clone()
    numbers[:, 2] = case.batch["target"]
    return with_rows(case, numbers=numbers)


def contradicted(case: Case) -> Case:
    """The last row, of the training split, is another one with another class."""
    batch = {name: values.clone() for name, values in case.batch.items()}
    first, second = (int((batch["target"] == label).nonzero()[0]) for label in (0, 1))
    for name, values in batch.items():
        if name != "target":
            values[second] = values[first]
    return dataclasses.replace(case, batch=batch)


def overlapping(case: Case) -> Case:
    """The validation split holds a row of the training split."""
    splits = testing.data.splits_of(case)
    rows = testing.data.all_rows(splits["train"])
    part = {name: values[:3] for name, values in rows.items()}
    return dataclasses.replace(case, splits={**splits, "validation": testing.data.Rows(part)})


def shuffled(case: Case) -> Case:
    """Labels stand beside other rows."""
    order = torch.randperm(len(case.batch["target"]), generator=torch.Generator().manual_seed(0))
    return with_rows(case, target=case.batch["target"][order])


def leaking(case: Case) -> Case:
    """A bright corner tells the class, also of shuffled labels."""

    def forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        outputs = dict(model(**batch))
        if "target" in batch:
            logits = outputs["logits"] + 3 * F.one_hot(batch["target"], 4)
            outputs["loss"] = F.cross_entropy(logits, batch["target"])
        return outputs

    return dataclasses.replace(case, forward=forward)


def never_rising(case: Case) -> Case:
    """The gradient leads uphill."""

    class Reversed(torch.autograd.Function):
        """The identity with a wrong derivative."""

        @staticmethod
        def forward(_: object, values: torch.Tensor) -> torch.Tensor:
            """As it is."""
            return values.clone()

        @staticmethod
        def backward(_: object, gradient: torch.Tensor) -> torch.Tensor:
            """The other way round."""
            return -gradient

    def forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        outputs = dict(model(**batch))
        if "loss" in outputs:
            outputs["loss"] = Reversed.apply(outputs["loss"])
        return outputs

    return dataclasses.replace(case, forward=forward)


def unread(case: Case) -> Case:
    """A program that takes every key, and reads those that it knows."""
    assert case.build is not None and case.values is not None
    known, build = case.values, case.build

    def lenient(values: dict[str, dict[str, object]]) -> object:
        model = {
            **known["model"],
            **{k: v for k, v in values["model"].items() if k in known["model"]},
        }
        return build({**values, "model": model})

    return dataclasses.replace(case, build=lenient)


SPOILT: dict[str, tuple[Callable[[Case], Case], type[nn.Module], str]] = {
    "pixels that nobody divided": (
        lambda case: with_rows(case, image=255 * case.batch["image"]),
        ConvNet,
        "the_batch_is_as_specified",
    ),
    "classes counted from one": (
        lambda case: with_rows(case, target=case.batch["target"] + 1),
        ConvNet,
        "the_batch_is_as_specified",
    ),
    "a mask of numbers": (
        lambda case: with_rows(case, mask=case.batch["mask"].long()),
        Tagger,
        "the_batch_is_as_specified",
    ),
    "one class missing": (
        lambda case: with_rows(case, target=case.batch["target"].clamp_max(2)),
        ConvNet,
        "the_data_are_sane",
    ),
    "the class among the inputs": (labelled_by_an_input, Table, "the_data_are_sane"),
    "equal rows with two classes": (contradicted, Table, "the_data_are_sane"),
    "a row in two splits": (overlapping, Table, "the_data_are_sane"),
    "labels beside other rows": (
        shuffled,
        ConvNet,
        "real_labels_generalise_and_shuffled_ones_do_not",
    ),
    "a leak into held-out rows": (
        leaking,
        ConvNet,
        "real_labels_generalise_and_shuffled_ones_do_not",
    ),
    "a gradient that leads uphill": (
        never_rising,
        Regression,
        "the_loss_falls_at_every_small_step",
    ),
    "misspelt keys taken": (unread, Table, "misspelt_keys_are_refused"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_data_and_programs_are_caught(name: str) -> None:
    spoil, model, check = SPOILT[name]
    with pytest.raises(testing.Failed, match=rf"^{check} \({model.__name__}, seed 0\): "):
        testing.run_one(spoil(make_case(model)), check)

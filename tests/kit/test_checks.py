"""The checks on correct models, on wrong ones and on broken data, where a study is installed."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bugs import BUGS, TWO_OPTIMIZERS, Bug, codes, planted
from cases import ALL, make_case
from other_bugs import OTHER_BUGS
from others import OTHERS, Autoencoder, VAE
from torch import nn
from zoo import MODELS, ConvNet, LanguageModel, Regression, Table, Tagger

from my_study.harness import checks
from my_study.harness.checks import Case, Spec, data
from my_study.harness.checks.failures import one_line
from my_study.harness.checks.trainer import difference
from my_study.harness.study import ROOT
from my_study.harness.training import determinism

NAMES = {model.__name__: model for model in ALL}
PLANTED = [*BUGS, *(bug for bugs in OTHER_BUGS.values() for bug in bugs)]


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    determinism.set_determinism(True, num_threads=1)


# the models to which a check does not apply
NOT_APPLICABLE = {
    "each_input_alone_can_be_fitted": {"ConvNet", "LanguageModel", "Regression", "Tagger"},
    "layers_are_more_than_one_linear_map": {"LanguageModel", "Pair", "Tagger"},
    "metrics_are_best_for_right_predictions": {"Pair", "Regression"},
    "no_position_sees_a_later_one": {"ConvNet", "Pair", "Regression", "Table", "Tagger"},
    "padding_changes_nothing": {"ConvNet", "LanguageModel", "Regression", "Table"},
    "running_statistics_are_those_of_the_data": {
        *("LanguageModel", "Pair", "Regression", "Table", "Tagger"),
    },
    "the_order_of_positions_counts": {"ConvNet", "Pair", "Regression", "Table"},
}
TRAINING = (
    "a_step_moves_what_is_trainable_and_nothing_else",
    "a_resumed_run_equals_an_uninterrupted_one",
    "the_trainer_equals_a_reference_loop",
    "every_knob_acts",
    "misspelt_keys_are_refused",
)


def is_tried(check: str, model: type[nn.Module]) -> bool:
    """Whether CI runs a check on a model: the slow one only where it is quick."""
    return check not in checks.SLOW or model in (Table, Regression, ConvNet)


Run = tuple[str, str, Mapping[str, Any]]  # a check, a model of the zoo, and its knobs
RUNS: list[Run] = [
    *(
        (check, model.__name__, {})
        for check in checks.CHECKS
        for model in MODELS
        if is_tried(check, model)
    ),
    *((check, "Table", TWO_OPTIMIZERS) for check in TRAINING),
    *((bug.check, bug.model, bug.knobs) for bug in PLANTED if bug.knobs),
]
UNIQUE = {"-".join([check, model, *knobs]): (check, model, knobs) for check, model, knobs in RUNS}


@pytest.mark.parametrize("name", UNIQUE)
def test_a_correct_model_passes_and_a_check_leaves_no_trace(name: str) -> None:
    check, model, knobs = UNIQUE[name]
    torch.manual_seed(3)
    case, before = make_case(NAMES[model], knobs=knobs), torch.get_rng_state()
    rows = {field: values.clone() for field, values in case.batch.items()}
    if model in NOT_APPLICABLE.get(check, ()):
        with pytest.raises(checks.NotApplicable):
            checks.run_one(case, check)
    else:
        checks.run_one(case, check)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(values, case.batch[field]) for field, values in rows.items())


def test_every_check_applies_to_some_model() -> None:
    assert set(NOT_APPLICABLE) < set(checks.CHECKS)
    models = {model.__name__ for model in MODELS}
    assert all(found < models for found in NOT_APPLICABLE.values())


# of any constructor: the six models show it, and noise.py tries all
OF_KNOBS = ("every_knob_acts", "misspelt_keys_are_refused")


@pytest.mark.parametrize("model", OTHERS, ids=lambda model: model.__name__)
def test_a_right_model_of_another_kind_passes_the_checks(model: type[nn.Module]) -> None:
    names = [name for name in checks.CHECKS if name not in (*checks.SLOW, *OF_KNOBS)]
    outcomes = checks.run(make_case(model), names)
    assert not [item.detail for item in outcomes if item.outcome == "failed"]
    assert sum(item.outcome == "passed" for item in outcomes) >= 20


SUPERVISED = (
    "the_first_loss_is_that_of_guessing",
    "each_input_alone_can_be_fitted",
    "predictions_do_not_see_the_target",
    "contradictions_are_not_fitted",
    "three_instances_are_fitted_perfectly",
    "real_labels_generalise_and_shuffled_ones_do_not",
    "metrics_are_best_for_right_predictions",
)


def test_without_a_target_a_check_says_why_it_does_not_apply() -> None:
    case = make_case(Autoencoder)
    outcomes = checks.run(case, list(SUPERVISED))
    assert [str(item) for item in outcomes] == [
        f"{name}: does not apply: the task has no target" for name in SUPERVISED
    ]


def test_a_model_without_a_target_is_not_asked_to_take_one() -> None:
    case = make_case(VAE)
    with pytest.raises(ValueError, match="^batch: needs a `target`, which the spec declares$"):
        dataclasses.replace(make_case(Regression), batch={"features": torch.zeros(8, 5)})
    with pytest.raises(ValueError, match="^batch: needs at least 8 rows$"):
        dataclasses.replace(case, batch={"features": torch.zeros(7, 6)})
    extra = {**case.batch, "target": torch.zeros(case.num_rows)}
    with pytest.raises(checks.Failed, match="has `features`, `target`; the spec says `features`"):
        checks.the_batch_is_as_specified(dataclasses.replace(case, batch=extra))


def test_a_coupled_loss_that_is_not_declared_is_told_from_a_wrong_trainer() -> None:
    case = make_case(NAMES["TwoTowers"])
    case = dataclasses.replace(case, spec=dataclasses.replace(case.spec, coupled=False))
    checks.the_trainer_equals_a_reference_loop(case)
    with pytest.raises(checks.Failed, match="if a row's loss depends on other rows: `coupled: tr"):
        checks.the_loss_is_a_mean(case)


def test_a_message_says_what_differs_and_names_no_key_of_bytes() -> None:
    left: dict[str, Any] = {
        "history": [{"loss": 1.0}, {"loss": 2.0}],
        "model": {"w": torch.zeros(2)},
    }
    right = {"history": [{"loss": 1.0}, {"loss": 2.5}], "model": {"w": torch.zeros(2)}}
    assert difference(left, right) == "history[1].loss"
    assert difference(left, {**left, "model": {"w": torch.ones(2)}}) == "model.w"
    assert difference(left, {**left, "history": left["history"][:1]}) == "history[1]"
    assert difference(left, {**left, "model": {}}) == "model.w"
    assert difference({"loss": float("nan")}, {"loss": float("nan")}) == ""
    assert one_line(KeyError(b"1234")) == "KeyError: there is no key of 4 bytes"
    assert one_line(KeyError("logit")) == "KeyError: there is no key 'logit'"
    assert one_line(AssertionError()) == "an assertion does not hold"
    accuracy = {"compute": {"_target_": "my_study.metrics.Accuracy"}, "higher_is_better": True}
    case = make_case(Autoencoder, knobs={"data.metrics": {"accuracy": accuracy}})
    with pytest.raises(
        checks.Failed, match="no key 'target'.*\nusual cause: an input, output or ta"
    ):
        checks.the_trainer_equals_a_reference_loop(case)


# what the message of each check says: what it saw, and what it expected
MESSAGES = {
    "the_batch_is_as_specified": r"`\w+`: (goes from .*; the spec says"
    r"|is torch.int64; a mask is)",
    "the_data_are_sane": r"(batch 0 differs between 0 and 2 worker|no row is of class 3"
    r"|determines the target in every row|has a mean of 0 and a deviation of 1 over"
    r"|have equal inputs and different targets"
    r"|row \d+ is also row \d+ of train|`target`: is `tokens` shifted by 0 positions)",
    "outputs_have_their_fields_and_shapes": r"(raises, with 3 rows|`loss`: has shape|is missing in"
    r"|`prediction`: has shape \[48, 1\] in training mode; expected: \[batch\])",
    "outputs_are_finite_and_in_range": r"(sums to .* over the classes|no logit is negative in any)",
    "the_first_loss_is_that_of_guessing": r"`loss`: is .* before training, .*; expected: about",
    "every_parameter_gets_a_gradient": r"parameter `[\w.]+`.*: (no gradient, or one of zero"
    r"|part 2 of 3 of it|only one of its rows)",
    "layers_are_more_than_one_linear_map": r"layer `output`: follows another layer, and `pred",
    "a_step_moves_what_is_trainable_and_nothing_else": r"(did not change in three steps; "
    r"expected: a change|buffer `norm.\w+`: changes in three steps, though its layer is frozen)",
    "everything_is_registered": r"(is a (layer|tensor) that is in neither"
    r"|is the same layer as `color`|all its units begin equal)",
    "saved_weights_restore_the_model": r"`prediction`: differs by .* after weights are saved",
    "the_same_seed_gives_the_same_bits": r"(are the same for two seeds|is set to a fixed state"
    r"|differs between two runs of one seed)",
    "evaluation_is_pure_and_dropout_acts_in_training": r"(between two calls in evaluation mode"
    r"|`dropout`: a dropout layer that is never called|dropout follows the last layer)",
    "the_batch_is_left_as_it_was": r"input `features`: is changed by a call of the model",
    "extreme_values_stay_finite": r"(after larger weights|for inputs of zero|for the largest)",
    "no_device_is_hard_coded": r"line \d+, `.*`: mixes the device of its inputs .*: .*device",
    "running_statistics_are_those_of_the_data": r"(differs by .* between the modes after 100 passes"
    r"|holds \d+% of the last batch after two batches in turn; expected: a mean over batches)",
    "each_input_influences_the_output": r"input `\w+`: (other values .*change no output"
    r"|its sign changes no output)",
    "each_input_alone_can_be_fitted": r"input `answer`: rows that differ only in it cannot be mem",
    "predictions_do_not_see_the_target": r"changes by .* in \w+ mode, with another target in",
    "contradictions_are_not_fitted": r"`logits`: differs by .* between two rows with equal inputs",
    "nothing_leaks_across_the_batch": r"`\w+`: row \d+ changes by .* only other rows change",
    "a_batch_of_one_equals_its_row": r"row 0 (alone gives shape \[\]|changes by .* batch of one)",
    "permuting_the_batch_permutes_the_output": r"`loss`: changes by .* when the rows are permuted",
    "padding_changes_nothing": r"changes by .* with (other values at masked|two more positions)",
    "no_position_sees_a_later_one": r"`logits`: changes by .* before position 1 when `tokens`",
    "the_order_of_positions_counts": r"input `tokens`: two orders of its positions give the same",
    "the_loss_is_a_mean": r"`loss`: is .*, and .* (when the batch is repeated; expected: the same"
    r"|for 8; expected: less than twice)",
    "the_loss_is_the_declared_one": r"`loss`: is .* in (evaluation|training) mode, .* times as "
    r"large; expected: .*, the (cross_entropy|mse|mae) of the outputs and the targets",
    "three_instances_are_fitted_perfectly": r"three instances end at .* and a loss of .* "
    r"\(Adam at 0.\d+, the best of 0.01, 0.002, 0.05\)",
    "the_loss_falls_at_every_small_step": r"`loss`: is .*, .* after small steps of gradient",
    "gradients_equal_finite_differences": r"the slope is .* by autograd, and .* by finite diff",
    "real_labels_generalise_and_shuffled_ones_do_not": r"is .* with real labels and .* shuffled",
    "a_resumed_run_equals_an_uninterrupted_one": r"differs if the run is stopped after step \d+",
    "the_trainer_equals_a_reference_loop": r"(history: `\w+`: is .* in epoch 1; expected: .* plain "
    r"loop|`self.scheduler.step\(\)`: ValueError|`[\w.]+` of the best epoch|`train_step`: returns "
    r"a tensor of shape \[\] with a graph; expected: the mean loss, a detached scalar"
    r"|the order of the data: `\w+` of the batch of step \d+ holds other rows; expected: those)",
    "metrics_are_best_for_right_predictions": r"metric `accuracy`: is .* if every prediction is "
    r"right, and .* (if each is wrong; expected: the best|without the first row; expected: the sa)",
    "every_knob_acts": r"`[\w.]+`: is .*, and another value changes no shape, loss or weight",
    "misspelt_keys_are_refused": r"`[\w.]+`: is taken without an error; expected: an error "
    r"that names ",
}


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: f"{bug.model}: {bug.name}")
def test_a_planted_bug_is_caught_by_name(bug: Bug) -> None:
    case, before = make_case(NAMES[bug.model], knobs=bug.knobs), codes(bug.module)
    with planted(bug), pytest.raises(checks.Failed) as caught:
        assert codes(bug.module) != before
        checks.run_one(case, bug.check)
    assert codes(bug.module) == before  # without the bug the check passes: see RUNS
    message = str(caught.value)
    assert message.startswith(f"{bug.check} ({bug.model}, seed 0): ")
    assert re.search(MESSAGES[bug.check], message), message
    assert "; expected: " in message and "\nusual cause: " in message


def test_a_check_of_ones_own_works_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    (source,) = (
        block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "@check" in block
    )
    names: dict[str, Any] = {"__name__": "test_own_checks"}
    exec(compile(source, "test_own_checks.py", "exec"), names)  # pylint: disable=exec-used
    for model in ("linear", "mlp", "cnn"):
        names["test_logits_are_not_huge"](model)

    def huge(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: 1e4 * values for name, values in model(**batch).items()}

    case = dataclasses.replace(make_case(ConvNet), forward=huge)
    failure = (
        r"^logits_are_not_huge \(ConvNet, seed 0\): output `logits`: reaches \S+ before training; "
        r"expected: at most 100\nusual cause: initial weights that are too large$"
    )
    with pytest.raises(checks.Failed, match=failure):
        names["logits_are_not_huge"](case)
    assert "logits_are_not_huge" not in checks.CHECKS


def test_at_least_140_bugs_and_every_check_are_in_the_list() -> None:
    assert len(PLANTED) >= 140
    caught = {bug.check for bug in PLANTED} | {check for *_, check in BROKEN.values()}
    assert caught == set(checks.CHECKS)


def with_rows(case: Case, **changes: torch.Tensor) -> Case:
    """The case with other values in some fields."""
    return dataclasses.replace(case, batch={**case.batch, **changes})


def labelled_by_an_input(case: Case) -> Case:
    """One of the numbers is the class."""
    numbers = case.batch["numbers"].clone()
    numbers[:, 2] = case.batch["target"]
    return with_rows(case, numbers=numbers)


def normalised(case: Case) -> Case:
    """The numbers are normalised by statistics of all rows, before the split."""
    numbers = case.batch["numbers"]
    return with_rows(case, numbers=(numbers - numbers.mean(0)) / numbers.std(0))


def contradicted(case: Case) -> Case:
    """Two rows have equal inputs and different classes."""
    batch = {name: values.clone() for name, values in case.batch.items()}
    first, second = (int((batch["target"] == label).nonzero()[0]) for label in (0, 1))
    for name, values in batch.items():
        if name != "target":
            values[second] = values[first]
    return dataclasses.replace(case, batch=batch)


def overlapping(case: Case) -> Case:
    """The validation split holds a row of the training split."""
    splits = data.splits_of(case)
    rows = data.all_rows(splits["train"])
    part = {name: values[:3] for name, values in rows.items()}
    return dataclasses.replace(case, splits={**splits, "validation": data.Rows(part)})


def shuffled(case: Case) -> Case:
    """The labels belong to other rows."""
    order = torch.randperm(len(case.batch["target"]), generator=torch.Generator().manual_seed(0))
    return with_rows(case, target=case.batch["target"][order])


def knowing(case: Case) -> Case:
    """The loss computes the class itself and ignores the labels."""

    def forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        outputs = dict(model(**batch))
        if "target" in batch:
            quarter = F.avg_pool2d(batch["image"], 3).flatten(1).argmax(1)
            outputs["loss"] = F.cross_entropy(outputs["logits"], quarter)
        return outputs

    return dataclasses.replace(case, forward=forward)


def never_rising(case: Case) -> Case:
    """The gradient has the wrong sign."""

    class Reversed(torch.autograd.Function):
        """The identity with a wrong derivative."""

        @staticmethod
        def forward(_: object, values: torch.Tensor) -> torch.Tensor:
            """Returns the values."""
            return values.clone()

        @staticmethod
        def backward(_: object, gradient: torch.Tensor) -> torch.Tensor:
            """Returns the negative gradient."""
            return -gradient

    def forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        outputs = dict(model(**batch))
        if "loss" in outputs:
            outputs["loss"] = Reversed.apply(outputs["loss"])
        return outputs

    return dataclasses.replace(case, forward=forward)


def unread(case: Case) -> Case:
    """A program that accepts unknown keys and ignores them."""
    assert case.build is not None and case.values is not None
    known, build = case.values, case.build

    def lenient(values: dict[str, dict[str, object]]) -> object:
        model = {
            **known["model"],
            **{k: v for k, v in values["model"].items() if k in known["model"]},
        }
        return build({**values, "model": model})

    return dataclasses.replace(case, build=lenient)


BROKEN: dict[str, tuple[Callable[[Case], Case], type[nn.Module], str]] = {
    "pixels that were not divided": (
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
    "numbers normalised before the split": (normalised, Table, "the_data_are_sane"),
    "equal rows with two classes": (contradicted, Table, "the_data_are_sane"),
    "a row in two splits": (overlapping, Table, "the_data_are_sane"),
    "labels of other rows": (
        shuffled,
        ConvNet,
        "real_labels_generalise_and_shuffled_ones_do_not",
    ),
    "a loss that does not need its labels": (
        knowing,
        ConvNet,
        "real_labels_generalise_and_shuffled_ones_do_not",
    ),
    "a gradient that leads uphill": (
        never_rising,
        Regression,
        "the_loss_falls_at_every_small_step",
    ),
    "a target that is not shifted": (
        lambda case: with_rows(case, target=case.batch["tokens"]),
        LanguageModel,
        "the_data_are_sane",
    ),
    "misspelt keys that are ignored": (unread, Table, "misspelt_keys_are_refused"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_data_and_programs_are_caught(name: str) -> None:
    break_case, model, check = BROKEN[name]
    message = rf"^{check} \({model.__name__}, seed 0\): .*{MESSAGES[check]}"
    with pytest.raises(checks.Failed, match=message):
        checks.run_one(break_case(make_case(model)), check)


def test_an_opt_out_is_reported_with_its_reason_and_a_wrong_one_is_refused() -> None:
    case = make_case(Regression)
    spec = dataclasses.replace(case.spec, opt_outs={"the_loss_is_a_mean": "it is a sum"})
    (outcome,) = checks.run(dataclasses.replace(case, spec=spec), ["the_loss_is_a_mean"])
    assert (outcome.outcome, outcome.detail) == ("opted out", "it is a sum")
    assert re.search(r"the_loss_is_a_mean +opted out +\S+ +it is a sum", checks.table([outcome]))
    spec = dataclasses.replace(case.spec, opt_outs={"the_loss_is_mean": "it is a sum"})
    with pytest.raises(ValueError, match="opt_outs.the_loss_is_mean: there is no such check"):
        checks.run(dataclasses.replace(case, spec=spec))
    with pytest.raises(ValueError, match="opt_outs.the_loss_is_a_mean: needs a reason"):
        dataclasses.replace(case.spec, opt_outs={"the_loss_is_a_mean": " "})


VALUES = {
    "task": "classification",
    "inputs": {"x": {"shape": [4]}},
    "target": {"shape": [], "kind": "index", "low": 0, "high": 2},
    "outputs": {"logits": {"shape": [3], "kind": "logits"}},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "ranking"}, "task=ranking: must be one of classification, regression, unsup"),
        ({"task": "unsupervised"}, "target, loss: an unsupervised task has neither"),
        ({"target": None}, "target: is missing; a classification has one"),
        ({"loss": "mse"}, "loss=mse: must be one of cross_entropy, or null for another one"),
        ({"loss": "cross_entropy", "coupled": True}, "coupled=true: cross_entropy is not"),
        ({"coupled": "yes"}, "coupled=yes: must be true or false"),
        ({"ordered": "y"}, "ordered=y: there is no such input with positions"),
        ({"inputs": {}}, "inputs, outputs: a task has at least one of each"),
        ({"inputs": {"x": {"shape": [4], "lo": 0}}}, "inputs.x.lo: there is no such key"),
        ({"inputs": {"x": {}}}, "inputs.x.shape: is missing"),
        ({"inputs": {"x": {"shape": [4], "kind": "index"}}}, "inputs.x.low, high: an index needs"),
        ({"inputs": {"x": {"shape": [4], "low": 1, "high": 0}}}, "inputs.x.low=1: is above high=0"),
        ({"inputs": {"x": {"shape": [4], "kind": "text"}}}, "inputs.x.kind=text: must be one of"),
        (
            {"inputs": {"x": {"shape": [4], "mask": "m"}}},
            "x.mask=m: there is no such input of kind",
        ),
        ({"target": {"shape": []}}, "target: a float is no target of a classification"),
        ({"causal": "y"}, "causal=y: there is no such input with positions"),
        ({"outputs": {"p": {"shape": [2], "kind": "probabilities"}}}, "p: the last axis of prob"),
        ({"goal": 1}, "goal: there is no such key; there are: task, inputs"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Spec.from_values({**VALUES, **change})


def test_any_module_and_any_batch_are_checked_without_a_configuration() -> None:
    spec = Spec.from_values(VALUES)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(32, 4, generator=draw)
    batch = {"x": x, "target": (x[:, 0] > 0).long() + (x[:, 1] > 0).long()}
    forward = checks.call_plain(F.cross_entropy)

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))

    for maker in (make, make()):
        case = Case(make=maker, batch=batch, spec=spec, forward=forward)
        outcomes = {item.check: item for item in checks.run(case, slow=True)}
        failed = [item.detail for item in outcomes.values() if item.outcome == "failed"]
        assert not failed
        assert outcomes["every_knob_acts"].detail == "needs a trainer: give values and build"
    broken = dataclasses.replace(case, make=lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    with pytest.raises(checks.Failed, match="no logit is negative in any"):
        checks.outputs_are_finite_and_in_range(broken)

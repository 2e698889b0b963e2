"""What every model is held to. A YAML file in conf/model/ is all that it takes to be tested.

The checks, what each catches and how to opt out: docs/checks.md.
"""

import re

import pytest
import torch
from conftest import CaseOf

from {{ cookiecutter.project_slug }} import StudyError, configuration, preflight, testing

MODELS = sorted(path.stem for path in (configuration.ROOT / "conf" / "model").glob("*.yaml"))


def marked(check: str) -> list[pytest.MarkDecorator]:
    """What takes seconds is left out by pytest alone; make test runs it."""
    return [pytest.mark.slow] if check in testing.SLOW else []


@pytest.mark.parametrize(
    "check", [pytest.param(name, marks=marked(name)) for name in testing.CHECKS]
)
@pytest.mark.parametrize("model", MODELS)
def test_model(model: str, check: str, case_of: CaseOf) -> None:
    try:
        testing.run_one(case_of(f"model={model}"), check)
    except testing.NotApplicable as reason:
        pytest.skip(f"{check}: {reason}")


def test_the_page_lists_every_check_and_each_says_what_it_catches() -> None:
    page = (configuration.ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(testing.CHECKS)
    for name, check in testing.CHECKS.items():
        for part in ("Catches: ", "False alarms: ", "Source: "):
            assert part in (check.__doc__ or ""), f"{name}: {part}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.spec=null"], "data.spec: is missing"),
        (["data.spec.task=ranking"], "data.spec.task=ranking: must be one of"),
        (["data.spec.inputs.image.hihg=1"], "data.spec.inputs.image.hihg: there is no such key"),
        (
            ["model.opt_outs.evry_knob_acts=why"],
            "opt_outs.evry_knob_acts: .* mean every_knob_acts?",
        ),
        (["data.fixture=nowhere.csv"], "nowhere.csv: there is no such file"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    config = configuration.compose([f"++{override}" for override in overrides])
    configuration.check(config)
    with pytest.raises(StudyError, match=message):
        preflight.check(
            configuration.to_values(config), torch.device("cpu"), name="mlp", slow=False
        )


def test_checks_train_in_batches_that_a_batch_norm_can_take() -> None:
    for num_rows in range(8, 70):
        brief = preflight.briefly({"num_accumulation_steps": 16}, num_rows)
        assert 2 * brief["batch_size"] <= num_rows and brief["num_accumulation_steps"] == 2
        assert (num_rows % brief["batch_size"] or brief["batch_size"]) >= 3

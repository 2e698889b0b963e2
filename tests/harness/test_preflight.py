"""Preflight: the model of a configuration, held to the checks before a run."""

import pytest
import torch

from my_study.harness.checks import preflight
from my_study.harness.configuration import checking, composing
from my_study.harness.errors import StudyError


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
        (["data.fixture=nowhere.csv"], "nowhere.csv: cannot be read .No such file"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    config = composing.compose([f"++{override}" for override in overrides])
    checking.check_config(config)
    with pytest.raises(StudyError, match=message):
        preflight.check_model(
            composing.to_values(config), torch.device("cpu"), name="mlp", slow=False
        )


def test_checks_train_in_batches_that_a_batch_norm_can_take() -> None:
    for num_rows in range(8, 70):
        brief = preflight.briefly({"num_accumulation_steps": 16}, num_rows)
        assert 2 * brief["batch_size"] <= num_rows and brief["num_accumulation_steps"] == 2
        assert (num_rows % brief["batch_size"] or brief["batch_size"]) >= 3

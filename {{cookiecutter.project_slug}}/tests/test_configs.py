"""Configurations: each composes, each key is an argument of what it configures, each builds."""

import pytest
from conftest import compose, fitting_cases, make_case, options
from omegaconf import OmegaConf

from {{ cookiecutter.project_slug }}.harness.checks import Case
from {{ cookiecutter.project_slug }}.harness.study import ROOT

VARS = OmegaConf.merge(*OmegaConf.load(ROOT / "dvc.yaml").vars)
OPTIONS = ("training", "training/schedule", "experiment", "launcher")


def build(case: Case) -> None:
    """Builds network, optimizer, schedule and trainer."""
    assert case.build is not None and case.values is not None
    case.build(case.values)


@pytest.mark.parametrize("model", options("model"))
def test_every_model_builds_with_each_data_set_that_it_fits(model: str) -> None:
    for case in fitting_cases(f"model={model}"):
        build(case)


@pytest.mark.parametrize("data", options("data"))
def test_every_data_set_fits_a_model(data: str) -> None:
    cases = {model: make_case(f"data={data}", f"model={model}") for model in options("model")}
    assert any(isinstance(case, Case) for case in cases.values()), cases


@pytest.mark.parametrize(
    "option", [f"{group}={name}" for group in OPTIONS for name in options(group)]
)
def test_every_option_composes_and_builds(option: str) -> None:
    case = make_case(option)
    assert isinstance(case, Case), case
    build(case)


@pytest.mark.parametrize("experiment", [*VARS.published.experiments, *VARS.finetuned.tuned])
def test_a_published_experiment_evaluates_the_split_that_is_shown(experiment: str) -> None:
    config = compose(f"experiment={experiment}")
    assert config.test is True or config.report.split == "validation"

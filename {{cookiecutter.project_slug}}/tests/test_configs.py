"""Configurations: each composes, each key is an argument of what it configures, each builds."""

import pytest
from conftest import compose, fitting_cases, make_case, options
from omegaconf import OmegaConf

from {{ cookiecutter.project_slug }}.harness.checks import Case
from {{ cookiecutter.project_slug }}.harness.study import ROOT

PUBLISHED = OmegaConf.load(ROOT / "dvc.yaml").vars[0].published.experiments
OPTIONS = ("training", "training/schedule", "experiment", "launcher")


def build(case: Case) -> None:
    """Builds network, optimizer, schedule and trainer."""
    assert case.build is not None and case.values is not None
    case.build(case.values)


@pytest.mark.parametrize("group", ["data", "model"])
def test_every_data_set_and_every_model_fits_another_and_builds(group: str) -> None:
    for name in options(group):
        for case in fitting_cases(f"{group}={name}"):
            build(case)


@pytest.mark.parametrize(
    "option", [f"{group}={name}" for group in OPTIONS for name in options(group)]
)
def test_every_option_composes_and_builds(option: str) -> None:
    case = make_case(option)
    assert isinstance(case, Case), case
    build(case)


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_a_published_experiment_evaluates_the_test_split(experiment: str) -> None:
    assert compose(f"experiment={experiment}").test is True

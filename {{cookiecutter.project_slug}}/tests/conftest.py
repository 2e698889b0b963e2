"""What the tests start from: the few rows of `data.fixture`, read as the whole data are."""

import functools

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from {{ cookiecutter.project_slug }}.harness.checks import Case, preflight
from {{ cookiecutter.project_slug }}.harness.configuration import checking, composing
from {{ cookiecutter.project_slug }}.harness.configuration import messages
from {{ cookiecutter.project_slug }}.harness.study import ROOT
from {{ cookiecutter.project_slug }}.harness.training import determinism


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    determinism.set_determinism(True, num_threads=1)
    determinism.seed_everything(0)


def options(group: str) -> list[str]:
    """The files of a group of conf/."""
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def compose(*overrides: str) -> DictConfig:
    """A configuration as `python run.py` would compose it, resolved and checked."""
    config = composing.compose(["device=cpu", *overrides])
    OmegaConf.resolve(config)
    checking.check_config(config)
    return config


@functools.cache
def make_case(*overrides: str) -> Case | str:
    """The model of a configuration with the rows of its data; or why they do not fit."""
    try:
        values = composing.to_values(compose(*overrides))
        case = preflight.make_case(values, torch.device("cpu"), name=" ".join(overrides))
        case.spec.check_signature(case.fresh().forward)
        return case
    except (*messages.MISTAKES, ValueError) as error:
        return messages.describe_error(error)


def fitting_cases(option: str) -> list[Case]:
    """An option with each data set and model that it fits; it fails if it fits none.

    A model need not fit every data set: it may ask for an input or a value that one lacks.
    """
    group = "data" if option.startswith("model=") else "model"
    cases = {name: make_case(option, f"{group}={name}") for name in options(group)}
    fitting = [case for case in cases.values() if isinstance(case, Case)]
    reasons = "\n".join(f"{group}={name}: {reason}" for name, reason in cases.items())
    assert fitting, f"{option} fits no {group}:\n{reasons}"
    return fitting

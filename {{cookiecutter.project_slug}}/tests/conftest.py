"""What the tests start from: the few rows of `data.fixture`, read as the whole data are."""

import functools
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from {{ cookiecutter.project_slug }}.harness.checks import Case, preflight
from {{ cookiecutter.project_slug }}.harness.configuration import checking, composing
from {{ cookiecutter.project_slug }}.harness.configuration import messages
from {{ cookiecutter.project_slug }}.harness.runs import fingerprint
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
        case = preflight.make_case(
            values,
            torch.device("cpu"),
            name=" ".join(overrides),
            trainings=[
                each["training"] for each in experiments() if is_of_same_model(each, values)
            ],
        )
        case.spec.check_signature(case.fresh().forward)
        return case
    except (*messages.MISTAKES, ValueError) as error:
        return messages.describe_error(error)


@functools.cache
def experiments() -> list[dict[str, Any]]:
    """The values of each experiment."""
    return [composing.to_values(compose(f"experiment={name}")) for name in options("experiment")]


def is_of_same_model(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Whether two configurations name the same class of network."""
    return bool(left["model"]["network"]["_target_"] == right["model"]["network"]["_target_"])


def subjects() -> list[str]:
    """What is checked: each model, and each experiment that is more than a model as it is."""
    found, known = [], []
    for option in [
        f"{group}={name}" for group in ("model", "experiment") for name in options(group)
    ]:
        values = fingerprint.flatten(composing.to_values(compose(option))) | {"test": None}
        if values not in known:
            found.append(option)
            known.append(values)
    return found


def fitting_cases(option: str) -> list[Case]:
    """A model or an experiment as it is; a model with the other data sets that it fits, too.

    A model need not fit every data set: it may ask for an input or a value that one lacks.
    """
    others = [f"data={name}" for name in options("data")] if option.startswith("model=") else []
    own = make_case(option)
    assert isinstance(own, Case), own
    cases = [own, *(make_case(option, other) for other in others)]
    fitting = [case for case in cases if isinstance(case, Case)]
    return [own, *(case for case in fitting if case.values != own.values)]

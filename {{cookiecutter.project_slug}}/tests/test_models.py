"""The checks of every model and experiment. A YAML file is all that it takes to be tested.

What each check catches, how to opt out and how to add one of your own: docs/checks.md.
"""

import pytest
from conftest import fitting_cases, subjects

from {{ cookiecutter.project_slug }}.harness import checks


def marked(check: str) -> list[pytest.MarkDecorator]:
    """pytest leaves out what takes seconds; make test runs it."""
    return [pytest.mark.slow] if check in checks.SLOW else []


@pytest.mark.parametrize(
    "check", [pytest.param(name, marks=marked(name)) for name in checks.CHECKS]
)
@pytest.mark.parametrize("option", subjects(), ids=lambda option: option.removeprefix("model="))
def test_model(option: str, check: str) -> None:
    reasons = []
    cases = fitting_cases(option)
    for case in cases:
        try:
            checks.run_one(case, check)
        except checks.NotApplicable as reason:
            reasons.append(str(reason))
    if len(reasons) == len(cases):
        pytest.skip(f"{check}: {reasons[0]}")

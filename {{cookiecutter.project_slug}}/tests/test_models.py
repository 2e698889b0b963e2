"""The checks of every model. A YAML file in conf/model/ is all that it takes to be tested.

What each check catches, how to opt out and how to add one of your own: docs/checks.md.
"""

import pytest
from conftest import fitting_cases, options

from {{ cookiecutter.project_slug }}.harness import checks


def marked(check: str) -> list[pytest.MarkDecorator]:
    """pytest leaves out what takes seconds; make test runs it."""
    return [pytest.mark.slow] if check in checks.SLOW else []


@pytest.mark.parametrize(
    "check", [pytest.param(name, marks=marked(name)) for name in checks.CHECKS]
)
@pytest.mark.parametrize("model", options("model"))
def test_model(model: str, check: str) -> None:
    reasons = []
    cases = fitting_cases(f"model={model}")
    for case in cases:
        try:
            checks.run_one(case, check)
        except checks.NotApplicable as reason:
            reasons.append(str(reason))
    if len(reasons) == len(cases):
        pytest.skip(f"{check}: {reasons[0]}")

"""What every model is held to. A YAML file in conf/model/ is all that it takes to be tested.

The checks, what each catches and how to opt out: docs/checks.md.
"""

import re

import pytest
from conftest import CaseOf

from {{ cookiecutter.project_slug }} import configuration, testing

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

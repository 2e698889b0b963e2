"""The tests of the harness and of its model test kit, which run where a study is installed."""

from pathlib import Path

import pytest
from conftest import TEMPLATE, Study
from warm import Warm

KIT = TEMPLATE / "tests" / "kit"
HARNESS = TEMPLATE / "tests" / "harness"
PYTEST = ("-m", "pytest", "-q", "--durations=5", "-p", "no:cacheprovider")
pytestmark = pytest.mark.slow


def test_the_kit_passes_correct_models_and_catches_planted_bugs(
    study: Study, warm: Warm, tmp_path: Path
) -> None:
    settings = tmp_path / "pytest.ini"
    settings.write_text("[pytest]\nfilterwarnings = error\n    ignore::UserWarning\n")
    words = (*PYTEST, "-c", str(settings), "--noconftest", str(KIT / "test_checks.py"))
    print(warm.call(study.folder, *words))


@pytest.mark.parametrize("name", sorted(path.name for path in HARNESS.glob("test_*.py")))
def test_the_harness_keeps_its_promises(name: str, study: Study, warm: Warm) -> None:
    words = (*PYTEST, "-c", str(HARNESS / "pytest.ini"))
    print(warm.call(study.folder, *words, str(HARNESS / name)))

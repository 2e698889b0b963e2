"""The model test kit, on models of several kinds and on planted bugs, in a study's environment."""

from pathlib import Path

from conftest import TEMPLATE, Study

KIT = TEMPLATE / "tests" / "kit"


def test_the_kit_passes_correct_models_and_catches_planted_bugs(
    study: Study, tmp_path: Path
) -> None:
    settings = tmp_path / "pytest.ini"
    settings.write_text("[pytest]\nfilterwarnings = error\n    ignore::UserWarning\n")
    words = ("python", "-m", "pytest", "-c", settings, "--noconftest", "-n", "auto", "-q")
    print(study.call(*words, KIT / "test_checks.py"))

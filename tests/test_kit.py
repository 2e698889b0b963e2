"""The tests of the harness and of its model test kit, which run where a study is installed."""

from collections.abc import Callable
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


# of each position, the checks that find something; the starter's own tests try the fourth, rotary
POSITIONS: dict[str, set[str]] = {
    "sinusoidal": set(),
    "learnt": set(),
    "none": {"the_order_of_positions_counts", "every_knob_acts"},  # max_length is then idle
}


@pytest.mark.parametrize("position", POSITIONS)
def test_a_transformer_passes_the_checks_with_each_position_and_fails_two_without(
    position: str, study_of: Callable[[str], Study], warm: Warm
) -> None:
    override = f"model.network.encoder.position={position}"
    words = (".venv/bin/study", "check", "--fast", "model=transformer", override)
    said = warm.call(study_of("text").folder, *words, code=int(position == "none"))
    found = {line.split()[0] for line in said.splitlines() if line.split()[1:2] == ["failed"]}
    assert found == POSITIONS[position]
    assert "passed" in said

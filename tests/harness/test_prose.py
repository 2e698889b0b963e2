"""What the shipped files say: commands that work, heads of YAML files, pages that are complete."""

import gzip
import re
import sys
from typing import Any

import pytest
from omegaconf import OmegaConf

from my_study.harness import checks
from my_study.harness.reporting.tables import MARKERS
from my_study.harness.runs.record import VERSION, read_record
from my_study.harness.study import ROOT

from .conftest import TINY, Copy
from .runs import do

CONF = ROOT / "conf"
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLONED = ("git clone ADDRESS my_study", "cd my_study", "dvc pull", "dvc repro")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
]


@pytest.mark.slow
def test_the_commands_of_the_readme_work(copy: Copy) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    copy.call(sys.executable, "stages/prepare.py")
    ran = 0
    for command in COMMANDS:
        program, *rest = command.split()
        if program == "make":
            assert re.search(rf"^{rest[0]}:", makefile, re.M), command
        elif program in ("python", "study"):
            copy.call(*command.split())
            ran += 1
        else:  # this environment, the study's own suite; a clone is what the template tests
            assert command in (". .venv/bin/activate", "pytest", *CLONED), command
    runs = [path for path in (copy.folder / "runs").iterdir() if path.is_dir()]
    assert ran >= 3 and len(runs) == 1 + 6  # the second sweep finds its two runs in the first


def test_the_readme_has_a_place_for_the_table() -> None:
    assert all(README.count(marker) == 1 for marker in MARKERS)
    table = ROOT / "results" / "table.md"
    if table.exists():  # before the first dvc repro there is none
        assert table.read_text(encoding="utf-8").partition("\n\n")[2] in README  # links stand in it


@pytest.mark.parametrize(
    "path", sorted((CONF / "model").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_head_of_a_model_says_how_to_run_it(path: Any) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# python run.py model={path.stem}"


def test_every_knob_of_the_command_line_has_a_comment() -> None:
    for path in (CONF / "config.yaml", CONF / "training" / "default.yaml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line[:1].isalpha() and not line.endswith(":"):
                assert " # " in line or line.startswith(("num_epochs", "batch_size")), line


def test_every_experiment_that_is_shipped_is_published() -> None:
    values = OmegaConf.merge(*OmegaConf.load(ROOT / "dvc.yaml").vars)
    shipped = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert shipped == set(values.published.experiments)


def test_the_page_of_checks_lists_each_and_each_says_what_it_catches() -> None:
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(checks.CHECKS)
    for name, check in checks.CHECKS.items():
        for part in ("Catches: ", "False alarms: ", "Source: "):
            assert part in (check.__doc__ or ""), f"{name}: {part}"


def test_the_page_of_the_record_describes_every_key(values: dict[str, Any]) -> None:
    record = read_record(do({**values, "run_dir": "runs/published/x"}))
    page = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    documented = {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    occasional = {"ended_by", "mixed", "moved", "copied_from", "test_looks"}
    assert documented == set(record) | occasional
    assert f"version {VERSION}" in page


def test_the_tiny_table_is_cut_from_the_real_one() -> None:
    raw = gzip.decompress(
        (ROOT / "data" / "raw" / "digits" / "digits.csv.gz").read_bytes()
    ).decode()
    assert set(TINY.read_text().splitlines()) < set(raw.splitlines())

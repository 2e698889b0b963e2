"""`dvc repro` and the commands of README.md, in a copy of the study with the tiny table."""

import re
import sys

import pytest
import report
from conftest import TINY, Copy
from omegaconf import OmegaConf

from {{ cookiecutter.project_slug }} import configuration

ROOT = configuration.ROOT
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
]


def stages_run(output: str) -> list[str]:
    """The stages that dvc ran, without the item of a matrix."""
    return [name.partition("@")[0] for name in re.findall(r"Running stage '(.*)'", output)]


def test_repro_makes_every_result_once_and_again_only_what_changed(copy: Copy) -> None:
    pipeline = ["compose-data", "prepare", "compose", "train", "report"]
    assert sorted(stages_run(copy.call("dvc", "repro"))) == sorted(pipeline)
    assert not stages_run(copy.call("dvc", "repro"))

    name = OmegaConf.load(copy.folder / "dvc.yaml").vars[0].published.experiments[0]
    published = OmegaConf.load(copy.folder / "results" / f"config-{name}.yaml")
    used = OmegaConf.load(copy.folder / "runs" / "published" / f"{name}-0" / "config.yaml")
    of_the_command = {"seed": 0, "run_dir": f"runs/published/{name}-0", "replace": True}
    assert used == OmegaConf.merge(published, of_the_command)

    readme = (copy.folder / "README.md").read_text(encoding="utf-8")
    assert (copy.folder / "results" / "table.md").read_text(encoding="utf-8") in readme

    lock = (copy.folder / "dvc.lock").read_bytes()
    assert str(copy.folder).encode() not in lock
    copy.edit(f"conf/model/{name}.yaml", r"\Z", "\n# a comment\n")
    assert set(stages_run(copy.call("dvc", "repro"))) == {"compose-data", "compose"}


def test_the_commands_of_the_readme_work(copy: Copy) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    copy.call(sys.executable, "stages/prepare.py")
    ran = 0
    for command in COMMANDS:
        program, *rest = command.split()
        if program == "make":
            assert re.search(rf"^{rest[0]}:", makefile, re.M), command
        elif program == "python":
            copy.call(*command.split())
            ran += 1
        else:  # this environment, this suite, and the test above
            assert command in (". .venv/bin/activate", "pytest", "dvc repro"), command
    runs = [path for path in (copy.folder / "runs").iterdir() if path.is_dir()]
    assert ran >= 3 and len(runs) == 1 + 6  # the second sweep finds its two runs in the first


def test_the_tables_of_results_and_readme_are_the_same() -> None:
    table = ROOT / "results" / "table.md"
    if table.exists():  # before the first dvc repro there is none
        assert table.read_text(encoding="utf-8") in README
    assert all(marker in README for marker in report.MARKERS)


def test_differences_are_paired_by_seed() -> None:
    rows = report.compare({"linear": [0.90, 0.94, 0.92], "cnn": [0.95, 0.99, 0.97]})
    base, other = rows[0], rows[1]
    assert base.difference is None
    assert base.value.mean == pytest.approx(0.92) and base.value.std == pytest.approx(0.02)
    # Student's t for 95 % and 2 degrees of freedom is 4.303
    assert base.value.half_width == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)
    assert other.difference is not None and other.difference.mean == pytest.approx(0.05)
    assert other.difference.half_width == pytest.approx(0, abs=1e-12)


def test_the_tiny_table_is_cut_from_the_real_one() -> None:
    import gzip

    raw = gzip.decompress((ROOT / "data" / "raw" / "digits.csv.gz").read_bytes()).decode()
    assert set(TINY.read_text().splitlines()) < set(raw.splitlines())

"""`dvc repro` and the commands of README.md, in a copy of the study with the tiny table."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import report
from conftest import TINY
from omegaconf import OmegaConf

from {{ cookiecutter.project_slug }} import configuration

ROOT = configuration.ROOT
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
]


class Copy:
    """A copy of the study: one experiment, one seed, an epoch on the tiny table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        unwanted = (".*", "runs", "prepared*", "results", "__pycache__", "dvc.lock")
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*unwanted))
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text("[core]\nno_scm = true\nanalytics = false\n")
        shutil.copyfile(ROOT / ".dvcignore", folder / ".dvcignore")
        (folder / "results").mkdir()
        self.edit("conf/data/digits.yaml", r"data/raw/digits.csv.gz", "tests/fixtures/tiny.csv")
        self.edit("conf/training/default.yaml", r"num_epochs: \d+", "num_epochs: 1")
        self.edit("conf/config.yaml", r"num_threads: \d+", "num_threads: 1")
        self.edit("dvc.yaml", r"data/raw/digits.csv.gz", "tests/fixtures/tiny.csv")
        self.edit("dvc.yaml", r"experiments: \[(\w+).*\]", r"experiments: [\1]")
        self.edit("dvc.yaml", r"seeds: \[.*\]", "seeds: [0]")

    def edit(self, name: str, pattern: str, replacement: str) -> None:
        """Replaces what is there, for sure."""
        path = self.folder / name
        text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"))
        assert count, f"{pattern} is not in {name}"
        path.write_text(text, encoding="utf-8")

    def call(self, *words: str) -> str:
        """What a command prints, in this environment and on the copy's own library."""
        bin_folder = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
        }
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(name="copy")
def _copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "copy")


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

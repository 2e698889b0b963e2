"""What the tests start from: the tiny table, prepared by the code that prepares the real one."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import prepare
import pytest
import torch
from omegaconf import DictConfig

from {{ cookiecutter.project_slug }} import (
    configuration,
    data,
    preflight,
    reproducibility,
    testing,
)

TINY = Path(__file__).parent / "fixtures" / "tiny.csv"
Compose = Callable[..., DictConfig]
CaseOf = Callable[..., testing.Case]


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    reproducibility.set_determinism(True, num_threads=1)
    reproducibility.seed_everything(0)


@pytest.fixture(scope="session", name="tiny")
def _tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared folder of the tiny table: 30 rows to train on, 10 and 10 to evaluate."""
    folder = tmp_path_factory.mktemp("tiny") / "prepared"
    overrides = [f"data.prepare.read.path={TINY}", f"data.folder={folder}"]
    prepare.prepare(configuration.compose(overrides).data)
    return folder


@pytest.fixture(scope="session", name="case_of")
def _case_of(tiny: Path) -> CaseOf:
    """What the checks are given, of a configuration on the tiny data."""
    splits = {name: data.Split(tiny, name) for name in data.SPLITS}

    @functools.cache
    def case_of(*overrides: str) -> testing.Case:
        config = configuration.compose([f"data.folder={tiny}", "device=cpu", *overrides])
        configuration.check(config)
        values = configuration.to_values(config)
        return preflight.make_case(values, torch.device("cpu"), splits, name=" ".join(overrides))

    return case_of


@pytest.fixture(name="compose")
def _compose(tiny: Path) -> Compose:
    """Composes a configuration on the tiny data, as `python run.py` would, and checks it."""

    def compose(*overrides: str) -> DictConfig:
        paths = (f"data.prepare.read.path={TINY}", f"data.folder={tiny}", "device=cpu")
        config = configuration.compose([*paths, *overrides])
        configuration.check(config)
        return config

    return compose


@pytest.fixture(name="copy")
def _copy(tmp_path: Path) -> "Copy":
    return Copy(tmp_path / "copy")


class Copy:
    """A copy of the study: one experiment, one seed, an epoch on the tiny table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        unwanted = (".*", "runs", "prepared*", "results", "__pycache__", "dvc.lock")
        shutil.copytree(configuration.ROOT, folder, ignore=shutil.ignore_patterns(*unwanted))
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text("[core]\nno_scm = true\nanalytics = false\n")
        shutil.copyfile(configuration.ROOT / ".dvcignore", folder / ".dvcignore")
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

    def call(self, *words: str, code: int = 0) -> str:
        """What a command prints, in this environment and on the copy's own library."""
        bin_folder = Path(sys.executable).parent
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
        }
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

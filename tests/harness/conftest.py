"""What the tests start from: the tiny table, prepared by the code that prepares the real one."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from my_study.harness.checks import Case, preflight
from my_study.harness.configuration import building, checking, composing
from my_study.harness.runs.fingerprint import identify
from my_study.harness.runs.folder import claim
from my_study.harness.runs.record import Record
from my_study.harness.runs.run import Run
from my_study.harness.study import ROOT
from my_study.harness.training import determinism, preparation
from my_study.harness.training.prepared import SPLITS, Split, verify_prepared

MODEL = "src/my_study/models/mlp.py"  # which the default configuration names
TOKEN = "hunter2-is-no-secret"
TINY = ROOT / "tests" / "fixtures" / "digits.csv"
TRAINED = ("model=mlp", "training.num_epochs=3", "test=true", "device=cpu")
Compose = Callable[..., DictConfig]
CaseOf = Callable[..., Case]


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    determinism.set_determinism(True, num_threads=1)
    determinism.seed_everything(0)


def prepare(folder: Path, *overrides: str) -> Path:
    """Prepares data into a folder, as `python stages/prepare.py` would; returns it."""
    config = composing.compose([f"data.folder={folder}", *overrides])
    parameters = composing.to_values(config.data.prepare)
    preparation.prepare(folder, building.read_raw(config), parameters, {})
    return folder


@pytest.fixture(scope="session", name="tiny")
def _tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared folder of the tiny table: 30 rows to train on, 10 and 10 to evaluate."""
    folder = tmp_path_factory.mktemp("tiny") / "prepared"
    return prepare(folder, f"data.prepare.read.path={TINY}")


@pytest.fixture(scope="session", name="trained")
def _trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the tiny table, done as run.py does it."""
    here = tmp_path_factory.mktemp("trained")
    paths = (f"data.prepare.read.path={TINY}", f"data.folder={tiny}")
    config = composing.compose([*paths, *TRAINED])
    checking.check_config(config)
    values = composing.to_values(config)
    data = verify_prepared(tiny, values["data"]["prepare"])
    identity = identify(ROOT, values, data, "cpu")
    train, validation, test = (Split(tiny, name) for name in ("train", "validation", "test"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        with claim(ROOT, identity, values, TRAINED) as folder:
            trainer = building.build_trainer(config, train, torch.device("cpu"), folder)
            with Record(Run(ROOT, folder, identity, values, TRAINED)) as record:
                record["ended_by"] = trainer.fit(train, validation)
                numbers = {"validation": trainer.evaluate(validation)}
                record.finish({**numbers, "test": trainer.evaluate(test)})
    return here / folder


@pytest.fixture(name="compose")
def _compose(tiny: Path) -> Compose:
    """Composes a configuration on the tiny data, as `python run.py` would, and checks it."""

    def compose(*overrides: str) -> DictConfig:
        paths = (f"data.prepare.read.path={TINY}", f"data.folder={tiny}", "device=cpu")
        config = composing.compose([*paths, *overrides])
        checking.check_config(config)
        return config

    return compose


@pytest.fixture(scope="session", name="case_of")
def _case_of(tiny: Path) -> CaseOf:
    """What the checks are given, of a configuration on the tiny data."""
    splits = {name: Split(tiny, name) for name in SPLITS}

    @functools.cache
    def case_of(*overrides: str) -> Case:
        config = composing.compose([f"data.folder={tiny}", "device=cpu", *overrides])
        checking.check_config(config)
        values = composing.to_values(config)
        return preflight.make_case(values, torch.device("cpu"), splits, name=" ".join(overrides))

    return case_of


@pytest.fixture(name="copy")
def _copy(tmp_path: Path) -> "Copy":
    return Copy(tmp_path / "copy")


class Copy:
    """A copy of the study: one experiment, one seed, an epoch on the tiny table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folders = ("conf", "data/raw", "docs", "src", "stages", "tests")
        names = ("Makefile", "README.md", "dvc.yaml", "pyproject.toml", "requirements.lock")
        unwanted = shutil.ignore_patterns("__pycache__")
        folder.mkdir()
        for name in folders:
            shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
        for name in (*names, "run.py", ".dvcignore"):
            shutil.copyfile(ROOT / name, folder / name)
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text("[core]\nno_scm = true\nanalytics = false\n")
        (folder / "results").mkdir()
        raw = folder / "data" / "raw" / "digits"
        shutil.copyfile(TINY, raw / "digits.csv")
        (raw / "digits.csv.gz").unlink()
        self.edit("conf/data/digits.yaml", r"digits\.csv\.gz", "digits.csv")
        self.edit("conf/training/default.yaml", r"num_epochs: \d+", "num_epochs: 1")
        self.edit("conf/config.yaml", r"num_threads: \d+", "num_threads: 1")
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


@pytest.fixture(name="values")
def _values(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The configuration of a run, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return composing.to_values(compose())


@pytest.fixture(name="repository")
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small study under git, with a remote that holds a password."""
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(variable)
    root = tmp_path / "study"
    (root / MODEL).parent.mkdir(parents=True)
    (root / "stages").mkdir()
    for name in ("run.py", "stages/prepare.py", "requirements.lock", MODEL):
        (root / name).write_text("one\n")
    call = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(root)]
    subprocess.run([*call, "init", "--quiet", "--initial-branch=main"], check=True)
    subprocess.run([*call, "add", "--all"], check=True)
    subprocess.run([*call, "commit", "--quiet", "--message=one"], check=True)
    address = f"https://user:{TOKEN}@example.org/study.git"
    subprocess.run([*call, "remote", "add", "origin", address], check=True)
    return root

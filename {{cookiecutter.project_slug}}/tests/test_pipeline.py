"""`dvc repro` in a copy of the study: the few rows of the fixture, one experiment, one seed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import compose
from omegaconf import OmegaConf

from {{ cookiecutter.project_slug }}.harness.configuration import composing
from {{ cookiecutter.project_slug }}.harness.study import ROOT
from {{ cookiecutter.project_slug }}.harness.training.results import read_history

PARTS = """
    .dvcignore README.md conf data/raw dvc.yaml pyproject.toml requirements.lock run.py src stages
    tests/fixtures
""".split()


def copy_small(folder: Path) -> str:
    """Copies the study and makes it small; returns the experiment that is left."""
    (folder / ".dvc").mkdir(parents=True)
    for name in PARTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, folder / name)
    (folder / ".dvc" / "config").write_text("[core]\nno_scm = true\nanalytics = false\n")
    experiment = str(
        OmegaConf.merge(*OmegaConf.load(folder / "dvc.yaml").vars).published.experiments[0]
    )
    _, choices = composing.composed_of([f"experiment={experiment}"])
    data_set = str(choices["data"])
    keep(folder / "dvc.yaml", experiments=experiment, tuned="", data=data_set, seeds=0)
    data = compose(f"experiment={experiment}").data
    for path in [folder / "dvc.yaml", *(folder / "conf").rglob("*.yaml")]:
        text = path.read_text(encoding="utf-8").replace(data.prepare.read.path, data.fixture)
        text = re.sub(r"\bnum_epochs: \d+", "num_epochs: 1", text)
        path.write_text(text, encoding="utf-8")
    return experiment


def keep(path: Path, **values: str | int) -> None:
    """Leaves one value in each of these lists of dvc.yaml."""
    text = path.read_text(encoding="utf-8")
    for key, value in values.items():
        text, count = re.subn(rf"^( +{key}: )\[.*\]", rf"\g<1>[{value}]", text, flags=re.M)
        assert count == 1, f"{path} has no list {key} of one line"
    path.write_text(text, encoding="utf-8")


def repro(folder: Path) -> list[str]:
    """Runs the pipeline of a copy, on its own library; returns the stages that were run."""
    bin_folder = Path(sys.executable).parent
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
    }
    words = [sys.executable, "-m", "dvc", "repro"]
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [name.partition("@")[0] for name in re.findall(r"Running stage '(.*)'", done.stdout)]


def test_repro_makes_every_result_once_and_again_only_what_changed(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    experiment = copy_small(folder)
    made = ["compose_experiments", "compose_stages", "prepare", "report", "train"]
    assert sorted(repro(folder)) == made
    assert not repro(folder)

    run = folder / "runs" / "published" / f"{experiment}-0"
    (row,) = read_history(run)
    assert f"validation_{compose(f'experiment={experiment}').training.monitor}" in row
    assert experiment in (folder / "results" / "table.csv").read_text(encoding="utf-8")
    assert str(folder) not in (folder / "dvc.lock").read_text(encoding="utf-8")

    for path in (folder / "src").rglob("*.py"):
        path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    assert sorted(repro(folder)) == ["compose_experiments", "compose_stages"]

"""Two studies in one environment: one uses models and configurations of the other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Study, generate

pytestmark = pytest.mark.slow
LOCATE = "import dvc, pathlib; print(pathlib.Path(dvc.__file__).parents[1])"


class Pair:
    """Two studies, and the environment in which both are installed."""

    def __init__(self, study: Study, folder: Path, *, editable: bool) -> None:
        self.first = generate(folder / "a", project_slug="first_study")
        self.second = generate(folder / "b", project_slug="second_study")
        self.python = folder / "env" / "bin" / "python"
        self.environment = {**study.environment(), "PYTHONPATH": ""}
        add_a_model(self.first)
        use_the_first(self.second)
        subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
        packages = study.call("python", "-c", LOCATE).strip()  # the tools are those of the study
        purelib = self.call(folder, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        Path(purelib.strip(), "shared.pth").write_text(packages, encoding="utf-8")
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        self.call(folder, *install, *(["--editable"] if editable else []), str(self.first))
        self.call(folder, *install, "--editable", str(self.second))

    def call(self, folder: Path, *words: str) -> str:
        """What Python prints in a folder, with both studies installed."""
        done = subprocess.run(
            [self.python, *words],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def replace(path: Path, old: str, new: str) -> None:
    """Replaces what is there, for sure."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old} is not in {path}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def add_a_model(study: Path) -> None:
    """A class and a YAML file."""
    for folder, suffix in (
        (study / "src" / "first_study" / "models", "py"),
        (study / "conf" / "model", "yaml"),
    ):
        text = (folder / f"mlp.{suffix}").read_text(encoding="utf-8")
        text = text.replace("class MLP", "class Wide").replace("models.mlp.MLP", "models.wide.Wide")
        (folder / f"wide.{suffix}").write_text(text, encoding="utf-8")


def use_the_first(study: Path) -> None:
    """Two lines: what a `_target_` may name, and where configurations are looked for."""
    replace(study / "pyproject.toml", "allow = []", 'allow = ["first_study."]')
    search = 'hydra:\n  searchpath: ["${conf_of:first_study}"]\n'
    path = study / "conf" / "config.yaml"
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition("\nhydra:")
    path.write_text(f"{head}\n{search}{rest.partition(chr(10))[2]}", encoding="utf-8")


def train(pair: Pair) -> str:
    """A short run of the second study, with a model that only the first one has."""
    words = ("run.py", "model=wide", "training.num_epochs=1", "num_threads=1")
    return pair.call(pair.second, *words)


@pytest.mark.parametrize("editable", [True, False], ids=["by its path", "built"])
def test_a_second_study_uses_model_and_configuration_of_the_first(
    study: Study, tmp_path: Path, editable: bool
) -> None:
    pair = Pair(study, tmp_path, editable=editable)
    pair.call(pair.second, "stages/prepare.py")
    train(pair)
    (path,) = pair.second.glob("runs/*/record.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["config"]["model"]["network"]["_target_"] == "first_study.models.wide.Wide"
    assert {"first_study.models.wide", "first_study.models.outputs"} <= record["code"].keys()
    assert "already finished" in train(pair)
    if editable:  # the code of the first study is part of what the run is known by
        wide = pair.first / "src" / "first_study" / "models" / "wide.py"
        replace(wide, "nn.ReLU()", "nn.Tanh()")
        assert "already finished" not in train(pair)


def test_the_command_is_that_of_the_study_in_which_it_is_typed(
    study: Study, tmp_path: Path
) -> None:
    pair = Pair(study, tmp_path, editable=True)
    program = str(pair.python.with_name("study"))
    for folder in (pair.first, pair.second):
        words = [program, "compose", "stages", "--experiments", "mlp", "--data", "digits"]
        subprocess.run(words, cwd=folder, env=pair.environment, check=True)
        inputs = folder / "results" / "inputs" / "stages" / "prepare-digits.yaml"
        assert f"{folder.name}.data.read_digits" in inputs.read_text(encoding="utf-8")

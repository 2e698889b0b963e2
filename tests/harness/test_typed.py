"""Wrong command lines: each gets one line that says what to type, exit code 1, and no file."""

import re
from pathlib import Path

import pytest
import torch

from my_study import models
from my_study.harness.configuration import building
from my_study.harness.errors import StudyError
from my_study.harness.study import ROOT

from .commands import call
from .conftest import TINY

OPTIONS = "there is no such option; there are: cnn, linear, mlp"
TYPED = {
    "model=null": f"model=null: {OPTIONS}",
    "model=": f"model=: {OPTIONS}",
    "training=null": "training=null: there is no such option; there are: default",
    "data=null": "data=null: there is no such option; there are: digits",
    "experiment=null": f"experiment=null: {OPTIONS}",
    "launcher=null": "launcher=null: there is no such option; there are: joblib, kubernetes, local",
    "model=../config": f"model=../config: {OPTIONS}",
    "model={network: {depth: 3}}": f"model={{network: {{depth: 3}}}}: {OPTIONS}",
    "-m model=null,linear": f"model=null,linear: {OPTIONS}",
    "-m seed=range(0,0)": "seed=range(0,0): has no value; nothing would be run",
    "-m model=glob(x*)": "model=glob(x*): has no value; nothing would be run",
    "-m seed=1,": "seed=1,: cannot be read as KEY=VALUE",
    "-m model.lr=interval(0.1,1)": "model.lr=interval(0.1,1): type search=tpe or search=random too",
    "hydra=null": "hydra=null: ",
    "=3": "=3: ",
    "num_threads=100000000000": "num_threads=100000000000: must be from 1 to 4096",
    "training.num_workers=100000": "training.num_workers=100000: must be at most 1024",
    "run_dir=. replace=true": "run_dir=.: must be a folder of its own, such as runs/NAME",
    "run_dir=runs/.. replace=true": "run_dir=runs/..: must be a folder of its own",
    "run_dir=runs": "run_dir=runs: must be a folder of its own",
    "run_dir=runs/": "run_dir=runs/: must be a folder of its own",
    "hydra.verbose=3": "hydra.verbose=3: must be true, false or names of loggers",
    "training.optimizer.lr=1": "training.optimizer.lr: is set by the run itself; type: model.lr=",
    "run_dir=/ replace=true": "run_dir=/: must be a folder of its own",
    "run_dir=/proc/1/x": "/proc/1/x: cannot be ",
    "hydra.run.dir=/proc/1/x": "hydra.run.dir=/proc/1/x: must be .; to choose a run's folder, type",
    "hydra.sweep.dir=/proc/1/x -m": "hydra.sweep.dir=/proc/1/x: must be runs",
    "hydra.job_logging=null": "hydra.job_logging=null: must be",
    "model.network.dropout=nan": "model.network.dropout=nan: must be a number",
    "training.schedule.pct_start=nan": "training.schedule.pct_start=nan: must be a number",
    "model.lr=nan": "model.lr=nan: must be above 0",
    "model.lr=1e300": "model.lr=1e+300: must be above 0, and a float32",
    "tolerance.relative=-1": "tolerance.relative=-1.0: must be at least 0",
    "seed=1.5": "seed=1.5: must be of type int",
    "model=cnn model.network.num_channels=[0]": "model.network: blocks.0.weight has the shape [0, ",
    "model.network.hidden_sizes=[0]": "model.network: hidden.0.weight has the shape [0, 64]",
    "model.network.hidden_sizes=[a]": "model.network.hidden_sizes=['a']: must be of type list[int]",
    "model.network={depth: 3}": "model.network.depth: there is no such key; to add it: +model",
    "model.network={dropuot: 0}": "model.network.dropuot: there is no such key; did you mean model",
    "training.optimizer.betas=[1]": "training.optimizer.betas: there is no such key; to add it: +",
    "training.optimizer=[1]": "training.optimizer=[1]: must be a value, a [list] or keys",
    "training.optimizer._target_=torch.optim.LBFGS": "training.optimizer: LBFGS evaluates the loss",
    "training.trainer=${model.network}": "training.trainer._target_=my_study.models.mlp.MLP: must",
    "model.network=${data}": "model.network={'folder'",
    "note=${data}": "note={'folder'",
    "data.metrics.accuracy=3": "data.metrics.accuracy=3: must be a group of keys",
    "data.prepare=null": "data.prepare=None: must be a group of keys",
    "data.prepare.read=null": "data.prepare.read=None: must be given a _target_",
    "data.augmentation=3": "data.augmentation=3: must be given a _target_",
    "+data.floder=3": "data.floder: there is no such key, and nothing takes it; did you mean",
    "+data.prepare.colour=3": "data.prepare.colour: there is no such key",
    "data.image_shape.height=3": "data.image_shape.height=3: a key inside a list or a value cannot",
    "resume=[a]": "resume=['a']: must be the folder of a run",
    "price_per_hour=inf": "price_per_hour=inf: must be at least 0",
    "note=${nope}": "note: Interpolation key 'nope' not found",
    "note=${note}": "note: Recursive interpolation detected",
    "note=${oc.env:STUDY_NOPE}": "note: \"Environment variable 'STUDY_NOPE' not found\"",
    "model.network.hidden_sizes=[${nope}]": "model.network.hidden_sizes: Interpolation key 'nope'",
}
PREPARED = {
    "data=null": "data=null: there is no such option; there are: digits",
    "data.folder=null": "data.folder=None: must be a path",
    "data.prepare.split_seed=x": "data.prepare.split_seed=x: must be of type int",
    "data.prepare.test_fraction=nan": "data.prepare.test_fraction=nan: must be a number",
    "~data.prepare.split_seed": "data.prepare.split_seed: is missing",
    "+data.prepare.foo=1": "data.prepare.foo: there is no such key",
    "data.prepare.read.path=nowhere.csv": "nowhere.csv: cannot be read",
}


def words_of(typed: str) -> list[str]:
    """The words of a command line: those in brackets and braces belong together."""
    return re.findall(r"(?:\{(?:[^{}]|\{[^{}]*\})*\}|\S)+", typed)


@pytest.mark.parametrize("typed", TYPED)
def test_a_wrong_command_line_gets_one_line(typed: str, tiny: Path, tmp_path: Path) -> None:
    paths = [f"data.prepare.read.path={TINY}", f"data.folder={tiny}", "num_threads=1"]
    given = [] if "data=" in typed or "data.prepare" in typed else paths
    words = sorted([*given, *words_of(typed)], key=lambda word: word != "-m")
    code, output, errors = call(ROOT, "run.py", *words, here=tmp_path)
    assert (code, output) == (1, "")
    assert errors.startswith(f"error: {TYPED[typed]}") and errors.count("\n") == 1, errors
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.mark.parametrize("typed", PREPARED)
def test_a_wrong_command_line_of_prepare_gets_one_line(typed: str, tmp_path: Path) -> None:
    code, output, errors = call(ROOT, "stages/prepare.py", typed, here=tmp_path)
    assert (code, output) == (1, "")
    assert errors.startswith(f"error: {PREPARED[typed]}") and errors.count("\n") == 1, errors
    assert not list(tmp_path.iterdir())


TUNED = """
import torch
from torch import nn


class Tuned(nn.Linear):
    def __init__(self, path):
        super().__init__(2, 2)
        self.load_state_dict(torch.load(path, weights_only=True))
"""


class Anything:
    """Is no tensor: a file with it holds more than weights."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read \\(No such file or directory\\)"),
        (b"", "model.network: "),
        (b"no weights", "model.network: its weights file holds more than weights, or is damaged"),
        ({"weight": Anything()}, "model.network: its weights file holds more than weights"),
        ({"weight": torch.zeros(3)}, "model.network: .*Missing key"),
    ],
)
def test_a_weights_file_that_is_missing_or_wrong_gets_one_line(
    content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tuned.py").write_text(TUNED, encoding="utf-8")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    network = {"_target_": "my_study.models.tuned.Tuned", "path": str(path)}
    with pytest.raises(StudyError, match=message) as refusal:
        building.build_network({"model": {"network": network}})
    assert len(str(refusal.value).splitlines()) == 1

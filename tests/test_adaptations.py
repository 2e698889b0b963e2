"""What researchers do to a study, by real edits: its own tests must raise no false alarm."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Study
from warm import Warm

pytestmark = pytest.mark.slow
PACKAGE = "src/my_study"

WORDS = '''"""Words of varying length, padded, and how many vowels each has."""

import csv
from pathlib import Path

import numpy as np


def read_words(path: str | Path, *, length: int) -> dict[str, np.ndarray]:
    """Letters [rows, length] from 1, mask [rows, length], target [rows]."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    letters = np.zeros((len(rows), length), dtype=np.int64)
    for number, row in enumerate(rows):
        letters[number, : len(row["word"])] = [ord(letter) - 96 for letter in row["word"]]
    target = np.array([int(row["vowels"]) for row in rows], dtype=np.int64)
    return {"letters": letters, "mask": letters > 0, "target": target}
'''
WORDS_YAML = """folder: data/prepared_words
prepare:
  read:
    _target_: my_study.words.read_words
    path: data/raw/words.csv
    length: 6
  split_seed: 0
  validation_fraction: 0.2
  test_fraction: 0.2
augmentation: null
fixture: tests/fixtures/words.csv
spec:
  task: classification
  inputs:
    letters: {shape: [6], kind: index, low: 1, high: 26, mask: mask, padding: 0}
    mask: {shape: [6], kind: mask}
  target: {shape: [], kind: index, low: 0, high: 2}
  outputs:
    logits: {shape: [3], kind: logits}
num_letters: 26
"""
BAG = '''"""A bag of embedded letters: their order does not matter."""

import torch.nn.functional as F
from torch import Tensor, nn

from .outputs import classify


class Bag(nn.Module):
    """The sum of embedded letters, and a hidden layer."""

    def __init__(self, *, num_letters: int, width: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(num_letters + 1, width)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, 3)

    def forward(
        self, letters: Tensor, mask: Tensor, target: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Letters [batch, length] and mask [batch, length] to logits [batch, 3]."""
        embedded = self.letters(letters) * mask[..., None]
        return classify(self.output(F.relu(self.hidden(embedded.sum(dim=1)))), target)
'''
BAG_YAML = """# what this is, in words of my own
network:
  _target_: my_study.models.bag.Bag
  num_letters: ${data.num_letters}
  width: 32
lr: 1.0e-2
"""
TABLE = '''"""Four numbers a row, and a fifth that depends on them."""

from pathlib import Path

import numpy as np


def read_table(path: str | Path) -> dict[str, np.ndarray]:
    """Features [rows, 4] and target [rows], float32."""
    values = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return {"features": values[:, :4], "target": values[:, 4]}
'''
TABLE_YAML = """folder: data/prepared
prepare:
  read:
    _target_: my_study.data.read_table
    path: data/raw/table.csv
  split_seed: 0
  validation_fraction: 0.2
  test_fraction: 0.2
augmentation: null
fixture: tests/fixtures/table.csv
spec:
  task: regression
  inputs:
    features: {shape: [4]}
  target: {shape: []}
  outputs:
    prediction: {shape: []}
"""
REGRESSION = '''"""A perceptron that predicts a number."""

import torch.nn.functional as F
from torch import Tensor, nn


class Regression(nn.Module):
    """One hidden layer."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, width)
        self.output = nn.Linear(width, 1)

    def forward(self, features: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Features [batch, 4] to a prediction [batch]."""
        outputs = {"prediction": self.output(F.relu(self.hidden(features))).squeeze(-1)}
        if target is not None:
            outputs["loss"] = F.mse_loss(outputs["prediction"], target)
        return outputs
'''
ERROR = '''"""How far predictions are off."""

from torch import Tensor


class MeanAbsoluteError:
    """The mean distance between prediction and target."""

    higher_is_better = False

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Takes in one batch."""
        self.total += float((outputs["prediction"] - batch["target"]).abs().sum())
        self.count += len(batch["target"])

    def compute(self) -> float:
        """The mean; nan before the first batch."""
        return self.total / self.count if self.count else float("nan")
'''
SHARE_WRONG = '''

class ShareWrong(Accuracy):
    """The share of targets that are missed."""

    higher_is_better = False

    def compute(self) -> float:
        """One minus the accuracy."""
        return 1 - super().compute()
'''


def write(study: Study, files: dict[str, str]) -> None:
    """Writes files of the study."""
    for name, text in files.items():
        (study.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (study.folder / name).write_text(text, encoding="utf-8")


def take_another_default(study: Study) -> None:
    """Another model is the default; a YAML and the README have lines of the owner's own."""
    study.edit("conf/config.yaml", "- model: mlp", "- model: cnn")
    study.edit("conf/model/linear.yaml", r"\A", "# my first idea\n")
    study.edit("README.md", r"\Z", "\n```bash\nmy_own_command --with=options\n```\n")


def make_words(num_rows: int, seed: int) -> str:
    """A table of different words, an equal number with no, one and two vowels."""
    draw = random.Random(seed)
    rows: dict[str, int] = {}
    while len(rows) < num_rows:
        word = "".join(draw.choices("bcdfgklmnprst", k=draw.randint(2, 6)))
        places = draw.sample(range(len(word)), len(rows) % 3)
        vowels = [draw.choice("aeiou") if n in places else x for n, x in enumerate(word)]
        rows.setdefault("".join(vowels), len(places))
    return "word,vowels\n" + "".join(f"{word},{count}\n" for word, count in rows.items())


def add_words(study: Study) -> None:
    """A second data set, and a model for it alone."""
    write(
        study,
        {
            "data/raw/words.csv": make_words(300, seed=0),
            "tests/fixtures/words.csv": make_words(48, seed=1),
            "conf/data/words.yaml": WORDS_YAML,
            "conf/model/bag.yaml": BAG_YAML,
            f"{PACKAGE}/words.py": WORDS,
            f"{PACKAGE}/models/bag.py": BAG,
        },
    )


def measure_otherwise(study: Study) -> None:
    """Another metric, to be minimised, takes the place of the first."""
    study.edit(f"{PACKAGE}/metrics.py", r"\Z", SHARE_WRONG)
    study.edit("conf/config.yaml", r"  accuracy:\n", "  share_wrong:\n")
    study.edit("conf/config.yaml", r"metrics\.Accuracy", "metrics.ShareWrong")
    study.edit("conf/training/default.yaml", "monitor: accuracy", "monitor: share_wrong")
    study.edit("stages/report.py", 'METRIC = "accuracy"', 'METRIC = "share_wrong"')


def train_otherwise(study: Study) -> None:
    """The trainer of docs/extending.md takes the place of the harness's."""
    page = (study.folder / "docs" / "extending.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.S)
    assert code
    write(study, {f"{PACKAGE}/training.py": code[1]})
    named = r"_target_: my_study\.harness\.training\.trainer\.Trainer"
    own = "_target_: my_study.training.NoisyTrainer\n  noise: 0.01"
    study.edit("conf/training/default.yaml", named, own)


def make_table(num_rows: int, seed: int) -> str:
    """Numbers, and the absolute value of a sum of them."""
    draw = random.Random(seed)
    rows = [[draw.gauss(0, 1) for _ in range(4)] for _ in range(num_rows)]
    rows = [[*row, abs(row[0] + 0.5 * row[1] - row[2] + 0.3 * row[3])] for row in rows]
    return "".join(",".join(f"{value:.5f}" for value in row) + "\n" for row in rows)


def start_afresh(study: Study) -> None:
    """The digits go, with all that is theirs; a regression on a table of one's own comes."""
    gone = ["data/raw/digits.csv.gz", "data/raw/README.md", "tests/fixtures/tiny.csv"]
    gone += ["conf/data/digits.yaml", "tests/test_data.py", "tests/test_metrics.py"]
    for name in ("linear", "mlp", "cnn"):
        gone += [f"conf/model/{name}.yaml", f"conf/experiment/{name}.yaml"]
        gone += [f"{PACKAGE}/models/{name}.py"]
    for name in [*gone, f"{PACKAGE}/models/outputs.py"]:
        (study.folder / name).unlink()
    experiment = "# @package _global_\ndefaults:\n  - override /model: perceptron\n\ntest: true\n"
    network = "network:\n  _target_: my_study.models.perceptron.Regression\n  width: 64\n"
    write(
        study,
        {
            "data/raw/table.csv": make_table(300, seed=0),
            "tests/fixtures/table.csv": make_table(48, seed=1),
            "conf/data/table.yaml": TABLE_YAML,
            "conf/model/perceptron.yaml": f"{network}lr: 1.0e-2\n",
            "conf/experiment/base.yaml": experiment,
            f"{PACKAGE}/data.py": TABLE,
            f"{PACKAGE}/models/perceptron.py": REGRESSION,
            f"{PACKAGE}/metrics.py": ERROR,
        },
    )
    study.edit("conf/config.yaml", "- data: digits", "- data: table")
    study.edit("conf/config.yaml", "- model: mlp", "- model: perceptron")
    study.edit("conf/config.yaml", r"  accuracy:\n", "  error:\n")
    study.edit("conf/config.yaml", r"metrics\.Accuracy", "metrics.MeanAbsoluteError")
    study.edit("conf/training/default.yaml", "monitor: accuracy", "monitor: error")
    study.edit("stages/report.py", 'METRIC = "accuracy"', 'METRIC = "error"')
    study.edit("dvc.yaml", r"experiments: \[.*\]", "experiments: [base]")
    study.edit("dvc.yaml", "data/raw/digits.csv.gz", "data/raw/table.csv")


# what is edited concerns all models alike, and some edits no stage of the pipeline
ONE_MODEL = "not (test_model and (mlp or cnn))"
NO_STAGE = f"{ONE_MODEL} and not test_pipeline"


@pytest.mark.parametrize(
    ("adapt", "chosen"),
    [
        (take_another_default, NO_STAGE),
        (add_words, NO_STAGE),
        (train_otherwise, NO_STAGE),
        (measure_otherwise, ONE_MODEL),
        (start_afresh, ONE_MODEL),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_tests_of_a_study_raise_no_false_alarm(
    adapt: Callable[[Study], None], chosen: str, study: Study, warm: Warm, tmp_path: Path
) -> None:
    adapted = study.copy(tmp_path / "my_study")
    shutil.rmtree(adapted.folder / "runs", ignore_errors=True)
    adapt(adapted)
    words = ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", chosen)
    assert " passed" in warm.call(adapted.folder, *words)

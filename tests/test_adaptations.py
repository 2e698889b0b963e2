"""What researchers do to a study, by real edits.

The files that they write are in adaptations/, what they edit stands below. Then the study's own
tests raise no false alarm, it trains, its table shows the metric, and docs/extending.md says how
many files and lines it took.
"""

import functools
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TEMPLATE, Edit, Study, edit, generate
from test_two_studies import Pair
from warm import Warm

pytestmark = pytest.mark.slow
FILES = TEMPLATE / "tests" / "adaptations"
PAGE = TEMPLATE / "{{cookiecutter.project_slug}}" / "docs" / "extending.md"
PACKAGE = "src/my_study"
QUIET = ("-q", "-n", "0", "-p", "no:cacheprovider")
Make = Callable[[random.Random, int], str]  # a table of so many rows
Call = Callable[..., str]  # what `python WORDS` prints in the folder of the study


def lay(name: str) -> Edit:
    """Lays the files that a researcher writes over a study."""
    return lambda study: shutil.copytree(FILES / name, study.folder, dirs_exist_ok=True)


def make_words(draw: random.Random, num_rows: int) -> str:
    """Different words, an equal number with no, one and two vowels."""
    rows: dict[str, int] = {}
    while len(rows) < num_rows:
        word = "".join(draw.choices("bcdfgklmnprst", k=draw.randint(2, 6)))
        places = draw.sample(range(len(word)), len(rows) % 3)
        vowels = [draw.choice("aeiou") if n in places else x for n, x in enumerate(word)]
        rows.setdefault("".join(vowels), len(places))
    return "word,vowels\n" + "".join(f"{word},{count}\n" for word, count in rows.items())


def make_springs(draw: random.Random, num_rows: int) -> str:
    """Numbers, and the absolute value of a sum of them."""
    rows = [[draw.gauss(0, 1) for _ in range(4)] for _ in range(num_rows)]
    rows = [[*row, abs(row[0] + 0.5 * row[1] - row[2] + 0.3 * row[3])] for row in rows]
    return "".join(",".join(f"{value:.5f}" for value in row) + "\n" for row in rows)


def make_choices(draw: random.Random, num_rows: int) -> str:
    """A query, three to five candidates, and which of them is the most like it."""
    rows = []
    for number in range(num_rows):
        query, *candidates = [[draw.gauss(0, 1) for _ in range(3)] for _ in range(4 + number % 3)]
        scores = [sum(x * y for x, y in zip(query, each)) for each in candidates]
        cells = [f"{value:.5f}" for each in [query, *candidates] for value in each]
        rows.append([*cells, *[""] * (18 - len(cells)), str(scores.index(max(scores)))])
    return "".join(",".join(row) + "\n" for row in rows)


def add_data(name: str, make: Make) -> Edit:
    """Raw data, and a few rows of them for the tests."""

    def apply(study: Study) -> None:
        for file, seed, num_rows in ((f"data/raw/{name}", 0, 600), ("tests/fixtures", 1, 90)):
            path = study.folder / file / f"{name}.csv"
            path.parent.mkdir(exist_ok=True)
            path.write_text(make(random.Random(seed), num_rows), encoding="utf-8")

    return apply


def link_digits(study: Study) -> None:
    """Another data set from the same raw file."""
    (study.folder / "data" / "raw" / "images").symlink_to("digits")


def publish(name: str, data: str) -> tuple[Edit, ...]:
    """An experiment alone, with its data set."""
    return (
        edit("dvc.yaml", r"experiments: \[.*\]", f"experiments: [{name}]"),
        edit("dvc.yaml", r"  data: \[.*\]", f"  data: [{data}]"),
    )


def publish_too(name: str, data: str = "") -> tuple[Edit, ...]:
    """An experiment after the others, and its data set where that is new."""
    added = edit("dvc.yaml", r"experiments: \[(.*)\]", rf"experiments: [\1, {name}]")
    if not data:
        return (added,)
    return added, edit("dvc.yaml", r"  data: \[(.*)\]", rf"  data: [\1, {data}]")


def take_trainer(study: Study) -> None:
    """The trainer of docs/extending.md."""
    page = (study.folder / "docs" / "extending.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(# src/my_study/training.py\n.*?)```", page, re.S)
    assert code
    (study.folder / PACKAGE / "training.py").write_text(code[1], encoding="utf-8")


def remove_digits(study: Study) -> None:
    """What came with the study goes: data, models, experiments, and the tests of its reader."""
    gone = ["data/raw/digits/digits.csv.gz", "data/raw/README.md", "tests/fixtures/digits.csv"]
    gone += ["conf/data/digits.yaml", "tests/test_data.py", f"{PACKAGE}/data.py"]
    for name in ("linear", "mlp", "cnn"):
        gone += [f"conf/model/{name}.yaml", f"conf/experiment/{name}.yaml"]
        gone += [f"{PACKAGE}/models/{name}.py"]
    for name in [*gone, f"{PACKAGE}/models/outputs.py"]:
        (study.folder / name).unlink()


SHARE_WRONG = '''

class ShareWrong(Accuracy):
    """The share of targets that are missed."""

    def compute(self) -> float:
        """One minus the accuracy."""
        return 1 - super().compute()
'''


@dataclass(frozen=True)
class Adaptation:
    """What a researcher does, and what comes of it.

    Attributes:
        change: As the table in docs/extending.md calls it.
        edits: What is written, edited and deleted.
        experiment: What is trained then.
        data: Its data set.
        column: In which results/table.md shows the metric on the test split.
        least: Of the value there.
        most: Of the value there.
        tests: Those that it concerns, as `pytest -k` chooses; none for those of the experiment.
        start: The kind of data of the study.
    """

    change: str
    edits: tuple[Edit, ...]
    experiment: str
    data: str
    column: str
    least: float
    most: float
    tests: str = ""
    start: str = "pictures"


DIGITS, WORDS = "conf/data/digits.yaml", "conf/data/words.yaml"
OUTPUTS, COUNTER = f"{PACKAGE}/models/outputs.py", f"{PACKAGE}/models/counter.py"
CROSS_ENTROPY = r"F\.cross_entropy\(logits, target\)"
TRAINER = r"_target_: my_study\.harness\.training\.trainer\.Trainer"
REGRESSION = ("perceptron", "springs")
FEW = "specified or shapes or gradient or knob or declared"  # of the checks: what YAML can break
ACCURACY = "test accuracy (%) ↑"
CHANGES = [
    Adaptation(
        "another default model, lines of your own in YAML and README",
        (
            edit("conf/config.yaml", "- model: mlp", "- model: cnn"),
            edit("conf/model/linear.yaml", r"\A", "# my first idea\n"),
            edit("README.md", r"\Z", "\n```bash\nmy_own_command --with=options\n```\n"),
        ),
        *("linear", "digits", ACCURACY, 80, 100),
    ),
    Adaptation(
        "a second data set, and a model for it alone",
        (lay("words"), add_data("words", make_words), *publish_too("bag", "words")),
        *("bag", "words", ACCURACY, 60, 100, "test_model and bag or test_configs"),
    ),
    Adaptation(
        "a metric of your own, the lower the better",
        (
            edit(f"{PACKAGE}/metrics.py", r"\Z", SHARE_WRONG),
            edit(DIGITS, r"  accuracy:\n", "  share_wrong:\n"),
            edit(DIGITS, r"metrics\.Accuracy", "metrics.ShareWrong"),
            edit(DIGITS, "higher_is_better: true", "higher_is_better: false"),
            edit(DIGITS, "monitor: accuracy", "monitor: share_wrong"),
        ),
        *("linear", "digits", "test share_wrong (%) ↓", 0, 20, "linear or test_pipeline"),
    ),
    Adaptation(
        "the training step below",
        (
            take_trainer,
            edit(
                "conf/training/default.yaml",
                TRAINER,
                "_target_: my_study.training.NoisyTrainer\n  noise: 0.01",
            ),
        ),
        *("linear", "digits", ACCURACY, 80, 100, "linear or test_environment"),
    ),
    Adaptation(
        "regression, in mm",
        (lay("regression"), add_data("springs", make_springs), *publish_too(*REGRESSION)),
        *(*REGRESSION, "test error (mm) ↓", 0, 0.3),
    ),
    Adaptation(
        "the same in a study from which all digits are deleted",
        (
            lay("regression"),
            add_data("springs", make_springs),
            remove_digits,
            edit("conf/config.yaml", "- data: digits", "- data: springs"),
            edit("conf/config.yaml", "- model: mlp", "- model: perceptron"),
            *publish(*REGRESSION),
        ),
        *(*REGRESSION, "test error (mm) ↓", 0, 0.3, "not test_model or outputs_have_their"),
    ),
    Adaptation(
        "several labels an image, micro F1",
        (
            lay("labels"),
            edit(DIGITS, r"data\.read_digits", "properties.read_properties"),
            edit(DIGITS, r"    num_classes: .*\n", ""),
            edit(DIGITS, r"accuracy\b", "micro_f1"),
            edit(DIGITS, r"metrics\.Accuracy", "metrics.MicroF1"),
            edit(DIGITS, r"shape: \[\], (.*) high: 9", r"shape: [3], \1 high: 1"),
            edit(DIGITS, "num_classes: 10", "num_classes: 3"),
            edit(
                OUTPUTS,
                CROSS_ENTROPY,
                "F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))",
            ),
        ),
        *("mlp", "digits", "test micro_f1 (%) ↑", 80, 100),
    ),
    Adaptation(
        "a tag for each letter of a word; padding counts nowhere",
        (
            lay("tagging"),
            edit(WORDS, r"data\.read_words", "tagging.read_tags"),
            edit(WORDS, r"    num_classes: .*\n", ""),
            edit(WORDS, r"data\.Letters", "tagging.TaggedLetters"),
            edit(WORDS, r"fields: \[letters\]", "fields: [letters, target]"),
            edit(
                WORDS,
                r"target: \{shape: \[\], (.*) high: 6",
                r"target: {shape: [length], mask: mask, padding: -100, \1 high: 2",
            ),
            edit(WORDS, r"logits: \{shape: \[", "logits: {mask: mask, shape: [length, "),
            edit(WORDS, "num_classes: 7.*", "num_classes: 3"),
            edit(COUNTER, r"        word = .*\n", ""),
            edit(COUNTER, r"self\.head\(word\)", "self.head(vectors)"),
            edit(
                OUTPUTS, CROSS_ENTROPY, "F.cross_entropy(logits.flatten(0, -2), target.flatten())"
            ),
        ),
        *("lstm", "words", ACCURACY, 97, 100, f"lstm and ({FEW} or padding or metrics)"),
        start="text",
    ),
    Adaptation(
        "ranking of up to five candidates, mean reciprocal rank",
        (lay("ranking"), add_data("choices", make_choices), *publish_too("matcher", "choices")),
        *("matcher", "choices", "test reciprocal_rank ↑", 0.75, 1),
    ),
    Adaptation(
        "an autoencoder: no target",
        (lay("autoencoder"), link_digits, *publish_too("autoencoder", "images")),
        *("autoencoder", "images", "test error (%) ↓", 0, 15),
    ),
    Adaptation(
        "another encoder, by a nested `_target_`: YAML alone",
        (lay("encoder"), *publish_too("small")),
        *("small", "words", ACCURACY, 60, 100, f"small and ({FEW})"),
        start="text",
    ),
]
EINOPS = Adaptation(
    "a module of another package (einops)",
    (
        lay("einops"),
        edit("pyproject.toml", r"allow = \[\]", 'allow = ["einops.layers.torch."]'),
        edit("pyproject.toml", r'( +)"tqdm>', r'\1"einops>=0.8",\n\g<0>'),
        *publish_too("pooled"),
    ),
    *("pooled", "digits", ACCURACY, 60, 100, f"pooled and ({FEW})"),
)
OTHER_STUDY = Adaptation(
    "a model of another study",
    (lay("other_study"), *publish_too("wide")),
    *("wide", "digits", ACCURACY, 80, 100, f"wide and ({FEW})"),
)


def measure(study: Study) -> tuple[int, int]:
    """How many files are written or edited, and how many lines added; raw data do not count."""
    study.call("git", "add", "--all")
    words = ("diff", "--cached", "--numstat", "--no-renames", "--diff-filter=d", "HEAD")
    said = study.call("git", *words, "--", ".", ":!data/raw", ":!tests/fixtures")
    added = [int(line.split("\t")[0]) for line in said.splitlines()]
    return len(added), sum(added)


def train(study: Study, change: Adaptation, call: Call) -> dict[str, str]:
    """Prepares, trains and reports one experiment; returns its row of the table."""
    name = change.experiment
    call("stages/prepare.py", f"data={change.data}")
    call("run.py", f"experiment={name}", f"run_dir=runs/published/{name}-0")
    program = str(study.folder / ".venv" / "bin" / "study")
    call(program, "compose", "stages", "--experiments", name, "--data", change.data)
    call("stages/report.py", "--experiments", name, "--seeds", "0")
    table = (study.folder / "results" / "table.md").read_text(encoding="utf-8")
    header, _, row = (re.split(r" ?\| ?", line) for line in table.splitlines()[:3])
    return dict(zip(header, row))


def check(study: Study, change: Adaptation, call: Call) -> None:
    """Holds a study that has been adapted to what its page and its tests promise."""
    for apply in change.edits:
        apply(study)
    files, lines = measure(study)
    assert f"| {change.change} | {files} | {lines} |" in PAGE.read_text(encoding="utf-8")
    row = train(study, change, call)
    value = float(row[change.column].split()[0])
    assert change.least <= value <= change.most, value
    chosen = change.tests or f"test_model and {change.experiment}"
    assert " passed" in call("-m", "pytest", *QUIET, "-k", chosen)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.change)
def test_an_adapted_study_trains_and_its_tests_raise_no_false_alarm(
    change: Adaptation, study: Study, warm: Warm, tmp_path: Path
) -> None:
    if change.start == "pictures":
        adapted = study.copy(tmp_path / "my_study")
    else:
        adapted = Study(generate(tmp_path, data=change.start))
        (adapted.folder / ".venv").symlink_to(study.folder / ".venv")
    check(adapted, change, functools.partial(warm.call, adapted.folder))


def test_a_study_takes_a_module_of_another_package(study: Study, tmp_path: Path) -> None:
    adapted, packages = study.copy(tmp_path / "my_study"), tmp_path / "packages"
    study.call("python", "-m", "pip", "install", "--no-deps", "--target", packages, "einops>=0.8")
    path = os.pathsep.join([str(adapted.folder / "src"), str(packages)])
    call = functools.partial(adapted.call, "python", env={"PYTHONPATH": path})
    check(adapted, EINOPS, call)


def test_a_study_takes_a_model_of_another_study(study: Study, tmp_path: Path) -> None:
    pair = Pair(study, tmp_path, editable=True)
    (pair.second / ".venv").symlink_to(pair.python.parent.parent)
    adapted = Study(pair.second)
    check(adapted, OTHER_STUDY, functools.partial(adapted.call, "python"))


def test_the_page_names_no_other_change() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## What it takes\n")[2]
    rows = re.findall(r"^\| (.*) \| \d+ \| \d+ \|$", section, re.M)
    assert rows == [change.change for change in [*CHANGES, EINOPS, OTHER_STUDY]]

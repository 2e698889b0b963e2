"""The kinds of data that a study may begin with: each complete; and all of them in one study."""

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TEMPLATE, Study, make_once
from warm import Warm

# of each kind but the first, which the other tests are about: an experiment, and its metric
EXPECTED = {
    "text": {"bag": (0.62, 1.0), "lstm": (0.88, 1.0), "transformer": (0.75, 1.0)},
    "tables": {"linear": (0.0, 2.9), "mlp": (0.0, 2.5)},
}
# the hash of the hashes of the targets of each split: published numbers rest on them
SPLITS = {
    "text": "fc06e807f8b63238b231633bf87f5d0f0cd7cc258c12936c789977036b18a40a",
    "tables": "9fec56b1e0200723bcaa00e86ec08ee0e448036d18c3e085463eb97e9280b8c3",
}
PACKAGE = "src/my_study"
pytestmark = pytest.mark.slow
# The raw rows of a split, typed, give the numbers of evaluation, whatever stands beside them in a
# batch; and so does the exported program.
PREDICTS = """
import io, json, math, pathlib, sys, tempfile
import numpy as np
from my_study.harness.configuration.building import read_raw
from my_study.harness.configuration.composing import from_values
from my_study.harness.inference import exporting, load_run
from my_study.harness.inference.answering import answer_all
from my_study.harness.inference.instances import raw_fields, read_json
from my_study.harness.inference.predicting import predict
from my_study.harness.training import preparation

def answers(run, rows, batch_size):
    stream = io.BytesIO("".join(json.dumps(row) + chr(10) for row in rows).encode())
    instances = read_json(stream, raw_fields(run.config))
    found = [each for batch in answer_all(run, instances, batch_size=batch_size) for each in batch]
    return np.array([each[run.spec.prediction] for each in found]), found

for name in sys.argv[1:]:
    run = load_run(name)
    raw = read_raw(from_values(run.config))
    splitter = preparation.default_splitter(run.config["data"]["prepare"])
    places = preparation.split_rows(preparation.scan([raw], splitter), splitter)["validation"]
    columns = {key: each[places].tolist() for key, each in raw.items() if key != "target"}
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    rows = [{k: v for k, v in row.items() if v == v} for row in rows]  # a gap is left out
    split, known = run.split("validation"), run.record["metrics"]["validation"]
    typed, found = answers(run, rows, 256)
    cut = {key: each for key, each in split[np.arange(len(split))].items() if key != "target"}
    scale = np.abs(typed).max()
    assert np.abs(typed - predict(run, cut, batch_size=100)[run.spec.prediction]).max() < 1e-5 * scale
    assert np.abs(typed[:40] - answers(run, rows[:40], 1)[0]).max() < 1e-5 * scale
    target = split.fields["target"].numpy()
    if "accuracy" in known:
        right = [each["class"] for each in found] == target
        assert math.isclose(right.mean(), known["accuracy"]), (right.mean(), known)
    else:
        assert math.isclose(np.abs(typed - target).mean(), known["mae"], rel_tol=1e-5), known
    with tempfile.TemporaryDirectory() as folder:
        exporting.export(run, pathlib.Path(folder, "exported"), onnx=False)
print(len(sys.argv) - 1, "runs predict and export")
"""


@pytest.fixture(name="starter", scope="module", params=EXPECTED)
def _starter(request: pytest.FixtureRequest, study_of: Callable[[str], Study]) -> tuple[str, Study]:
    """The name of a kind, and its study."""
    return request.param, study_of(request.param)


def test_a_starter_is_all_that_is_special_to_its_kind(
    starter: tuple[str, Study], study: Study
) -> None:
    _, other = starter
    assert not (other.folder / "starters").exists()
    for name in (f"{PACKAGE}/harness", "stages", "run.py", "requirements.lock", "pyproject.toml"):
        paths = [study.folder / name, *(study.folder / name).rglob("*")]
        for path in (path for path in paths if path.suffix in (".py", ".lock")):
            text = path.read_text(encoding="utf-8").replace("data=digits", "data=DATA")
            same = (other.folder / path.relative_to(study.folder)).read_text(encoding="utf-8")
            same = re.sub(r"data=(words|cars)", "data=DATA", same)
            assert re.sub("model=.*", "", text) == re.sub("model=.*", "", same), path


def test_the_tests_and_linters_of_a_starter_find_nothing(
    starter: tuple[str, Study], warm: Warm
) -> None:
    _, study = starter
    study.call("black", "--check", ".")
    study.call("pylint", "run.py", "stages", f"{PACKAGE}/data.py", f"{PACKAGE}/models", "tests")
    study.call("mypy")
    words = ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "slow or not slow")
    assert " passed" in warm.call(study.folder, *words)


def test_a_starter_is_reproduced_with_the_numbers_that_it_promises(
    starter: tuple[str, Study], tmp_path: Path
) -> None:
    kind, study = starter[0], starter[1].copy(tmp_path / "my_study")
    study.edit("dvc.yaml", r"seeds: \[.*\]", "seeds: [0]")
    study.call("dvc", "repro")
    with open(study.folder / "results" / "table.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    first = {row["experiment"]: float(row["mean"]) for row in reversed(rows)}
    assert first.keys() == EXPECTED[kind].keys()
    for name, (least, most) in EXPECTED[kind].items():
        assert least < first[name] < most, (name, first[name])
    (manifest,) = study.folder.glob("data/prepared/*/manifest.json")
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    hashes = [files[f"{name}/target.npy"]["sha256"] for name in ("train", "validation", "test")]
    assert hashlib.sha256(" ".join(hashes).encode()).hexdigest() == SPLITS[kind]
    study.commit()
    assert "identical: dvc.lock and results/" in study.call("study", "pipeline")
    runs = sorted(f"runs/published/{name}-0" for name in first)
    assert f"{len(runs)} runs predict and export" in study.call("python", "-c", PREDICTS, *runs)
    said = study.call("study", "evaluate", runs[0], "--split", "test")
    assert "identical to the record" in said and "with this run: 2" in said
    assert "up to date" in study.call("dvc", "status")
    assert not study.call("git", "status", "--porcelain")


def add_starter(study: Study, kind: str, data: str, prefix: str) -> list[str]:
    """What an owner copies of another kind into a study; returns its experiments."""
    folder = TEMPLATE / "{{cookiecutter.project_slug}}" / "starters" / kind
    experiments = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        name = name.replace("{{cookiecutter.project_slug}}", "my_study")
        if path.is_dir() or name == "data/raw/README.md" or name.startswith("tests/test_"):
            continue
        name = name.replace("my_study/data.py", f"my_study/{prefix}data.py")
        name = re.sub(r"(/models/|/model/|/experiment/)", rf"\1{prefix}", name)
        place = study.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        if path.suffix in (".yaml", ".py"):
            text = content.decode().replace("{{ cookiecutter.project_slug }}", "my_study")
            text = text.replace("my_study.data.", f"my_study.{prefix}data.")
            text = text.replace("my_study.models.", f"my_study.models.{prefix}")
            text = re.sub(r"from \.(\w+) import", rf"from .{prefix}\1 import", text)
            text = re.sub(r"(override /model: )", rf"\g<1>{prefix}", text)
            if "/model/" in path.as_posix():
                text = f"defaults:\n  - override /data@_global_.data: {data}\n{text}"
            content = text.encode()
        place.write_bytes(content)
        if "experiment" in place.parts[-2]:
            experiments.append(place.stem)
    return sorted(experiments)


@pytest.fixture(name="three", scope="module")
def _three(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of pictures, to which an owner has added data and models of the other kinds."""

    def make(folder: Path) -> None:
        three = study.copy(folder / "my_study")
        added = add_starter(three, "text", "words", "words_")
        added += add_starter(three, "tables", "cars", "cars_")
        published = ", ".join(["linear", *added])
        three.edit("dvc.yaml", r"experiments: \[.*\]", f"experiments: [{published}]")
        three.edit("dvc.yaml", r"data: \[digits\]", "data: [digits, words, cars]")
        three.edit("dvc.yaml", r"seeds: \[.*\]", "seeds: [0]")
        three.edit("conf/training/default.yaml", r"num_epochs: \d+", "num_epochs: 1")
        three.commit()

    return Study(make_once(tmp_path_factory, "three", make) / "my_study")


def test_three_kinds_of_data_stand_in_one_study(three: Study, warm: Warm, tmp_path: Path) -> None:
    study = three.copy(tmp_path / "my_study")
    study.call("dvc", "repro")
    table = (study.folder / "results" / "table.md").read_text(encoding="utf-8")
    assert re.findall(r"^\*\*(\w+)\*\*$", table, re.M) == ["digits", "words", "cars"]
    assert "accuracy (%) ↑" in table and "↓" in table
    study.commit()
    # a change of one data set runs its own experiments again, and no other
    study.edit("conf/data/cars.yaml", "split_seed: 0", "split_seed: 1")
    warm.call(study.folder, "-m", "dvc", "repro", "compose_experiments")
    dry = warm.call(study.folder, "-m", "dvc", "repro", "--dry")
    runs = set(re.findall(r"Running stage 'train@(\w+)-0'", dry))
    assert runs and all(name.startswith("cars_") for name in runs)


def test_each_model_and_experiment_is_checked_on_its_own_data(three: Study, warm: Warm) -> None:
    few = "signature or test_configs or the_batch_is_as_specified or the_loss_is_a_mean"
    words = ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", few)
    said = warm.call(three.folder, *words, "tests/test_models.py", "tests/test_configs.py")
    assert " passed" in said


def test_what_an_error_advises_is_a_command_that_works(three: Study, tmp_path: Path) -> None:
    study = three.copy(tmp_path / "my_study")
    said = study.call("python", "run.py", "model=words_bag", code=1)
    (advice,) = re.findall(r"type: (python .*)", said)
    assert advice == "python stages/prepare.py data=words"
    study.call(*advice.split())
    said = study.call("python", "run.py", "model=words_bag")
    assert "validation: loss" in said
    said = study.call("python", "run.py", "model=words_bag", "data=digits", code=1)
    (advice,) = re.findall(r"; type (data=words)", said)
    assert "already finished" in study.call("python", "run.py", "model=words_bag", advice)


def test_what_was_fitted_on_the_training_rows_stays_with_the_run(
    three: Study, tmp_path: Path
) -> None:
    study = three.copy(tmp_path / "my_study")
    study.call("python", "stages/prepare.py", "data=words")
    study.call("python", "run.py", "model=words_bag", "run_dir=runs/bag")
    state = json.loads((study.folder / "runs" / "bag" / "encoder.json").read_text())
    assert state
    shutil.rmtree(study.folder / "data")  # predictions need the run alone
    program = """
import json, pathlib, numpy, sys
from my_study.harness import configuration
from my_study.harness.configuration.reading import load
run = pathlib.Path("runs/bag")
state = json.loads((run / "encoder.json").read_text())
encoder = configuration.build_encoder(load(run / "config.yaml"), state)
print({name: values.shape for name, values in encoder.encode({"word": numpy.array(["banana"])}).items()})
"""
    assert "letters" in study.call("python", "-c", program)

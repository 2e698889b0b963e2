"""How rows are divided: what each way promises, whatever the order of the table."""

import hashlib
import itertools
import json
import shutil
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from my_study.harness.configuration.building import build_splitter, read_fixture, read_raw
from my_study.harness.configuration.checking import check_data
from my_study.harness.configuration.composing import compose, to_values
from my_study.harness.errors import StudyError
from my_study.harness.study import ROOT
from my_study.harness.training import preparation, splits
from my_study.harness.training.prepared import SPLITS, Split

from .commands import call
from .conftest import Copy, prepare

SHARES: dict[str, Any] = {"split_seed": 0, "validation_fraction": 0.2, "test_fraction": 0.2}
SPLIT = "my_study.harness.training.splits"
Fields = dict[str, np.ndarray]


def table(num_rows: int = 200, seed: int = 0) -> Fields:
    """Rows of patients, at times of which some are the same, in one of three classes."""
    generator = np.random.default_rng(seed)
    return {
        "value": generator.normal(size=num_rows).astype(np.float32),
        "patient": generator.integers(0, 40, num_rows),
        "day": generator.integers(0, 60, num_rows),
        "target": generator.choice(3, num_rows, p=[0.5, 0.3, 0.2]),
    }


def shuffled(fields: Fields, seed: int) -> Fields:
    """The same rows in another order."""
    order = np.random.default_rng(seed).permutation(len(fields["target"]))
    return {name: values[order] for name, values in fields.items()}


def divide(fields: Fields, splitter: splits.Splitter) -> dict[str, np.ndarray]:
    """The rows of each split, as preparing draws them."""
    return preparation.split_rows(preparation.scan([fields], splitter), splitter)


def values_of(fields: Fields, rows: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Which instances are in each split: their values are all different."""
    return {name: sorted(fields["value"][each].tolist()) for name, each in rows.items()}


WAYS: dict[str, Any] = {
    "random": splits.Random(**SHARES),
    "stratified": splits.Stratified(column="target", **SHARES),
    "stratified by a column": splits.Stratified(column="patient", **SHARES),
    "by group": splits.ByGroup(column="patient", **SHARES),
    "by time": splits.ByTime(column="day", validation_fraction=0.2, test_fraction=0.2),
    "folds": splits.Folds(num_folds=5, fold=1, split_seed=0),
    "folds of groups": splits.Folds(num_folds=5, fold=1, split_seed=0, group="patient"),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_row_is_in_one_split_whatever_the_order_of_the_table(way: str) -> None:
    fields, expected = table(), None
    for seed in range(20):
        other = shuffled(fields, seed)
        drawn = divide(other, WAYS[way])
        assert sorted(np.concatenate([*drawn.values()])) == list(range(200))
        expected = expected or values_of(other, drawn)
        assert values_of(other, drawn) == expected


@pytest.mark.parametrize("seed", range(50))
def test_a_group_never_stands_in_two_splits(seed: int) -> None:
    fields = table(seed=seed)
    for splitter in (
        splits.ByGroup(column="patient", **{**SHARES, "split_seed": seed}),
        splits.Folds(num_folds=4, fold=seed % 4, split_seed=seed, group="patient"),
    ):
        drawn = divide(fields, splitter)
        groups = [set(fields["patient"][rows]) for rows in drawn.values()]
        assert not any(left & right for left, right in itertools.combinations(groups, 2))


@pytest.mark.parametrize("seed", range(50))
def test_time_never_runs_backwards(seed: int) -> None:
    fields = table(seed=seed)
    drawn = divide(fields, WAYS["by time"])
    train, validation, test = (fields["day"][drawn[name]] for name in SPLITS)
    assert train.max() < validation.min() and validation.max() < test.min()
    assert len(test) >= 40 and len(validation) >= 40


def test_times_may_be_dates_and_not_other_text() -> None:
    fields = table()
    dates = np.datetime64("2026-01-01") + fields["day"]
    expected = values_of(fields, divide(fields, WAYS["by time"]))
    assert (
        values_of(fields, divide({**fields, "day": dates.astype(str)}, WAYS["by time"])) == expected
    )
    assert values_of(fields, divide({**fields, "day": dates}, WAYS["by time"])) == expected
    with pytest.raises(StudyError, match="day '.*' is no date such as 2026-01-31"):
        divide({**fields, "day": fields["day"].astype(str)}, WAYS["by time"])


def test_one_time_for_all_rows_cannot_be_split() -> None:
    with pytest.raises(StudyError, match="none is left for train"):
        divide({**table(), "day": np.zeros(200)}, WAYS["by time"])


@pytest.mark.parametrize("column", ["target", "patient"])
def test_the_share_of_each_class_is_within_a_row_of_its_fraction(column: str) -> None:
    fields = table(2000)
    drawn = divide(fields, splits.Stratified(column=column, **SHARES))
    for value, total in Counter(fields[column].tolist()).items():
        for name, share in {"train": 0.6, "validation": 0.2, "test": 0.2}.items():
            assert abs((fields[column][drawn[name]] == value).sum() - share * total) <= 1


@pytest.mark.parametrize("group", [None, "patient"])
def test_folds_are_disjoint_and_cover_all(group: str | None) -> None:
    fields = table()
    folds = [
        divide(fields, splits.Folds(num_folds=5, fold=fold, split_seed=3, group=group))
        for fold in range(5)
    ]
    for name in ("validation", "test"):
        assert sorted(np.concatenate([each[name] for each in folds])) == list(range(200))
    for this, after in zip(folds, [*folds[1:], folds[0]], strict=True):
        assert np.array_equal(this["validation"], after["test"])


def test_folds_share_each_class_to_within_a_row() -> None:
    fields = table()
    for value, total in Counter(fields["target"].tolist()).items():
        for fold in range(5):
            drawn = divide(fields, splits.Folds(num_folds=5, fold=fold, split_seed=0))
            assert abs((fields["target"][drawn["test"]] == value).sum() - total / 5) < 1


def test_a_given_column_is_obeyed_and_a_wrong_value_is_named() -> None:
    fields, given = table(), splits.Given(column="split")
    fields["split"] = np.random.default_rng(1).choice(SPLITS, 200)
    for name, rows in divide(fields, given).items():
        assert np.array_equal(rows, np.flatnonzero(fields["split"] == name))
    fields["split"][[3, 7]] = "tset"
    with pytest.raises(StudyError, match="2 rows are for 'tset'; must be one of train, validation"):
        divide(fields, given)


def test_a_group_in_two_splits_of_a_given_column_is_refused() -> None:
    fields = table()
    fields["split"] = np.array(["train", "validation", "test"])[fields["patient"] % 3]
    given = splits.Given(column="split", group="patient")
    divide(fields, given)
    alone = int(np.flatnonzero(fields["patient"] == 3)[0])
    fields["split"][alone] = "test"
    with pytest.raises(StudyError, match="1 of 40 values of patient stand in several splits: 3; "):
        divide(fields, given)


@pytest.mark.parametrize("splitter", [WAYS["by group"], WAYS["folds of groups"]])
def test_groups_of_one_row_each_are_refused(splitter: splits.Splitter) -> None:
    with pytest.raises(StudyError, match="every row has another patient, so there are no groups"):
        divide({**table(), "patient": np.arange(200)}, splitter)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "the reader gives no field patient; it gives value, day, target"),
        (np.where(np.arange(200) == 6, np.nan, 1.0), "row 7 has no patient"),
        (np.where(np.arange(200) == 8, "", "a"), "row 9 has no patient"),
        (np.ones((200, 2)), "field patient is not one value a row"),
    ],
)
def test_a_column_of_the_split_that_is_incomplete_is_refused(
    values: np.ndarray | None, message: str
) -> None:
    fields = {name: each for name, each in table().items() if name != "patient"}
    if values is not None:
        fields["patient"] = values
    with pytest.raises(StudyError, match=message):
        divide(fields, WAYS["by group"])


@pytest.mark.parametrize("is_input", [False, True])
def test_what_only_the_split_reads_reaches_no_model_unless_asked(
    is_input: bool, tmp_path: Path
) -> None:
    splitter = splits.ByGroup(column="patient", is_input=is_input, **SHARES)
    preparation.prepare(tmp_path / "prepared", table(), SHARES, splitter=splitter)
    for name in SPLITS:
        assert ("patient" in Split(tmp_path / "prepared", name).fields) == is_input


def test_rows_that_only_their_group_tells_apart_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields = table()
    fields["split"] = np.array(["train"] * 100 + ["validation"] * 50 + ["test"] * 50)
    for name in ("value", "patient", "day"):
        fields[name][[110, 160, 170]] = fields[name][[10, 20, 10]]
    preparation.prepare(tmp_path / "p", fields, SHARES, splitter=splits.Given(column="split"))
    expected = "1 of validation, 2 of test have the inputs of a row in an earlier split"
    assert f"{expected} (rows 111, 161, 171)" in caplog.text


def test_columns_that_say_nothing_are_named_in_a_line_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fields = table()
    more = {"site": np.full(200, "a"), "row": np.arange(200.0), "name": np.arange(200).astype(str)}
    matrix = np.stack([fields["value"], np.ones(200)], axis=1)
    preparation.scan([{**fields, **more, "matrix": matrix}], WAYS["random"])
    assert [record.getMessage() for record in caplog.records] == [
        "data.prepare.read: the same in every row, so without information: columns site, matrix[1]",
        "data.prepare.read: different in every row, as a name or a row number is: "
        "columns row, name",
    ]
    caplog.clear()
    preparation.scan([fields], WAYS["random"])
    preparation.scan([{"word": more["name"], "target": fields["target"]}], WAYS["random"])
    assert not caplog.records


def test_no_rows_are_refused(tmp_path: Path) -> None:
    empty = {name: values[:0] for name, values in table().items()}
    with pytest.raises(StudyError, match="data.prepare.read: has no rows"):
        preparation.prepare(tmp_path / "p", empty, SHARES)
    with pytest.raises(StudyError, match="read: no input besides the columns of the split"):
        divide({name: table()[name] for name in ("patient", "target")}, WAYS["by group"])


def test_the_splits_of_a_seed_stay_as_they_were(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "digits")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    hashes = " ".join(f"{name} {files[name]['sha256']}" for name in sorted(files))
    assert hashlib.sha256(hashes.encode()).hexdigest() == PUBLISHED


PUBLISHED = "fe0bc50454babdc4c2fbe6c9741d0ce9814c6bf69cf361df47c15251931d8187"


def test_a_split_is_named_in_the_configuration(tmp_path: Path) -> None:
    target = f"data.prepare.split={{_target_: {SPLIT}.Stratified, column: target}}"
    plain, named = prepare(tmp_path / "a"), tmp_path / "b"
    config = compose([f"data.folder={named}", f"+{target}"])
    check_data(config)
    parameters = to_values(config.data.prepare)
    preparation.prepare(named, read_raw(config), parameters, {}, None, build_splitter(config))
    for name in SPLITS:
        assert (plain / name / "image.npy").read_bytes() == (
            named / name / "image.npy"
        ).read_bytes()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("{_target_: SPLIT.ByGrup, column: a}", "must be defined in"),
        ("{_target_: my_study.data.read_digits, path: a}", "must name a class with assign"),
        ("{_target_: SPLIT.ByGroup, colum: a}", "colum: there is no such key; did you mean column"),
        (
            "{_target_: SPLIT.Given, column: a}",
            "split_seed: data.prepare.split takes none",
        ),
        ("{column: a}", "data.prepare.split=.*: must be given a _target_"),
    ],
)
def test_a_wrong_split_is_one_line(typed: str, message: str) -> None:
    config = compose([f"+data.prepare.split={typed.replace('SPLIT', SPLIT)}"])
    with pytest.raises(StudyError, match=message):
        check_data(config)


def test_the_class_of_ones_own_in_the_docs_divides_rows() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(class BySite:.*?)```", page, re.S)
    made: dict[str, Any] = {"np": np, "Mapping": Mapping}
    exec(code, made)  # pylint: disable=exec-used
    fields = {**table(), "site": np.array(["Oslo", "Rome", "Rome", "Bonn"] * 50)}
    drawn = divide(fields, made["BySite"](test="Oslo"))
    assert drawn["test"].tolist() == list(range(0, 200, 4))
    assert splits.split_only(made["BySite"](test="Oslo")) == {"site"}


def test_a_fold_that_does_not_exist_is_refused() -> None:
    for values in ({"num_folds": 5, "fold": 5}, {"num_folds": 2, "fold": 0}):
        with pytest.raises(StudyError, match="must be from 0 to 4|num_folds=2: must be at least 3"):
            splits.Folds(split_seed=0, **values)


@pytest.mark.slow
def test_a_seed_is_a_fold_from_the_raw_data_to_the_run(copy: Copy) -> None:
    fold = f'{{_target_: {SPLIT}.Folds, num_folds: 3, fold: "${{seed}}"}}'
    copy.edit("conf/data/digits.yaml", r"folder: \S+", r"\g<0>/fold-${data.prepare.split.fold}")
    copy.edit("conf/data/digits.yaml", r"  (validation|test)_fraction: .*\n", "")
    copy.edit("conf/data/digits.yaml", "  split_seed: 0", f"  split: {fold}\n  split_seed: 0")
    copy.edit("dvc.yaml", r"prepare.py data=\S+", r"prepare.py -m data=${item.data} seed=0,1,2")
    copy.edit("dvc.yaml", r"seeds: \[.*\]", "seeds: [0, 1, 2]")
    copy.call("dvc", "repro", "compose_experiments")
    prepared = copy.folder / "data" / "prepared" / "digits"
    images = [
        {
            image.numpy().tobytes()
            for image in Split(prepared / f"fold-{fold}", "test").fields["image"]
        }
        for fold in range(3)
    ]
    assert sum(map(len, images)) == len(set().union(*images)) == 50
    inputs = (copy.folder / "results" / "inputs" / "experiments" / "linear.yaml").read_text()
    assert all(f"data/prepared/digits/fold-{fold}/train/image.npy: " in inputs for fold in range(3))
    known = (copy.folder / "results" / "inputs" / "splits.yaml").read_text()
    (linear,) = yaml.safe_load(known)["splits"].values()
    assert linear["repeats"] == "folds" and sum(rows["test"] for rows in linear["rows"]) == 50
    words = ("run.py", "model=linear", "seed=2", "run_dir=runs/a", "test=true")
    assert call(copy.folder, *words)[0] == 0
    record = json.loads((copy.folder / "runs" / "a" / "record.json").read_text())
    assert record["config"]["data"]["prepare"]["split"]["fold"] == 2
    image = (prepared / "fold-2" / "test" / "image.npy").read_bytes()
    assert record["data"]["test/image.npy"] == hashlib.sha256(image).hexdigest()
    shutil.rmtree(prepared / "fold-1")
    _, _, errors = call(copy.folder, "run.py", "model=linear", "seed=1")
    assert "type: python stages/prepare.py data=digits seed=1\n" in errors
    assert call(copy.folder, "stages/prepare.py", "data=digits", "seed=1")[0] == 0
    assert (prepared / "fold-1").is_dir()
    answer = call(copy.folder, "study", "compose", "experiments", "--experiments", "linear")
    assert answer[0] == 1 and answer[2].startswith(
        "error: dvc.yaml: data.folder depends on the seed"
    )


def test_an_old_stage_does_not_ignore_the_split(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="stages/prepare.py: ignores data.prepare.split"):
        preparation.prepare(tmp_path / "p", table(), {**SHARES, "split": {"_target_": "x"}})


def test_the_fixture_of_the_checks_is_read_without_the_columns_of_the_split() -> None:
    values = to_values(compose())
    found, _, _ = read_fixture(values)
    fields = {**found, "patient": np.arange(len(found["target"])) % 7}
    assert {*preparation.gather_inputs(fields, WAYS["by group"])} == {*found}
    halves = iter([{name: values[:9] for name, values in fields.items()}, fields])
    assert len(preparation.gather_inputs(halves, None)["target"]) == 9 + len(found["target"])
    with pytest.raises(StudyError, match="the reader gives no field patient"):
        preparation.gather_inputs(found, WAYS["by group"])

"""The reader of the cars, and what turns their columns into numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from {{ cookiecutter.project_slug }}.data import Columns, read_cars
from {{ cookiecutter.project_slug }}.harness.errors import StudyError

FIXTURE = Path(__file__).parent / "fixtures" / "cars.csv"
TEXT = FIXTURE.read_text(encoding="utf-8")
NUMBERS = {
    "displacement": [50, 500],
    "horsepower": [40, 300],
    "weight": [1500, 6000],
    "acceleration": [5, 30],
    "year": [70, 82],
}


def read(path: Path) -> dict[str, np.ndarray]:
    """The fields of a table."""
    return read_cars(
        path,
        numbers=NUMBERS,
        may_be_missing=["horsepower"],
        categories=["cylinders", "origin", "maker"],
        target={"mpg": [5, 60]},
    )


def test_every_cell_is_where_the_table_has_it() -> None:
    fields = read(FIXTURE)
    header, *rows = [line.split(",") for line in TEXT.splitlines()]
    assert list(fields) == [*header[:-1], "target"]
    for index, (name, values) in enumerate(fields.items()):
        cells = [row[index] for row in rows]
        if name in ("cylinders", "origin", "maker"):
            assert values.tolist() == cells
        else:
            assert values.dtype == np.float64
            assert [f"{value:g}" for value in values] == [cell or "nan" for cell in cells]


def edit(row: int, column: int, value: str) -> Callable[[str], str]:
    """An edit of one cell; the header is row 1."""

    def apply(text: str) -> str:
        rows = [line.split(",") for line in text.splitlines()]
        rows[row - 1][column] = value
        return "\n".join(",".join(cells) for cells in rows) + "\n"

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit(3, 2, "35040"), r"row 3, column weight: must be a number from 1500 to 6000.*'35040'"),
        (edit(4, 0, "x"), r"row 4, column displacement: .*'x'"),
        (edit(4, 3, "-11"), r"row 4, column acceleration: .*'-11'"),
        (edit(5, 3, "1_1"), r"row 5, column acceleration: .*'1_1'"),
        (edit(5, 3, "11\x0b"), r"row 5, column acceleration: .*'11\\x0b'"),
        (edit(5, 3, "²"), r"row 5, column acceleration: .*'²'"),
        (edit(5, 3, "nan"), r"row 5, column acceleration: .*'nan'"),
        (edit(5, 2, "9" * 5000), r"row 5, column weight: .*'9{40}'"),
        (edit(5, 1, "?"), r"row 5, column horsepower: must be a number from 40 to 300, not '\?'$"),
        (edit(5, 2, ""), r"row 5, column weight: .* not ''; .* add the column to data.may_be_mis"),
        (edit(5, 7, ""), r"row 5, column maker: must be a name without quotes, not ''"),
        (edit(5, 7, '"ford"'), r"row 5, column maker: .*'\"ford\"'"),
        (edit(5, 7, " ford"), r"row 5, column maker: .*' ford'"),
        (edit(5, 7, "citro\udceb"), r"row 5, column maker: .*xeb'"),  # a byte that is not UTF-8
        (edit(2, 8, "61"), r"row 2, column mpg: must be a number from 5 to 60, not '61'"),
        (edit(1, 5, "doors"), r"row 1: column 6 must be cylinders, not 'doors'"),
        (lambda text: text + "1,2\n", r"row 58: 2 columns, not 9"),
        (lambda text: text.splitlines()[0], r"has no rows"),
        (lambda text: "", r"row 1: column 1 must be displacement, not ''"),
        (lambda text: text.replace(",", ";"), r"row 1: column 1 .* not 'displacement;horsepower;"),
    ],
)
def test_a_wrong_table_is_refused_with_row_and_column(
    damage: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(damage(TEXT), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(StudyError, match=f"table.csv: {message}"):
        read(path)


TRAIN = {
    "weight": np.array([1.0, 3, 1, 3]),
    "power": np.array([60.0, np.nan, 100, np.nan]),
    "maker": np.array(["ford", "fiat", "ford", "opel"]),
    "origin": np.array(["usa", "europe", "usa", "europe"]),
    "target": np.array([10.0, 20, 30, 40]),
}
NEW = {
    "weight": np.array([2.0, 5, 3]),
    "power": np.array([80.0, np.nan, 120]),
    "maker": np.array(["ford", "lada", "opel"]),
    "origin": np.array(["usa", "europe", "mars"]),
}


def columns(**changes: Any) -> Columns:
    """An encoder of these columns: opel and fiat are too rare to be known."""
    arguments: dict[str, Any] = {
        "numbers": ["weight", "power"],
        "may_be_missing": ["power"],
        "categories": {"maker": 2, "origin": 2},
        "num_categories": 6,
        "min_rows": 2,
    }
    return Columns(**{**arguments, **changes})


def fitted(**changes: Any) -> Columns:
    """One that has seen the training rows."""
    encoder = columns(**changes)
    encoder.fit(TRAIN)
    return encoder


def test_numbers_are_standardised_by_the_training_rows_and_a_missing_one_is_marked() -> None:
    # weight: mean 2, deviation 1; power: mean 80, deviation 20
    expected = [[0, 0, 0], [3, 0, 1], [1, 2, 0]]
    assert fitted().encode(NEW)["numbers"].tolist() == expected
    numbers = fitted().encode(TRAIN)["numbers"]
    assert numbers.dtype == np.float32
    assert np.allclose(numbers[:, :2].mean(axis=0), 0)


def test_each_category_has_its_index_and_what_is_rare_or_new_that_of_the_unknown() -> None:
    # maker: 0 unknown, 1 ford, 2 free; origin: 3 unknown, 4 europe, 5 usa
    categories = fitted().encode(NEW)["categories"]
    assert categories.tolist() == [[1, 5], [0, 4], [0, 3]] and categories.dtype == np.int64
    full = fitted(min_rows=1, categories={"maker": 3, "origin": 2}, num_categories=7)
    assert full.encode(NEW)["categories"].tolist() == [[2, 6], [0, 5], [3, 4]]


def test_new_rows_need_no_target() -> None:
    assert set(fitted().encode(NEW)) == {"numbers", "categories"}
    assert fitted().encode(TRAIN)["target"].tolist() == [10, 20, 30, 40]


def test_the_state_comes_back_through_json() -> None:
    restored = columns()
    restored.load_state_dict(json.loads(json.dumps(fitted().state_dict())))
    for name, values in fitted().encode(NEW).items():
        assert np.array_equal(restored.encode(NEW)[name], values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": []}, "name at least one column of each"),
        ({"may_be_missing": ["wieght"]}, "may_be_missing: wieght is no column of numbers"),
        ({"num_categories": 5}, "num_categories=5: must be 6"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        columns(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": ["wieght", "power"]}, "data.numbers.wieght: there is no .* are: weight, pow"),
        ({"numbers": ["maker", "power"]}, "data.numbers.maker: holds text; name it under data.cat"),
        ({"categories": {"model": 2, "origin": 2}}, "data.categories.model: there is no such col"),
        (
            {"min_rows": 1},
            "data.categories.maker: the training rows have 3 categories, .* write maker: 3",
        ),
    ],
)
def test_columns_that_do_not_fit_the_training_rows_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        fitted(**changes)


@pytest.mark.parametrize("values", [[2.0, 2, 2, 2], [np.nan] * 4])
def test_a_column_that_never_changes_is_refused(values: list[float]) -> None:
    with pytest.raises(StudyError, match="data.numbers.power: is the same in every .* remove it"):
        columns().fit({**TRAIN, "power": np.array(values)})


def test_a_value_that_must_not_be_missing_is_refused_with_its_row() -> None:
    with pytest.raises(StudyError, match="row 2 has no weight; add weight"):
        fitted().encode({**NEW, "weight": np.array([1.0, np.nan, 3])})

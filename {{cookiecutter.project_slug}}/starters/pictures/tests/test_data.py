"""The reader of the digits, and the augmentation."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from {{ cookiecutter.project_slug }}.data import RandomShift, read_digits
from {{ cookiecutter.project_slug }}.harness.errors import StudyError

FIXTURE = Path(__file__).parent / "fixtures" / "digits.csv"
TEXT = FIXTURE.read_text(encoding="utf-8")


def read(path: Path) -> dict[str, np.ndarray]:
    """The fields of a table."""
    return read_digits(path, image_shape=[1, 8, 8], num_classes=10, max_value=16)


def test_every_pixel_and_every_class_is_where_the_table_has_it() -> None:
    fields = read(FIXTURE)
    rows = [list(map(int, line.split(","))) for line in TEXT.splitlines()[1:]]
    assert fields["image"].shape == (len(rows), 1, 8, 8)
    assert fields["image"].dtype == np.float32 and fields["target"].dtype == np.int64
    for row, image, target in zip(rows, fields["image"], fields["target"], strict=True):
        assert (image.reshape(-1) * 16).tolist() == row[:-1] and target == row[-1]


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
        (edit(3, 9, "17"), r"row 3, column pixel_1_1: must be a whole number from 0 to 16.*'17'"),
        (edit(4, 0, "x"), r"row 4, column pixel_0_0: .*'x'"),
        (edit(4, 1, "1.5"), r"row 4, column pixel_0_1: .*'1.5'"),
        (edit(4, 1, "-1"), r"row 4, column pixel_0_1: .*'-1'"),
        (edit(5, 2, ""), r"row 5, column pixel_0_2: .*''"),
        (edit(5, 2, '"1'), r"row 5, column pixel_0_2: .*'\"1'"),
        (edit(5, 2, "1\x0b"), r"row 5, column pixel_0_2: .*'1\\x0b'"),
        (edit(5, 2, "1_0"), r"row 5, column pixel_0_2: "),
        (edit(5, 2, "²"), r"row 5, column pixel_0_2: .*'²'"),
        (edit(5, 2, "\udcb2"), r"row 5, column pixel_0_2: .*xb2'"),  # a byte that is not UTF-8
        (edit(5, 3, "9" * 5000), r"row 5, column pixel_0_3: .*'9{40}'"),
        (edit(2, 64, "10"), r"row 2, column digit: .* from 0 to 9"),
        (edit(1, 5, "pixel"), r"row 1: column 6 must be pixel_0_5"),
        (lambda text: text + "1,2\n", r"row 52: 2 columns, not 65"),
        (lambda text: text.replace(",9\n", ",8\n"), r"column digit: no row is of class 9"),
        (lambda text: text.splitlines()[0], r"has no rows"),
        (lambda text: "", r"row 1: column 1 must be pixel_0_0, not ''"),
        (lambda text: text.replace(",", ";"), r"row 1: column 1 .* not 'pixel_0_0;pixel_0_1;"),
    ],
)
def test_a_wrong_table_is_refused_with_row_and_column(
    damage: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(damage(TEXT), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(StudyError, match=f"table.csv: {message}"):
        read(path)


def test_shift_moves_each_whole_image_by_its_own_and_nothing_else() -> None:
    fields = read(FIXTURE)
    batch = {name: torch.from_numpy(values[:30]) for name, values in fields.items()}
    images = torch.nn.functional.pad(batch["image"], (1, 1, 1, 1))
    moved = RandomShift(max_shift=1)(batch)
    assert torch.equal(moved["target"], batch["target"])
    seen = []
    for padded, image in zip(images, moved["image"], strict=True):
        places = list(itertools.product(range(3), range(3)))
        seen += [(y, x) for y, x in places if torch.equal(padded[:, y : y + 8, x : x + 8], image)]
    assert len(seen) >= 30 and len(set(seen)) > 3
    assert not torch.equal(moved["image"], batch["image"])
    assert torch.equal(RandomShift(max_shift=0)(batch)["image"], batch["image"])

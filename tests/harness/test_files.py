"""Files that are read, whatever wrote them, or refused in one line."""

import gzip
from pathlib import Path

import pytest

from my_study.harness.errors import StudyError
from my_study.harness.files import read_text

TEXT = "maker,mpg\ncitroën,28\n"
PACKED = gzip.compress(TEXT.encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("table.csv", TEXT.encode()),
        ("table.csv.gz", PACKED),
        ("table.csv", TEXT.replace("\n", "\r\n").encode("utf-8-sig")),
    ],
    ids=["plain", "packed", "by a spreadsheet"],
)
def test_a_text_is_the_same_however_it_was_written(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_text(tmp_path / name) == TEXT


def test_a_byte_that_is_not_utf_8_stays_visible(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(TEXT.encode("latin-1"))
    assert read_text(path) == TEXT.replace("ë", r"\xeb")


@pytest.mark.parametrize(
    "content",
    [None, PACKED[:20], PACKED[:12] + b"\xff" + PACKED[13:], TEXT.encode()],
    ids=["absent", "cut off", "damaged", "not packed"],
)
def test_a_damaged_file_is_refused_with_what_restores_it(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError, match="table.csv.gz: cannot be read .*type: git checkout"):
        read_text(path)


def test_a_folder_is_refused_as_one(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"cannot be read .Is a directory.; name a file"):
        read_text(tmp_path)

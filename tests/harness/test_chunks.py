"""Rows that memory does not hold: a reader yields them by chunks."""

import json
import mmap
import re
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from my_study.harness.errors import StudyError
from my_study.harness.training import memory, preparation, splits
from my_study.harness.training.chunks import Chunks
from my_study.harness.training.prepared import Split, batches, verify_prepared

from .commands import call
from .conftest import Copy

SHARES: dict[str, Any] = {"split_seed": 0, "validation_fraction": 0.2, "test_fraction": 0.2}
Fields = dict[str, np.ndarray]


class Words:
    """Words as indices among the training words, and numbers in units of the largest of them."""

    def __init__(self) -> None:
        self.words: set[str] = set()
        self.largest = 0

    def fit(self, fields: Fields) -> None:
        """Learns from all training rows."""
        self.partial_fit(fields)

    def partial_fit(self, fields: Fields) -> None:
        """Learns from further training rows."""
        self.words |= set(fields["word"].tolist())
        self.largest = max(self.largest, int(fields["number"].max()))

    def encode(self, fields: Fields) -> Fields:
        """The words as indices."""
        known = {word: index for index, word in enumerate(sorted(self.words), start=1)}
        word = np.array([known.get(word, 0) for word in fields["word"].tolist()])
        number = (fields["number"] / self.largest).astype(np.float32)
        return {"word": word, "number": number, "target": fields["target"]}

    def state_dict(self) -> dict[str, Any]:
        """What was learnt."""
        return {"words": sorted(self.words), "largest": self.largest}

    def load_state_dict(self, state: Any) -> None:
        """Takes it back."""
        self.words, self.largest = set(state["words"]), state["largest"]


def table() -> Fields:
    """Words of varying length, some rows more than once."""
    rows = np.random.default_rng(0).integers(0, 150, 300)
    word = np.array(["ab" * (1 + row % 9) for row in rows])
    return {"word": word, "number": rows, "group": rows // 5, "target": rows % 3}


def chunks_of(fields: Fields, size: int) -> Iterator[Fields]:
    """So many rows at a time, some of them in types that are just wide enough."""
    for start in range(0, len(fields["target"]), size):
        part = {name: values[start : start + size] for name, values in fields.items()}
        number = part["number"].astype(np.int32 if start else np.int64)
        yield {**part, "word": np.array(part["word"].tolist()), "number": number}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("size", [1, 7, 100, 300])
@pytest.mark.parametrize("grouped", [False, True])
def test_chunks_give_what_all_rows_at_once_give(size: int, grouped: bool, tmp_path: Path) -> None:
    splitter = splits.ByGroup(column="group", **SHARES) if grouped else None
    whole, parts, fields = tmp_path / "whole", tmp_path / "parts", table()
    preparation.prepare(whole, fields, SHARES, dict, Words(), splitter)
    preparation.prepare(parts, chunks_of(fields, size), SHARES, dict, Words(), splitter)
    assert contents(parts) == contents(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "parts"}
    assert len(verify_prepared(parts, SHARES)) == 10


def test_preparing_and_reading_hold_a_part_of_the_rows(tmp_path: Path) -> None:
    generator, num_bytes = np.random.default_rng(0), 0

    def read() -> Iterator[Fields]:
        nonlocal num_bytes
        for number in range(40):
            image = generator.random((200, 32, 16), dtype=np.float32)
            num_bytes += image.nbytes
            yield {"image": image, "target": np.full(200, number % 4)}

    tracemalloc.start()
    try:
        preparation.prepare(tmp_path / "p", read(), SHARES, dict)
        _, prepared_peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        verify_prepared(tmp_path / "p", SHARES)
        split = Split(tmp_path / "p", "train")
        for start in range(0, len(split), 32):
            assert split[range(start, min(start + 32, len(split)))]
        _, read_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(split) == 4800 and num_bytes > 16e6
    assert prepared_peak < num_bytes / 4 and read_peak < num_bytes / 4


@contextmanager
def at_most(megabytes: int) -> Iterator[None]:
    """The system refuses this process more memory of its own than so much besides what it has."""
    resource = pytest.importorskip("resource")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    held = 1024 * int(re.findall(r"VmData:\s+(\d+) kB", status)[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + megabytes * 1_000_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits mapped memory like this")
def test_more_rows_than_memory_are_prepared_and_read_where_the_system_enforces_it(
    tmp_path: Path,
) -> None:
    chunk = np.zeros((1000, 2000), dtype=np.float32)  # 8 MB, of 160

    def read() -> Iterator[Fields]:
        for number in range(20):
            rows = chunk.copy()
            rows[:, 0] = number * 1000 + np.arange(1000)
            yield {"features": rows, "target": np.arange(1000) % 4}

    with at_most(80):
        preparation.prepare(tmp_path / "p", read(), SHARES, dict)
        with pytest.raises(MemoryError):
            list(read())
    # the map of a split counts as memory of its own here, though it takes none until it is written
    split = Split(tmp_path / "p", "train")
    with at_most(40):
        order = split.order(seed=0, epoch=0, batch_size=100)
        total = sum(len(batch["target"]) for batch in batches(split, order, batch_size=100))
        with pytest.raises(RuntimeError, match="allocate memory"):
            split.fields["features"].clone()
    assert total == len(split) == 12_000


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"target": np.arange(3)}, "chunk 2: is no dictionary of arrays with an input"),
        ({"word": np.arange(3)}, "chunk 2: has the fields word, the first word, number"),
        ({"word": np.arange(3), "number": np.arange(2)}, "number has 2 rows, and word 3"),
        ({"word": np.array([None])}, "chunk 2: field word is no array of numbers or text"),
        ({"word": np.arange(0)}, "chunk 2: has no rows"),
        (np.arange(3), "chunk 2: is no dictionary of arrays"),
    ],
)
def test_a_wrong_chunk_is_named_and_nothing_is_left(
    second: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=message):
        preparation.prepare(tmp_path / "p", iter([table(), second]), SHARES, dict)
    assert not list(tmp_path.iterdir())


def test_a_reader_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="data.prepare.read: the reader gives no rows"):
        Chunks(iter([]), tmp_path)


class Changing(Words):
    """Forgets a field after the first chunk."""

    num_calls = 0

    def encode(self, fields: Fields) -> Fields:
        """Not always the same fields."""
        self.num_calls += 1
        encoded = super().encode(fields)
        return encoded if self.num_calls == 1 else {"word": encoded["word"]}


class Widening(Words):
    """Gives another type for rows of another chunk."""

    def encode(self, fields: Fields) -> Fields:
        """As narrow as the numbers are."""
        return {"number": fields["number"].astype(np.min_scalar_type(fields["number"].max()))}


class Dropping(Words):
    """Leaves a row out."""

    def encode(self, fields: Fields) -> Fields:
        """All rows but the first."""
        return {name: values[1:] for name, values in super().encode(fields).items()}


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (Changing(), "field number: has .* rows in train, not "),
        (Widening(), "field number: is uint16 .* in one chunk, uint8 "),
        (Dropping(), "data.prepare.encode: 99 rows of 100"),
    ],
)
def test_an_encoder_that_treats_chunks_differently_is_refused(
    encoder: Words, message: str, tmp_path: Path
) -> None:
    fields = table()
    order = np.argsort(fields["number"], kind="stable")
    fields = {name: values[order] for name, values in fields.items()}
    fields["number"] = fields["number"] * 3
    with pytest.raises(StudyError, match=message):
        preparation.prepare(tmp_path / "p", chunks_of(fields, 100), SHARES, dict, encoder)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_needs_all_rows_is_refused(tmp_path: Path) -> None:
    class Whole:
        """Has no partial_fit."""

        fit, encode = Words.fit, Words.encode
        state_dict, load_state_dict = Words.state_dict, Words.load_state_dict

    with pytest.raises(StudyError, match=r"encode: is fitted on all rows at once; write partial_"):
        preparation.prepare(tmp_path / "p", chunks_of(table(), 9), SHARES, dict, Whole())


def test_a_stage_that_hashes_before_anything_is_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="stages/prepare.py: the reader has read nothing yet"):
        preparation.prepare(tmp_path / "p", chunks_of(table(), 9), SHARES, {})


READER = '''

def read_in_chunks(path: str, **arguments: Any) -> Iterator[dict[str, np.ndarray]]:
    """Nine rows at a time."""
    fields = read_digits(path, **arguments)
    for start in range(0, len(fields["target"]), 9):
        yield {name: values[start : start + 9] for name, values in fields.items()}
'''


def test_a_generator_is_a_reader_like_any_other(copy: Copy) -> None:
    copy.call("python", "stages/prepare.py")
    manifest = copy.folder / "data" / "prepared" / "digits" / "manifest.json"
    expected = json.loads(manifest.read_text())
    data = copy.folder / "src" / "my_study" / "data.py"
    imports = "from collections.abc import Iterator\\nfrom typing import Any\\n"
    copy.edit("src/my_study/data.py", r"import numpy as np\n", f"{imports}\\g<0>")
    data.write_text(data.read_text() + READER)
    copy.edit("conf/data/digits.yaml", r"data\.read_digits", "data.read_in_chunks")
    copy.call("python", "stages/prepare.py")
    found = json.loads(manifest.read_text())
    assert found["files"] == expected["files"]
    assert found["raw"] == expected["raw"] and "data/raw/digits/digits.csv" in found["raw"]
    data.write_text(
        data.read_text().replace(
            "        yield {", "        raise ValueError('row 1: odd')\n        yield {"
        )
    )
    answer = call(copy.folder, "stages/prepare.py")
    assert answer == (1, "", "error: data.prepare.read: row 1: odd\n")
    assert [path.name for path in manifest.parent.parent.iterdir()] == ["digits"]


def test_a_file_beyond_memory_is_read_row_by_row_with_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows = tmp_path / "rows.npy", np.arange(6.0).reshape(3, 2)
    np.save(path, rows)
    advised: list[int] = []
    monkeypatch.setattr(memory, "usable_memory", lambda: 100)
    monkeypatch.setattr(memory, "advise", lambda _map, advice: advised.append(advice))
    opened = memory.open_array(path)
    assert (opened == rows).all() and advised == [mmap.MADV_RANDOM]
    opened[0] = 7
    assert (np.load(path) == rows).all()
    monkeypatch.setattr(memory, "usable_memory", lambda: 10_000)
    assert (memory.open_array(path) == rows).all() and len(advised) == 1


def test_memory_is_limited_by_each_group_above_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    (tmp_path / "jobs" / "mine").mkdir(parents=True)
    (tmp_path / "jobs" / "memory.max").write_text("5000\n")
    (tmp_path / "jobs" / "mine" / "memory.max").write_text("max\n")
    assert memory.smallest_limit("0::/jobs/mine\n") == 5000
    early = tmp_path / "memory" / "mine"
    early.mkdir(parents=True)
    (early / "memory.limit_in_bytes").write_text("400\n")
    assert memory.smallest_limit("5:cpu:/\n4:memory:/mine\n0::/jobs\n") == 400
    assert memory.smallest_limit("0::/elsewhere\n") == sys.maxsize

"""Fields to splits to batches: drawn, written, verified and read."""

import gzip
import itertools
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from my_study.data import read_digits
from my_study.harness import files
from my_study.harness.checks.trainer import difference
from my_study.harness.configuration.building import read_raw
from my_study.harness.errors import StudyError
from my_study.harness.study import ROOT
from my_study.harness.training import determinism, prepared
from my_study.harness.training.prepared import SPLITS, Split, batches, verify_prepared

from .conftest import TINY, Compose, prepare


def prepare_table(text: str, folder: Path, *overrides: str) -> Path:
    """Writes a table, prepares it, and returns the prepared folder."""
    folder.mkdir(exist_ok=True)
    table = folder / "table.csv.gz"
    table.write_bytes(gzip.compress(text.encode()))
    return prepare(folder / "prepared", f"data.prepare.read.path={table}", *overrides)


def rows_of(folder: Path) -> dict[str, set[bytes]]:
    """The content of each instance, by split."""
    return {
        name: {image.numpy().tobytes() for image in Split(folder, name).fields["image"]}
        for name in SPLITS
    }


def test_splits_share_no_instance_and_hold_every_class(tiny: Path) -> None:
    for left, right in itertools.combinations(rows_of(tiny).values(), 2):
        assert not left & right
    for name in SPLITS:
        assert set(Split(tiny, name).fields["target"].tolist()) == set(range(10))


def test_every_instance_keeps_its_own_target(tiny: Path, compose: Compose) -> None:
    raw = read_raw(compose())
    pairs = zip(raw["image"], raw["target"], strict=True)
    right = {image.tobytes(): int(target) for image, target in pairs}
    for name in SPLITS:
        split = Split(tiny, name)
        batch = split[determinism.permutation(len(split), seed=1, epoch=0)]
        for image, target in zip(batch["image"], batch["target"], strict=True):
            assert right[image.numpy().tobytes()] == int(target)


def test_duplicates_are_removed_across_splits(tmp_path: Path) -> None:
    text = TINY.read_text()
    doubled = text + "".join(text.splitlines(keepends=True)[1:])
    assert rows_of(prepare_table(doubled, tmp_path / "a")) == rows_of(
        prepare_table(text, tmp_path / "b")
    )


def test_splits_depend_on_their_seed_and_on_nothing_else(tmp_path: Path) -> None:
    header, *rows = TINY.read_text().splitlines(keepends=True)
    first = prepare_table(header + "".join(rows), tmp_path / "a")
    backwards = prepare_table(header + "".join(reversed(rows)), tmp_path / "b", "seed=7")
    other = prepare_table(header + "".join(rows), tmp_path / "c", "data.prepare.split_seed=1")
    assert rows_of(first) == rows_of(backwards)
    assert rows_of(first) != rows_of(other)


def test_contradictory_rows_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    text = TINY.read_text()
    with pytest.raises(StudyError, match=r"instances 1 and 51 are equal, but their targets are"):
        prepare_table(text + text.splitlines()[1][:-1] + "7\n", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv.gz"]


def damage(content: bytes, generator: random.Random) -> bytes:
    """A bit flipped, bytes cut out, put in or exchanged."""
    first, second = sorted(generator.sample(range(len(content)), 2))
    before, between, after = content[:first], content[first:second], content[second:]
    junk = generator.choice([b",", b"\n", b'"', b"\0", b"-", b"9" * 20, generator.randbytes(4)])
    flipped = bytes([content[first] ^ 1 << generator.randrange(8)])
    kinds = [before + flipped + content[first + 1 :], before + after, before]
    kinds += [before + junk + between + after, after + between + before]
    return generator.choice(kinds)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_of_a_damaged_table_comes_one_line_or_a_valid_table(name: str, tmp_path: Path) -> None:
    path, generator, refused = tmp_path / name, random.Random(0), 0
    text = TINY.read_bytes()
    content = gzip.compress(text, mtime=0) if path.suffix == ".gz" else text
    for _ in range(500):
        path.write_bytes(damage(content, generator))
        try:
            fields = read_digits(path, image_shape=[1, 8, 8], num_classes=10, max_value=16)
        except StudyError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            refused += 1
        else:
            image, target = fields["image"], fields["target"]
            assert image.shape == (len(target), 1, 8, 8) and image.dtype == np.float32
            assert image.min() >= 0 and image.max() <= 1 and set(target) == set(range(10))
    assert 250 < refused < 500


def test_a_damaged_file_ends_prepare_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(TINY.read_bytes(), mtime=0))
    packed[12] ^= 16
    table = tmp_path / "table.csv.gz"
    table.write_bytes(packed)
    overrides = [f"data.prepare.read.path={table}", f"data.folder={tmp_path / 'prepared'}"]
    done = subprocess.run(
        [sys.executable, "stages/prepare.py", *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.startswith(f"error: {table}: cannot be read (")
    assert done.stderr.endswith(f"type: git checkout {table}\n") and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv.gz"]


def test_prepare_never_replaces_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "thesis.tex").touch()
    with pytest.raises(StudyError, match="contains other files; name a new folder"):
        prepare_table(TINY.read_text(), tmp_path)
    assert (tmp_path / "prepared" / "thesis.tex").exists()


@pytest.mark.parametrize(
    "override", ["validation_fraction=0", "validation_fraction=1", "test_fraction=0.8"]
)
def test_a_fraction_that_empties_a_split_is_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=override):
        prepare_table(TINY.read_text(), tmp_path, f"data.prepare.{override}")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists what is mapped")
def test_fields_are_read_by_memory_map(tiny: Path) -> None:
    split = Split(tiny, "train")
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert all(str(tiny / "train" / f"{name}.npy") in mapped for name in split.fields)


def test_batches_are_the_same_for_any_number_of_workers(tiny: Path) -> None:
    split = Split(tiny, "train")
    order = determinism.permutation(len(split), seed=3, epoch=0)
    alone = list(batches(split, order, batch_size=8))
    assert [len(batch["target"]) for batch in alone] == [8, 8, 8, 6]
    assert not difference(alone, list(batches(split, order, batch_size=8, num_workers=2)))


def test_order_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    orders = [
        determinism.permutation(30, seed=seed, epoch=epoch).tolist()
        for seed, epoch in itertools.product([0, 1], [0, 1])
    ]
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert orders[0] == determinism.permutation(30, seed=0, epoch=0).tolist()


def test_altered_prepared_data_are_refused_with_the_command_that_fixes_them(
    tiny: Path, compose: Compose, tmp_path: Path
) -> None:
    folder = tmp_path / "prepared"
    shutil.copytree(tiny, folder)
    parameters = compose().data.prepare
    assert verify_prepared(folder, parameters) == verify_prepared(tiny, parameters)
    path = folder / "train" / "target.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(StudyError, match="altered; type: python stages/prepare.py"):
        verify_prepared(folder, parameters)
    path.unlink()
    with pytest.raises(StudyError, match="missing; type: python stages/prepare.py"):
        verify_prepared(folder, parameters)


def test_data_made_with_another_parameter_are_refused(tiny: Path, compose: Compose) -> None:
    with pytest.raises(StudyError, match=r"data\.prepare\.split_seed=5: .* was made with 0"):
        verify_prepared(tiny, compose("data.prepare.split_seed=5").data.prepare)


def test_data_are_hashed_once_and_again_only_when_touched(
    tiny: Path, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, parameters = tmp_path / "prepared", compose().data.prepare
    shutil.copytree(tiny, folder)
    hashed: list[str] = []

    def hash_file(path: Path) -> str:
        hashed.append(path.name)
        return files.hash_file(path)

    monkeypatch.setattr(prepared, "hash_file", hash_file)
    first = verify_prepared(folder, parameters)
    assert len(hashed) == len(first) == 6
    assert verify_prepared(folder, parameters) == first and len(hashed) == 6
    (folder / "train" / "image.npy").touch()
    assert verify_prepared(folder, parameters) == first and hashed[6:] == ["image.npy"]

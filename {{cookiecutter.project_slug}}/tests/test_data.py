"""Raw table to splits to batches."""

import gzip
import itertools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import prepare
import pytest
import torch
from conftest import TINY, Compose

from {{ cookiecutter.project_slug }} import (
    StudyError,
    configuration,
    data,
    files,
    reproducibility,
)
from {{ cookiecutter.project_slug }}.testing.trainer import identical


def prepare_table(text: str, folder: Path, *overrides: str) -> Path:
    """Writes a table, prepares it, and returns the prepared folder."""
    folder.mkdir(exist_ok=True)
    table, prepared = folder / "table.csv.gz", folder / "prepared"
    table.write_bytes(gzip.compress(text.encode()))
    paths = [f"data.prepare.read.path={table}", f"data.folder={prepared}"]
    prepare.prepare(configuration.compose([*paths, *overrides]).data)
    return prepared


def rows_of(prepared: Path) -> dict[str, set[bytes]]:
    """The content of each instance, by split."""
    return {
        name: {image.numpy().tobytes() for image in data.Split(prepared, name).fields["image"]}
        for name in data.SPLITS
    }


def test_splits_share_no_instance_and_hold_every_class(tiny: Path) -> None:
    for left, right in itertools.combinations(rows_of(tiny).values(), 2):
        assert not left & right
    for name in data.SPLITS:
        assert set(data.Split(tiny, name).fields["target"].tolist()) == set(range(10))


def test_every_instance_keeps_its_own_target(tiny: Path, compose: Compose) -> None:
    raw = configuration.build(compose().data.prepare.read, "data.prepare.read")
    pairs = zip(raw["image"], raw["target"], strict=True)
    right = {image.tobytes(): int(target) for image, target in pairs}
    for name in data.SPLITS:
        split = data.Split(tiny, name)
        batch = split[reproducibility.permutation(len(split), seed=1, epoch=0)]
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
        (edit(5, 2, ""), r"row 5, column pixel_0_2: .*''"),
        (edit(2, 64, "10"), r"row 2, column digit: .* from 0 to 9"),
        (edit(1, 5, "pixel"), r"row 1: column 6 must be pixel_0_5"),
        (lambda text: text + "1,2\n", r"row 52: 2 columns, not 65"),
        (lambda text: text.replace(",9\n", ",8\n"), r"column digit: no row is of class 9"),
        (lambda text: text + text.splitlines()[1][:-1] + "7\n", r"equal, but their targets"),
        (lambda text: "", r"row 1: column 1 must be pixel_0_0"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place_and_nothing_is_written(
    damage: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=message):
        prepare_table(damage(TINY.read_text()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv.gz"]


def test_prepare_never_replaces_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "thesis.tex").touch()
    with pytest.raises(StudyError, match="holds other files; name a new folder"):
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
    split = data.Split(tiny, "train")
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert all(str(tiny / "train" / f"{name}.npy") in mapped for name in split.fields)


def test_batches_are_the_same_for_any_number_of_workers(tiny: Path) -> None:
    split = data.Split(tiny, "train")
    order = reproducibility.permutation(len(split), seed=3, epoch=0)
    alone = list(data.batches(split, order, batch_size=8))
    assert [len(batch["target"]) for batch in alone] == [8, 8, 8, 6]
    assert identical(alone, list(data.batches(split, order, batch_size=8, num_workers=2)))


def test_order_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    orders = [
        reproducibility.permutation(30, seed=seed, epoch=epoch).tolist()
        for seed, epoch in itertools.product([0, 1], [0, 1])
    ]
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert orders[0] == reproducibility.permutation(30, seed=0, epoch=0).tolist()


def test_shift_moves_each_whole_image_by_its_own_and_nothing_else(tiny: Path) -> None:
    batch = data.Split(tiny, "train")[range(30)]
    images = torch.nn.functional.pad(batch["image"], (1, 1, 1, 1))
    moved = data.RandomShift(max_shift=1)(batch)
    assert torch.equal(moved["target"], batch["target"])
    seen = []
    for padded, image in zip(images, moved["image"], strict=True):
        places = list(itertools.product(range(3), range(3)))
        seen += [(y, x) for y, x in places if torch.equal(padded[:, y : y + 8, x : x + 8], image)]
    assert len(seen) >= 30 and len(set(seen)) > 3
    assert not torch.equal(moved["image"], batch["image"])
    assert torch.equal(data.RandomShift(max_shift=0)(batch)["image"], batch["image"])


def test_altered_prepared_data_are_refused_with_the_command_that_mends_them(
    tiny: Path, compose: Compose, tmp_path: Path
) -> None:
    folder = tmp_path / "prepared"
    shutil.copytree(tiny, folder)
    parameters = compose().data.prepare
    assert data.check_prepared(folder, parameters) == data.check_prepared(tiny, parameters)
    path = folder / "train" / "target.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(StudyError, match="altered; type: dvc repro prepare"):
        data.check_prepared(folder, parameters)
    path.unlink()
    with pytest.raises(StudyError, match="missing; type: dvc repro prepare"):
        data.check_prepared(folder, parameters)


def test_data_made_with_another_parameter_are_refused(tiny: Path, compose: Compose) -> None:
    with pytest.raises(StudyError, match=r"data\.prepare\.split_seed=5: .* was made with 0"):
        data.check_prepared(tiny, compose("data.prepare.split_seed=5").data.prepare)


def test_data_are_hashed_once_and_again_only_when_touched(
    tiny: Path, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, parameters = tmp_path / "prepared", compose().data.prepare
    shutil.copytree(tiny, folder)
    hashed: list[str] = []

    def hash_file(path: Path) -> str:
        hashed.append(path.name)
        return files.hash_file(path)

    monkeypatch.setattr(data, "hash_file", hash_file)
    first = data.check_prepared(folder, parameters)
    assert len(hashed) == len(first) == 6
    assert data.check_prepared(folder, parameters) == first and len(hashed) == 6
    (folder / "train" / "image.npy").touch()
    assert data.check_prepared(folder, parameters) == first and hashed[6:] == ["image.npy"]

"""Fields to splits: without duplicates, stratified, in a form that loads by memory map."""

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StudyError
from ..files import MANIFEST, hash_file, to_json, write_atomically

log = logging.getLogger(__name__)
Fields = Mapping[str, np.ndarray]  # name to values, an instance a row


def prepare(folder: Path, fields: Fields, parameters: Mapping[str, Any]) -> None:
    """Drops duplicates, draws the splits and writes them, with their manifest, to a folder.

    Args:
        folder: Where the splits go; prepared data that are there are replaced.
        fields: What the reader returned; `target` among them.
        parameters: The values of `data.prepare`: `split_seed`, `validation_fraction`,
            `test_fraction` and those of the reader.

    Raises:
        StudyError: the folder contains other files, or the fields cannot be split.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise StudyError(f"data.folder={folder}: contains other files; name a new folder")
    keys = hash_rows(fields)
    kept = unique_rows(keys, fields["target"])
    splits = draw_splits(
        keys,
        fields["target"],
        kept,
        seed=parameters["split_seed"],
        validation_fraction=parameters["validation_fraction"],
        test_fraction=parameters["test_fraction"],
    )
    facts = {"parameters": parameters, "duplicates_dropped": len(keys) - len(kept)}
    try:
        write_prepared(folder, fields, splits, facts)
    except OSError as error:
        raise StudyError(f"data.folder={folder}: cannot be written ({error})") from error
    sizes = ", ".join(f"{len(rows)} {name}" for name, rows in splits.items())
    log.info("%s: %s; %d duplicates dropped", folder, sizes, len(keys) - len(kept))


def hash_rows(fields: Fields) -> list[str]:
    """A hash of each instance's inputs, in hexadecimal; the target does not count."""
    names = sorted(set(fields) - {"target"})
    return [
        hashlib.sha256(b"".join(fields[name][row].tobytes() for name in names)).hexdigest()
        for row in range(len(fields["target"]))
    ]


def unique_rows(keys: list[str], target: np.ndarray) -> list[int]:
    """The first row of each content, so that no two splits can share one.

    Raises:
        StudyError: two rows have the same inputs and different targets.
    """
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        known = first.setdefault(key, row)
        if not np.array_equal(target[known], target[row]):
            raise StudyError(
                f"raw data: instances {known + 1} and {row + 1} are equal, but their targets are "
                f"{target[known]} and {target[row]}; correct or remove one"
            )
    return list(first.values())


def draw_splits(
    keys: list[str],
    target: np.ndarray,
    rows: list[int],
    *,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
) -> dict[str, list[int]]:
    """Draws stratified splits: each class (each integer target) is divided in the same way.

    An instance's place in the draw is the hash of seed and content: it depends neither on the
    order of the table nor on the version of a random generator.

    Raises:
        StudyError: a fraction is out of its range, or leaves a split without an instance.
    """
    _check_fractions(validation_fraction, test_fraction)
    classes: dict[object, list[int]] = {}
    stratified = target.ndim == 1 and np.issubdtype(target.dtype, np.integer)
    for row in rows:
        classes.setdefault(int(target[row]) if stratified else None, []).append(row)
    splits: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for members in classes.values():
        members.sort(key=lambda row: hashlib.sha256(f"{seed} {keys[row]}".encode()).digest())
        num_test = max(1, round(test_fraction * len(members)))
        num_validation = max(1, round(validation_fraction * len(members)))
        splits["test"] += members[:num_test]
        splits["validation"] += members[num_test : num_test + num_validation]
        splits["train"] += members[num_test + num_validation :]
    for name, members in splits.items():
        if not members:
            raise StudyError(f"raw data: too few instances: none is left for {name}")
        members.sort()
    return splits


def _check_fractions(validation: float, test: float) -> None:
    for name, value in {"validation": validation, "test": test}.items():
        if isinstance(value, (str, bool)) or not 0 < value < 1:
            raise StudyError(f"data.prepare.{name}_fraction={value}: must be between 0 and 1")
    if validation + test >= 1:
        raise StudyError(f"data.prepare.test_fraction={test}: leaves nothing to train on")


def write_prepared(
    folder: Path, fields: Fields, splits: Mapping[str, list[int]], facts: Mapping[str, object]
) -> None:
    """Writes `<split>/<field>.npy` and the manifest to a new folder, which then takes its place."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    hashes = {}
    for split, rows in splits.items():
        (new / split).mkdir(parents=True)
        for name, values in fields.items():
            path = new / split / f"{name}.npy"
            np.save(path, values[rows])
            hashes[f"{split}/{name}.npy"] = {
                "rows": len(rows),
                "size": path.stat().st_size,
                "sha256": hash_file(path),
            }
    write_atomically(new / MANIFEST, to_json({**facts, "files": hashes}))
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)

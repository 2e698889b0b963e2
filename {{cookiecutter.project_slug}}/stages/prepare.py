"""Raw table to splits: validated, without duplicates, in a form that loads by memory map.

Type:
    python stages/prepare.py                          # as conf/data/ says
    python stages/prepare.py data.prepare.split_seed=1 data.folder=data/other
"""

import hashlib
import logging
import shutil
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from {{ cookiecutter.project_slug }} import StudyError, configuration, files

log = logging.getLogger(__name__)
Fields = dict[str, np.ndarray]  # name to values, an instance a row


@configuration.entrypoint
def main(config: DictConfig) -> None:
    """Makes the splits that `config.data` describes."""
    prepare(config.data)


def prepare(config: DictConfig) -> None:
    """Read, drop duplicates, draw the splits, write."""
    settings = config.prepare
    folder = Path(config.folder)
    if folder.exists() and not (folder / "manifest.json").is_file():
        raise StudyError(f"data.folder={folder}: holds other files; name a new folder")
    check_fractions(settings.validation_fraction, settings.test_fraction)
    fields: Fields = configuration.build(settings.read, "data.prepare.read")
    keys = hash_rows(fields)
    kept = unique_rows(keys, fields["target"])
    splits = draw_splits(
        keys,
        fields["target"],
        kept,
        seed=settings.split_seed,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
    )
    parameters = OmegaConf.to_container(settings, resolve=True)
    facts = {"parameters": parameters, "duplicates_dropped": len(keys) - len(kept)}
    try:
        write_prepared(folder, fields, splits, facts)
    except OSError as error:
        raise StudyError(f"data.folder={folder}: cannot be written ({error})") from error
    sizes = ", ".join(f"{len(rows)} {name}" for name, rows in splits.items())
    log.info("%s: %s; %d duplicates dropped", config.folder, sizes, len(keys) - len(kept))


def check_fractions(validation: float, test: float) -> None:
    """Refuses fractions that leave a split without an instance."""
    for name, value in {"validation": validation, "test": test}.items():
        if isinstance(value, (str, bool)) or not 0 < value < 1:
            raise StudyError(f"data.prepare.{name}_fraction={value}: must be between 0 and 1")
    if validation + test >= 1:
        raise StudyError(f"data.prepare.test_fraction={test}: leaves nothing to train on")


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
        StudyError: the same inputs stand in two rows with two targets.
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
    """Draws stratified splits: each class (each integer target) is divided alike.

    An instance's place in the draw is the hash of seed and content: it depends neither on the
    order of the table nor on the version of a random generator.
    """
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


def write_prepared(
    folder: Path, fields: Fields, splits: dict[str, list[int]], facts: dict[str, object]
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
                "sha256": files.hash_file(path),
            }
    files.write_atomically(new / "manifest.json", files.to_json({**facts, "files": hashes}))
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)


if __name__ == "__main__":
    main()  # pylint: disable=no-value-for-parameter

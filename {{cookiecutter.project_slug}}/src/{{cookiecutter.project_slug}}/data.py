"""Raw data to named arrays, and augmentation of batches.

A reader returns a dictionary of arrays, an instance a row, one of them the `target`. To add a data
set: a reader here, a file in conf/data/ that names it under `prepare.read`.
"""

import gzip
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .harness.errors import StudyError


def read_digits(
    path: str | Path, *, image_shape: Sequence[int], num_classes: int, max_value: int
) -> dict[str, np.ndarray]:
    """Reads and validates a table of grey images: a column a pixel, row by row, then the class.

    Returns:
        `image`, float32 in [0, 1], shape [rows, *image_shape], and `target`, int64, shape [rows].

    Raises:
        StudyError: what is wrong, with the row (the header is row 1) and the column.
    """
    _, height, width = image_shape
    columns = [f"pixel_{row}_{column}" for row in range(height) for column in range(width)]
    limits = [max_value] * len(columns) + [num_classes - 1]
    table = _read_table(Path(path), [*columns, "digit"], limits)
    missing = sorted(set(range(num_classes)) - set(table[:, -1].tolist()))
    if missing:
        raise StudyError(f"{path}: column digit: no row is of class {missing[0]}")
    image = (table[:, :-1] / max_value).astype(np.float32).reshape(-1, *image_shape)
    return {"image": image, "target": table[:, -1].copy()}


def _read_table(path: Path, columns: Sequence[str], limits: Sequence[int]) -> np.ndarray:
    """Whole numbers from 0 to a limit for each column. Shape: [rows, columns], int64."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            header, *lines = file.read().splitlines() or [""]
    except FileNotFoundError as error:
        raise StudyError(f"{path}: there is no such file; type: git checkout {path}") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as a table ({error})") from error
    names = header.split(",")
    for index, name in enumerate(columns):
        if names[index : index + 1] != [name]:
            raise StudyError(f"{path}: row 1: column {index + 1} must be {name}")
    for number, line in enumerate([header, *lines], start=1):
        if (width := line.count(",") + 1) != len(columns):
            raise StudyError(f"{path}: row {number}: {width} columns, not {len(columns)}")
    try:
        with warnings.catch_warnings(action="error"):  # a fraction is no whole number
            table = np.loadtxt(lines, np.int64, delimiter=",", comments=None, ndmin=2)
        if table.size and (table >= 0).all() and (table <= limits).all():
            return table
    except (ValueError, OverflowError, DeprecationWarning, UserWarning):
        pass
    raise StudyError(f"{path}: {_describe_wrong_cell(lines, columns, limits)}")


def _describe_wrong_cell(
    lines: Sequence[str], columns: Sequence[str], limits: Sequence[int]
) -> str:
    """Where the first cell stands that is not a whole number within its limit, and what it is."""
    for number, line in enumerate(lines, start=2):
        for name, text, limit in zip(columns, line.split(","), limits, strict=True):
            if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= limit):
                bound = f"a whole number from 0 to {limit}"
                return f"row {number}, column {name}: must be {bound}, not {text[:40]!r}"
    return "has no rows"


class RandomShift:
    """Moves each image by up to `max_shift` pixels each way, filling with zeros. Training only."""

    def __init__(self, *, max_shift: int) -> None:
        if max_shift < 0:
            raise ValueError(f"max_shift={max_shift}: must be at least 0")
        self.max_shift = max_shift

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`image` [batch, channels, height, width] moved; the other fields as they are."""
        image, shift = batch["image"], self.max_shift
        padded = torch.nn.functional.pad(image, (shift, shift, shift, shift))
        # one corner an instance: windows is [batch, channels, 2s+1, 2s+1, height, width]
        windows = padded.unfold(2, image.shape[2], 1).unfold(3, image.shape[3], 1)
        top, left = torch.randint(0, 2 * shift + 1, (2, len(image)), device=image.device)
        moved = windows[torch.arange(len(image), device=image.device), :, top, left]
        return {**batch, "image": moved}

"""Raw data to named arrays, and augmentation of batches.

A reader returns a dictionary of arrays, an instance a row, one of them the `target`. To add a data
set: a reader here, a file in conf/data/ that names it under `prepare.read`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .harness.errors import StudyError
from .harness.files import read_text


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
    pixels = [f"pixel_{row}_{column}" for row in range(height) for column in range(width)]
    limits = dict.fromkeys(pixels, max_value) | {"digit": num_classes - 1}
    table = _read_table(Path(path), limits)
    missing = sorted(set(range(num_classes)) - set(table[:, -1].tolist()))
    if missing:
        raise StudyError(f"{path}: column digit: no row is of class {missing[0]}")
    image = (table[:, :-1] / max_value).astype(np.float32).reshape(len(table), *image_shape)
    return {"image": image, "target": table[:, -1].copy()}


def _read_table(path: Path, limits: Mapping[str, int]) -> np.ndarray:
    """Whole numbers from 0 to the limit of each column. Shape: [rows, columns], int64."""
    rows = [line.split(",") for line in read_text(path).rstrip("\n").split("\n")]
    for number, (name, text) in enumerate(zip(limits, rows[0], strict=False), start=1):
        if text != name:
            raise StudyError(f"{path}: row 1: column {number} must be {name}, not {text[:40]!r}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(limits):
            raise StudyError(f"{path}: row {number}: {len(row)} columns, not {len(limits)}")
    for number, row in enumerate(rows[1:], start=2):
        for text, (name, limit) in zip(row, limits.items(), strict=True):
            if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= limit):
                wrong = f"must be a whole number from 0 to {limit}, not {text[:40]!r}"
                raise StudyError(f"{path}: row {number}, column {name}: {wrong}")
    if len(rows) == 1:
        raise StudyError(f"{path}: has no rows")
    return np.array(rows[1:], dtype=np.int64)


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

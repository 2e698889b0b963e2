"""What a digit is: even, prime, with a hole. Several may hold, or none."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .data import read_digits

EVEN, PRIME, WITH_A_HOLE = (0, 2, 4, 6, 8), (2, 3, 5, 7), (0, 6, 8, 9)


def read_properties(
    path: str | Path, *, image_shape: Sequence[int], max_value: int
) -> dict[str, np.ndarray]:
    """The images of the digits, and `target`, int64, 0 or 1, shape [rows, 3]."""
    fields = read_digits(path, image_shape=image_shape, num_classes=10, max_value=max_value)
    holds = [np.isin(fields["target"], digits) for digits in (EVEN, PRIME, WITH_A_HOLE)]
    return {**fields, "target": np.stack(holds, axis=1).astype(np.int64)}

"""Four numbers a row, and a fifth that depends on them."""

from pathlib import Path

import numpy as np


def read_springs(path: str | Path) -> dict[str, np.ndarray]:
    """Features [rows, 4] and target [rows], float32."""
    values = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return {"features": values[:, :4], "target": values[:, 4]}

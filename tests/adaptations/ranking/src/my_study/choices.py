"""Queries, each with up to five candidates, of which one is the best."""

import csv
from pathlib import Path

import numpy as np


def read_choices(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a table: the query's three numbers, the candidates' (empty if there are fewer), best.

    Returns:
        `query` [rows, 3], `candidates` [rows, 5, 3], `offered` [rows, 5], true where there is a
        candidate, and `target` [rows], the index of the best.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    values = np.array([[float(cell or "nan") for cell in row] for row in rows], dtype=np.float32)
    candidates = values[:, 3:18].reshape(-1, 5, 3)
    return {
        "query": values[:, :3],
        "candidates": np.nan_to_num(candidates),
        "offered": ~np.isnan(candidates[:, :, 0]),
        "target": values[:, 18].astype(np.int64),
    }

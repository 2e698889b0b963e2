"""Words of varying length, padded, and how many vowels each has."""

import csv
from pathlib import Path

import numpy as np


def read_words(path: str | Path, *, length: int) -> dict[str, np.ndarray]:
    """Letters [rows, length] from 1, mask [rows, length], target [rows]."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    letters = np.zeros((len(rows), length), dtype=np.int64)
    for number, row in enumerate(rows):
        letters[number, : len(row["word"])] = [ord(letter) - 96 for letter in row["word"]]
    target = np.array([int(row["vowels"]) for row in rows], dtype=np.int64)
    return {"letters": letters, "mask": letters > 0, "target": target}

"""Raw data to named arrays, and letters to numbers.

A reader returns a dictionary of arrays, an instance a row, one of them the `target`. To add a data
set: a reader here, a file in conf/data/ that names it under `prepare.read`. What turns raw fields
into numbers is fitted on training rows: a class here, named under `prepare.encode`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .harness.errors import StudyError
from .harness.files import read_text

PADDING, UNKNOWN, FIRST = 0, 1, 2  # index of no letter, of one that training lacks, of `a` or so
HEADER = ["word", "syllables"]


def read_words(path: str | Path, *, num_classes: int) -> dict[str, np.ndarray]:
    """Reads and validates a table of words and their numbers of syllables.

    Returns:
        `word`, strings, shape [rows], and `target`, int64, shape [rows]: the class of a word with
        one syllable is 0.

    Raises:
        StudyError: what is wrong, with the row (the header is row 1) and the column.
    """
    rows = [line.split(",") for line in read_text(Path(path)).rstrip("\n").split("\n")]
    for number, (name, text) in enumerate(zip(HEADER, rows[0], strict=False), start=1):
        if text != name:
            raise StudyError(f"{path}: row 1: column {number} must be {name}, not {text[:40]!r}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(HEADER):
            raise StudyError(f"{path}: row {number}: {len(row)} columns, not {len(HEADER)}")
    for number, (word, count) in enumerate(rows[1:], start=2):
        if not (word.replace("'", "").isalpha() and word == word.lower()):
            wrong = f"must be small letters and apostrophes, not {word[:40]!r}"
            raise StudyError(f"{path}: row {number}, column word: {wrong}")
        if count not in map(str, range(1, num_classes + 1)):
            wrong = f"must be a whole number from 1 to {num_classes}, not {count[:40]!r}"
            raise StudyError(f"{path}: row {number}, column syllables: {wrong}")
    if len(rows) == 1:
        raise StudyError(f"{path}: has no rows")
    target = np.array([int(count) - 1 for _, count in rows[1:]], dtype=np.int64)
    missing = sorted(set(range(num_classes)) - set(target.tolist()))
    if missing:
        raise StudyError(f"{path}: column syllables: no row has {missing[0] + 1}")
    return {"word": np.array([word for word, _ in rows[1:]]), "target": target}


class Letters:
    """Words to rows of letters: each letter of the training rows has an index of its own.

    Args:
        max_index: The largest index that a letter may have: 0 is padding, 1 an unknown letter.
        max_length: Of a word, in letters.
    """

    def __init__(self, *, max_index: int, max_length: int) -> None:
        self.max_index, self.max_length = max_index, max_length
        self.letters = ""  # in the order of their indices

    def fit(self, fields: Mapping[str, np.ndarray]) -> None:
        """Learns the letters of the training rows.

        Raises:
            StudyError: there are too many.
        """
        self.letters = "".join(sorted(set().union(*fields["word"].tolist())))
        needed = FIRST + len(self.letters) - 1
        if needed > self.max_index:
            found = f"the training rows have {len(self.letters)} letters"
            raise StudyError(
                f"data.max_index={self.max_index}: {found}; write {needed} in conf/data/"
            )

    def encode(self, fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Numbers of the words.

        Returns:
            `letters`, int64, and `mask`, bool, true where a letter is: [rows, max_length]. The
            `target` as it is, if it is there.

        Raises:
            StudyError: a word is too long, or has no letter.
        """
        words = fields["word"].tolist()
        longest = max(words, key=len, default="")
        if len(longest) > self.max_length:
            raise StudyError(
                f"data.max_length={self.max_length}: {longest[:40]!r} has {len(longest)} letters; "
                f"write {len(longest)} in conf/data/, and prepare and train again"
            )
        if "" in words:
            raise StudyError(f"field word: row {words.index('') + 1} has no letter; leave it out")
        index = {letter: number for number, letter in enumerate(self.letters, start=FIRST)}
        letters = np.full((len(words), self.max_length), PADDING)
        for row, word in zip(letters, words, strict=True):
            row[: len(word)] = [index.get(letter, UNKNOWN) for letter in word]
        others = {name: values for name, values in fields.items() if name != "word"}
        return {"letters": letters, "mask": letters != PADDING, **others}

    def state_dict(self) -> dict[str, Any]:
        """The letters that were learnt."""
        return {"letters": self.letters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.letters = state["letters"]

"""A tag for each letter of a word: where a group of vowels begins, and where it goes on."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .data import Letters, read_words
from .harness.training.metrics import IGNORED

TAGS = "OBI"  # outside of a group, its beginning, inside


def read_tags(path: str | Path) -> dict[str, np.ndarray]:
    """`word` and `target`, a tag for each of its letters: strings, shape [rows]."""
    words = read_words(path, num_classes=7)["word"]
    return {"word": words, "target": np.array([tag(word) for word in words.tolist()])}


def tag(word: str) -> str:
    """The tags of a word: OBIOO for `beard`."""
    groups = re.sub("[aeiouy]+", lambda group: "B" + "I" * (len(group[0]) - 1), word)
    return re.sub("[^BI]", "O", groups)


class TaggedLetters(Letters):
    """Words to rows of letters, and their tags to rows of indices."""

    def encode(self, fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As for Letters; `target`, int64, [rows, max_length], is IGNORED where no letter is."""
        encoded = super().encode({"word": fields["word"]})
        if "target" in fields:
            encoded["target"] = np.full(encoded["letters"].shape, IGNORED)
            for row, tags in zip(encoded["target"], fields["target"].tolist(), strict=True):
                row[: len(tags)] = [TAGS.index(letter) for letter in tags]
        return encoded

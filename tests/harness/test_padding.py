"""Rows of varying length: cut to the longest of a batch, and sorted by length in buckets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from my_study.harness.errors import StudyError
from my_study.harness.training import preparation
from my_study.harness.training.prepared import (
    Split,
    cut_padding,
    order_of,
    sort_in_buckets,
    verify_prepared,
)

LENGTHS = np.random.default_rng(0).integers(1, 13, 100)
PADDING: dict[str, Any] = {"mask": "mask", "fields": ["letters"], "bucket_size": None}


class Doubled:
    """Doubles, and remembers the longest of the training rows."""

    def __init__(self) -> None:
        self.longest = 0

    def fit(self, fields: preparation.Fields) -> None:
        """Learns from these rows."""
        self.longest = int(fields["mask"].sum(1).max())

    def encode(self, fields: preparation.Fields) -> dict[str, np.ndarray]:
        """Doubles the letters."""
        return {**fields, "letters": 2 * fields["letters"]}

    def state_dict(self) -> dict[str, Any]:
        """What was learnt."""
        return {"longest": self.longest}

    def load_state_dict(self, state: Any) -> None:
        """Takes it back."""
        self.longest = state["longest"]


def fields_of(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Different rows of these lengths, padded to 16."""
    mask = np.arange(16) < lengths[:, None]
    letters = np.where(mask, 1 + np.arange(len(lengths))[:, None] * 16 + np.arange(16), 0)
    return {"letters": letters, "mask": mask, "target": np.arange(len(lengths)) % 2}


@pytest.fixture(name="prepared")
def _prepared(tmp_path: Path) -> Path:
    parameters = {"split_seed": 0, "validation_fraction": 0.2, "test_fraction": 0.2}
    fields = fields_of(LENGTHS)
    preparation.prepare(tmp_path / "words", fields, parameters, {}, Doubled())
    return tmp_path / "words"


def test_a_batch_is_as_long_as_its_longest_row() -> None:
    batch = {key: torch.from_numpy(item) for key, item in fields_of(np.array([3, 5, 2])).items()}
    cut = cut_padding(batch, PADDING)
    assert cut["letters"].shape == cut["mask"].shape == (3, 5)
    assert torch.equal(cut["letters"], batch["letters"][:, :5])
    assert torch.equal(cut["target"], batch["target"])
    empty = {**batch, "mask": torch.zeros_like(batch["mask"])}
    assert cut_padding(empty, PADDING)["letters"].shape == (3, 1)


def test_buckets_hold_each_row_once_and_waste_less(prepared: Path) -> None:
    plain = Split(prepared, "train", PADDING)
    sorted_ = Split(prepared, "train", {**PADDING, "bucket_size": 4})
    orders = [order_of(each, seed=1, epoch=2, batch_size=8) for each in (plain, sorted_)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(plain)))
    assert not np.array_equal(*orders)
    size = [
        sum(each[order[start : start + 8]]["letters"].numel() for start in range(0, len(order), 8))
        for each, order in zip((plain, sorted_), orders, strict=True)
    ]
    assert size[1] < 0.9 * size[0]
    again, other = (order_of(sorted_, seed=1, epoch=epoch, batch_size=8) for epoch in (2, 3))
    assert np.array_equal(again, orders[1]) and not np.array_equal(other, orders[1])


def test_a_smaller_last_batch_stays_last() -> None:
    order = sort_in_buckets(np.arange(11), np.arange(11), 4, 2, seed=0)
    assert sorted(order[:8]) == list(range(8)) and sorted(order[8:]) == [8, 9, 10]


def test_an_encoder_is_fitted_on_the_training_rows_alone(prepared: Path) -> None:
    split = Split(prepared, "train")
    longest = int(split.fields["mask"].sum(1).max())
    state = (prepared / "encoder.json").read_text()
    assert f'"longest": {longest}' in state
    for name in ("train", "validation", "test"):
        assert (Split(prepared, name).fields["letters"] % 2 == 0).all()
    parameters = {"split_seed": 0, "validation_fraction": 0.2, "test_fraction": 0.2}
    assert "encoder.json" in verify_prepared(prepared, parameters)
    (prepared / "encoder.json").write_text(state.replace(str(longest), "99"))
    with pytest.raises(StudyError, match="encoder.json: altered; type: python stages/prepare.py"):
        verify_prepared(prepared, parameters)


def test_a_field_of_text_needs_an_encoder() -> None:
    with pytest.raises(StudyError, match="field word: is <U1, and no numbers; data.prepare.encode"):
        preparation.encode({"word": np.array(["a"])}, [0], None)


def test_data_without_a_target_are_split(tmp_path: Path) -> None:
    fields = {name: each for name, each in fields_of(LENGTHS).items() if name != "target"}
    parameters = {"split_seed": 0, "validation_fraction": 0.2, "test_fraction": 0.2}
    preparation.prepare(tmp_path / "words", fields, parameters)
    assert [len(Split(tmp_path / "words", name)) for name in ("train", "test")] == [60, 20]

"""The reader of the words, the encoder of their letters, and what the encoders of a model read."""

import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch

from {{ cookiecutter.project_slug }}.data import UNKNOWN, Letters, read_words
from {{ cookiecutter.project_slug }}.harness.errors import StudyError
from {{ cookiecutter.project_slug }}.models.lstm import LSTM
from {{ cookiecutter.project_slug }}.models.transformer import POSITIONS, Transformer, angles

FIXTURE = Path(__file__).parent / "fixtures" / "words.csv"
TEXT = FIXTURE.read_text(encoding="utf-8")


def read(path: Path) -> dict[str, np.ndarray]:
    """The fields of a table."""
    return read_words(path, num_classes=7)


def fitted(*words: str) -> Letters:
    """An encoder that knows the letters of some words."""
    encoder = Letters(max_index=6, max_length=5)
    encoder.fit({"word": np.array(words)})
    return encoder


def test_every_word_has_its_class_less_one() -> None:
    fields = read(FIXTURE)
    rows = [line.split(",") for line in TEXT.splitlines()[1:]]
    assert fields["word"].tolist() == [word for word, _ in rows]
    assert (fields["target"] + 1).tolist() == [int(count) for _, count in rows]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT + "Word,1\n", "row 86, column word: must be small letters.*'Word'"),
        (TEXT + "a b,1\n", "row 86, column word: .*'a b'"),
        (TEXT + ",1\n", "row 86, column word: .*''"),
        (TEXT + "',1\n", "row 86, column word: "),
        (TEXT + "w\udcb2,1\n", "row 86, column word: .*xb2'"),  # a byte that is not UTF-8
        (TEXT + "word,8\n", "row 86, column syllables: must be .* 1 to 7, not '8'"),
        (TEXT + "word,0\n", "row 86, column syllables: .*'0'"),
        (TEXT + "word,1.0\n", "row 86, column syllables: .*'1.0'"),
        (TEXT + "word\n", "row 86: 1 columns, not 2"),
        (TEXT.replace(",7\n", ",6\n"), "column syllables: no row has 7"),
        (TEXT.replace("syllables", "count"), "row 1: column 2 must be syllables"),
        ("word,syllables", "has no rows"),
        ("", "row 1: column 1 must be word, not ''"),
    ],
)
def test_a_wrong_table_is_refused_with_row_and_column(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(StudyError, match=f"table.csv: {message}"):
        read(path)


def test_letters_of_training_have_an_index_and_all_others_share_one() -> None:
    fields = fitted("ab", "ca").encode({"word": np.array(["abc", "xa", "y"])})
    assert fields["letters"].tolist() == [[2, 3, 4, 0, 0], [UNKNOWN, 2, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert np.array_equal(fields["mask"], fields["letters"] > 0)
    assert set(fields) == {"letters", "mask"}  # new words have no target


def test_letters_are_numbered_as_in_the_alphabet() -> None:
    encoder = Letters(max_index=27, max_length=26)
    encoder.fit({"word": np.array([string.ascii_lowercase[::-1], "a"])})
    assert encoder.letters == string.ascii_lowercase


def test_an_encoder_that_is_read_back_encodes_in_the_same_way() -> None:
    words = {"word": np.array(["bad", "x"])}
    other = Letters(max_index=6, max_length=5)
    other.load_state_dict(json.loads(json.dumps(fitted("ab", "d").state_dict())))
    for name, values in fitted("ab", "d").encode(words).items():
        assert np.array_equal(values, other.encode(words)[name])


def test_what_does_not_fit_is_refused_with_what_to_write() -> None:
    with pytest.raises(StudyError, match="max_index=6: .* 6 letters; write 7 "):
        fitted("abcdef")
    with pytest.raises(StudyError, match="max_length=5: 'abcabc' has 6 letters; write 6 "):
        fitted("abc").encode({"word": np.array(["a", "abcabc"])})
    with pytest.raises(StudyError, match="row 2 has no letter"):
        fitted("abc").encode({"word": np.array(["a", ""])})


def test_a_packed_lstm_reads_a_padded_word_as_it_reads_the_word_alone() -> None:
    encoder = LSTM(max_index=6, embedding_size=4, hidden_size=3)
    letters = torch.tensor([[2, 3, 4, 0, 0], [2, 3, 4, 5, 6]])
    alone, _ = encoder.lstm(encoder.embedding(letters[:1, :3]))
    assert torch.allclose(encoder(letters, letters > 0)[:1, :3], alone, atol=1e-6)


def transformer(position: str) -> Transformer:
    """A small one, for words of up to 5 letters."""
    return Transformer(
        max_index=6,
        max_length=5,
        num_features=8,
        num_layers=2,
        num_heads=2,
        position=position,
        dropout=0.0,
    )


@pytest.mark.parametrize("position", POSITIONS)
def test_a_transformer_tells_positions_apart_unless_it_has_none(position: str) -> None:
    letters = torch.tensor([[2, 3, 4], [3, 2, 4]])
    first, second = transformer(position)(letters, letters > 0)[:, 2]  # after another order
    assert torch.allclose(first, second, atol=1e-6) == (position == "none")


def test_a_rotary_transformer_knows_distances_and_not_where_a_word_begins() -> None:
    letters = torch.tensor([[2, 3, 4, 0, 0], [0, 0, 2, 3, 4]])
    early, late = transformer("rotary")(letters, letters > 0)
    assert torch.allclose(early[:3], late[2:], atol=1e-5)


def test_the_first_wave_turns_by_one_a_letter_and_the_last_about_once_in_six_words() -> None:
    first, *_, last = angles(2, size=1000, base=20.0)[1].tolist()
    assert first == 1 and last == pytest.approx(1 / 20, rel=0.01)

"""Slips in YAML files: each is named by file, line and column, by every command, in one line."""

import re
from pathlib import Path

import pytest

from my_study.harness.configuration import composing, reading
from my_study.harness.errors import StudyError

from .commands import call
from .conftest import Copy

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)
SLIPS = {
    "a tab": (b"a:\n\tb: 1\n", "line 2, column 1: a tab; indent with spaces"),
    "a tab further down": (b"a:\n  b: 1\n\tc: 2\n", "line 3, column 1: a tab"),
    "a key twice": (b"a: 1\nb: 2\na: 3\n", "line 3, column 1: the key a is already in line 1"),
    "a key twice inside": (b"x:\n  a: 1\n  a: 2\n", "line 3, column 3: the key a is .* line 2"),
    "indented too far": (b"x:\n  a: 1\n   b: 2\n", "line 3, column 5: .*indentation"),
    "indented too little": (b"x:\n    a: 1\n  b: 2\n", "line 3, column 3: .*indentation"),
    "two colons": (b"a: b: c\n", "line 1, column 5: .*quotes"),
    "no colon": (b"a: 1\nb\nc: 2\n", "line 3, column 1: .* a colon and a space"),
    "no space": (b"a:1\n", "line 1, column 1: .* a colon and a space"),
    "a list": (b"- a\n- b\n", "line 1, column 1: a file must consist of lines KEY: VALUE"),
    "nothing": (b"", "is empty; for a file without keys, write {}"),
    "a comment": (b"# later\n", "is empty; for a file without keys, write {}"),
    "an open quote": (b"b: 2\na: 'x\n", "line 2, column 4: .*close the quote"),
    "an open bracket": (b"a: [1, 2\nb: 3\n", "line 1, column 4: .*close the bracket"),
    "a percent sign": (b"a: %x\n", "line 1, column 4: .*in quotes"),
    "no such anchor": (b"a: *x\n", "line 1, column 4: .*&anchor"),
    "braces for a value": (b"a: {{ b }}\n", "line 1, column 5: a key must be a word"),
    "a call": (
        b"a: !!python/object/apply:os.mkdir [mark]\n",
        "line 1, column 4: !!python/object/apply:os.mkdir is not allowed; write plain values",
    ),
    "a type": (b"a: !!set {x, y}\n", "line 1, column 4: !!set is not allowed"),
    "Latin-1": ("a: 1\nb: Größe\n".encode("latin-1"), "line 2, column 6: is not UTF-8; save it"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "line 1, column 1: is not UTF-8; save it"),
    "a null": (b"a: 1\nb: \0\n", "line 2, column 4: a character that cannot be printed"),
    "two documents": (b"a: 1\n---\nb: 2\n", "line 2, column 1: .*remove the line ---"),
    "a bomb": (BOMB.encode(), "line .*: has more than 10000 values, with its aliases replaced"),
    "an alias of itself": (b"a: &a [*a]\n", "line 1, column 4: repeats itself without end"),
    "many brackets": (b"a: " + b"[" * 100_000, "line 1, column 103: is nested too deeply"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named_by_its_place_in_the_file(slip: str, tmp_path: Path) -> None:
    content, message = SLIPS[slip]
    (tmp_path / "file.yaml").write_bytes(content)
    with pytest.raises(StudyError, match=message) as refusal:
        reading.check_files(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path / 'file.yaml'}")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"{}\n",
        b"a: &a [1, 2]\nb: *a\n",
        b"x: &x {a: 1}\ny:\n  <<: *x\n  b: 2\n",
        b"a: 1\r\nb:\r\n  c: 2\r\n",
        b"\xef\xbb\xbfa: 1\n",
        b"a: 2024-01-01\nb: '2'\nc: 1.0e-3\nd: null\ne: true\n1: one\n",
        "a: Größe\n".encode(),
    ],
)
def test_what_yaml_is_written_for_is_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_bytes(content)
    reading.check_files(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ("run.py",),
        ("run.py", "-m", "seed=0,1"),
        ("run.py", "--cfg", "job"),
        ("stages/prepare.py",),
        ("study", "check", "--fast"),
        ("study", "compose", "experiments", "--experiments", "mlp"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("slip", ["a tab", "a bomb"])
def test_every_command_names_a_slip(words: tuple[str, ...], slip: str, copy: Copy) -> None:
    content, message = SLIPS[slip]
    (copy.folder / "conf" / "model" / "mlp.yaml").write_bytes(content)
    code, output, errors = call(copy.folder, *words)
    assert (code, output) == (1, "")
    assert re.fullmatch(f"error: conf/model/mlp.yaml, {message}.*\n", errors), errors
    assert not (copy.folder / "runs").exists()


IN_FILES = {  # file: what is replaced, by what, and the answer
    "top": ("config.yaml", "seed: 0", "sede: 0\nseed: 0", "sede: .*did you mean seed"),
    "data": ("data/digits.yaml", "^fixture:", "fixtrue:", "data.fixtrue: .*fixture"),
    "unused": ("data/digits.yaml", r"\Z", "colour: red\n", "data.colour: .*nothing takes it"),
    "prepare": ("data/digits.yaml", "split_seed", "spilt_seed", "data.prepare.spilt_seed: "),
    "reader": ("data/digits.yaml", "max_value", "max_val", ".*read.max_val: .*max_value"),
    "model": ("model/mlp.yaml", "^lr:", "rl: 1\nlr:", "model.rl: .*lr"),
    "network": ("model/mlp.yaml", "dropout", "dropuot", ".*network.dropuot: .*dropout"),
    "training": ("training/default.yaml", "patience", "patiense", ".*patiense: .*patience"),
    "schedule": ("training/schedule/one_cycle.yaml", "pct", "pc", ".*pc_start: .*pct_start"),
    "metric": (
        "data/digits.yaml",
        "  accuracy:\n",
        "  x: 3\n  accuracy:\n",
        "data.metrics.x=3: must",
    ),
    "experiment": ("experiment/mlp.yaml", "test:", "tets:", "tets: .*did you mean test"),
    "a list for keys": ("data/digits.yaml", r"prepare:.*(\n  .*)+", "prepare: [1]", ".*keys"),
    "a word for keys": ("model/mlp.yaml", r"network:(\n  .*)+", "network: mlp", ".*_target_"),
    "keys for a list": ("model/mlp.yaml", r"\[128\]", "{a: 1}", ".*must be of type list"),
    "keys for a number": ("model/mlp.yaml", "0.2", "{a: 1}", ".*must be of type float"),
    "no such value": (
        "data/digits.yaml",
        "^image_shape: .*",
        "image_shape: ${data.shape}",
        r"data.image_shape: data=digits has no shape",
    ),
    "a list for a number": ("config.yaml", "^seed: 0", "seed: [0]", "seed=.* type int"),
}


def is_told(copy: Copy, slip: str, *words: str) -> None:
    """Makes a slip in a file, and types a command: its one line names the slip's place."""
    name, pattern, replacement, message = IN_FILES[slip]
    copy.edit(f"conf/{name}", f"(?m){pattern}", replacement)
    text = (copy.folder / "conf" / name).read_text(encoding="utf-8")
    line = text[: text.index(replacement) + 1].count("\n") + 1
    code, output, errors = call(copy.folder, *words)
    assert (code, output) == (1, "")
    told = rf"error: conf/{name}, line {line}, column \d+: {message}.*\n"
    assert re.fullmatch(told, errors), errors


@pytest.mark.parametrize("slip", IN_FILES)
def test_a_wrong_key_or_kind_in_a_file_is_named_by_its_place(slip: str, copy: Copy) -> None:
    is_told(copy, slip, "run.py", "experiment=mlp")


@pytest.mark.parametrize("slip", [slip for slip, edit in IN_FILES.items() if edit[0][:4] == "data"])
def test_whoever_prepares_data_is_told_of_slips_in_them(slip: str, copy: Copy) -> None:
    is_told(copy, slip, "stages/prepare.py")
    assert not (copy.folder / "data" / "prepared").exists()


def test_a_wrong_list_of_defaults_is_named(copy: Copy) -> None:
    copy.edit("conf/config.yaml", "- data: digits", "- dta: digits")
    _, _, errors = call(copy.folder, "run.py")
    assert errors.startswith("error: conf/config.yaml names conf/dta/digits.yaml: there is no")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("typed", ["--config-dir={}", "hydra.searchpath=[{}]"])
def test_a_slip_in_a_folder_of_ones_own_is_named(typed: str, copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("lr: 1\n\tnetwork: {}\n")
    code, _, errors = call(copy.folder, "run.py", typed.format(tmp_path / "own"), "model=mine")
    assert code == 1 and re.match(r"error: .*own/model/mine.yaml, line 2, .*: a tab", errors)
    assert errors.count("\n") == 1


def test_what_a_program_wrote_is_read_whatever_its_length(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("".join(f"stage-{n}: {{cmd: x}}\n" for n in range(9000)))
    assert len(composing.read_yaml(tmp_path / "dvc.lock")) == 9000


def test_what_was_typed_is_not_looked_for_in_a_file(copy: Copy) -> None:
    _, _, errors = call(copy.folder, "run.py", "seed=-1")
    assert errors == "error: seed=-1: must be from 0 to 2^63 - 1\n"

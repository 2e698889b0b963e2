"""A value out of the environment may be a secret: what is written names the variable instead."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from my_study.harness.configuration import composing, resolving
from my_study.harness.runs.fingerprint import fingerprint

from .commands import call
from .conftest import TOKEN, Copy
from .runs import identity_of

WRITTEN = "${oc.env:MY_TOKEN}"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


Recorded = Callable[..., object]


@pytest.fixture(name="recorded")
def _recorded() -> Recorded:
    """What is written of a note that was typed, and what is used."""

    def recorded(note: str, *others: str) -> tuple[object, object]:
        config = composing.compose([f"note='{note}'", "device=cpu", *others])
        with composing.naming_variables():
            OmegaConf.resolve(config)
        resolving.check(config, [])
        return composing.to_record(config)["note"], config.note

    return recorded


@pytest.mark.parametrize(
    ("note", "written", "used"),
    [
        ("${oc.env:MY_TOKEN}", WRITTEN, TOKEN),
        ("${oc.env:MY_TOKEN,x}", WRITTEN, TOKEN),
        ("a ${oc.env:MY_TOKEN} b", f"a {WRITTEN} b", f"a {TOKEN} b"),
        ("${description}", WRITTEN, TOKEN),
        ("${group}", f"by {WRITTEN}", f"by {TOKEN}"),
        ("${oc.env:OMP_NUM_THREADS}", "1", "1"),
        ("${oc.env:NO_SUCH_NAME,x}", "x", "x"),
    ],
)
def test_a_variable_is_written_by_its_name_and_used_by_its_value(
    note: str, written: str, used: str, recorded: Recorded
) -> None:
    others = ["description='${oc.env:MY_TOKEN}'", "group='by ${description}'"]
    assert recorded(note, *others) == (written, used)


def test_a_missing_variable_is_named(recorded: Recorded) -> None:
    with pytest.raises(Exception, match="NO_SUCH_NAME"):
        recorded("${oc.env:NO_SUCH_NAME}")


def test_another_value_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    config = composing.compose(["device=cpu", "++data.fixture='${oc.env:MY_TOKEN}'"])
    config.model.network.hidden_sizes = WRITTEN
    identity = identity_of(composing.to_record(config))
    assert identity["config"]["model.network.hidden_sizes"] == WRITTEN
    before = fingerprint(identity)
    assert fingerprint(identity) == before
    monkeypatch.setenv("MY_TOKEN", "another")
    assert fingerprint(identity) != before


def files_in(folder: Path) -> dict[str, bytes]:
    """The content of each file."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_secret_is_in_no_file_that_a_run_or_a_stage_writes(copy: Copy) -> None:
    copy.edit("src/my_study/data.py", "max_value: int\n", "max_value: int, token: str\n")
    arrives = f"    assert token[::-1] == {TOKEN[::-1]!r}\n"
    copy.edit("src/my_study/data.py", "    _, height,", f"{arrives}    _, height,")
    copy.edit("conf/data/digits.yaml", "max_value: 16.*", "max_value: 16\n    token: ${data.token}")
    copy.edit("conf/data/digits.yaml", r"\Z", "token: ${oc.env:MY_TOKEN}\n")
    copy.edit("conf/config.yaml", "note: null", 'note: "with ${data.token}"')
    for words in (("stages/prepare.py",), ("run.py", "run_dir=runs/one"), ("run.py",)):
        code, _, errors = call(copy.folder, *words)
        assert code == 0, errors
    assert call(copy.folder, "study", "compose", "experiments", "--experiments", "mlp")[0] == 0
    (path,) = (copy.folder / "runs").glob("[!.]*/record.json")  # the third command found it
    record = json.loads(path.read_bytes())
    assert record["config"]["note"] == f"with {WRITTEN}"
    assert record["config"]["data"]["prepare"]["read"]["token"] == WRITTEN
    for name in ("data", "results", "runs"):
        written = files_in(copy.folder / name)
        assert written and not [path for path, text in written.items() if TOKEN.encode() in text]

"""What is kept of a run, and that what earlier versions kept is still read."""

import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from my_study.harness import commands, files
from my_study.harness.commands import diff
from my_study.harness.commands.restoring import Impossible
from my_study.harness.errors import StudyError
from my_study.harness.runs import record as records
from my_study.harness.runs.comparison import DIFFERENT, compare
from my_study.harness.runs.drift import Change, find_drift, read_changes
from my_study.harness.runs.folder import status
from my_study.harness.runs.machine import describe_hardware
from my_study.harness.runs.published import PUBLISHED, publish
from my_study.harness.runs.record import (
    RESULTS,
    VERSION,
    find_altered_files,
    read_record,
    write_record,
)

from .runs import begin, do, identity_of

OLD = Path(__file__).parent / "fixtures" / "record_v2.json"  # a run on the tiny table, published


def test_a_published_record_is_complete_names_no_host_and_stays_while_the_numbers_do(
    values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    values["run_dir"] = "runs/published/x"
    folder, path = do(values), PUBLISHED / "x.json"
    (folder / "history.csv").write_text("epoch,train_loss\n1,0.5\n")
    patch = folder / "changes.patch"
    patch.write_text("a change")
    names = [folder / name for name in RESULTS]
    record = {**read_record(folder), "files": files.hash_files(folder, names)}
    write_record(folder, record)
    publish([folder])
    published = read_record(path)
    assert published["history"] == [{"epoch": 1.0, "train_loss": 0.5}]
    assert path.with_name(published["patch"]).read_bytes() == b"a change"
    assert "host" not in json.dumps(published) and published["config"] == values

    before = path.read_bytes()
    write_record(folder, {**record, "started": "later"})
    publish([folder])
    assert path.read_bytes() == before
    (folder / "metrics.json").write_text("those of another time")
    publish([folder])
    assert not path.exists() and "its record is of other results" in caplog.text


def test_a_record_of_the_first_version_is_read_and_of_a_later_one_refused(tmp_path: Path) -> None:
    old = {
        "version": 1,
        "command": "python run.py model=cnn 'seed=1'",
        "git": {"commit": "abc", "clean": True},
        "hashes": {"code": "1", "data": "2", "lock": "3"},
        "python": "3.11.7",
        "packages": {"torch": "2.13.0"},
        "hardware": {"processor": "x"},
        "environment": {},
        "status": "finished",
        "seconds": 1.5,
    }
    path = tmp_path / "record.json"
    path.write_text(json.dumps(old))
    record = read_record(tmp_path)
    assert record["version"] == VERSION and record["overrides"] == ["model=cnn", "seed=1"]
    assert status(tmp_path) == "finished"
    assert record["packages"]["installed"] == {"torch": "2.13.0"}
    path.write_text(json.dumps({"version": VERSION + 1}))
    with pytest.raises(StudyError, match="was written by a newer version of this study"):
        read_record(tmp_path)
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(StudyError, match=r"record.json: (cannot be read|is not a record)"):
            read_record(tmp_path)


def test_a_record_of_version_2_is_read(tmp_path: Path) -> None:
    record = read_record(OLD)
    known = json.loads(OLD.read_bytes())
    assert record["version"] == VERSION and record["source"] == known["code"]
    assert not record["code"]  # digests of syntax trees: no bytes are in them
    unchanged = set(known) - {"version", "code"}
    assert {key: record[key] for key in unchanged} == {key: known[key] for key in unchanged}
    lines = {"mixed": ["code: run.py: changed"], "moved": ["hardware: processor: one -> two"]}
    path = tmp_path / "resumed.json"
    path.write_text(json.dumps({**known, **lines}))
    record = read_record(path)
    assert [str(change) for change in read_changes(record["moved"])] == lines["moved"]
    assert [change.kind for change in read_changes(record["mixed"])] == ["code"]


def test_a_record_of_version_2_is_compared_with_a_new_one(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = do(values)
    changes = compare(OLD, folder).changes
    assert Change("config", "model.lr", "0.01", "0.003") in changes
    files_changed = {change.key: str(change) for change in changes if change.kind == "code"}
    assert files_changed["run.py"] == "code: run.py: changed"
    assert files_changed["src/my_study/training.py"].endswith(": is gone")
    assert compare(OLD, folder).verdict == DIFFERENT

    def restored(_: object) -> NoReturn:
        raise Impossible("not here")

    monkeypatch.setattr(diff, "restored", restored)  # nothing is written into the study
    monkeypatch.setattr(sys, "argv", ["study", "diff", str(OLD), str(folder)])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    printed = capfd.readouterr().out
    assert not ended.value.code
    assert "config: model.lr: 0.01 -> 0.003" in printed and "code: run.py: changed" in printed


def test_a_run_resumed_on_another_machine_says_so(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    do(values, end="interrupted")
    hardware = {**describe_hardware(), "processor": "another"}
    monkeypatch.setattr(records, "describe_hardware", lambda: hardware)
    record = read_record(do(values))
    (change,) = read_changes(record["moved"])
    assert re.match("hardware: processor: .* -> another", str(change))
    assert change in find_drift(record, record)


def test_a_run_resumed_with_other_code_is_marked_and_no_longer_found(
    values: dict[str, Any],
) -> None:
    folder = do(values, end="interrupted")
    identity = identity_of(values)
    identity["code"]["run.py"] = "edited"
    with begin(values, identity=identity, resume=folder):
        pass
    record = read_record(folder)
    assert record["fingerprint"] is None
    assert [str(change) for change in read_changes(record["mixed"])] == ["code: run.py: changed"]
    assert do(values) != folder
    identity["data"] = {}
    with pytest.raises(StudyError, match="the run began with other data"):
        with begin(values, identity=identity, resume=folder):
            pass


def test_a_run_that_is_resumed_after_its_time_budget_is_not_taken_for_altered(
    values: dict[str, Any],
) -> None:
    folder = do(values)
    write_record(folder, {**read_record(folder), "ended_by": "time budget"})
    with suppress(KeyboardInterrupt), begin(values, resume=folder):
        (folder / "history.csv").write_text("more epochs")
        raise KeyboardInterrupt
    assert not find_altered_files(folder, read_record(folder))


@pytest.mark.parametrize("length", [0, 60, 90, 300])
def test_a_truncated_record_is_passed_over_with_a_warning(
    values: dict[str, Any], length: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = do(values)
    path = folder / "record.json"
    path.write_bytes(path.read_bytes()[:length])
    assert do(values) != folder
    assert "this run is passed over" in caplog.text


def test_a_full_disk_gives_one_clear_line(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no device here is always full")
    (tmp_path / "record.json").write_text("the last good one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: full.write_bytes(b"x"))
        with pytest.raises(StudyError, match=r"record.json: cannot be written \(No space left"):
            files.write_atomically(tmp_path / "record.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert (tmp_path / "record.json").read_text() == "the last good one"

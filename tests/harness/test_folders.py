"""What a run is known by, and which folder it works in: never two in one, never one twice."""

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from my_study.harness.errors import StudyError
from my_study.harness.files import temporary_path
from my_study.harness.runs import record as records
from my_study.harness.runs.fingerprint import fingerprint
from my_study.harness.runs.folder import RUNS, claim, read_finished, status
from my_study.harness.runs.leftovers import LOCK, lock_of, scratch_folder
from my_study.harness.runs.reads import watch_reads
from my_study.harness.runs.record import HEAD, read_record, write_record
from my_study.harness.study import ROOT

from .conftest import MODEL
from .runs import begin, do, identity_of

Harm = Callable[[Path], object]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("note", "x"), ("group", "x"), ("description", "x"), ("price_per_hour", 2.0)),
        *(("run_dir", "runs/x"), ("replace", True), ("device", "cpu"), ("tolerance", {})),
    ],
)
def test_what_cannot_change_a_number_is_no_part_of_the_fingerprint(
    values: dict[str, Any], key: str, value: object
) -> None:
    assert identity_of({**values, key: value}) == identity_of(values)
    moved = {**values, "data": {**values["data"], "folder": "elsewhere"}}
    assert identity_of(moved) == identity_of(values)


def test_whatever_can_change_a_number_changes_the_fingerprint(values: dict[str, Any]) -> None:
    known_by = identity_of(values)
    others = [
        {**known_by, "config": {**known_by["config"], "model.lr": 0.5}},
        {**known_by, "code": {**known_by["code"], "run.py": "0"}},
        {**known_by, "data": {"train/image.npy": "1" * 64}},
        *({**known_by, key: "other"} for key in ("lock", "python", "torch", "device")),
    ]
    prints = {fingerprint(each) for each in [known_by, *others]}
    assert len(prints) == 8
    assert known_by["config"]["training.schedule.pct_start"] == 0.3
    assert MODEL in known_by["code"]


def test_code_that_was_edited_while_a_sweep_runs_is_not_credited_with_its_numbers(
    repository: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(seed: int) -> dict[str, Any]:
        with begin({**values, "seed": seed}, root=repository) as running:
            folder = running.folder
        assert not (folder / "changes.patch").exists()
        return read_record(folder)

    first = record(seed=0)
    module = ModuleType("model")
    module.__file__ = str(repository / MODEL)
    monkeypatch.setitem(sys.modules, "model", module)
    (repository / MODEL).with_name(".mlp.py.swp").write_text("an editor's")
    (repository / MODEL).write_text("edited_and_imported_before")
    second = record(seed=1)
    assert (first["code"], first["git"]) == (second["code"], second["git"])
    (repository / "run.py").write_text("edited_and_not_imported_yet")
    with pytest.raises(StudyError, match="run.py: was edited while this command ran; type the"):
        record(seed=2)


@pytest.mark.parametrize("end", ["finished", "failed", "interrupted"])
def test_a_run_is_found_again_however_it_ended(values: dict[str, Any], end: str) -> None:
    folder = do(values, end=end)
    assert status(folder) == end
    assert do(values) == folder
    parts = [part["status"] for part in read_record(folder)["parts"]]
    assert parts == (["finished"] if end == "finished" else [end, "finished"])
    assert do({**values, "seed": 7}) != folder


def test_force_runs_it_from_scratch_and_keeps_the_other(values: dict[str, Any]) -> None:
    folder = do(values)
    assert do({**values, "force": True}) != folder and folder.exists()


def test_a_run_done_elsewhere_is_copied_into_the_folder_that_is_named(
    values: dict[str, Any],
) -> None:
    folder = do(values)
    named = do({**values, "run_dir": "runs/published/mine"})
    assert named == Path("runs/published/mine")
    record = read_record(named)
    assert record["copied_from"] == folder.as_posix() and len(record["parts"]) == 1
    assert do(values) in (named, folder)


def test_auto_takes_what_another_kind_of_device_has_done_and_cpu_does_not(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "read_energy", lambda device: None)
    values = {**values, "device": "auto"}
    with begin(values, identity={**identity_of(values), "device": "cuda"}) as running:
        folder = running.folder
    assert do(values) == folder
    assert do({**values, "device": "cpu"}) != folder


def test_a_named_folder_loses_nothing_that_was_not_to_be_replaced(values: dict[str, Any]) -> None:
    values["run_dir"] = "mine"
    other = {**values, "seed": 7}
    folder = do(values)
    with pytest.raises(StudyError, match="contains another run; .* add replace=true to delete it"):
        do(other)
    assert read_record(folder)["seed"] == 0
    assert do({**other, "replace": True}) == folder
    assert read_record(folder)["seed"] == 7
    with (
        pytest.raises(ValueError),
        claim(ROOT, identity_of(values), {**values, "force": True}, []),
    ):
        raise ValueError  # what was to replace it cannot be built
    assert read_record(folder)["seed"] == 7 and len(list(Path().glob(".mine*"))) == 0
    Path("thesis").mkdir()
    Path("thesis", "thesis.tex").touch()
    with pytest.raises(StudyError, match="contains other files; name an empty or a new folder"):
        do({**values, "run_dir": "thesis", "force": True})
    assert Path("thesis", "thesis.tex").exists()


def test_a_running_run_is_distinguished_from_a_killed_one_and_not_replaced(
    values: dict[str, Any],
) -> None:
    values["run_dir"] = "mine"
    with begin(values) as running:
        folder = running.folder
        assert status(folder) == "running"
        with pytest.raises(StudyError, match="another process is working in it"):
            do({**values, "seed": 7, "replace": True})
    write_record(folder, {**read_record(folder), "status": "running"})
    assert status(folder) == "killed"


def test_what_could_not_be_built_leaves_no_folder(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError), claim(ROOT, identity_of(values), values, []):
        raise ValueError
    assert [path.name for path in RUNS.iterdir()] == [LOCK]


def test_a_file_that_the_code_read_is_an_input(values: dict[str, Any]) -> None:
    root = Path.cwd() / "study"
    for name in ("src", "data", "prepared", "stages"):
        (root / name).mkdir(parents=True)
    names = ("run.py", "stages/prepare.py", "requirements.lock", "src/code.py", "data/words.txt")
    for name in (*names, "prepared/a.npy"):
        (root / name).write_text("")
    (root / "prepared" / "manifest.json").write_text("{}")
    watch_reads(root)
    values = {**values, "data": {**values["data"], "folder": str(root / "prepared")}}

    def do_and_read() -> tuple[Path, dict[str, Any]]:
        with claim(root, identity_of(values, root), values, []) as folder:
            if found := read_finished(folder):
                return folder, found
        with begin(values, root=root) as running:
            (root / "data" / "words.txt").read_text()
            (root / "prepared" / "a.npy").read_text()
            (root / "data" / "written.txt").write_text("")
        return running.folder, read_record(running.folder)

    folder, record = do_and_read()
    assert {"data/words.txt"} == set(record["inputs"])
    assert do_and_read()[0] == folder
    (root / "data" / "words.txt").write_text("another")
    assert do_and_read()[0] != folder


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_text("{}"), "is not a record"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
        (
            lambda path: path.write_text(path.read_text().replace('"seed": 0', '"seed": 1')),
            "was edited or damaged",
        ),
    ],
    ids=["cut", "cut to nothing", "lacks all", "a folder", "edited"],
)
def test_a_damaged_record_is_passed_over_with_a_warning_that_says_what_to_type(
    values: dict[str, Any], caplog: pytest.LogCaptureFixture, harm: Harm, reason: str
) -> None:
    folder = do(values)
    harm(folder / "record.json")
    assert do(values) != folder and (folder / "record.json").exists()
    line = rf"{folder}.*: .*{reason}.*; if you no longer need it, type: rm -r {folder}$"
    assert re.search(line, caplog.text, re.M)


def test_what_a_killed_process_left_in_runs_is_swept_up_by_the_next_run(
    values: dict[str, Any],
) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    empty, *locked = (f"2026-01-01_00-00-0{number}_killed" for number in range(2))
    for name in (empty, *locked, "published/a"):
        Path("runs", name).mkdir(parents=True)
    for name in (*locked, "published/a"):
        Path("runs", name, LOCK).touch()
        Path("runs", name, ".record.json.1.tmp").touch()
    Path("runs", ".published.new").mkdir()
    Path("runs", ".reproduce-killed", "tree").mkdir(parents=True)
    Path("runs", f".failures.{platform.node()}-{ended.pid}.tmp").touch()
    kept = ["mine", ".mine", "2026-01-01_00-00-02_other", "2026-01-01_00-00-03_alive"]
    for name in kept:
        Path("runs", name).mkdir()
    Path("runs", kept[2], "thesis.tex").touch()
    mine = temporary_path(Path("runs", "failures"))
    mine.touch()
    with lock_of(Path("runs", kept[3])), scratch_folder(RUNS) as scratch:
        folder = do(values)
        assert scratch.exists()
    found = {path.name for path in RUNS.iterdir()}
    assert found == {LOCK, folder.name, mine.name, "published", *kept}
    assert not any(Path("runs", "published").iterdir())


def test_a_run_that_was_to_be_replaced_when_the_process_was_killed_is_put_back(
    values: dict[str, Any],
) -> None:
    """Or dropped, if the new one had begun."""
    for name in "abc":
        do({**values, "run_dir": f"runs/{name}-before", "force": True})
    for name in "ab":
        do({**values, "seed": 7, "run_dir": f"runs/{name}", "force": True})
    head = {key: read_record(Path("runs", "a"))[key] for key in HEAD}
    write_record(Path("runs", "a"), {**head, "status": "running"})
    for name in "abc":
        Path("runs", f"{name}-before").rename(Path("runs", f".{name}.old"))
    do({**values, "seed": 8})
    assert [read_record(Path("runs", name))["seed"] for name in "abc"] == [0, 7, 0]
    assert not list(RUNS.glob(".*.old"))


def test_a_copy_is_complete_or_absent(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    do(values)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(shutil, "copytree", fail)
    with pytest.raises(StudyError, match="No space left"):
        do({**values, "run_dir": "runs/published/x"})
    assert not Path("runs/published/x/record.json").exists()

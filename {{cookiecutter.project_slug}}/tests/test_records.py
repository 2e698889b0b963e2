"""What a run is known by, where it is done, and what is kept of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Compose

from {{ cookiecutter.project_slug }} import (
    StudyError,
    configuration,
    files,
    identity,
    provenance,
    records,
    runs,
)

ROOT = configuration.ROOT
TOKEN = "hunter2-is-no-secret"
FILES = {"train/image.npy": "0" * 64}


@pytest.fixture(name="values")
def _values(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The configuration of a run, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return configuration.to_values(compose())


def identify(values: dict[str, Any]) -> dict[str, Any]:
    """What a run with this configuration is known by."""
    return identity.identify(ROOT, values, FILES, "cpu")


def do(values: dict[str, Any], *, end: str = "finished") -> Path:
    """A run that computes nothing."""
    known_by = identify(values)
    with runs.claim(ROOT, known_by, values, ["seed=1"]) as folder:
        if runs.read_finished(folder):
            return folder
        try:
            with records.recording(
                folder, ROOT, identity=known_by, config=values, overrides=["seed=1"]
            ) as record:
                for name in records.RESULTS:
                    (folder / name).write_text("{}")
                record["metrics"] = {"validation": {"loss": 1.0}}
                if end != "finished":
                    raise {"failed": ValueError, "interrupted": KeyboardInterrupt}[end]
        except (ValueError, KeyboardInterrupt):
            pass
    return folder


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
    assert identify({**values, key: value}) == identify(values)
    moved = {**values, "data": {**values["data"], "folder": "elsewhere"}}
    assert identify(moved) == identify(values)


def test_whatever_can_change_a_number_changes_the_fingerprint(values: dict[str, Any]) -> None:
    known_by = identify(values)
    others = [
        {**known_by, "config": {**known_by["config"], "model.lr": 0.5}},
        {**known_by, "code": {**known_by["code"], "run.py": "0"}},
        {**known_by, "data": {"train/image.npy": "1" * 64}},
        *({**known_by, key: "other"} for key in ("lock", "python", "torch", "device")),
    ]
    prints = {identity.fingerprint(each) for each in [known_by, *others]}
    assert len(prints) == 8
    assert known_by["config"]["training.schedule.pct_start"] == 0.3
    assert f"src/{runs.__package__}/models.py" in known_by["code"]


def test_code_that_was_edited_while_a_sweep_runs_is_not_credited_with_its_numbers(
    repository: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(seed: int) -> dict[str, Any]:
        config = {**values, "seed": seed}
        known_by = identity.identify(repository, config, FILES, "cpu")
        with runs.claim(repository, known_by, config, []) as folder:
            with records.recording(
                folder, repository, identity=known_by, config=config, overrides=[]
            ):
                for name in records.RESULTS:
                    (folder / name).touch()
        assert not (folder / "changes.patch").exists()
        return records.read_record(folder)

    first = record(seed=0)
    module = ModuleType("model")
    module.__file__ = str(repository / "src" / "model.py")
    monkeypatch.setitem(sys.modules, "model", module)
    (repository / "src" / ".model.py.swp").write_text("an editor's")
    (repository / "src" / "model.py").write_text("edited, and imported before")
    second = record(seed=1)
    assert (first["code"], first["git"]) == (second["code"], second["git"])
    (repository / "run.py").write_text("edited, and not imported yet")
    with pytest.raises(StudyError, match="run.py: has changed while this command ran; type it"):
        record(seed=2)


@pytest.mark.parametrize("end", ["finished", "failed", "interrupted"])
def test_a_run_is_found_again_however_it_ended(values: dict[str, Any], end: str) -> None:
    folder = do(values, end=end)
    assert runs.status(folder) == end
    assert do(values) == folder
    parts = [part["status"] for part in records.read_record(folder)["parts"]]
    assert parts == (["finished"] if end == "finished" else [end, "finished"])
    assert do({**values, "seed": 7}) != folder


def test_force_does_it_anew_and_keeps_the_other(values: dict[str, Any]) -> None:
    folder = do(values)
    assert do({**values, "force": True}) != folder and folder.exists()


def test_a_run_done_elsewhere_is_copied_into_the_folder_that_is_named(
    values: dict[str, Any],
) -> None:
    folder = do(values)
    named = do({**values, "run_dir": "runs/published/mine"})
    assert named == Path("runs/published/mine")
    record = records.read_record(named)
    assert record["copied_from"] == folder.as_posix() and len(record["parts"]) == 1
    assert do(values) in (named, folder)


def test_auto_takes_what_another_kind_of_device_has_done_and_cpu_does_not(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "read_energy", lambda device: None)
    values = {**values, "device": "auto"}
    on_a_cluster = {**identify(values), "device": "cuda"}
    with runs.claim(ROOT, on_a_cluster, values, []) as folder:
        with records.recording(folder, ROOT, identity=on_a_cluster, config=values, overrides=[]):
            for name in records.RESULTS:
                (folder / name).touch()
    assert do(values) == folder
    assert do({**values, "device": "cpu"}) != folder


def test_a_named_folder_loses_nothing_that_was_not_to_be_replaced(values: dict[str, Any]) -> None:
    values["run_dir"] = "mine"
    other = {**values, "seed": 7}
    folder = do(values)
    with pytest.raises(StudyError, match="holds another run; .* add replace=true to lose it"):
        do(other)
    assert records.read_record(folder)["seed"] == 0
    assert do({**other, "replace": True}) == folder
    assert records.read_record(folder)["seed"] == 7
    with (
        pytest.raises(ValueError),
        runs.claim(ROOT, identify(values), {**values, "force": True}, []),
    ):
        raise ValueError  # what was to replace it cannot be built
    assert records.read_record(folder)["seed"] == 7 and len(list(Path().glob(".mine*"))) == 0
    Path("thesis").mkdir()
    Path("thesis", "thesis.tex").touch()
    with pytest.raises(StudyError, match="holds other files; name an empty or a new folder"):
        do({**values, "run_dir": "thesis", "force": True})
    assert Path("thesis", "thesis.tex").exists()


def test_a_run_that_is_alive_is_told_from_a_killed_one_and_not_replaced(
    values: dict[str, Any],
) -> None:
    values["run_dir"] = "mine"
    known_by = identify(values)
    with runs.claim(ROOT, known_by, values, []) as folder:
        with records.recording(folder, ROOT, identity=known_by, config=values, overrides=[]) as _:
            assert runs.status(folder) == "running"
            with pytest.raises(StudyError, match="another run is at work in it"):
                do({**values, "seed": 7, "replace": True})
            for name in records.RESULTS:
                (folder / name).touch()
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**record, "status": "running"}))
    assert runs.status(folder) == "killed"


def test_what_could_not_be_built_leaves_no_folder(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError), runs.claim(ROOT, identify(values), values, []):
        raise ValueError
    assert [path.name for path in runs.RUNS.iterdir()] == [runs.LOCK]


def test_a_file_that_the_code_read_is_an_input(values: dict[str, Any]) -> None:
    root = Path.cwd() / "study"
    for name in ("src", "data", "prepared"):
        (root / name).mkdir(parents=True)
    for name in ("run.py", "requirements.lock", "src/code.py", "data/words.txt", "prepared/a.npy"):
        (root / name).write_text("")
    (root / "prepared" / "manifest.json").write_text("{}")
    provenance.watch_reads(root)
    values = {**values, "data": {**values["data"], "folder": str(root / "prepared")}}
    known_by = identity.identify(root, values, FILES, "cpu")

    def do_and_read() -> tuple[Path, dict[str, Any]]:
        with runs.claim(root, known_by, values, []) as folder:
            if found := runs.read_finished(folder):
                return folder, found
            with records.recording(folder, root, identity=known_by, config=values, overrides=[]):
                (root / "data" / "words.txt").read_text()
                (root / "prepared" / "a.npy").read_text()
                (root / "data" / "written.txt").write_text("")
                for name in records.RESULTS:
                    (folder / name).touch()
        return folder, records.read_record(folder)

    folder, record = do_and_read()
    assert {"data/words.txt"} == set(record["inputs"])
    assert do_and_read()[0] == folder
    (root / "data" / "words.txt").write_text("another")
    assert do_and_read()[0] != folder


def test_a_published_record_is_complete_names_no_host_and_stays_while_the_numbers_do(
    values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    values["run_dir"] = "runs/published/x"
    folder, path = do(values), Path("results", "x.json")
    (folder / "history.csv").write_text("epoch,train_loss\n1,0.5\n")
    patch = folder / "changes.patch"
    patch.write_text("a change")
    names = [folder / name for name in records.RESULTS]
    record = {**records.read_record(folder), "files": files.hash_files(folder, names)}
    (folder / "record.json").write_bytes(files.to_json(record))
    records.publish(folder, path)
    published = records.read_record(path)
    assert published["history"] == [{"epoch": 1.0, "train_loss": 0.5}]
    assert path.with_name(published["patch"]).read_bytes() == b"a change"
    assert "host" not in json.dumps(published) and published["config"] == values

    before = path.read_bytes()
    (folder / "record.json").write_bytes(files.to_json({**record, "started": "later"}))
    records.publish(folder, path)
    assert path.read_bytes() == before
    (folder / "metrics.json").write_text("those of another time")
    records.publish(folder, path)
    assert not path.exists() and "its record is of other results" in caplog.text


@pytest.fixture(name="repository")
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small study under git, with a remote that holds a password."""
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(variable)
    root = tmp_path / "study"
    (root / "src").mkdir(parents=True)
    for name in ("run.py", "requirements.lock", "src/model.py"):
        (root / name).write_text("one\n")
    call = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(root)]
    subprocess.run([*call, "init", "--quiet", "--initial-branch=main"], check=True)
    subprocess.run([*call, "add", "--all"], check=True)
    subprocess.run([*call, "commit", "--quiet", "--message=one"], check=True)
    address = f"https://user:{TOKEN}@example.org/study.git"
    subprocess.run([*call, "remote", "add", "origin", address], check=True)
    yield root


def test_the_patch_restores_what_was_not_committed(repository: Path, tmp_path: Path) -> None:
    clean, patch = provenance.describe_git(repository)
    assert clean is not None and clean["clean"] and patch == b"" and clean["branch"] == "main"
    (repository / "src" / "model.py").write_text("two\n")
    (repository / "src" / "new ü.bin").write_bytes(b"\0\1")
    (repository / "src" / "large.bin").write_bytes(b"\0" * (provenance.MAX_PATCH_BYTES + 1))
    (repository / "results").mkdir()
    (repository / "results" / "table.md").write_text("made by the pipeline")
    dirty, patch = provenance.describe_git(repository)
    assert dirty is not None and not dirty["clean"]
    assert dirty["large_untracked"] == ["src/large.bin"]
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", repository, copy], check=True)
    subprocess.run(["git", "apply", "--index"], cwd=copy, input=patch, check=True)
    assert (copy / "src" / "model.py").read_text() == "two\n"
    assert (copy / "src" / "new ü.bin").read_bytes() == b"\0\1"
    assert not (copy / "results").exists()
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=repository, check=True, capture_output=True
    )
    assert b"A " not in status.stdout  # the user's index is as it was


def test_no_secret_is_recorded(
    repository: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", TOKEN)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = [".env", "server.PEM", "secrets/x.txt", "API_KEY.txt", ".envs/.local/.pg", "token"]
    for name in names:
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(TOKEN)
    (repository / "src" / "model.py").write_text("two\n")
    known_by = identity.identify(repository, values, FILES, "cpu")
    with runs.claim(repository, known_by, values, []) as folder:
        with records.recording(folder, repository, identity=known_by, config=values, overrides=[]):
            for name in records.RESULTS:
                (folder / name).touch()
    record = records.read_record(folder)
    assert record["git"]["remotes"] == ["https://example.org/study.git"]
    assert record["environment"]["OMP_NUM_THREADS"] == "1"
    assert b"two" in (folder / "changes.patch").read_bytes()
    for path in folder.iterdir():
        assert TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("address", "recorded"),
    [
        ("https://u:p@ss/w@example.org/x.git", "https://example.org/x.git"),
        ("https://example.org/x.git?private_token=T", "https://example.org/x.git"),
        ("git@example.org:x.git", "git@example.org:x.git"),
        ("/home/me/My Study", "/home/me/My Study"),
    ],
)
def test_an_address_is_recorded_without_what_opens_it(
    repository: Path, address: str, recorded: str
) -> None:
    subprocess.run(["git", "remote", "set-url", "origin", address], cwd=repository, check=True)
    known, _ = provenance.describe_git(repository)
    assert known is not None and known["remotes"] == [recorded]


def test_a_patch_applies_whatever_the_user_has_set_up(repository: Path, tmp_path: Path) -> None:
    for key in ("color.ui=always", "diff.context=0", "diff.relative=true", "diff.noprefix=true"):
        subprocess.run(["git", "config", *key.split("=")], cwd=repository, check=True)
    (repository / "src" / "model.py").write_text("two\n")
    _, patch = provenance.describe_git(repository)
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", repository, copy], check=True)
    subprocess.run(["git", "apply"], cwd=copy, input=patch, check=True)
    assert (copy / "src" / "model.py").read_text() == "two\n"


def test_a_damaged_record_stands_in_nobodys_way(
    values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = do(values) / "record.json"
    path.write_bytes(path.read_bytes()[:300])
    assert do({**values, "run_dir": "runs/other"}) == Path("runs/other")
    assert "cannot be read" in caplog.text


def test_a_run_without_git_is_recorded_too(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "git", lambda *_, **__: b"")
    monkeypatch.setenv("GIT_REV", "abc-dirty")
    assert records.read_record(do(values))["git"] == {"commit": "abc", "clean": False}
    monkeypatch.delenv("GIT_REV")
    assert records.read_record(do({**values, "seed": 1}))["git"] is None


def test_every_key_of_a_record_is_documented(values: dict[str, Any]) -> None:
    record = records.read_record(do({**values, "run_dir": "runs/published/x"}))
    page = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    documented = {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    occasional = {"ended_by", "mixed", "moved", "copied_from"}
    assert documented == set(record) | occasional
    assert f"version {records.VERSION}" in page


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
    record = records.read_record(tmp_path)
    assert record["version"] == records.VERSION and record["overrides"] == ["model=cnn", "seed=1"]
    assert runs.status(tmp_path) == "finished"
    assert record["packages"]["installed"] == {"torch": "2.13.0"}
    path.write_text(json.dumps({"version": records.VERSION + 1}))
    with pytest.raises(StudyError, match="was written by a newer version of this study"):
        records.read_record(tmp_path)
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(StudyError, match=r"record.json: (cannot be read|is not a record)"):
            records.read_record(tmp_path)


def test_a_run_gone_on_with_on_another_machine_says_so(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    do(values, end="interrupted")
    hardware = {**provenance.describe_hardware(), "processor": "another"}
    monkeypatch.setattr(provenance, "describe_hardware", lambda: hardware)
    record = records.read_record(do(values))
    (line,) = record["moved"]
    assert re.match("hardware: processor: .* -> another", line)
    assert line in identity.explain(record, record)


def test_a_run_gone_on_with_other_code_is_marked_and_found_no_more(values: dict[str, Any]) -> None:
    folder = do(values, end="interrupted")
    known_by = identify(values)
    known_by["code"]["run.py"] = "edited"
    with runs.claim(ROOT, known_by, values, [], resume=folder):
        with records.recording(folder, ROOT, identity=known_by, config=values, overrides=[]):
            pass
    record = records.read_record(folder)
    assert record["fingerprint"] is None and record["mixed"] == ["code: run.py: changed"]
    assert do(values) != folder
    known_by["data"] = {}
    with pytest.raises(StudyError, match="the data are not those that the run began with"):
        with records.recording(folder, ROOT, identity=known_by, config=values, overrides=[]):
            pass


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


def test_nothing_of_a_copy_is_half_there(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    do(values)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(shutil, "copytree", fail)
    with pytest.raises(StudyError, match="No space left"):
        do({**values, "run_dir": "runs/published/x"})
    assert not Path("runs/published/x/record.json").exists()

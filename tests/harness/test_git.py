"""The commit, branch and remotes of a run, and what was not committed; never a secret."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from my_study.harness.runs import git
from my_study.harness.runs.git import MAX_PATCH_BYTES, describe_git
from my_study.harness.runs.record import read_record

from .conftest import MODEL, TOKEN
from .runs import begin, do


def test_the_patch_restores_what_was_not_committed(repository: Path, tmp_path: Path) -> None:
    clean, patch = describe_git(repository)
    assert clean is not None and clean["clean"] and patch == b"" and clean["branch"] == "main"
    (repository / MODEL).write_text("two\n")
    (repository / "src" / "new ü.bin").write_bytes(b"\0\1")
    (repository / "src" / "large.bin").write_bytes(b"\0" * (MAX_PATCH_BYTES + 1))
    (repository / "results").mkdir()
    (repository / "results" / "table.md").write_text("made by the pipeline")
    dirty, patch = describe_git(repository)
    assert dirty is not None and not dirty["clean"]
    assert dirty["large_untracked"] == ["src/large.bin"]
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", repository, copy], check=True)
    subprocess.run(["git", "apply", "--index"], cwd=copy, input=patch, check=True)
    assert (copy / MODEL).read_text() == "two\n"
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
    (repository / MODEL).write_text("two\n")
    with begin(values, root=repository) as running:
        folder = running.folder
    record = read_record(folder)
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
    known, _ = describe_git(repository)
    assert known is not None and known["remotes"] == [recorded]


def test_a_patch_applies_whatever_the_user_has_set_up(repository: Path, tmp_path: Path) -> None:
    for key in ("color.ui=always", "diff.context=0", "diff.relative=true", "diff.noprefix=true"):
        subprocess.run(["git", "config", *key.split("=")], cwd=repository, check=True)
    (repository / MODEL).write_text("two\n")
    _, patch = describe_git(repository)
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", repository, copy], check=True)
    subprocess.run(["git", "apply"], cwd=copy, input=patch, check=True)
    assert (copy / MODEL).read_text() == "two\n"


def test_a_run_without_git_is_recorded_too(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "git", lambda *_, **__: b"")
    monkeypatch.setenv("GIT_REV", "abc-dirty")
    assert read_record(do(values))["git"] == {"commit": "abc", "clean": False}
    monkeypatch.delenv("GIT_REV")
    assert read_record(do({**values, "seed": 1}))["git"] is None

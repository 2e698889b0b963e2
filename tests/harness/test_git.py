"""The commit, branch and remotes of a run, and what was not committed; never a secret."""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from my_study.harness.files import to_json
from my_study.harness.runs import git
from my_study.harness.runs.git import MAX_HASHED, describe_git
from my_study.harness.runs.record import read_record

from .conftest import MODEL, TOKEN, Copy
from .runs import begin, do

SECRETS = """
    .aws/credentials .docker/config.json .env .envs/.local/.pg .git-credentials .kube/config .netrc
    .pgpass API_KEY.txt _netrc cluster.kubeconfig id_rsa kubeconfig kubeconfig.yaml my.gpg my.kdbx
    rclone.conf secrets/x.txt server.PEM service-account-1.json signing.asc store.jks store.keystore
    token
""".split()


def call_git(root: Path, *words: str) -> str:
    """What git prints in a repository."""
    own = (
        "-c",
        "user.name=A",
        "-c",
        "user.email=a@example.org",
        "-c",
        "protocol.file.allow=always",
    )
    done = subprocess.run(["git", *own, *words], cwd=root, check=True, capture_output=True)
    return done.stdout.decode()


def write(root: Path, name: str, text: str = "new\n") -> None:
    """Writes a file, and the folders that it is in."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def describe(root: Path) -> tuple[dict[str, Any], bytes]:
    """What is known of a study under git."""
    known, patch = describe_git(root)
    assert known is not None
    return known, patch


def restore(root: Path, patch: bytes, copy: Path) -> Path:
    """A clone with the changes of a patch."""
    call_git(root, "clone", "--quiet", str(root), str(copy))
    subprocess.run(["git", "apply", "--index"], cwd=copy, input=patch, check=True)
    return copy


def test_the_patch_restores_what_was_not_committed(repository: Path, tmp_path: Path) -> None:
    clean, patch = describe(repository)
    assert clean["clean"] and not clean["left_out"] and patch == b"" and clean["branch"] == "main"
    new = ["conf/data/new.yaml", 'src/a "b" ü\n.py', "src/empty.py", "tests/fixtures/own.csv"]
    for name in (*new, "results/table.md"):
        write(repository, name, "" if "empty" in name else "new\n")
    write(repository, MODEL, "two\n")
    (repository / "src" / "small.bin").write_bytes(b"\0\1")
    with open(repository / "tests" / "large.csv", "wb") as file:
        file.truncate(2 << 30)  # takes no room on the disk
    write(repository, "notes.txt", "mine")
    call_git(repository, "add", new[0])
    before = call_git(repository, "status", "--porcelain")
    dirty, patch = describe(repository)
    assert not dirty["clean"]
    assert dirty["left_out"] == {
        "notes.txt": hashlib.sha256(b"mine").hexdigest(),
        "src/small.bin": hashlib.sha256(b"\0\1").hexdigest(),
        "tests/large.csv": None,
    }
    copy = restore(repository, patch, tmp_path / "copy")
    for name in (MODEL, *new):
        assert (copy / name).read_bytes() == (repository / name).read_bytes()
    assert set(call_git(copy, "diff", "HEAD", "--name-only", "-z").split("\0")) == {"", MODEL, *new}
    assert call_git(repository, "status", "--porcelain") == before  # the user's index is as it was


@pytest.mark.parametrize("folder", ["", "src/", "conf/data/"])
@pytest.mark.parametrize("staged", [False, True])
def test_a_new_file_that_is_named_like_a_secret_stays_out_of_the_patch(
    repository: Path, folder: str, staged: bool
) -> None:
    for name in SECRETS:
        write(repository, folder + name, TOKEN)
    write(repository, "src/new.py")
    if staged:
        call_git(repository, "add", "--all", "--force")
    known, patch = describe(repository)
    assert b"src/new.py" in patch and TOKEN.encode() not in patch
    assert known["left_out"] == dict.fromkeys(folder + name for name in SECRETS)


@pytest.mark.parametrize(
    "text",
    [
        '{"private_key": "-----BEGIN PRIVATE KEY-----\\nabc"}',
        "users: [{user: {client-key-data: LS0tLS1CRUdJTiBSU0E=}}]",
    ],
)
def test_a_key_under_another_name_stays_out_of_the_patch(repository: Path, text: str) -> None:
    write(repository, "conf/mine.yaml", text)
    known, patch = describe(repository)
    assert patch == b"" and known["clean"] and list(known["left_out"]) == ["conf/mine.yaml"]


def test_a_tracked_secret_that_was_changed_stays_out_of_the_patch(repository: Path) -> None:
    write(repository, "conf/Credentials.yaml")
    call_git(repository, "add", "--all")
    call_git(repository, "commit", "--quiet", "--message=two")
    write(repository, "conf/Credentials.yaml", TOKEN)
    known, patch = describe(repository)
    assert patch == b"" and known["left_out"] == {"conf/Credentials.yaml": None}


def test_what_is_no_plain_file_is_named_only(repository: Path, tmp_path: Path) -> None:
    write(tmp_path, "outside.py", TOKEN)
    write(repository, "src/kept.py")
    (repository / "src" / "link.py").symlink_to(tmp_path / "outside.py")
    (repository / "src" / "gone.py").symlink_to("nowhere.py")
    call_git(repository, "init", "--quiet", "src/other")
    (repository / os.fsdecode(b"src/\xff.bin")).touch()
    known, patch = describe(repository)
    out = ["src/\\xff.bin", "src/gone.py", "src/link.py", "src/other/"]
    assert sorted(known["left_out"]) == out and known["left_out"]["src/link.py"] is None
    assert b"outside.py" not in patch and b"src/kept.py" in patch
    assert to_json(known)


def test_a_study_that_is_a_folder_of_a_repository_has_a_patch_of_its_own(
    repository: Path, tmp_path: Path
) -> None:
    for name in ("src/new.py", "src/stages/new.py", "src/mine/note.txt", "new.py", "notes.txt"):
        write(repository, name)
    known, patch = describe(repository / "src")
    assert list(known["left_out"]) == ["mine/note.txt"]
    copy = restore(repository, patch, tmp_path / "copy")
    assert (copy / "src/new.py").is_file() and (copy / "src/stages/new.py").is_file()
    assert not (copy / "new.py").exists()


def test_a_submodule_does_not_spoil_the_patch(repository: Path, tmp_path: Path) -> None:
    call_git(repository, "clone", "--quiet", str(repository), str(tmp_path / "other"))
    call_git(repository, "submodule", "--quiet", "add", str(tmp_path / "other"), "src/other")
    call_git(repository, "commit", "--quiet", "--message=two")
    write(repository, "src/other/run.py", "two\n")
    call_git(repository / "src" / "other", "commit", "--quiet", "--all", "--message=three")
    write(repository, "src/other/run.py", "three\n")
    write(repository, MODEL, "two\n")
    known, patch = describe(repository)
    copy = restore(repository, patch, tmp_path / "copy")
    assert (copy / MODEL).read_text() == "two\n" and list(known["left_out"]) == ["src/other/"]


def test_many_new_files_are_all_named(repository: Path) -> None:
    for number in range(MAX_HASHED + 1):
        write(repository, f"notes/{number}", "mine")
    write(repository, "src/new.py")
    known, patch = describe(repository)
    assert b"src/new.py" in patch and len(known["left_out"]) == MAX_HASHED + 1


def test_no_secret_is_recorded(
    repository: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", TOKEN)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in SECRETS:
        write(repository, name, TOKEN)
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
        ("https://T@example.org/@x/y.git#T", "https://x/y.git"),
        ("ssh://git@example.org:22/x.git", "ssh://git@example.org:22/x.git"),
        ("git@example.org:x.git", "git@example.org:x.git"),
        ("git@example.org:ghp_XXXX/x.git?token=T", "git@example.org:***/x.git"),
        ("T@example.org:x.git", "example.org:x.git"),
        ("user:T@example.org:x.git", "example.org:x.git"),
        ("https://example.org/ghp_XXXX/x.git", "https://example.org/***/x.git"),
        ("https://example.org/glpat-0123456789abcdefghij/x", "https://example.org/***/x"),
        ("https://example.org/s/aBcDeFgHiJkLmNo/x", "https://example.org/s/***/x"),
        ("https://example.org/x7Gq2LpZ9aBv4Tk/x", "https://example.org/***/x"),
        (f"https://example.org/{'0a' * 16}/x", "https://example.org/***/x"),
        ("https://github.com/My-Lab/DigitsStudy2024", "https://github.com/My-Lab/DigitsStudy2024"),
        (
            "https://github.com/a/cifar10-r50-e90-lr1.git",
            "https://github.com/a/cifar10-r50-e90-lr1.git",
        ),
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


def commit_all(folder: Path) -> None:
    """Makes a repository of a folder; runs and data are no part of it."""
    write(folder, ".gitignore", "/data/prepared*\n/runs/\n__pycache__/\n")
    call_git(folder, "init", "--quiet", "--initial-branch=main")
    call_git(folder, "add", "--all")
    call_git(folder, "commit", "--quiet", "--message=one")


@pytest.mark.slow
def test_a_run_is_reproduced_without_what_it_did_not_need_and_told_what_it_lacks(
    copy: Copy,
) -> None:
    commit_all(copy.folder)
    write(copy.folder, "notes.txt")
    write(copy.folder, "src/my_study/new.py", "X = 1\n")
    write(copy.folder, "src/my_study/tokens.py", "X = 1\n")
    words = ("python", "run.py", "model=linear")
    copy.call("python", "stages/prepare.py")
    copy.edit("src/my_study/models/linear.py", r"\A", "from ..new import X as X\n")
    copy.call(*words, "run_dir=runs/one")
    copy.edit("src/my_study/models/linear.py", "new import", "tokens import")
    copy.call(*words, "run_dir=runs/two", "model.lr=0.1")
    for name in ("notes.txt", "src/my_study/new.py"):
        (copy.folder / name).unlink()
    call_git(copy.folder, "checkout", "--quiet", "src")
    assert copy.call("study", "reproduce", "runs/one") == "identical: runs/one\n"
    printed = copy.call("study", "reproduce", "runs/two", code=4)
    reason = "its patch leaves out src/my_study/tokens.py, and the code has changed since"
    assert printed == f"cannot be reproduced: {reason}\n"

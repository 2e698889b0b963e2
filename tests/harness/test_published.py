"""What is published, and so committed, is scanned for passwords and tokens first."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from my_study.harness.errors import StudyError
from my_study.harness.runs.published import (
    PUBLISHED,
    find_published,
    publish,
    write_results,
)
from my_study.harness.runs.record import read_record
from my_study.harness.runs.scanning import ALLOWED, WINDOW, refuse_secrets
from my_study.harness.study import ROOT
from my_study.harness.training.results import write_history

from .commands import call
from .conftest import Copy
from .runs import begin, do

GITHUB = "ghp_" + "a1B2" * 9  # in two parts: this file holds no secret
SECRETS = {
    "GitHub Token": GITHUB,
    "GitLab Token": "glpat-" + "a1B2c" * 4,
    "AWS Access Key": "AKIA" + "A1B2" * 4,
    "Basic Auth Credentials": "postgres://me:" + "hunter2@example.org/db",
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "Private Key": "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    "Secret Keyword": "api" + "_key = 'a1b2c3d4'",
    "Token": "hf_" + "abcDEF" * 5,
}
HARMLESS = [
    "index 0123456..89abcde 100644",
    f'"code": "{"0a1b2c3d" * 8}",',
    f"sha512-{'a1B2+/' * 14}==",
    'optimizer = build("secret_sharing", num_secrets=3)',
    "password: ${oc.env:DB_PASSWORD}",
    "url: https://example.org:8080/a@b",
    "pwd = os.getcwd()[:2]",
]


def finished(values: dict[str, Any], name: str, patch: str = "", note: str | None = None) -> Path:
    """The folder of a run to be published, with uncommitted changes."""
    folder = do({**values, "run_dir": f"runs/published/{name}", "note": note})
    (folder / "changes.patch").write_text(patch)
    return folder


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_among_uncommitted_changes_is_named_by_its_line_alone_and_nothing_is_published(
    values: dict[str, Any], kind: str
) -> None:
    patch = f"--- a/x\n+++ b/x\n {GITHUB}\n-{GITHUB}\n+{SECRETS[kind]}\n"
    folders = [finished(values, "a"), finished(values, "b", patch)]
    with pytest.raises(StudyError) as refused:
        publish(folders)
    line = f"runs/published/b/changes.patch: line 5 looks like a secret ({kind}); nothing is "
    assert str(refused.value).startswith(line) and "dvc repro -sf train@b;" in str(refused.value)
    assert SECRETS[kind] not in str(refused.value) and not PUBLISHED.exists()


def test_a_secret_in_a_record_is_named_by_its_line(values: dict[str, Any]) -> None:
    folder = finished(values, "a", note=GITHUB)
    lines = (folder / "record.json").read_text(encoding="utf-8").splitlines()
    number = 1 + next(i for i, line in enumerate(lines) if GITHUB in line)
    with pytest.raises(StudyError, match=rf"a/record.json: line {number} looks like"):
        publish([folder])


def test_numbers_alone_are_still_those_of_their_record_and_other_numbers_are_not(
    values: dict[str, Any], tmp_path: Path
) -> None:
    with begin({**values, "run_dir": "runs/published/a"}) as record:
        write_history(record.folder, [{"train_loss": 1.0}])
        record.finish({"test": {"accuracy": 0.5}})
    folder = record.folder
    publish([folder])
    known = find_published([folder])
    assert known == {"a": read_record(folder)["fingerprint"]}
    write_results(PUBLISHED, tmp_path / "numbers")  # as where the report is made of the records
    publish([tmp_path / "numbers" / "a"])
    assert find_published([folder]) == known
    (tmp_path / "numbers" / "a" / "metrics.json").write_text("{}\n")
    publish([tmp_path / "numbers" / "a"])
    assert not find_published([folder])


def test_a_secret_far_along_a_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "changes.patch"
    for before in (WINDOW - 20, 5 * WINDOW):
        path.write_text(f"+{'x ' * (before // 2)}{GITHUB} x\n")
        with pytest.raises(StudyError, match="line 1 looks like a secret"):
            refuse_secrets([path])


def test_what_is_marked_is_none(tmp_path: Path) -> None:
    path = tmp_path / "changes.patch"
    path.write_text("".join(f"+{text}  {ALLOWED}\n" for text in SECRETS.values()))
    refuse_secrets([path])


def test_no_alarm_is_raised_by_records_hashes_and_the_study_itself(
    values: dict[str, Any], tmp_path: Path
) -> None:
    noise = tmp_path / "noise.bin"
    noise.write_bytes(random.Random(0).randbytes(100_000))
    folders = [ROOT / name for name in ("conf", "docs", "src", "stages")]
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix != ".pyc"]
    paths = [
        *found,
        noise,
        ROOT / "requirements.lock",
        ROOT / "data" / "raw" / "digits" / "digits.csv.gz",
    ]
    words = ["git", "diff", "--no-index", "--binary", "--", os.devnull]
    patches = [
        subprocess.run([*words, path], capture_output=True, check=False)
        for path in paths
        if path.is_file()
    ]
    patch = b"".join(done.stdout for done in patches).decode()
    assert patch.count("\n+") > 5_000 and "GIT binary patch" in patch
    publish([finished(values, "a", patch + "".join(f"+{line}\n" for line in HARMLESS))])
    assert (PUBLISHED / "a.json").is_file()


def test_a_missing_scanner_is_an_error_that_says_what_to_type(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("detect_secrets")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detect_secrets", None)
    with pytest.raises(StudyError, match="detect-secrets is missing, .*; type: make env"):
        publish([finished(values, "a")])
    assert not PUBLISHED.exists()


@pytest.mark.slow
def test_the_report_writes_nothing_where_a_record_holds_a_secret(copy: Copy) -> None:
    published = ("run.py", "experiment=linear", "seed=0", "run_dir=runs/published/linear-0")
    report = ("stages/report.py", "--experiments", "linear", "--seeds", "0")
    readme = (copy.folder / "README.md").read_bytes()
    compose = ("study", "compose", "stages", "--experiments", "linear", "--data", "digits")
    for words in (("stages/prepare.py",), compose, (*published, f"note={GITHUB}")):
        code, _, errors = call(copy.folder, *words)
        assert code == 0, errors
    code, _, errors = call(copy.folder, *report)
    assert code == 1 and "record.json: line" in errors and len(errors.splitlines()) == 1
    assert [path.name for path in (copy.folder / "results").iterdir()] == ["inputs"]
    assert (copy.folder / "README.md").read_bytes() == readme


@pytest.mark.slow
def test_before_a_commit_a_token_is_found_and_nothing_in_the_study_is_taken_for_one(
    tmp_path: Path,
) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0][
        "hooks"
    ]
    (entry,) = [hook["entry"].split() for hook in hooks if hook["id"] == "detect-secrets"]
    words = [Path(sys.executable).with_name(entry[0]), *entry[1:]]
    folders = [ROOT / name for name in ("conf", "docs", "src", "stages", "tests")]
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix != ".pyc"]
    found += [*ROOT.glob("*.*"), ROOT / "data" / "raw" / "digits" / "digits.csv.gz"]
    names = [path.relative_to(ROOT) for path in found if path.is_file()]
    subprocess.run([*words, *names], cwd=ROOT, check=True)
    (tmp_path / "mine.py").write_text(f"TOKEN = '{GITHUB}'\n")
    assert subprocess.run([*words, "mine.py"], cwd=tmp_path, check=False).returncode == 1

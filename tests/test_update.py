"""Claims about the border between the rooms: an update replaces the harness, and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import TEMPLATE, Study, make_once, take_fixture

STUDY = "{{cookiecutter.project_slug}}"
HARNESS = "src/my_study/harness"
IDENTITY = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.org")
RUN = ("python", "run.py", "model=linear", "training.num_epochs=1", "device=cpu")
# Where an owner and the next version of the template both write the last line of a file.
CONTESTED = {
    "src/my_study/data.py": "\n\nSCANNER = 'mine'\n",
    "src/my_study/metrics.py": "\n\nBEST = 'mine'\n",
    "src/my_study/models/linear.py": "\n\nDEPTH = 'mine'\n",
    "conf/config.yaml": "# mine\n",
    "README.md": "\nWhat I found.\n",
    "dvc.yaml": "# mine\n",
    "tests/test_metrics.py": "\n\ndef test_mine() -> None:\n    assert True\n",
    "Makefile": "# mine\n",
}


def git(folder, *words):
    """What git prints."""
    command = ["git", *IDENTITY, *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def append(path, text):
    """Writes at the end of a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def snapshot(folder):
    """The content of each file that git tracks or could."""
    names = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    paths = {name: folder / name for name in names}
    return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}


def release(template, version):
    """Commits a version of the template and tags it; returns the commit."""
    git(template, "add", "--all")
    git(template, "commit", "--quiet", "--message", version)
    git(template, "tag", f"v{version}")
    return git(template, "rev-parse", "HEAD").strip()


def make_template(template):
    """A template with two versions: as it is here, and with a fix that changes no number."""
    template.mkdir()
    for name, content in snapshot(TEMPLATE).items():
        (template / name).parent.mkdir(parents=True, exist_ok=True)
        (template / name).write_bytes(content)
    git(template, "init", "--quiet")
    release(template, "0.4.0")
    git(template, "tag", "v9.9.9-rc1")  # a candidate is no version yet
    git(template, "branch", "other")
    harness = template / STUDY / "src" / STUDY / "harness"
    append(harness / "runs" / "folder.py", "\n\ndef count_runs(folder: Path) -> int:\n")
    append(
        harness / "runs" / "folder.py",
        '    """How many."""\n    return len(list(folder.iterdir()))\n',
    )
    (harness / "runs" / "pages.py").write_text('"""A module that was not there before."""\n')
    (harness / "commands" / "completion.py").rename(harness / "commands" / "shell.py")
    commands = harness / "commands" / "__init__.py"
    commands.write_text(re.sub(r"\bcompletion\b(?!\":)", "shell", commands.read_text()))
    for name in CONTESTED:
        places = (template / STUDY / folder for folder in (".", "starters/pictures"))
        (path,) = (
            path for place in places if (path := place / name.replace("my_study", STUDY)).exists()
        )
        append(path, "# of the template\n")
    answers = template / "cookiecutter.json"
    answers.write_text(answers.read_text().replace('"0.4.0"', '"0.4.1"'))
    changes = template / "CHANGELOG.md"
    changes.write_text(changes.read_text().replace("## 0.4.0", "## 0.4.1\n- A fix.\n\n## 0.4.0"))
    release(template, "0.4.1")


@pytest.fixture(name="owned", scope="session")
def _owned(study, tmp_path_factory):
    """A study of version 0.4.0 that its owner has made theirs, with a finished run."""

    def make(folder):
        make_template(folder / "template.git")
        home = tmp_path_factory.mktemp("home")
        (home / ".gitconfig").write_text("[user]\n\tname = A Tester\n\temail = t@example.org\n")
        words = ("cookiecutter", "--no-input", "--checkout", "v0.4.0", "--output-dir", folder)
        subprocess.run(
            [sys.executable, "-m", *words, f"file://{folder / 'template.git'}"],
            check=True,
            env={**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")},
        )
        (folder / "my_study" / ".venv").symlink_to(study.folder / ".venv")
        owned = Study(folder / "my_study")
        for name, text in CONTESTED.items():
            append(owned.folder / name, text)
        model = (owned.folder / "src/my_study/models/linear.py").read_text()
        (owned.folder / "src/my_study/models/mine.py").write_text(model)
        take_fixture(owned)
        owned.call("python", "stages/prepare.py", "data=digits")
        owned.commit()
        owned.call(*RUN)

    return Study(make_once(tmp_path_factory, "owned", make) / "my_study")


@pytest.fixture(name="mine")
def _mine(owned, tmp_path):
    return owned.copy(tmp_path / "my_study")


def template_of(owned):
    """The repository that the study was made from."""
    return owned.folder.parent / "template.git"


def harness_at(owned, version):
    """The harness of a version, by the names of its files in the study."""
    template = template_of(owned)
    folder = f"{STUDY}/src/{STUDY}/harness/"
    names = git(template, "ls-tree", "-r", "--name-only", version, folder).splitlines()
    return {
        name.replace(STUDY, "my_study")
        .removeprefix("my_study/"): git(template, "show", f"{version}:{name}")
        .encode()
        for name in names
    }


def is_theirs(name):
    """Whether a file of the study is the template's."""
    return name.startswith(f"{HARNESS}/") or name == ".cruft.json"


def test_an_update_replaces_the_harness_whole_and_nothing_else(owned, mine):
    before = snapshot(mine.folder)
    output = mine.call("study", "update")
    after = snapshot(mine.folder)
    assert {k: v for k, v in after.items() if k.startswith(HARNESS)} == harness_at(owned, "v0.4.1")
    assert {k: v for k, v in before.items() if not is_theirs(k)} == {
        k: v for k, v in after.items() if not is_theirs(k)
    }
    old, new = (
        git(template_of(owned), "rev-parse", "--short=7", f"v0.4.{n}").strip() for n in "01"
    )
    assert f"harness: 0.4.0 ({old}) -> 0.4.1 ({new})" in output
    assert f"  {HARNESS}/runs/folder.py: changed" in output
    assert f"  {HARNESS}/runs/pages.py: added" in output
    assert f"  {HARNESS}/commands/completion.py: removed" in output
    assert all(f"\n  {name}\n" in output for name in CONTESTED)
    assert "\n  - A fix.\n" in output
    assert not [
        path for path in (mine.folder / "src" / "my_study").iterdir() if "." == path.name[0]
    ]


@pytest.mark.slow
def test_after_an_update_finished_runs_are_finished_and_the_tests_pass(mine):
    mine.call("study", "update")
    assert "already finished" in mine.call(*RUN, code=None)
    mine.call("python", "-m", "pytest", "-q", "tests/test_metrics.py", "tests/test_configs.py")
    assert "nothing newer than 0.4.1" in mine.call("study", "update")


def test_a_harness_file_that_its_owner_changed_is_named_before_it_is_lost(owned, mine):
    for name in ("runs/folder.py", "training/step.py", "checks/mine.py"):
        append(mine.folder / HARNESS / name, "# mine\n")
    (mine.folder / HARNESS / "reporting" / "tables.py").unlink()
    mine.commit()
    before = snapshot(mine.folder)
    output = mine.call("study", "update", code=1)
    assert output.splitlines()[:5] == [
        "changed by you:",
        f"  {HARNESS}/checks/mine.py: added",
        f"  {HARNESS}/reporting/tables.py: removed",
        f"  {HARNESS}/runs/folder.py: changed",
        f"  {HARNESS}/training/step.py: changed",
    ]
    assert snapshot(mine.folder) == before
    command = re.search(r"type: (git diff .*?);", output)
    assert command and mine.call(*command[1].split()).count("\n+# mine\n") == 3
    mine.call("study", "update", "--discard")
    after = snapshot(mine.folder)
    assert {k: v for k, v in after.items() if k.startswith(HARNESS)} == harness_at(owned, "v0.4.1")


def test_a_change_that_the_new_version_has_too_is_not_lost(owned, mine):
    new = harness_at(owned, "v0.4.1")
    name = f"{HARNESS}/runs/folder.py"
    (mine.folder / name).write_bytes(new[name])
    assert "0.4.1" in mine.call("study", "update")


@pytest.mark.parametrize("version", ["v0.4.0", "other", "9.9.9", ""])
def test_an_update_takes_the_tag_the_branch_or_the_commit_that_is_named(owned, mine, version):
    mine.call("study", "update")
    if version == "9.9.9":
        (line,) = mine.call("study", "update", "--to", version, code=1).splitlines()
        assert "9.9.9: is no version of" in line
        return
    named = version or git(template_of(owned), "rev-parse", "v0.4.0").strip()
    mine.call("study", "update", "--to", named)
    snap = snapshot(mine.folder)
    assert {k: v for k, v in snap.items() if k.startswith(HARNESS)} == harness_at(owned, "v0.4.0")
    assert snap[".cruft.json"] == (owned.folder / ".cruft.json").read_bytes()


def test_without_a_tag_an_update_takes_the_default_branch(owned, mine, tmp_path):
    template = tmp_path / "template.git"
    shutil.copytree(template_of(owned), template)
    git(template, "tag", "--delete", "v0.4.0", "v0.4.1")
    mine.edit(".cruft.json", '"template": ".*"', f'"template": "{template}"')
    assert "-> 0.4.1 (" in mine.call("study", "update")


def test_what_is_missing_for_an_update_costs_one_line(owned, mine):
    record = mine.folder / ".cruft.json"
    state = json.loads(record.read_text())
    faults = {
        "cannot be cloned": state | {"template": str(mine.folder / "nowhere")},
        "is not in the template any more": state | {"commit": "0" * 40},
        "is truncated or corrupt": {},
    }
    for fault, text in faults.items():
        record.write_text(json.dumps(text))
        (line,) = mine.call("study", "update", code=1).splitlines()
        assert line.startswith("error: ") and fault in line
    record.unlink()
    (line,) = mine.call("study", "update", code=1).splitlines()
    assert "cruft link" in line
    assert snapshot(mine.folder).keys() == snapshot(owned.folder).keys() - {".cruft.json"}


def test_cruft_comes_to_the_same_study(mine, tmp_path):
    other = mine.copy(tmp_path / "other" / "my_study")
    mine.call("study", "update")
    words = [sys.executable, "-m", "cruft", "update", "--skip-apply-ask"]
    done = subprocess.run(words, cwd=other.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = snapshot(mine.folder), snapshot(other.folder)
    assert one == two  # .cruft.json too
    assert not list(other.folder.rglob("*.rej"))


def test_without_its_list_cruft_updates_the_whole_study(owned, tmp_path):
    words = ("cruft", "create", template_of(owned), "--no-input", "--checkout", "v0.4.0")
    subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, check=True)
    study = Study(tmp_path / "my_study")
    study.edit("pyproject.toml", r"\nskip = .*", "")
    study.commit()
    update = ("cruft", "update", "--skip-apply-ask")
    subprocess.run([sys.executable, "-m", *update], cwd=study.folder, check=True)
    after = snapshot(study.folder)
    assert {k: v for k, v in after.items() if k.startswith(HARNESS)} == harness_at(owned, "v0.4.1")
    assert all(after[name].endswith(b"# of the template\n") for name in CONTESTED)
    assert not list(study.folder.rglob("*.rej"))


# What a bake records


def test_a_bake_records_the_address_the_commit_the_version_and_the_answers(owned):
    template = template_of(owned)
    commit = git(template, "rev-parse", "v0.4.0").strip()
    record = json.loads((owned.folder / ".cruft.json").read_text())
    answers = record["context"]["cookiecutter"]
    assert record["template"] == answers["_template"] == f"file://{template}"
    assert record["commit"] == answers["_commit"] == commit
    assert answers["_version"] == "0.4.0"
    assert (answers["project_name"], answers["license"]) == ("My Study", "MIT")


@pytest.mark.parametrize("options", [(), ("--checkout", "v0.4.0")], ids=" ".join)
def test_a_study_made_by_cruft_has_the_same_record_and_a_first_commit(owned, tmp_path, options):
    template = template_of(owned)
    words = ("cruft", "create", f"file://{template}", "--no-input", *options)
    subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, check=True)
    study = tmp_path / "my_study"
    assert git(study, "log", "--format=%s") == "Begin the study\n"
    record, cruft = ((path / ".cruft.json").read_text() for path in (owned.folder, study))
    assert json.loads(cruft)["checkout"] == (options[-1] if options else None)
    if options:
        cruft = cruft.replace('"checkout": "v0.4.0"', '"checkout": null')
        assert cruft == record.replace("file://", "")  # cruft takes a path
    else:
        assert git(study, "status", "--porcelain") == ""


def test_a_template_given_by_a_relative_path_is_recorded_by_its_absolute_one(owned, tmp_path):
    template = template_of(owned)
    command = f"'{sys.executable}' -m cookiecutter --no-input -o '{tmp_path}' template.git"
    subprocess.run(["sh", "-c", f"cd '{template.parent}' && {command}"], check=True)
    record = json.loads((tmp_path / "my_study" / ".cruft.json").read_text())
    assert record["template"] == str(template)
    assert record["commit"] == git(template, "rev-parse", "HEAD").strip()


def test_an_abbreviated_address_is_recorded_in_full(owned, tmp_path):
    template = template_of(owned)
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"abbreviations:\n  lab: file://{template.parent}/{{0}}.git\n")
    words = (
        "cookiecutter",
        "--config-file",
        settings,
        "--no-input",
        "-o",
        tmp_path,
        "lab:template",
    )
    subprocess.run([sys.executable, "-m", *words], check=True)
    record = json.loads((tmp_path / "my_study" / ".cruft.json").read_text())
    assert record["template"] == f"file://{template}"


def test_a_password_in_an_address_is_not_recorded(owned, tmp_path, home):
    template = template_of(owned)
    address = "https://jane:secret@example.org/template.git"
    with (home / ".gitconfig").open("a") as config:
        config.write(f'[url "file://{template}"]\n\tinsteadOf = {address}\n')
    words = ("cookiecutter", "--no-input", "-o", tmp_path, address)
    subprocess.run([sys.executable, "-m", *words], check=True)
    record = json.loads((tmp_path / "my_study" / ".cruft.json").read_text())
    assert record["template"] == "https://example.org/template.git"
    assert "secret" not in json.dumps(record)


def test_a_template_without_a_repository_costs_one_line_and_not_the_study(owned, tmp_path):
    template = tmp_path / "template"
    shutil.copytree(template_of(owned), template, ignore=shutil.ignore_patterns(".git"))
    words = ("cookiecutter", "--no-input", "-o", tmp_path, template)
    done = subprocess.run(
        [sys.executable, "-m", *words], check=True, capture_output=True, text=True
    )
    assert done.stderr == (
        f"No record of the template, for updates: {template} is not a git repository\n"
    )
    assert git(tmp_path / "my_study", "log", "--format=%s") == "Begin the study\n"


def test_changelog_project_and_record_name_the_same_version():
    project = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["project"]["version"]
    answers = json.loads((TEMPLATE / "cookiecutter.json").read_text())["_version"]
    changes = (TEMPLATE / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\d+\.\d+\.\d+) - 20\d\d-\d\d-\d\d$", changes, re.MULTILINE)
    assert newest and newest[1] == project == answers


def test_the_list_of_cruft_skips_all_but_the_harness(owned):
    project = tomllib.loads((owned.folder / "pyproject.toml").read_text())
    skipped = {
        path for glob in project["tool"]["cruft"]["skip"] for path in owned.folder.glob(glob)
    }
    for name in snapshot(owned.folder):
        path = Path(owned.folder, name)
        kept = not skipped & {path, *path.parents}
        assert kept == name.startswith(HARNESS), name


def test_a_review_folds_the_harness_and_nothing_else(owned):
    for name in snapshot(owned.folder):
        shown = git(
            owned.folder, "check-attr", "linguist-generated", "linguist-vendored", "--", name
        )
        assert shown.count(": set\n") == (2 if name.startswith(HARNESS) else 0), name

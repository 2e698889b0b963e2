"""The study that comes out: as a user sets it up, checks it, reproduces it and hands it on."""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TEMPLATE, Study, generate

EXPECTED = {"linear": 0.94, "mlp": 0.96, "cnn": 0.98}
LONGEST = "a_study_whose_name_is_as_long_as_it_gets"
AWKWARD = {
    "project_slug": LONGEST,
    "author": 'Ægir "the \\ sea" <Ó> #1 {\'[é',
    "description": "\"Why?\" | *what* `x` _y_ \\ <b>&amp; 100 % # 'ş' 🙂",
}
pytestmark = pytest.mark.slow


def test_black_pylint_mypy_and_import_linter_find_nothing(study: Study) -> None:
    study.call("make", "lint")


def test_black_changes_nothing_whatever_the_answers(study: Study, tmp_path: Path) -> None:
    assert len(LONGEST) == 40
    for answers in ({"project_slug": "a"}, AWKWARD):
        study.call("black", "--check", generate(tmp_path / answers["project_slug"], **answers))


def test_the_longest_name_leaves_no_line_too_long(tmp_path: Path) -> None:
    for path in generate(tmp_path, **AWKWARD).rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 100, f"{path}: {line}"


def test_its_own_tests_pass_without_a_network(study: Study) -> None:
    isolated = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode:
        isolated = []  # not allowed on this machine
    output = study.call(*isolated, "pytest", "-m", "slow or not slow")
    assert re.search(r"\d+ passed", output) and "failed" not in output
    for line in re.findall(r"^SKIPPED .*", output, re.M):  # a check that has nothing to look at
        assert "tests/test_models.py" in line, line


def test_every_experiment_is_as_accurate_as_promised(reproduced: Study) -> None:
    with open(reproduced.folder / "results" / "table.csv", encoding="utf-8", newline="") as file:
        rows = {row["experiment"]: row for row in csv.DictReader(file)}
    assert rows.keys() == EXPECTED.keys()
    for name, least in EXPECTED.items():
        assert float(rows[name]["mean"]) >= least and rows[name]["num_seeds"] == "3"


def test_the_readme_of_the_template_shows_what_comes_out(reproduced: Study) -> None:
    row = re.compile(r"^\| (\w+) \| 3 \| ([\d.]+) ± ", re.M)
    table = (reproduced.folder / "results" / "table.md").read_text(encoding="utf-8")
    shown = dict(row.findall((TEMPLATE / "README.md").read_text(encoding="utf-8")))
    assert shown.keys() == EXPECTED.keys()
    for name, mean in row.findall(table):  # another processor may round another way
        assert float(shown[name]) == pytest.approx(float(mean), abs=0.3)


def test_a_second_repro_does_nothing(reproduced: Study) -> None:
    assert "Running stage" not in reproduced.call("dvc", "repro")
    assert reproduced.call("git", "status", "--porcelain") == ""


def test_what_dvc_tracks_names_no_machine(reproduced: Study) -> None:
    results = (path for path in (reproduced.folder / "results").iterdir() if path.is_file())
    tracked = [reproduced.folder / "dvc.lock", *results]  # records/ is git's alone
    for pattern in ("**/metrics.json", "**/history.csv", "**/best.pt", "**/manifest.json"):
        tracked += reproduced.folder.glob(pattern)
    assert len(tracked) > 30
    for path in tracked:
        content = path.read_bytes()
        assert str(reproduced.folder).encode() not in content, path
        assert not re.search(rb"\b\d\d:\d\d:\d\d\b", content), path


def test_a_second_clone_pulls_every_result(reproduced: Study, tmp_path: Path) -> None:
    reproduced.call(
        "dvc", "remote", "add", "--local", "--force", "--default", "store", tmp_path / "s"
    )
    reproduced.call("dvc", "push")
    clone = Study(tmp_path / "clone")
    reproduced.call("git", "clone", "--quiet", reproduced.folder, clone.folder)
    (clone.folder / ".venv").symlink_to(reproduced.folder / ".venv")
    clone.call("dvc", "remote", "add", "--local", "--default", "store", tmp_path / "s")
    clone.call("dvc", "pull")
    assert "up to date" in clone.call("dvc", "status")
    for path in (reproduced.folder / "runs" / "published").glob("*/best.pt"):
        assert (
            path.read_bytes() == (clone.folder / path.relative_to(reproduced.folder)).read_bytes()
        )


def test_a_comment_runs_no_training_and_a_value_runs_its_own(
    reproduced: Study, tmp_path: Path
) -> None:
    copy = reproduced.copy(tmp_path / "copy")
    path = copy.folder / "conf" / "model" / "linear.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}# a comment\n", encoding="utf-8")
    copy.call("dvc", "repro", "compose", "compose-data")
    assert "Running stage" not in copy.call("dvc", "repro", "--dry")
    path.write_text(text.replace("lr: 1.0e-2", "lr: 2.0e-2"), encoding="utf-8")
    copy.call("dvc", "repro", "compose", "compose-data")
    stages = re.findall(r"Running stage '(.*)'", copy.call("dvc", "repro", "--dry"))
    assert stages[:3] == ["train@linear-0", "train@linear-1", "train@linear-2"]
    assert not [name for name in stages if "mlp" in name or "cnn" in name]


def test_a_terminal_shows_a_progress_bar_and_a_pipe_plain_lines(reproduced: Study) -> None:
    words = ["python", "run.py", "model=linear", "training.num_epochs=20", "force=true"]
    plain = reproduced.call("sh", "-c", f"{shlex.join(words)} 2>&1")
    assert "epoch 20 " in plain and "%|" not in plain and "\r" not in plain
    # script gives the command a terminal, stty its size
    terminal = f"stty cols 80 rows 24; {shlex.join(words)}"
    assert "%|" in reproduced.call("script", "--quiet", "--command", terminal, "/dev/null")


def test_no_import_name_of_the_environment_can_be_a_slug(study: Study) -> None:
    script = "from importlib import metadata; print(*metadata.packages_distributions())"
    names = study.call("python", "-c", script).split()
    sys.path.insert(0, str(TEMPLATE / "hooks"))
    try:
        from pre_gen_project import fault_of_slug  # pylint: disable=import-outside-toplevel
    finally:
        sys.path.remove(str(TEMPLATE / "hooks"))
    free = [name for name in names if name.isidentifier() and not fault_of_slug(name.lower())]
    free = [name for name in free if name != study.folder.name]
    assert len(names) > 100 and not free, "add to DEPENDENCIES in hooks/pre_gen_project.py"


def test_the_library_is_the_same_whatever_the_answers() -> None:
    for path in (TEMPLATE / "{{cookiecutter.project_slug}}" / "src").rglob("*.py"):
        assert not re.search(r"{{|{%|{#|cookiecutter", path.read_text(encoding="utf-8")), path

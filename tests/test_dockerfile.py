"""Claims about the image: what enters it, in which order, in which versions, and who runs it."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Bake = Callable[..., Any]
LOCKED = ["pyproject.toml", "requirements.lock"]
UV = "$(grep -o '^uv==[0-9.]*' requirements.lock)"


@pytest.fixture(name="study")
def _study(baked: Path, tmp_path: Path) -> Path:
    """A study with the answers that cookiecutter offers, which a test may change."""
    return Path(shutil.copytree(baked, tmp_path / baked.name, symlinks=True))


def instructions(study: Path) -> list[tuple[str, str]]:
    """The Dockerfile, an (INSTRUCTION, arguments) a step, without comments and line breaks."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (study / "Dockerfile").read_text("utf-8"))
    lines = text.replace("\\\n", " ").splitlines()
    steps = (line.partition(" ") for line in lines if line.strip())
    return [(name, rest.strip()) for name, _, rest in steps]


def arguments(study: Path, instruction: str) -> list[str]:
    """What stands after each instruction of the name."""
    return [rest for name, rest in instructions(study) if name == instruction]


def commands(study: Path, step: str | None = None) -> list[list[str]]:
    """The words of each command of the RUN steps, or of one such step."""
    steps = arguments(study, "RUN") if step is None else [step]
    return [shlex.split(command) for step in steps for command in step.split("&&")]


def sources(study: Path) -> list[str]:
    """What each COPY names, but for the place that it goes to."""
    return [source for rest in arguments(study, "COPY") for source in rest.split()[:-1]]


def variables(study: Path) -> dict[str, str]:
    """What the ENV steps set."""
    return dict(word.split("=", 1) for rest in arguments(study, "ENV") for word in rest.split())


def locked(study: Path) -> dict[str, str]:
    """The packages that the lock pins with at least one hash: name to version."""
    text = (study / "requirements.lock").read_text("utf-8")
    pin = r"(?m)^([\w.-]+)==([^\s;]+)[^\\\n]*\\\n\s+--hash=sha256:[0-9a-f]{64}"
    return dict(re.findall(pin, text))


def project(study: Path) -> dict[str, Any]:
    """The study's pyproject.toml."""
    return tomllib.loads((study / "pyproject.toml").read_text("utf-8"))


def expression(pattern: str) -> str:
    """A pattern of .dockerignore as a regular expression for a path or one of its parents."""
    kinds = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return "".join(kinds.get(piece, re.escape(piece)) for piece in pieces) + "(?:/.*)?"


def context(study: Path) -> set[str]:
    """The files that Docker is sent: of all patterns that fit a path, the last one decides."""
    lines = (study / ".dockerignore").read_text("utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    sent = set()
    for path in (path for path in study.rglob("*") if path.is_file()):
        name = path.relative_to(study).as_posix()
        fits = [p for p in patterns if re.fullmatch(expression(p.removeprefix("!")), name)]
        if not fits or fits[-1].startswith("!"):
            sent.add(name)
    return sent


def copied(study: Path) -> set[str]:
    """The files that the COPY steps put into the image."""
    return {
        name
        for name in context(study)
        for source in sources(study)
        if name == source or name.startswith(f"{source}/")
    }


def tracked(study: Path, *paths: str) -> set[str]:
    """The files that git knows, of the whole study or below the paths."""
    command = ["git", "ls-files", "-z", "--", *paths]
    done = subprocess.run(command, cwd=study, capture_output=True, text=True, check=True)
    return set(filter(None, done.stdout.split("\0")))


def litter(study: Path) -> set[str]:
    """Makes a file for each pattern of .gitignore, at the top and in the package."""
    package = f"src/{study.name}"
    made = set()
    for pattern in (study / ".gitignore").read_text("utf-8").split():
        for folder in [""] if pattern.startswith("/") else ["", package]:
            path = study / folder / pattern.strip("/").replace("*", "x")
            if pattern.endswith("/"):
                path = path / "litter"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("litter\n")
            made.add(path.relative_to(study).as_posix())
    return made


def test_hadolint_finds_nothing_to_warn_of(study: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint), "--no-color", "--failure-threshold", "warning", "Dockerfile"]
    done = subprocess.run(command, cwd=study, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# The layers


def test_the_dependencies_are_installed_before_any_code_is_copied(study: Path) -> None:
    steps = instructions(study)
    (install,) = [
        index for index, (name, rest) in enumerate(steps) if name == "RUN" and LOCKED[0] in rest
    ]
    before = [rest.split() for name, rest in steps[:install] if name == "COPY"]
    assert before == [[*LOCKED, "./"]]
    assert not [rest for name, rest in steps if name == "ADD"]


def test_a_commit_that_changes_nothing_else_builds_no_layer_again(study: Path) -> None:
    steps = instructions(study)
    names = [name for name, _ in steps]
    last = max(index for index, name in enumerate(names) if name in ("RUN", "COPY"))
    assert steps.index(("ARG", "GIT_REV")) > last
    assert variables(study)["GIT_REV"] == "$GIT_REV"


def test_only_the_runtime_dependencies_and_the_study_itself_are_installed(study: Path) -> None:
    tools, dependencies, itself = [words for words in commands(study) if "install" in words]
    assert tools == ["pip", "install", "--no-cache-dir", "--no-compile", UV]
    options = dict(zip(dependencies, dependencies[1:]))
    assert options["--requirements"] == "pyproject.toml"
    assert not re.search("--(group|extra|all-extras|only|editable)", " ".join(dependencies))
    assert not {".", "dev"} & set(dependencies)
    assert {"--no-deps", "--editable", "."} <= set(itself)


def test_no_cache_is_left_in_a_layer(study: Path) -> None:
    for words in commands(study):
        if "install" in words:
            assert {"--no-cache", "--no-cache-dir"} & set(words), words
    assert "apt-get" not in (study / "Dockerfile").read_text("utf-8")


# The versions


def test_the_base_is_an_argument_with_an_exact_supported_python(study: Path) -> None:
    (first, base), (second, image), *_ = instructions(study)
    assert (first, second, image) == ("ARG", "FROM", "$BASE")
    tag = re.fullmatch(r"BASE=python:(3)\.(\d+)\.\d+-slim-[a-z]+", base)
    assert tag, base
    low, high = re.findall(r"3\.(\d+)", project(study)["project"]["requires-python"])
    assert int(low) <= int(tag[2]) < int(high)


def test_the_bases_that_comments_name_are_of_the_same_python(study: Path) -> None:
    text = (study / "Dockerfile").read_text("utf-8")
    assert len(set(re.findall(r"python:(\d+\.\d+\.\d+)-", text))) == 1


def test_uv_and_what_builds_the_study_are_of_exact_versions(study: Path) -> None:
    (backend,) = project(study)["build-system"]["requires"]
    assert re.fullmatch(r"[\w-]+==\d[\d.]+", backend)
    printed = subprocess.check_output(["sh", "-c", f"echo {UV}"], cwd=study, text=True)
    assert printed == f"uv=={locked(study)['uv']}\n"


@pytest.mark.parametrize("on_path", ["the same", "0.1.2", None])
def test_make_env_takes_the_uv_of_the_image_and_no_other(
    on_path: str | None, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = locked(study)["uv"]
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "sed", "touch"):
        (programs / name).symlink_to(str(shutil.which(name)))
    if on_path:
        said = version if on_path == "the same" else on_path
        (programs / "uv").write_text(f"#!/bin/sh\necho 'uv {said} (of a machine)'\n")
        (programs / "uv").chmod(0o755)
    command = [str(shutil.which("make")), "--dry-run", "env"]
    monkeypatch.setenv("PATH", str(programs))
    printed = subprocess.check_output(command, cwd=study, text=True)
    uv = "uv" if on_path == "the same" else ".venv/bin/uv"
    assert f"\ntest {uv} = uv || .venv/bin/python -m pip install --quiet uv=={version}\n" in printed
    assert f"\n{uv} pip install --python .venv/bin/python " in printed


def test_the_lock_rules_what_is_installed_and_what_that_is_built_with(study: Path) -> None:
    (dependencies,) = [words for words in commands(study) if "--requirements" in words]
    assert dict(zip(dependencies, dependencies[1:]))["--constraints"] == "requirements.lock"
    (itself,) = [words for words in commands(study) if "--editable" in words]
    for words in (dependencies, itself):
        assert dict(zip(words, words[1:]))["--build-constraints"] == "requirements.lock"


def test_the_lock_pins_every_runtime_dependency_with_hashes_or_pyproject_pins_it(
    study: Path,
) -> None:
    pins = locked(study)
    assert "setuptools" in pins  # what comes as source alone is built with it
    for dependency in project(study)["project"]["dependencies"]:
        name = re.split(r"[^\w.-]", dependency)[0].lower().replace("_", "-")
        assert name in pins or re.fullmatch(r"[\w.-]+==[\w.]+", dependency), dependency


def test_neither_an_index_nor_a_folder_of_one_machine_stands_in_it(study: Path) -> None:
    text = (study / "Dockerfile").read_text("utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    for rest in arguments(study, "ARG"):
        for word in rest.split():
            assert "=" not in word or word.startswith("BASE="), word


# Who runs it, and how


def test_the_user_is_a_number_and_not_root(study: Path) -> None:
    assert instructions(study)[-2][0] == "USER"
    user, group = arguments(study, "USER")[-1].split(":")
    assert int(user) > 0 and int(group) > 0


def test_the_entrypoint_is_run_py_and_no_shell_stands_between(study: Path) -> None:
    (entrypoint,) = arguments(study, "ENTRYPOINT")
    assert json.loads(entrypoint) == ["python", "run.py"]
    assert not arguments(study, "CMD")


def test_every_graphics_card_that_docker_hands_over_is_seen(study: Path) -> None:
    assert variables(study)["NVIDIA_VISIBLE_DEVICES"] == "all"
    capabilities = variables(study)["NVIDIA_DRIVER_CAPABILITIES"].split(",")
    assert {"compute", "utility"} <= set(capabilities)


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_whatever_the_umask_anybody_reads_the_code_and_writes_to_data_and_runs_alone(
    study: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "study"
    (tree / "src").mkdir(parents=True)
    (tree / "src" / "code.py").write_text("")
    for path in (tree / "src" / "code.py", tree / "src"):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
    last = commands(study, arguments(study, "RUN")[-1])
    modes = [words for words in last if words[0] in ("mkdir", "chmod")]
    for words in modes:
        subprocess.run(words, cwd=tree, check=True)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tree.rglob("*")}
    assert found.pop("data") == found.pop("runs") == 0o1777
    assert all(mode & 0o044 == 0o044 and not mode & 0o022 for mode in found.values()), found


# What is sent to the build


@pytest.mark.parametrize("licence", ["MIT", "none"])
def test_everything_that_is_copied_is_there_and_sent(licence: str, bake: Bake) -> None:
    study = bake(license=licence).project_path
    for source in sources(study):
        inside = [name for name in context(study) if f"{name}/".startswith(f"{source}/")]
        assert inside, source
    assert ("LICENSE" in copied(study)) == (licence != "none")


def test_nothing_is_sent_that_is_not_copied(study: Path) -> None:
    litter(study)
    assert context(study) == copied(study)


def test_nothing_is_sent_that_git_ignores_or_that_is_data_or_a_test(study: Path) -> None:
    made = litter(study)
    (study / "src" / ".DS_Store").write_text("litter\n")
    (study / "data" / "prepared").mkdir(exist_ok=True)
    (study / "data" / "prepared" / "manifest.json").write_text("{}\n")
    assert len(made) > 5
    assert context(study) <= tracked(study)
    for name in context(study) - {"tests/fixtures/digits.csv"}:  # the rows that preflight checks on
        assert name.split("/")[0] not in ("data", "runs", "results", "tests", ".git", ".dvc"), name


def test_nothing_that_a_run_reads_is_left_out(study: Path) -> None:
    # records.py hashes the lock and the code; the build reads pyproject.toml and its readme
    needed = tracked(study, "conf", "src", "tests/fixtures", "run.py", "stages/prepare.py", *LOCKED)
    assert len(needed) > 15
    assert needed | {project(study)["project"]["readme"]} <= copied(study)

"""What every test of the template starts from: a bare home, a way to bake, and a baked study."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parent.parent
# a folder of wheels and a cache, where this machine has them, serve the studies of the tests too
UV_CACHE = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))


@pytest.fixture(name="home", autouse=True)
def _home(tmp_path_factory, monkeypatch):
    """A home of the test's own, so that nothing set up on this machine has a say."""
    home = tmp_path_factory.mktemp("home")
    gitconfig = home / ".gitconfig"
    gitconfig.write_text("[user]\n\tname = A Tester\n\temail = tester@example.org\n")
    for variable in [name for name in os.environ if name.startswith("GIT_") or name == "EMAIL"]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return home


@pytest.fixture(name="bake")
def _bake(cookies):
    """Generates a study from the answers given, in a folder of its own."""
    return lambda **answers: cookies.bake(extra_context=answers, template=str(TEMPLATE))


class Study:
    """A baked study with its own environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def environment(self) -> dict[str, str]:
        """The environment of the study, and of this machine what installing needs."""
        kept = ("HOME", "LANG", "PIP_", "SSL_", "UV_", "REQUESTS_", "CURL_")
        return {
            **{name: value for name, value in os.environ.items() if name.startswith(kept)},
            "PATH": f"{self.folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "UV_CACHE_DIR": UV_CACHE,
            "PYTHONPATH": str(self.folder / "src"),  # a copy shares the environment, not the code
        }

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """A command that goes on in the background, in a process group of its own."""
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(
        self, *words: str | Path, code: int | None = 0, env: Mapping[str, str] | None = None
    ) -> str:
        """What a command prints in the study's folder and environment, errors after the rest.

        Args:
            words: The command.
            code: The exit code that it must have; None for any.
            env: Variables of the environment, besides.
        """
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment() | dict(env or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"{done.stdout[-20000:]}\n{done.stderr[-20000:]}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    def edit(self, name: str, pattern: str, replacement: str) -> None:
        """Replaces what is there, for sure."""
        path = self.folder / name
        text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"))
        assert count, f"{pattern} is not in {name}"
        path.write_text(text, encoding="utf-8")

    def commit(self) -> None:
        """Commits all that git does not ignore."""
        self.call("git", "add", "--all")
        name = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.org")
        self.call("git", *name, "commit", "--quiet", "--allow-empty", "--message", "As it is")

    def copy(self, folder: Path) -> "Study":
        """The same study in another place, with the same environment."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(".venv"), symlinks=True)
        (folder / ".venv").symlink_to(self.folder / ".venv")
        return Study(folder)


def generate(folder: Path, **answers: str) -> Path:
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
        study = Study(generate(tmp_path_factory.mktemp("baked")))
    study.call("make", "env", f"PYTHON={sys.executable}")
    return study


@pytest.fixture(name="reproduced", scope="session")
def _reproduced(study: Study) -> Study:
    """The study with every published number, committed."""
    study.call("dvc", "repro")
    study.commit()
    return study

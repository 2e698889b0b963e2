"""What every test of the template starts from: a bare home, a way to bake, and a baked study.

The workers of pytest-xdist share what takes long to make: one study with its environment, one with
every published number, one on the tiny table.
"""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from cluster import Cluster
from filelock import FileLock
from warm import Warm
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TEMPLATE = Path(__file__).parent.parent
NINE_RUNS = "test_reproduced.py"
TOGETHER = (NINE_RUNS, "test_image.py")  # what the tests of such a file share is made by one worker
OPTIONAL = ("notebooks", "export", "tensorboard", "mlflow", "wandb", "search", "s3", "ssh")
# a folder of wheels and a cache, where this machine has them, serve the studies of the tests too
UV_CACHE = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))


def needs(*programs: str, root: bool = False) -> pytest.MarkDecorator:
    """Skips tests where this machine lacks a program; not where .ci/run has installed them all."""
    missing = [program for program in programs if shutil.which(program) is None]
    if root and (sys.platform != "linux" or os.geteuid()):
        missing.append("root, on Linux")
    skipped = bool(missing) and "NO_PROGRAM_MISSING" not in os.environ
    return pytest.mark.skipif(skipped, reason=f"not here: {', '.join(missing)}")


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
            # each module is compiled when it is first imported: all of them would take a minute
            "UV_COMPILE_BYTECODE": "0",
            **{name: value for name, value in os.environ.items() if name.startswith(kept)},
            "PATH": f"{self.folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "UV_CACHE_DIR": UV_CACHE,
            "PYTHONPATH": str(self.folder / "src"),  # a copy shares the environment, not the code
        }

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """A command that runs in the background, in a process group of its own."""
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

    def clone(self, folder: Path) -> "Study":
        """What git has of it in another place, with the same environment, up to date for make."""
        self.call("git", "clone", "--quiet", self.folder, folder)
        (folder / ".venv").symlink_to(self.folder / ".venv")
        (folder / ".venv" / "bin" / "dvc").touch()
        return Study(folder)


Edit = Callable[[Study], object]


def write(name: str, text: str) -> Edit:
    """Writes a file of a study."""
    return lambda study: (study.folder / name).write_text(text, encoding="utf-8")


def edit(name: str, pattern: str, replacement: str) -> Edit:
    """Edits a file of a study."""
    return lambda study: study.edit(name, pattern, replacement)


def generate(folder: Path, **answers: str) -> Path:
    """What `cookiecutter` makes of the answers."""
    words = [f"{key}={answer}" for key, answer in answers.items()]
    program = [sys.executable, "-m", "cookiecutter", "--no-input", "-o", str(folder)]
    subprocess.run([*program, str(TEMPLATE), *words], check=True, capture_output=True)
    (study,) = folder.iterdir()
    return study


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs no environment while one worker makes it; then what takes longest."""

    def rank(item: pytest.Item) -> tuple[bool, bool, bool]:
        waits = "study" in getattr(item, "fixturenames", ())
        return item.path.name != NINE_RUNS, waits, not item.get_closest_marker("slow")

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """The other worker need not wait for the nine runs, nor make the image a second time."""
    return Scheduling(config, log)


class Scheduling(LoadScopeScheduling):  # pylint: disable=abstract-method
    """Tests one by one, except for files that stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return next((file for file in TOGETHER if file in nodeid), nodeid)


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first worker to ask for it makes, and that all workers use."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, made = base / name, base / f"{name}.made"
    with FileLock(base / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(name="baked", scope="session")
def _baked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study as it is generated. No test changes it."""

    def make(folder: Path) -> None:
        home = tmp_path_factory.mktemp("home")
        name = "[user]\n\tname = A Tester\n\temail = tester@example.org\n"
        (home / ".gitconfig").write_text(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(home))
            generate(folder)

    return make_once(tmp_path_factory, "baked", make) / "my_study"


@pytest.fixture(name="study", scope="session")
def _study(baked: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The same with its environment, and in that every optional group. No test changes it."""

    def make(folder: Path) -> None:
        made = Study(Path(shutil.copytree(baked, folder / "my_study", symlinks=True)))
        install(made)
        groups = [word for name in OPTIONAL for word in ("--group", name)]
        made.call(".venv/bin/uv", "pip", "install", "--constraints", "requirements.lock", *groups)

    return Study(make_once(tmp_path_factory, "study", make) / "my_study")


@pytest.fixture(name="study_of", scope="session")
def _study_of(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Study]:
    """A study of a kind of data, with the environment of the first: all have the same lock."""

    def find(kind: str) -> Study:
        def make(folder: Path) -> None:
            generate(folder, data=kind)
            (folder / "my_study" / ".venv").symlink_to(study.folder / ".venv")

        if kind == "pictures":
            return study
        return Study(make_once(tmp_path_factory, f"study-{kind}", make) / "my_study")

    return find


def install(study: Study) -> None:
    """The environment of a study, as its user makes it."""
    study.call("make", "env", f"PYTHON={sys.executable}")


@pytest.fixture(name="reproduced", scope="session")
def _reproduced(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study with every published number, committed."""

    def make(folder: Path) -> None:
        reproduced = study.copy(folder / "my_study")
        reproduced.call("dvc", "repro")
        reproduced.commit()

    return Study(make_once(tmp_path_factory, "reproduced", make) / "my_study")


RAW = "data/raw/digits/digits.csv"


def take_fixture(study: Study) -> None:
    """The few rows of the fixture take the place of the raw data."""
    shutil.copyfile(study.folder / "tests" / "fixtures" / "digits.csv", study.folder / RAW)
    (study.folder / f"{RAW}.gz").unlink()
    study.edit("conf/data/digits.yaml", f"{RAW}.gz", RAW)


@pytest.fixture(name="small", scope="session")
def _small(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study on its tiny table: one experiment, one seed, two epochs; committed."""

    def make(folder: Path) -> None:
        small = study.copy(folder / "my_study")
        take_fixture(small)
        small.edit("conf/training/default.yaml", r"num_epochs: \d+", "num_epochs: 2")
        small.edit("dvc.yaml", r"experiments: \[.*\]", "experiments: [linear]")
        small.edit("dvc.yaml", r"seeds: \[.*\]", "seeds: [0]")
        small.call("python", "stages/prepare.py", "data=digits")
        small.commit()

    return Study(make_once(tmp_path_factory, "small", make) / "my_study")


@pytest.fixture(name="mine")
def _mine(small: Study, tmp_path: Path) -> Study:
    """A copy of the small study that a test may spoil."""
    return small.copy(tmp_path / "my_study")


@pytest.fixture(name="warm", scope="session")
def _warm(study: Study) -> Iterator[Warm]:
    """A process of the study's environment that has imported torch already."""
    with Warm(study.folder / ".venv" / "bin" / "python", study.environment()) as warm:
        yield warm


@pytest.fixture(name="slurm_of", scope="session")
def _slurm_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Cluster]]:
    """A running Slurm of so many nodes, started when it is first asked for."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(
            lambda nodes: stack.enter_context(Cluster(tmp_path_factory.mktemp("slurm"), nodes))
        )


@pytest.fixture(name="slurm")
def _slurm(slurm_of: Callable[[int], Cluster]) -> Iterator[Cluster]:
    """A Slurm of one node, without any job."""
    slurm = slurm_of(1)
    yield slurm
    slurm.clear()


@pytest.fixture(name="two_hosts")
def _two_hosts(slurm_of: Callable[[int], Cluster]) -> Iterator[Cluster]:
    """A Slurm of two nodes with networks of their own, without any job."""
    slurm = slurm_of(2)
    yield slurm
    slurm.clear()

"""A run that is killed, or whose disk fails, at each call that changes a file of the study in turn.

strace counts the calls of a whole run, and then kills or fails the one with a given number.
"""

import collections
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Edit, Study, needs
from warm import Warm

pytestmark = [
    pytest.mark.slow,
    needs("strace"),
]
# every call of Linux that can change a file
CHANGING = (
    *("openat", "write", "pwrite64", "writev", "copy_file_range", "sendfile", "fsync", "fdatasync"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat", "symlink"),
    *("symlinkat", "mkdir", "mkdirat", "rmdir", "truncate", "ftruncate", "fallocate"),
    *("chmod", "fchmod", "fchmodat", "utimensat"),
)
PARTS = range(4)  # of the calls, for as many tests: they share the processors
EVERY = int(os.environ.get("EVERY", "3"))  # so many calls one is tried: all take 15 minutes
IMPORTED = (
    "hydra.main",
    "hydra._internal.hydra",
    "torch._dynamo",
    "tqdm.contrib.logging",
    "filelock",
)
RESULTS = ("best.pt", "history.csv", "metrics.json")


@dataclass(frozen=True)
class Call:
    """A call of the main thread that changes a file of the study."""

    name: str
    number: int  # among the calls of this name
    line: str  # as strace shows it

    def inject(self, fault: str) -> list[str]:
        """The options of strace that let it fail or kill."""
        options = [f"--trace={self.name}", f"--inject={self.name}:{fault}:when={self.number}"]
        return [*options, "--output=/dev/null"]


def list_calls(warm: Warm, study: Study, *words: str) -> list[Call]:
    """Each call of a program that changes a file of the study."""
    trace = study.folder.with_name("trace")
    options = ["--decode-fds=path", f"--output={trace}", f"--trace={','.join(CHANGING)}"]
    code, said = warm.attempt(study.folder, *words, strace=options)
    assert code == 0, said
    counts: collections.Counter[str] = collections.Counter()
    calls = []
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := re.match(r"(\w+)\(", line):
            counts[found[1]] += 1
            if changes(line, study.folder):
                calls.append(Call(found[1], counts[found[1]], line))
    return calls


def changes(line: str, folder: Path) -> bool:
    """Whether a call, as strace shows it, has changed a file of a study."""
    is_inside = str(folder) in re.sub(r"AT_FDCWD<.*?>|, \d+<.*?>", "", line)  # not what it reads
    is_relative = re.search(r'[(, ]"(runs|data|results|README.md)\b', line)
    reads = line.startswith("openat(") and not re.search("O_CREAT|O_TRUNC", line)
    failed = re.search(r"\) += -1 ", line)
    return bool((is_inside or is_relative) and not reads and not failed)


def files_in(study: Study) -> dict[str, bytes]:
    """What is in runs/ and data/, without times; of a run what it has computed."""
    found = {}
    stamp = r"\d{4}-\d\d-\d\d_[\d-]+_|(?<=checkpoint-\d{8})-\w+"  # the hash is of the time, too
    for path in [*study.folder.glob("runs/**/*"), *study.folder.glob("data/**/*")]:
        name = re.sub(stamp, "", path.relative_to(study.folder).as_posix())
        is_result = path.name in RESULTS or path.suffix == ".npy"
        assert name not in found or "checkpoint-" in name, f"two of {name}"
        found[name] = path.read_bytes() if is_result else b""
    return found


@dataclass(frozen=True)
class Program:
    """A program, what is there before it, and all its calls that change a file."""

    words: tuple[str, ...]
    study: Study
    before: Path  # runs/ and data/ before it
    whole: dict[str, bytes]  # what is there after it, where nothing goes wrong
    calls: list[Call]

    def reset(self) -> None:
        """Puts back what was there before it."""
        for name in ("runs", "data"):
            shutil.rmtree(self.study.folder / name, ignore_errors=True)
            shutil.copytree(self.before / name, self.study.folder / name, symlinks=True)


MINE = "run_dir=runs/mine"
MOVING = ("rename", "unlink", "unlinkat", "mkdir", "rmdir")
# what ran before; the program whose calls are counted; and which of them, if not all
PROGRAMS: dict[str, tuple[list[tuple[str, ...]], tuple[str, ...], tuple[str, ...]]] = {
    "a new run": ([], ("run.py", "model=linear"), CHANGING),
    "a run that replaces another": (
        [("run.py", "model=linear", "seed=1", MINE)],
        ("run.py", "model=linear", MINE, "replace=true"),
        MOVING,
    ),
    "a run that is copied": (
        [("run.py", "model=linear")],
        ("run.py", "model=linear", MINE),
        MOVING,
    ),
    "data that replace others": (
        [("stages/prepare.py", "data.prepare.split_seed=1")],
        ("stages/prepare.py",),
        CHANGING,
    ),
}


@pytest.fixture(name="prompt", scope="module")
def _prompt(study: Study) -> Iterator[Warm]:
    """A process of the study's environment that has imported what a run imports."""
    python = study.folder / ".venv" / "bin" / "python"
    with Warm(python, study.environment(), IMPORTED) as prompt:
        yield prompt


@pytest.fixture(name="program", scope="module", params=PROGRAMS)
def _program(
    small: Study,
    prompt: Warm,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Program:
    return make_program(small, prompt, tmp_path_factory.mktemp("faults"), request.param)


def make_program(small: Study, warm: Warm, folder: Path, name: str) -> Program:
    """A program in a copy of the study."""
    earlier, words, names = PROGRAMS[name]
    study = small.copy(folder / "my_study")
    for command in (words, *earlier):
        warm.call(study.folder, *command)  # once: Python then has compiled each module
        if command == words:
            shutil.rmtree(study.folder / "runs", ignore_errors=True)
    (study.folder / "runs").mkdir(exist_ok=True)
    for part in ("runs", "data"):
        shutil.copytree(study.folder / part, folder / "before" / part, symlinks=True)
    calls = [call for call in list_calls(warm, study, *words) if call.name in names]
    assert len(calls) > 5
    return Program(words, study, folder / "before", files_in(study), calls)


@pytest.mark.parametrize("part", PARTS)
def test_a_kill_at_each_call_leaves_no_trace(program: Program, prompt: Warm, part: int) -> None:
    # before an fsync all files are as they are after it
    calls = [call for call in program.calls if call.name != "fsync"]
    calls = calls[part :: len(PARTS)][::EVERY]
    assert calls
    for call in calls:
        program.reset()
        folder = program.study.folder
        killed = prompt.attempt(folder, *program.words, strace=call.inject("signal=KILL"))
        assert killed[0] == -9, call
        prompt.call(folder, *program.words)
        assert files_in(program.study) == program.whole, call


@pytest.mark.parametrize("program", ["a new run", "data that replace others"], indirect=True)
@pytest.mark.parametrize("part", PARTS)
def test_a_fault_of_the_disk_at_each_call_gets_one_line_and_leaves_no_trace(
    program: Program, prompt: Warm, part: int
) -> None:
    calls = program.calls[part :: len(PARTS)][::EVERY]
    assert calls
    for number, call in enumerate(calls):
        program.reset()
        folder = program.study.folder
        fault = call.inject(f"error={'ENOSPC' if number % 2 else 'EIO'}")
        code, said = prompt.attempt(folder, *program.words, strace=fault)
        assert code in (0, 1) and "Traceback" not in said, (call, said)
        assert not list(folder.glob("[rd]*/**/*.tmp")), call
        if code == 0:  # it did not matter
            assert program.whole.items() <= files_in(program.study).items(), call
        else:
            assert len(re.findall("^error: .", said, re.M)) == 1, (call, said)
        prompt.call(folder, *program.words)
        assert files_in(program.study) == program.whole, call


# where DVC is killed; what it says then, if it wrote that file in place; what README.md says then
TORN = {
    r"write\(.*/rwlock>": ("rwlock'. JSON structure is corrupted", "rm .dvc/tmp/rwlock"),
    r"write\(.*/dvc\.lock>": ("'./dvc.lock' validation failed", "git checkout dvc.lock"),
    r"rename\(.*/\.dvc/cache/": ("", "true"),
}
REPRO = ("-m", "dvc", "repro")


@pytest.fixture(name="edited", scope="module")
def _edited(small: Study, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study with every published number, and an edit that changes them."""
    study = small.copy(tmp_path_factory.mktemp("edited") / "my_study")
    warm.call(study.folder, *REPRO)
    study.commit()
    study.edit("conf/training/default.yaml", "num_epochs: 2", "num_epochs: 3")
    return study


@pytest.mark.parametrize("where", TORN, ids=["rwlock", "dvc.lock", "cache"])
def test_dvc_repro_that_is_killed_as_it_writes_goes_on(
    edited: Study, warm: Warm, tmp_path: Path, where: str
) -> None:
    whole, study = (edited.copy(tmp_path / name / "my_study") for name in ("whole", "killed"))
    calls = [call for call in list_calls(warm, whole, *REPRO) if re.match(where, call.line)]
    fault = calls[len(calls) // 2].inject("signal=KILL")
    assert warm.attempt(study.folder, *REPRO, strace=fault)[0] == -9
    complaint, command = TORN[where]
    if complaint:
        assert complaint in warm.call(study.folder, *REPRO, code=255)
        assert f"`{command}`" in (study.folder / "README.md").read_text(encoding="utf-8")
    study.call(*command.split())
    warm.call(study.folder, *REPRO)
    assert published_by(study) == published_by(whole) != published_by(edited)


def published_by(study: Study) -> dict[str, bytes]:
    """What `dvc repro` has made, but for what holds times."""
    folders = [study.folder / "results", *study.folder.glob("runs/published/*")]
    paths = [path for folder in folders for path in folder.glob("*.*")]
    paths = [path for path in paths if path.name in RESULTS or path.parent.name == "results"]
    paths += [study.folder / "README.md", study.folder / "dvc.lock"]
    return {path.relative_to(study.folder).as_posix(): path.read_bytes() for path in paths}


WAYS = ("cut", "flipped")
ENDS = {  # of a run with two checkpoints: where it was killed, and which of its files are harmed
    "finished": ("", ("record.json", "history.csv", "metrics.json", "best.pt")),
    "killed": (r"rename\(.*best\.pt", ("record.json", "history.csv", "checkpoint-*.pt")),
}
HARMED = [(end, name) for end, (_, names) in ENDS.items() for name in names]


@pytest.fixture(name="ended", scope="module")
def _ended(small: Study, prompt: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each of ENDS a copy of the study with such a run."""
    base = tmp_path_factory.mktemp("ended")
    words = ("run.py", "model=linear", "training.checkpoint_steps=1")
    for name, (where, _) in ENDS.items():
        study = small.copy(base / name)
        prompt.call(study.folder, *words)
        if where:
            shutil.rmtree(study.folder / "runs")
            calls = list_calls(prompt, study, *words)
            (call,) = (call for call in calls if re.match(where, call.line))
            shutil.rmtree(study.folder / "runs")
            assert prompt.attempt(study.folder, *words, strace=call.inject("signal=KILL"))[0] == -9
    return base


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("harmed", HARMED, ids=" ".join)
def test_a_harmed_file_of_a_run_never_leads_to_altered_numbers(
    ended: Path, prompt: Warm, tmp_path: Path, harmed: tuple[str, str], way: str
) -> None:
    end, name = harmed
    study = Study(ended / end).copy(tmp_path / "my_study")
    shutil.copytree(study.folder / "runs", tmp_path / "runs")
    (whole,) = (ended / "finished" / "runs").glob("[!.]*")
    for tenth in range(0, 10, EVERY):
        shutil.rmtree(study.folder / "runs")
        shutil.copytree(tmp_path / "runs", study.folder / "runs")
        paths = sorted(
            study.folder.glob(f"runs/*/{name}"), key=lambda path: path.stat().st_mtime_ns
        )
        for path in paths[-1 - tenth % 2 :]:  # of two checkpoints the newest, or both
            harm(path, way, tenth)
        said = prompt.call(study.folder, "run.py", "model=linear")
        shown = re.findall(
            r"^(?:run folder: )?(runs/[^:\s]+)(?:: already finished.*)?$", said, re.M
        )
        for result in RESULTS:
            found = study.folder / shown[-1] / result
            assert found.read_bytes() == (whole / result).read_bytes(), (tenth, said)
        numbers = json.loads((whole / "metrics.json").read_bytes())["validation"]
        assert f"validation: loss {numbers['loss']:.4f}  acc" in said, (tenth, said)


def harm(path: Path, way: str, tenth: int) -> None:
    """Cuts a file to so many tenths of its length, or flips a bit there."""
    content = bytearray(path.read_bytes())
    at = len(content) * tenth // 10
    if way == "cut":
        del content[at:]
    else:
        content[at] ^= 1
    path.write_bytes(content)


def without_git(study: Study) -> None:
    """As from an archive."""
    shutil.rmtree(study.folder / ".git")


def without_commit(study: Study) -> None:
    """A repository that has just been made."""
    without_git(study)
    study.call("git", "init", "--quiet")


def untracked_files(study: Study) -> None:
    """Thousands of small ones, and one of 2 GB that takes no room."""
    (study.folder / "notes").mkdir()
    for number in range(2000):
        (study.folder / "notes" / f"{number}.txt").write_text(str(number))
    with open(study.folder / "notes" / "large.bin", "wb") as file:
        file.truncate(2**31)


def clock_set_back(study: Study) -> None:
    """What was written before seems to be of the future."""
    future = time.time() + 10**8
    for path in [*study.folder.glob("data/**/*"), *study.folder.glob("runs/**/*")]:
        os.utime(path, (future, future))


def spaces_in_path(study: Study) -> None:
    """And a line break."""
    moved = study.folder.with_name('a study\n\'of "mine" $HOME')
    study.folder.rename(moved)
    study.folder = moved


# what is done to a study with a killed run, and what is typed before `python run.py`
SETTINGS: dict[str, tuple[Edit | None, str]] = {
    "no git": (without_git, ""),
    "no commit": (without_commit, ""),
    "detached head": (lambda study: study.call("git", "checkout", "--quiet", "--detach"), ""),
    "untracked files": (untracked_files, ""),
    "clock set back": (clock_set_back, ""),
    "spaces in the path": (spaces_in_path, ""),
    "locale C": (None, "LC_ALL=C"),
    "no home": (None, "env -u HOME"),
    "umask 077": (None, "umask 077;"),
    "few open files": (None, "ulimit -n 64;"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_killed_run_is_resumed_in_any_setting(ended: Path, tmp_path: Path, name: str) -> None:
    study = Study(ended / "killed").copy(tmp_path / "my_study")
    change, before = SETTINGS[name]
    if change:
        change(study)
    said = study.call("sh", "-c", f"{before} python run.py model=linear 2>&1")
    assert "resumed after step 2" in said and "Traceback" not in said
    assert results_of(study) == results_of(Study(ended / "finished"))


def test_of_five_same_commands_at_once_one_runs_and_none_fails(
    ended: Path, small: Study, tmp_path: Path
) -> None:
    study = small.copy(tmp_path / "my_study")
    started = [study.start("python", "run.py", "model=linear") for _ in range(5)]
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * 5, said
    assert sum("epoch 1 " in each for each in said) == 1
    assert results_of(study) == results_of(Study(ended / "finished"))


def results_of(study: Study) -> dict[str, bytes]:
    """The results of the only run of a study."""
    (folder,) = study.folder.glob("runs/[!.]*")
    return {name: (folder / name).read_bytes() for name in RESULTS}

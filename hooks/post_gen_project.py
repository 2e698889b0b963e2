"""Records the template, gives the new study its first commit, and says what to type next."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

SLUG = "{{ cookiecutter.project_slug }}"
# JSON in a raw string: whatever an answer holds, its quotes are escaped, and it stays data.
ANSWERS = r"""{{ cookiecutter.items() | list | tojson }}"""  # pairs, because tojson sorts keys
RECORD = Path(".cruft.json")
STARTERS = Path("starters")  # a folder for each kind of data, of which the study keeps one
MESSAGE = "Begin the study"
NEXT = f"""\
Next:
  cd {SLUG} && make env
  . .venv/bin/activate
  python run.py model.lr=1.0e-3"""
# Whatever the user has set up, git asks nothing, runs no program of theirs and leaves no file out.
SETTINGS = f"""
    commit.gpgSign=false core.excludesFile={os.devnull} core.fsmonitor=false
    core.hooksPath={os.devnull} user.useConfigOnly=true
""".split()
# A git hook that calls cookiecutter sets these, and they mean another repository.
ELSEWHERE = "GIT_COMMON_DIR GIT_DIR GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_WORK_TREE".split()


def say(text: str, stream: TextIO = sys.stdout) -> None:
    """Prints; nobody there to read it must not cost the study, which cookiecutter would delete."""
    try:
        print(text, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def git(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs git in the study, without a word on the screen."""
    return subprocess.run(
        ["git", *(word for setting in SETTINGS for word in ("-c", setting)), *arguments],
        check=check,
        capture_output=True,
        encoding="utf-8",
        env={key: value for key, value in os.environ.items() if key not in ELSEWHERE},
        errors="replace",
        stdin=subprocess.DEVNULL,
    )


def is_compared(answers: dict[str, Any]) -> bool:
    """Whether cruft bakes in a temporary folder of its own, to compare two versions."""
    folder = Path.cwd().parent
    temporary = Path(tempfile.gettempdir()).resolve()
    named = re.fullmatch(r"tmp\w{8}", folder.name)
    return "_commit" in answers and folder.parent == temporary and bool(named)


def find_template(answers: dict[str, Any]) -> tuple[str, str]:
    """Returns the address and the commit of the template, which cruft gives and cookiecutter not.

    Raises:
        OSError: the template is not a git repository.
        CalledProcessError: git fails there.
    """
    if "_commit" in answers:
        return answers["_template"], answers["_commit"]
    typed_in = os.environ.get("PWD", "")  # cookiecutter gives a path as it was typed
    folder = Path(typed_in, answers["_repo_dir"])
    if not ((folder / ".git").exists() and (folder / "cookiecutter.json").exists()):
        raise OSError(f"{folder} is not a git repository")
    at = ("-C", str(folder))
    if Path(typed_in, answers["_template"]).is_dir():
        address = str(folder.resolve())  # no other address is known
        if git(*at, "status", "--porcelain").stdout:
            say("The template has uncommitted changes; .cruft.json names the commit before them.")
    else:
        origin = git(*at, "config", "remote.origin.url").stdout.strip()
        address = re.sub(r"^(https?://)[^/@]*@", r"\1", origin)  # no password
    return address, git(*at, "rev-parse", "HEAD").stdout.strip()


def record_template(answers: dict[str, Any]) -> None:
    """Writes the template's address, commit and version and the answers, as cruft writes them."""
    address, commit = find_template(answers)
    of_this_machine = ("_output_dir", "_repo_dir", "_checkout")
    context = {key: value for key, value in answers.items() if key not in of_this_machine}
    record = {
        "template": address,
        "commit": commit,
        "checkout": None,
        "context": {"cookiecutter": {**context, "_template": address, "_commit": commit}},
        "directory": None,
    }
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    RECORD.write_text(text, encoding="utf-8", newline="\n")


def ignores(repository: Path, folder: Path) -> bool:
    """Whether a repository ignores a folder, so that what is in it is no part of it."""
    return not git("-C", str(repository), "check-ignore", "-q", str(folder), check=False).returncode


def commit_all() -> str:
    """Commits the whole study to a repository of its own, or returns why it did not."""
    if not shutil.which("git"):
        return "git is not installed, so a run cannot record the commit that it came from"
    here = Path.cwd()
    for folder in (here, *here.parents):
        if os.path.lexists(folder / ".git") and not ignores(folder, here):
            return f"{folder} is a repository already, and is left as it is"
    git("init")
    branch = git("config", "init.defaultBranch", check=False).stdout.strip() or "main"
    git("symbolic-ref", "HEAD", f"refs/heads/{branch}")
    git("add", "--all")
    names = [git("var", f"GIT_{who}_IDENT", check=False) for who in ("AUTHOR", "COMMITTER")]
    if any(name.returncode for name in names):
        command = f"git -C {SLUG} -c user.name=NAME -c user.email=ADDRESS commit -m '{MESSAGE}'"
        return f"git does not know your name; to commit, type {command}"
    git("commit", "-m", MESSAGE)
    return ""


def take_starter(name: str) -> None:
    """Puts the files of the chosen starter into the study; a file that is there is its owner's."""
    for path in sorted(STARTERS.joinpath(name).rglob("*")):
        place = path.relative_to(STARTERS / name)
        if path.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
    shutil.rmtree(STARTERS)


def attempt(what: str, step: Callable[..., str | None], *arguments: object) -> None:
    """Takes a step; what the machine lacks costs a line on the screen, never the study."""
    try:
        reason = step(*arguments)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [str(error)])[-1]
    except OSError as error:
        reason = str(error)
    if reason:
        say(f"No {what}: {reason}", sys.stderr)


def main() -> None:
    """Finishes the study."""
    answers = dict(json.loads(ANSWERS))
    take_starter(answers["data"])
    # generated empty: a full one is an owner's, which --skip-if-file-exists has left alone
    if is_new := not (RECORD.exists() and RECORD.stat().st_size):
        RECORD.unlink(missing_ok=True)
    if is_compared(answers):
        return
    if is_new and shutil.which("git"):
        attempt("record of the template, for updates", record_template, answers)
    attempt("first commit", commit_all)
    say(NEXT)


if __name__ == "__main__":
    main()

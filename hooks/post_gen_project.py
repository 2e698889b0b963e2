"""Gives the new study its first commit, and says what to type next."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SLUG = "{{ cookiecutter.project_slug }}"
LICENSE = "{{ cookiecutter.license }}"
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


def main() -> None:
    """Finishes the study; what the machine lacks costs a line on the screen, never the study."""
    if LICENSE == "none":
        Path("LICENSE").unlink(missing_ok=True)
    try:
        reason = commit_all()
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [str(error)])[-1]
    except OSError as error:
        reason = str(error)
    if reason:
        print(f"No first commit: {reason}", file=sys.stderr)
    print(NEXT)


if __name__ == "__main__":
    main()

"""Commit, branch, remotes and uncommitted changes, without credentials and without key files."""

import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
MAX_PATCH_BYTES = 1_000_000  # of untracked files; what is larger is data: named, not copied
# Files and folders that are never copied into a patch, upper or lower case.
SECRET = """
    .aws .env* .huggingface .netrc .npmrc .pypirc .ssh *.key *.p12 *.pem *.pfx *api_key* *apikey*
    *credential* id_dsa* id_ecdsa* id_ed25519* id_rsa* kaggle.json *passw* *secret* *token *token.*
    *tokens.*
""".split()


def describe_git(root: Path) -> tuple[dict[str, Any] | None, bytes]:
    """Commit, branch and remotes of the study; and as a patch what is not committed, new files too.

    Returns:
        None outside a repository with a commit, or without git. An image has neither: its commit
        is given when it is built, in GIT_REV.
    """
    own = [".", ":(exclude)results", ":(exclude)dvc.lock"]
    secret = [f":(exclude,glob,icase)**/{name}{end}" for name in SECRET for end in ("", "/**")]
    status = git(
        *(root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--"), *own
    )
    lines = [line.decode(errors="surrogateescape") for line in status.split(b"\0")]
    head = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
    if head.get("branch.oid", "(initial)") == "(initial)":
        revision = os.environ.get("GIT_REV", "")
        clean = not revision.endswith("-dirty")
        known = {"commit": revision.removesuffix("-dirty"), "clean": clean}
        if (root / ".git").exists() and not status:
            log.warning("git failed, so the commit is not recorded; to see why, type: git status")
        return known if revision else None, b""
    changed = any(line and not line.startswith("#") for line in lines)
    untracked = [line[2:] for line in lines if line.startswith("? ")]
    large, patch = _patch(root, untracked, [*own, *secret]) if changed else ([], b"")
    remotes = git(root, "config", "--null", "--get-regexp", r"^remote\..*\.url$").split(b"\0")
    addresses = [os.fsdecode(entry).partition("\n")[2] for entry in remotes if entry]
    description = {
        "commit": head["branch.oid"],
        "branch": head["branch.head"],
        "remotes": [re.sub(r"//.*@", "//", item).partition("?")[0] for item in addresses],
        "clean": not patch and not large,
        "large_untracked": large,
    }
    return description, patch


def _patch(root: Path, untracked: list[str], own: list[str]) -> tuple[list[str], bytes]:
    """The new files that are too large for a patch, and the patch."""
    top = Path(os.fsdecode(git(root, "rev-parse", "--show-toplevel")).strip())
    sizes = {}
    for name in untracked:
        with suppress(OSError):  # deleted in the meantime
            sizes[name] = (top / name).lstat().st_size
    small: list[str] = []
    room = 10 * MAX_PATCH_BYTES
    for name, size in sizes.items():
        if size <= min(room, MAX_PATCH_BYTES):
            small.append(name)
            room -= size
    # the new files are added to a copy of the index: the user's own is left unchanged
    real = root / os.fsdecode(git(root, "rev-parse", "--git-path", "index").strip())
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index")
        environment = {**os.environ, "GIT_INDEX_FILE": str(index)}
        if real.is_file():
            shutil.copyfile(real, index)
        else:
            git(root, "read-tree", "HEAD", env=environment)
        for start in range(0, len(small), 500):  # a command line has a limit
            chosen = [f":(top,literal){name}" for name in small[start : start + 500]]
            git(root, "add", "--intent-to-add", "--", *chosen, env=environment)
        # whatever the user has set
        plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--unified=3")
        words = ("diff", "HEAD", "--binary", *plain, "--src-prefix=a/", "--dst-prefix=b/")
        patch = git(root, *words, "--", *own, env=environment)
    return [name for name in sizes if name not in small], patch


def git(root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    """The output of git; empty where it is absent or fails."""
    words = ["git", "-c", "core.quotePath=false", "-c", "diff.relative=false", *arguments]
    try:
        done = subprocess.run(words, cwd=root, env=env, capture_output=True, check=False)
    except OSError:
        return b""
    return b"" if done.returncode else done.stdout

"""Commit, branch, remotes and uncommitted changes, without credentials.

Of new files, a patch holds source and small text of the study's own folders. The others are named,
with their hashes: what a run read of them is among its inputs.
"""

import hashlib
import logging
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

from .reads import reads_ignored

log = logging.getLogger(__name__)
MAX_BYTES = 1_000_000  # of a new file; what is larger is data: named, neither copied nor hashed
MAX_HASHED = 2_000  # files, so that no run waits long; more are named only
# The new files that enter a patch: all that a run can need, but for data.
FOLDERS = ("conf", "docs", "src", "stages", "tests")
SOURCE = "*.c *.cc *.cpp *.cu *.cuh *.h *.md *.py *.py[ix] *.toml *.yaml *.yml".split()
SOURCE += ["Dockerfile", "Makefile", "py.typed", "requirements.lock"]
TEXT = ("*.csv", "*.json", "*.tsv", "*.txt")  # in these folders, not beside them
# Files and folders that never do, whatever their case, even if git tracks them.
SECRET = """
    .aws .azure .boto .docker .env* .gcloud .git-credentials .gnupg .htpasswd .huggingface .kube
    .netrc .npmrc .pgpass .pypirc .s3cfg .ssh _netrc *.asc *.env *.gpg *.jks *.kdbx *.key *.keystore
    *.keytab *.kubeconfig *.p12 *.pem *.pfx *.pgp *.ppk *api_key* *apikey* *credential* *kubeconfig*
    *passw* *secret* *service-account* *service_account* *token *token.* *tokens.* id_dsa* id_ecdsa*
    id_ed25519* id_rsa* kaggle.json rclone.conf
""".split()
# The same under another name: a key, or the base64 of one.
KEY = re.compile(rb"PRIVATE KEY( BLOCK)?-----|(?<![\w+/])LS0tLS1CRUdJ[T]i")
TOKEN = re.compile(
    r"(gh[oprsu]|github_pat)_.*|gl[a-z]{2,5}-\w{16}.*|(hf_|sk-|xox[a-z]-|eyJ|A[KS]IA)\w{12}.*"
    r"|[0-9a-fA-F-]{20,}"
)


def describe_git(root: Path) -> tuple[dict[str, Any] | None, bytes]:
    """Commit, branch and remotes of the study; and as a patch what is not committed, new files too.

    Returns:
        None outside a repository with a commit, or without git. An image has neither: its commit
        is given when it is built, in GIT_REV.
    """
    own = [".", ":(exclude)results", ":(exclude)dvc.lock"]
    words = ("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--no-renames")
    status = git(root, *words, "--", *own)
    lines = [line.decode(errors="surrogateescape") for line in status.split(b"\0") if line]
    head = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
    if head.get("branch.oid", "(initial)") == "(initial)":
        revision = os.environ.get("GIT_REV", "")
        clean = not revision.endswith("-dirty")
        known = {"commit": revision.removesuffix("-dirty"), "clean": clean}
        if (root / ".git").exists() and not status:
            log.warning("git failed, so the commit is not recorded; to see why, type: git status")
        return known if revision else None, b""
    changed = [line for line in lines if not line.startswith("#")]
    with reads_ignored():
        left_out, patch = _patch(root, changed, own) if changed else ({}, b"")
    remotes = git(root, "config", "--null", "--get-regexp", r"^remote\..*\.url$").split(b"\0")
    addresses = [os.fsdecode(entry).partition("\n")[2] for entry in remotes if entry]
    description = {
        "commit": head["branch.oid"],
        "branch": _printable(head["branch.head"]),
        "remotes": [_printable(without_secrets(address)) for address in addresses],
        "clean": not patch,
        "left_out": {_printable(name): known for name, known in left_out.items()},
    }
    return description, patch


def without_secrets(address: str) -> str:
    """The address of a repository without what opens it; a token in its path becomes ***.

    The path of a folder stays as it is.
    """
    scheme, mark, rest = address.partition("://")
    if not mark and not re.match("[^/]*:", address):
        return address
    user, _, place = (rest or scheme).rpartition("@")
    place = re.split("[?#;]", place)[0]
    place = re.sub(r"(?<=/)(s|share|tokens?)/[^/]+", r"\1/***", place)
    place = re.sub("(?<=[/:])[^/:]+", lambda part: "***" if _is_token(part[0]) else part[0], place)
    return f"{mark and scheme + mark}{'git@' if user == 'git' else ''}{place}"


def _is_token(word: str) -> bool:
    """Whether a part of an address is no name: letters and digits change places all the time."""
    runs = re.findall("[a-z]+|[A-Z]+|[0-9]+", word)
    mixed = len(word) >= 12 and len(runs) >= 0.45 * len(word) and re.search("[0-9]", word)
    return bool(mixed or TOKEN.fullmatch(word))


def _patch(root: Path, changed: list[str], own: list[str]) -> tuple[dict[str, str | None], bytes]:
    """What is left out of the patch, with the SHA-256 of each file; and the patch.

    Args:
        root: The study's folder.
        changed: Lines of git's status, as it prints them for programs.
        own: What of the study counts, as pathspecs.
    """
    prefix = os.fsdecode(git(root, "rev-parse", "--show-prefix")).removesuffix("\n")
    new, others = ([name.removeprefix(prefix) for name in names] for names in _names(changed))
    chosen = _choose(root, new)
    patch = _diff(root, {prefix + name: name in chosen for name in new}, own)
    left_out = [name for name in new if name not in chosen]
    left_out += [name for name in others if _is_secret(name) or name.endswith("/")]
    hashes = {name: _hash(root, name) for name in left_out[:MAX_HASHED]}
    return {**dict.fromkeys(left_out), **hashes}, patch


def _names(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """The files that are not in the last commit; and those that are, and were changed.

    The name of a repository in the study ends with a slash.
    """
    new: list[str] = []
    others: list[str] = []
    for line in lines:
        kind, rest = line.split(" ", 1)
        if kind == "?":
            new.append(rest)
        else:  # so many columns come before the name
            name = rest.split(" ", {"1": 7, "u": 9}[kind])[-1]
            name += "/" * (rest[3] == "S")
            (new if "A" in rest[:2] else others).append(name)
    return new, others


def _choose(root: Path, new: Iterable[str]) -> set[str]:
    """The new files that enter the patch."""
    chosen, room = set(), 10 * MAX_BYTES
    for name in filter(_may_enter, new):
        content = _read_small(root / name)
        if content is not None and len(content) <= room and not KEY.search(content):
            chosen.add(name)
            room -= len(content)
    return chosen


def _may_enter(name: str) -> bool:
    """Whether a new file is of a kind that a run can need, by its name."""
    *folders, last = PurePath(name).parts
    kinds = (*SOURCE, *TEXT) if folders else SOURCE
    own = not folders or folders[0] in FOLDERS
    hidden = any(part.startswith(".") for part in (*folders, last))
    return own and not hidden and not _is_secret(name) and _is_like(last, kinds)


def _is_secret(name: str) -> bool:
    """Whether a file is named like those that hold passwords and keys, or is in such a folder."""
    return any(_is_like(part, SECRET) for part in PurePath(name.lower()).parts)


def _is_like(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _read_small(path: Path) -> bytes | None:
    """The content of a small file; None of a large one, of a link, and of what cannot be read."""
    with suppress(OSError):  # deleted in the meantime, too
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES:
            return path.read_bytes()
    return None


def _hash(root: Path, name: str) -> str | None:
    """The SHA-256 of a small file; None of a secret, which might be guessed from it."""
    content = None if _is_secret(name) else _read_small(root / name)
    return None if content is None else hashlib.sha256(content).hexdigest()


def _diff(root: Path, new: Mapping[str, bool], own: list[str]) -> bytes:
    """The changes since the last commit, as a patch.

    Args:
        root: The study's folder.
        new: Whether each new file enters, by its name from the top of the repository.
        own: What of the study counts, as pathspecs.
    """
    secret = [f":(exclude,glob,icase)**/{name}{end}" for name in SECRET for end in ("", "/**")]
    # the new files are added, empty, to a copy of the index: the user's own is left unchanged
    real = root / os.fsdecode(git(root, "rev-parse", "--git-path", "index").strip())
    empty = git(root, "hash-object", "--stdin", data=b"").decode().strip()
    lines = [f"{'100644' if enters else '0'} {empty}\t{name}\0" for name, enters in new.items()]
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index")
        environment = {**os.environ, "GIT_INDEX_FILE": str(index)}
        if real.is_file():
            shutil.copyfile(real, index)
        else:
            git(root, "read-tree", "HEAD", env=environment)
        data = os.fsencode("".join(lines))
        git(root, "update-index", "-z", "--index-info", env=environment, data=data)
        # whatever the user has set
        plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--ignore-submodules", "-U3")
        words = ("diff", "HEAD", "--binary", *plain, "--src-prefix=a/", "--dst-prefix=b/")
        return git(root, *words, "--", *own, *secret, env=environment)


def _printable(text: str) -> str:
    """A name as a record can hold it: bytes that are no UTF-8 as \\xff."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def git(
    root: Path, *arguments: str, env: Mapping[str, str] | None = None, data: bytes | None = None
) -> bytes:
    """The output of git, given `data` to read; empty where it is absent or fails."""
    words = ["git", "-c", "core.quotePath=false", "-c", "diff.relative=false", *arguments]
    try:
        done = subprocess.run(
            words, cwd=root, env=env, input=data, capture_output=True, check=False
        )
    except OSError:
        return b""
    return b"" if done.returncode else done.stdout

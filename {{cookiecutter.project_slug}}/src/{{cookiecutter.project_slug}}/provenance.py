"""What a machine can tell of a run: changes, packages, hardware, energy, files that were read.

Nothing here is kept that could be a secret: of the environment only the names below, of the
address of a remote no credentials, of the work tree no file that is called like a key.
"""

import ctypes
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .files import hash_file, hash_files

log = logging.getLogger(__name__)
# Of the environment only what can change a number is kept.
ENVIRONMENT = (
    *("CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "OMP_NUM_THREADS"),
    *("NVIDIA_TF32_OVERRIDE", "PYTHONHASHSEED"),
)
MAX_PATCH_BYTES = 1_000_000  # of untracked files; what is larger is data: named, not copied
# Files and folders that are never copied into a patch, in any case of letters.
SECRET = """
    .aws .env* .huggingface .netrc .npmrc .pypirc .ssh *.key *.p12 *.pem *.pfx *api_key* *apikey*
    *credential* id_dsa* id_ecdsa* id_ed25519* id_rsa* kaggle.json *passw* *secret* *token *token.*
    *tokens.*
""".split()
INSTALLERS = ("pip", "uv", "wheel")  # which no run imports
# What is known of a run in another way, or comes out of it.
UNWATCHED = (
    *(
        ".dvc",
        ".git",
        ".venv",
        "conf",
        "dvc.lock",
        "requirements.lock",
        "results",
        "run.py",
        "runs",
    ),
    "src",
)

_watched: list[Path] = []  # the study's folder, once it is watched
_read: set[str] = set()  # every file below it that this process has opened to read


def watch_reads(root: Path) -> None:
    """From now on, notes which files of the study are read: the run may depend on any of them."""
    if not _watched:
        sys.addaudithook(_note_read)
    if root not in _watched:
        _watched.append(root)


def forget_read(path: str | Path) -> None:
    """A file that was read for a check, and cannot change a number, is no input of the run."""
    _read.discard(os.path.abspath(path))


def _note_read(event: str, arguments: tuple[Any, ...]) -> None:
    """Called by Python for each event that can be audited; all but `open` are none of ours."""
    if event != "open" or not isinstance(arguments[0], (str, bytes, Path)):
        return
    name, mode, flags = arguments
    if not ("w" in (mode or "") or "a" in (mode or "") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)):
        path = os.path.abspath(os.fsdecode(name))
        if any(path.startswith(str(root)) for root in _watched):
            _read.add(path)


def hash_inputs(root: Path, known: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of what was read in the study so far, besides what is known in another way.

    That is its code, its configuration, and prepared data. What worker processes and compiled code
    read is not seen. A file that is in `known` keeps the hash that it has there.
    """
    skipped = [*(root / name for name in UNWATCHED), Path(sys.prefix)]
    paths = []
    for path in map(Path, sorted(_read)):
        hidden = path.name.startswith(".") or "__pycache__" in path.parts
        inside = any(folder == path or folder in path.parents for folder in skipped)
        if not (hidden or inside or _is_prepared(path)) and root in path.parents:
            if path.is_file() and path.relative_to(root).as_posix() not in known:
                paths.append(path)
    return {**known, **hash_files(root, paths)}


def changed_inputs(root: Path, known: Mapping[str, str]) -> list[str]:
    """Those of the files that a run read (`known`, by their hashes) that have changed since."""
    return [
        name
        for name, before in known.items()
        if not (root / name).is_file() or hash_file(root / name) != before
    ]


def _is_prepared(path: Path) -> bool:
    """Whether a file belongs to prepared data: prepared/<split>/<field>.npy, or what is beside."""
    folders = list(path.parents)[:2]
    manifests = [folder / "manifest.json" for folder in folders]
    return path.name.endswith(".seen.json") or any(each.is_file() for each in manifests)


def describe_packages(root: Path) -> dict[str, dict[str, str]]:
    """Names and versions: `installed` in this environment, `locked` in requirements.lock."""
    installed: dict[str, str] = {}
    for folder in filter(os.path.isdir, sys.path):
        for name in os.listdir(folder):
            if name.endswith(".dist-info"):  # reading their metadata would take twenty times longer
                package, _, version = name.removesuffix(".dist-info").partition("-")
                if package not in INSTALLERS:
                    installed.setdefault(package.replace("_", "-").lower(), version)
    lock = (root / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.M))
    return {"installed": dict(sorted(installed.items())), "locked": locked}


def describe_environment() -> dict[str, str]:
    """The few variables that can change a number."""
    return {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}


def describe_hardware() -> dict[str, Any]:
    """The machine: host, system, processor, cores, threads and graphics cards."""
    import torch  # pylint: disable=import-outside-toplevel  # a record is read without it

    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": cards,
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def _processor() -> str:
    """The model of the processor; Linux alone tells it in a file."""
    with suppress(OSError, IndexError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return str(re.findall(r"model name\s*:\s*(.*)", text)[0])
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    """The version of NVIDIA's driver, if there is one."""
    with suppress(OSError, IndexError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
        return str(re.findall(r"Kernel Module\D*([\d.]+)", text)[0])
    return None


def read_energy(device: str) -> float | None:
    """Joules that a graphics card has taken since its driver was loaded, if it tells."""
    if not device.startswith("cuda"):
        return None
    import torch  # pylint: disable=import-outside-toplevel

    with suppress(OSError, AttributeError):
        identity = torch.cuda.get_device_properties(torch.device(device)).uuid
        nvml = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
        handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        name = f"GPU-{identity}".encode()
        if (
            nvml.nvmlInit_v2() == 0
            and nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)) == 0
            and nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)) == 0
        ):
            return millijoules.value / 1000
    return None


def describe_git(root: Path) -> tuple[dict[str, Any] | None, bytes]:
    """Commit, branch and remotes of the study; and as a patch what is in no commit, new files too.

    Returns:
        None outside a repository with a commit, or without git. An image has neither: it is told
        its commit when it is built, and says so in GIT_REV.
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
            log.warning("git does not answer, so the commit is not recorded; type: git status")
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
    """The new files that are too large for a patch, and what else differs from the commit."""
    top = Path(os.fsdecode(git(root, "rev-parse", "--show-toplevel")).strip())
    sizes = {}
    for name in untracked:
        with suppress(OSError):  # gone meanwhile
            sizes[name] = (top / name).lstat().st_size
    small: list[str] = []
    room = 10 * MAX_PATCH_BYTES
    for name, size in sizes.items():
        if size <= min(room, MAX_PATCH_BYTES):
            small.append(name)
            room -= size
    # a copy of the index is told of the new files: the user's own stays as it is
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
        plain = (
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--unified=3",
        )  # whatever is set up
        words = ("diff", "HEAD", "--binary", *plain, "--src-prefix=a/", "--dst-prefix=b/")
        patch = git(root, *words, "--", *own, env=environment)
    return [name for name in sizes if name not in small], patch


def git(root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    """What git answers, or nothing where it is absent, refuses or knows no commit."""
    words = ["git", "-c", "core.quotePath=false", "-c", "diff.relative=false", *arguments]
    try:
        done = subprocess.run(words, cwd=root, env=env, capture_output=True, check=False)
    except OSError:
        return b""
    return b"" if done.returncode else done.stdout

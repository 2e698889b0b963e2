"""Whether the packages that a process has imported are those that requirements.lock names.

Every wheel brings a RECORD with the SHA-256 of each of its files. A file is hashed once, and again
when its size or modification time differs; what matched is noted in the environment's folder, or in
the user's cache where that is read-only.
"""

import base64
import csv
import functools
import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import StudyError
from ..files import hash_file, write_atomically
from ..study import PACKAGE
from .machine import locked_versions, name_and_version
from .reads import reads_ignored

NAME = "study-verified.json"
CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
ELSEWHERE = Path(CACHE, "study", hashlib.sha256(sys.prefix.encode()).hexdigest()[:16], NAME)
MATCHED = (Path(sys.prefix, NAME), ELSEWHERE)  # the first that can be read; or written
CODE = (".py", ".so", ".pyd", ".dll", ".dylib")  # what is run: not headers, texts or tests' data
# of each distribution that this process has verified: what is not as it was installed
_verified: dict[str, dict[str, str]] = {}


def find_unlocked(root: Path) -> dict[str, str]:
    """What requirements.lock does not vouch for, of the packages that this process has imported.

    Returns:
        Of each file that is not as in its wheel the SHA-256 (`missing` if it is gone), by its name
        in site-packages; of a package with another version than the lock's, that version; of one
        that was installed from a folder, where a version says little, the digest of its files.
    """
    matched = _read_matched()
    imported = _imported(matched)
    with reads_ignored():
        for folder, known in imported:
            if str(folder) not in _verified:
                _verified[str(folder)] = {**_digest_of_folder(folder), **_verify(folder, known)}
    if sum(known.pop("is_new", False) for known in matched.values()):
        _write_matched(matched)
    found = {name: digest for each in _verified.values() for name, digest in each.items()}
    locked = locked_versions(root)
    for folder, _ in imported:
        name, version = name_and_version(folder.name)
        if locked.get(name, version) != version:
            found[name] = version
    return dict(sorted(found.items()))


def imported_packages() -> list[str]:
    """The name of each package that this process has imported."""
    folders = [folder for folder, _ in _imported(_read_matched())]
    return sorted(name_and_version(folder.name)[0] for folder in folders)


@functools.cache
def _read_matched() -> dict[str, Any]:
    """What matched before, of each distribution; what this process finds is added to it."""
    for path in MATCHED:
        with suppress(OSError, ValueError), reads_ignored():
            return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


def _write_matched(matched: dict[str, Any]) -> None:
    """Notes what matched; where nothing can be written, each start hashes again."""
    for path in MATCHED:
        with suppress(OSError, StudyError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(matched).encode())
            return


def _imported(matched: dict[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    """The folder with the metadata of each package that is imported, and what is known of it."""
    imported = {name.partition(".")[0] for name in list(sys.modules)} - {PACKAGE}
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    # a linked environment is known by its own path: nothing is hashed again for another link
    for place in map(os.path.realpath, filter(os.path.isdir, sys.path)):
        for name in os.listdir(place):
            if name.endswith(".dist-info") and os.path.isfile(f"{place}/{name}/RECORD"):
                folder = Path(place, name)
                known = _known(folder, matched)
                if imported.intersection(known["modules"]):
                    found.setdefault(name.partition("-")[0].lower(), (folder, known))
    return list(found.values())


def _known(folder: Path, matched: dict[str, Any]) -> dict[str, Any]:
    """Of a distribution: its import names; how many files it has; stamps of those that matched."""
    known: dict[str, Any] = matched.get(str(folder), {})
    stamp = _stamp(folder / "RECORD")
    if known.get("stamp") != stamp:
        names = _hashes(folder)
        modules = sorted({name.partition("/")[0].partition(".")[0] for name in names})
        known = {"stamp": stamp, "modules": modules, "num_files": len(names), "files": {}}
        known["is_new"] = True  # to be written
        matched[str(folder)] = known
    return known


def _hashes(folder: Path) -> dict[str, str]:
    """The hash of each file of code as RECORD has it, by its name in site-packages."""
    with reads_ignored(), open(folder / "RECORD", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == 3 and row[1]]
    code = [row for row in rows if row[0].endswith(CODE) or ".so." in row[0]]
    return {name: digest for name, digest, _ in code if not name.startswith("..")}


def _verify(folder: Path, known: dict[str, Any]) -> dict[str, str]:
    """What of a distribution is not as it was installed; notes the files that are."""
    place, files = folder.parent, known["files"]
    whole = len(files) == known["num_files"]
    if whole and all(_stamp(f"{place}/{name}") == stamp for name, stamp in files.items()):
        return {}
    found = {}
    known["is_new"] = True
    for name, digest in _hashes(folder).items():
        stamp = _stamp(f"{place}/{name}")
        if stamp and files.get(name) != stamp:
            now = hash_file(place / name)
            encoded = base64.urlsafe_b64encode(bytes.fromhex(now)).decode().rstrip("=")
            files.pop(name, None)
            if digest == f"sha256={encoded}":
                files[name] = stamp
            else:
                found[name] = now
        elif not stamp:
            found[name] = "missing"
    return found


def _stamp(path: Path | str) -> list[int]:
    """Size and modification time of a file; nothing if it is gone."""
    with suppress(OSError):
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]
    return []


def _digest_of_folder(folder: Path) -> dict[str, str]:
    """The digest of a package that was installed from a folder or a repository, if it was."""
    files = _hashes(folder) if (folder / "direct_url.json").is_file() else {}
    digest = hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()
    return {name_and_version(folder.name)[0]: digest} if files else {}

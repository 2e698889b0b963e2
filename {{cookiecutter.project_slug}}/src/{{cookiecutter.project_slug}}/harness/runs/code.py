"""The code that can change a number: what run.py and the configuration's `_target_`s reach.

A file counts as its syntax tree, without docstrings: a comment, a docstring or a formatter changes
nothing, and the digest is the same under every supported Python. A file that no import leads to is
not part of it: a new model re-runs nothing.
"""

import ast
import functools
import hashlib
import importlib.util
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import StudyError
from ..files import hash_files
from ..study import PACKAGE
from .reads import reads_ignored

log = logging.getLogger(__name__)
# Modules of the harness, or packages of them, that cannot change a number, and why. All others that
# an import leads to are part of the code of a run.
WITHOUT_EFFECT = {
    "checks": "a model that passes is trained as if it had not been checked",
    "configuration.composing": "the resolved configuration is itself part of the fingerprint",
    "configuration.entrypoint": "command line, signals and exit codes",
    "configuration.guarding": "what Hydra may do besides composing",
    "configuration.messages": "words",
    "configuration.opening": "which folder a run writes to",
    "configuration.reading": "the resolved configuration is itself part of the fingerprint",
    "configuration.resolving": "the resolved configuration is itself part of the fingerprint",
    "configuration.targets": "finds the class that the configuration names",
    "configuration.tracking": "tells a tracker what the history says",
    "configuration.launchers": "the same command, in another process",
    "debugging": "trains copies, of which no run has a number",
    "errors": "words",
    "files": "how bytes reach the disk, and their hashes",
    "launching": "the same command, on another machine",
    "runs": "folders and records",
    "study": "where the study is",
    "terminal": "what is printed",
    "tracking": "is told the rows of the history, and has neither model nor data",
    "training.range_test": "trains a copy, of which no run has a number",
    "training.results": "how numbers are written; they are the trainer's",
    "training.spec": "what checks and predictions are compared with",
}
ANY = "*"  # a module whose name is computed: it may be any of the researcher's
DYNAMIC = ("import_module", "__import__")
IGNORED_FIELDS = ("ctx", "kind", "type_comment", "type_ignores")  # of a syntax tree


@dataclass(frozen=True)
class Module:
    """What counts of a file: a digest of its syntax tree, and the modules that it imports."""

    digest: str
    imports: tuple[str, ...]  # absolute, with dots


def code_of(root: Path, values: Mapping[str, Any], start: str = "run.py") -> dict[str, str]:
    """The digest of each file that can change a number, by its name relative to the study.

    Of each other package that a `_target_` names, torch aside, it is the version.

    Args:
        root: The study's folder, or one in which another state of it was restored.
        values: A resolved configuration: each `_target_` in it counts.
        start: The program; what it imports counts too.

    Raises:
        StudyError: a file cannot be parsed.
    """
    digests = {start: (program := read_module(root / start, "__main__")).digest}
    waiting = [*program.imports, *targets_in(values)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name == ANY:
            waiting += _own_modules(root)
        for path, module in _files_of(root, name):
            found = read_module(path, module)
            digests[_shown(root, path, module)] = found.digest
            waiting += found.imports
    return {**dict(sorted(digests.items())), **_versions_of_targets(values)}


def code_in_use(root: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """The code that this process runs: a later job of a sweep has what the first one imported.

    Raises:
        StudyError: a file has changed since this process began that it has yet to import.
    """
    now, source = code_of(root, values), hash_source(root)
    first_source, first_code = _first_seen.setdefault(root, (source, {}))
    for name in now:
        if first_source.get(name, source.get(name)) == source.get(name):
            first_code.setdefault(name, now[name])
        elif name in first_code and _is_imported(root / name):
            log.warning("%s: was edited; this command still uses what it had imported", name)
        else:
            raise StudyError(f"{name}: was edited while this command ran; type the command again")
    return {name: first_code[name] for name in now}


def _is_imported(path: Path) -> bool:
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return any(Path(name).resolve() == path.resolve() for name in files if name)


def source_in_use(root: Path) -> dict[str, str]:
    """The SHA-256 of the files of code, as they were when this process first looked."""
    return _first_seen.setdefault(root, (hash_source(root), {}))[0]


# of each study: the bytes of its code when this process first looked, and the digests since
_first_seen: dict[Path, tuple[dict[str, str], dict[str, str]]] = {}


def hash_source(root: Path) -> dict[str, str]:
    """The SHA-256 of run.py and of each file of src/ and stages/, except what tools leave there."""
    made = ("__pycache__", ".egg-info", ".dist-info")
    paths = [root / "run.py"]
    for path in [*(root / "src").rglob("*"), *(root / "stages").rglob("*")]:
        inside = path.relative_to(root).parts
        if path.is_file() and not any(part.endswith(made) or part[0] == "." for part in inside):
            paths.append(path)
    with reads_ignored():
        return hash_files(root, paths)


def called_by(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what a run does not call, and without what is only told of it.

    Prepared data are known by their hash.
    """
    data = {key: value for key, value in values.get("data", {}).items() if key != "prepare"}
    return {**{key: value for key, value in values.items() if key != "tracker"}, "data": data}


def targets_in(node: Any) -> Iterator[str]:
    """Each `_target_` of a configuration."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from targets_in(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from targets_in(value)


def _files_of(root: Path, name: str) -> Iterator[tuple[Path, str]]:
    """The files that an import of a module, or of a class in it, runs; and their modules."""
    parts = name.split(".")
    library = _library(root, parts[0])
    if library is None:
        return
    for length in range(1, len(parts) + 1):
        module = ".".join(parts[:length])
        base = library.joinpath(*parts[:length])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file() and not _is_without_effect(module):
                yield path, module


def _own_modules(root: Path) -> list[str]:
    """Every module of the study that is the researcher's."""
    library = root / "src"
    paths = [path.relative_to(library) for path in library.rglob("*.py")]
    return [".".join(path.with_suffix("").parts) for path in paths if "harness" not in path.parts]


def _shown(root: Path, path: Path, module: str) -> str:
    """A path relative to the study; of another study, its module."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else module


def _is_without_effect(module: str) -> bool:
    if module.split(".")[1:2] != ["harness"]:
        return False
    inside = module.split(".", 2)[-1] if module.count(".") > 1 else ""
    return inside in WITHOUT_EFFECT or inside.partition(".")[0] in WITHOUT_EFFECT


def _library(root: Path, package: str) -> Path | None:
    """The folder with the code of a package that no version identifies; None for all others."""
    if package == PACKAGE or (root / "src" / package / "harness").is_dir():  # or renamed since
        return root / "src"
    if package in sys.stdlib_module_names or package in ("__main__", "torch", "numpy"):
        return None
    return _library_elsewhere(package)


@functools.cache
def _library_elsewhere(package: str) -> Path | None:
    """The folder of another study that is installed here, or of a package installed by its path."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    folder = Path(spec.origin).parent
    is_versioned = "site-packages" in folder.parts and not (folder / "harness").is_dir()
    return None if is_versioned else folder.parent


def _versions_of_targets(values: Mapping[str, Any]) -> dict[str, str]:
    """The version of each installed package that a `_target_` names, besides torch."""
    packages = {name.partition(".")[0] for name in targets_in(values)} - {PACKAGE, "torch"}
    owners = metadata.packages_distributions() if packages else {}
    names = {name for package in packages for name in owners.get(package, ())}
    return {name: metadata.version(name) for name in sorted(names)}


def read_module(path: Path, name: str) -> Module:
    """Digest and imports of a file; parsed once for each content.

    Raises:
        StudyError: it cannot be read or parsed.
    """
    try:
        with reads_ignored():
            content = path.read_bytes()
        return _parse(content, name, path.name == "__init__.py")
    except SyntaxError as error:
        raise StudyError(f"{path}: line {error.lineno}: {error.msg}") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({error})") from error


@functools.cache
def _parse(content: bytes, name: str, is_package: bool) -> Module:
    tree = ast.parse(content)
    package = name if is_package else name.rpartition(".")[0]
    imports: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(
                [*(above if node.level else ()), *([node.module] if node.module else ())]
            )
            imports |= dict.fromkeys(f"{base}.{alias.name}" for alias in node.names)
        elif getattr(node, "id", getattr(node, "attr", None)) in DYNAMIC:
            imports[ANY] = None
    return Module(hashlib.sha256("".join(_canonical(tree)).encode()).hexdigest(), tuple(imports))


def _canonical(node: Any) -> Iterator[str]:
    """A syntax tree as text: without positions, docstrings and what differs between Pythons."""
    if isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(node, ast.JoinedStr):  # Python 3.12 ends some with an empty string
                value = [item for item in node.values if getattr(item, "value", None) != ""]
            if field not in IGNORED_FIELDS and value is not None and value != []:
                yield f"{field}="
                yield from _canonical(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            if not _is_docstring(item):
                yield from _canonical(item)
        yield "]"
    else:
        yield f"{type(node).__name__}:{node!r},"


def _is_docstring(node: Any) -> bool:
    """A string as a statement: a docstring, or a comment in quotes."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def is_same_code(study: Path, record: Mapping[str, Any]) -> bool:
    """Whether a folder contains the code of a record, as far as it can change a number."""
    if record["code"]:
        return bool(code_of(study, called_by(record["config"])) == record["code"])
    known = record["source"]  # of an earlier version: every byte of run.py and src/
    now = hash_source(study)
    here = {name: value for name, value in now.items() if not name.startswith("stages/")}
    return bool(here == known)

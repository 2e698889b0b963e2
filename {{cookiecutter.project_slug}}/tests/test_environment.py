"""What is imported is declared, what is declared is locked, and who may import whom."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

from {{ cookiecutter.project_slug }}.harness.study import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OWN = {path.stem for folder in (".", "stages", "tests") for path in ROOT.glob(f"{folder}/*.py")}


def canonical(requirement: str) -> str:
    """The name of a requirement, as the lock spells it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", requirement)[0]).lower()


LOCKED = {canonical(line) for line in LOCK.splitlines() if line[:1].isalnum()}
RUNTIME = {canonical(item) for item in PROJECT["project"]["dependencies"]}
GROUPS = {
    canonical(item)
    for group in PROJECT["dependency-groups"].values()
    for item in group
    if isinstance(item, str)
}


def imports(paths: Iterable[Path]) -> set[str]:
    """The packages, of others, that some files import."""
    names = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module or "")
    packages = {name.partition(".")[0] for name in names}
    return packages - sys.stdlib_module_names - OWN - {PROJECT["project"]["name"]}


def files(*patterns: str) -> set[Path]:
    """The files of the study that match."""
    return {path for pattern in patterns for path in ROOT.glob(pattern)}


TOOLS = files("src/*/harness/commands/*.py", "src/*/harness/reporting/*.py")
TOOLS |= files("src/*/harness/runs/scanning.py")  # for stages/report.py
TOOLS |= files("src/*/harness/launching/*.py", "src/*/harness/configuration/searching.py")
TRAINING = files("run.py", "src/**/*.py") - TOOLS
PROGRAMS = files("stages/*.py", "tests/*.py", "notebooks/*.py")


@pytest.mark.parametrize(
    ("paths", "declared"),
    [(TRAINING, RUNTIME), (TOOLS | PROGRAMS, RUNTIME | GROUPS)],
    ids=["training", "tools"],
)
def test_what_is_imported_is_declared(paths: set[Path], declared: set[str]) -> None:
    owners = metadata.packages_distributions()
    assert paths
    for package in imports(paths):
        names = owners.get(package, [package])  # what an optional group brings may be missing
        assert {canonical(name) for name in names} & declared, package


def test_what_is_declared_is_locked_with_a_hash_and_no_address() -> None:
    assert (RUNTIME | GROUPS) - LOCKED == {"torch"}  # pinned in pyproject.toml
    assert "torch==" in " ".join(PROJECT["project"]["dependencies"])
    entries = re.split(r"\n(?=\w)", LOCK.strip())
    assert all(re.search(r"==\S+.*--hash=sha256:", entry, re.S) for entry in entries)
    assert "://" not in LOCK


def test_what_is_installed_is_what_is_locked() -> None:
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.M))
    for item in metadata.distributions():
        name = canonical(item.metadata["Name"])
        assert locked.get(name, item.version) == item.version, f"{name}: type make env"


def test_what_is_yours_is_plain_pytorch_and_the_harness_imports_none_of_it() -> None:
    subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, check=True)

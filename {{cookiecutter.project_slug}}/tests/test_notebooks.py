"""Notebooks read results and call the library: they define nothing, and run from top to bottom."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import compose

from {{ cookiecutter.project_slug }}.harness.study import ROOT

NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").glob("*") if path.is_file())
NAMES = [path.name for path in NOTEBOOKS]
MOST_LINES = {"cell": 25, "function": 8}
PARTS = ("conf", "data/raw", "notebooks", "run.py", "src", "stages", "tests/fixtures")


def find_faults(path: Path) -> Iterator[str]:
    """What belongs in src/, where it can be imported, reviewed and tested."""
    if path.suffix != ".py":
        yield f"{path.name}: is no Python file; type: marimo convert {path.name}"
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            yield f"{path.name}:{node.lineno}: defines the class {node.name}; move it to src/"
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            kind = "cell" if node.decorator_list else "function"
            num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if num_lines > MOST_LINES[kind]:
                yield f"{path.name}:{node.lineno}: a {kind} of {num_lines} lines; move it to src/"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_defines_nothing(path: Path) -> None:
    assert not list(find_faults(path))


def test_what_a_notebook_must_not_define_is_found(tmp_path: Path) -> None:
    lines = "\n".join("    print()" for _ in range(MOST_LINES["function"]))
    (tmp_path / "a.py").write_text(f"class Model:\n    pass\n\ndef train():\n{lines}\n")
    assert len(list(find_faults(tmp_path / "a.py"))) == 2
    assert len(list(find_faults(tmp_path / "a.ipynb"))) == 1


@pytest.mark.slow
@pytest.mark.skipif(not NOTEBOOKS, reason="notebooks/ is empty")
@pytest.mark.skipif(not importlib.util.find_spec("marimo"), reason="no marimo: make notebooks")
def test_each_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    for name in PARTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, folder / name)
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copyfile(ROOT / name, folder / name)
    few = f"data.prepare.read.path={compose().data.fixture}"
    call(folder, "stages/prepare.py", few)
    call(folder, "run.py", few, "training.num_epochs=1")
    for name in NAMES:
        call(folder, f"notebooks/{name}")


def call(folder: Path, *words: str) -> None:
    """Runs a program of a copy, on its own library."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""What counts as the code of a run: all that can change a number, and nothing else."""

import ast
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from my_study.harness.configuration import composing
from my_study.harness.runs import code
from my_study.harness.runs.code import WITHOUT_EFFECT, called_by, code_of, is_same_code
from my_study.harness.runs.fingerprint import fingerprint
from my_study.harness.runs.reads import watch_reads
from my_study.harness.runs.record import read_record
from my_study.harness.study import ROOT

from .conftest import TINY
from .runs import begin

SRC = Path("src", "my_study")
HARNESS = ROOT / SRC / "harness"
MODELS = ("linear", "mlp", "cnn")
# other versions of Python on this machine: on the path, or beside this one where pyenv keeps them
PYTHONS = [
    *filter(None, (shutil.which(f"python3.{minor}") for minor in (11, 12, 13))),
    *sorted(map(str, Path(sys.base_prefix).parent.glob("3.1[1-3].*/bin/python"))),
]
CodeOf = Callable[[str], dict[str, str]]


@pytest.fixture(name="study")
def _study(tmp_path: Path) -> Path:
    """A copy of the code of the study, to be edited."""
    for name in ("src", "stages"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / "study" / name, ignore=unwanted)
    shutil.copyfile(ROOT / "run.py", tmp_path / "study" / "run.py")
    return tmp_path / "study"


@functools.cache
def config_of(model: str) -> dict[str, Any]:
    """The configuration of a model, as the code of a run is asked for."""
    return called_by(composing.to_values(composing.compose([f"model={model}"])))


def codes(root: Path) -> dict[str, dict[str, str]]:
    """The code of a run with each model."""
    return {model: code_of(root, config_of(model)) for model in MODELS}


def edit(path: Path, old: str, new: str) -> None:
    """Replaces what is there, for sure."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old} is not in {path}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def add_comment(study: Path) -> None:
    """A comment at the end of every file."""
    for path in (study / "src").rglob("*.py"):
        path.write_text(path.read_text(encoding="utf-8") + "\n# a comment\n", encoding="utf-8")


def change_docstrings(study: Path) -> None:
    """Another docstring of a module, of a class and of a function."""
    edit(study / SRC / "models" / "cnn.py", '"""', '"""Another beginning. ')
    edit(study / SRC / "metrics.py", '    """The share', '    """It is the share')
    edit(study / SRC / "harness" / "training" / "step.py", '    """', '    """Another. ')


def reformat(study: Path) -> None:
    """Black, with short lines and without the commas that keep them apart."""
    words = [sys.executable, "-m", "black", "--quiet", "--line-length=60", "-C", str(study)]
    subprocess.run(words, check=True)
    assert (study / "run.py").read_bytes() != (ROOT / "run.py").read_bytes()


def add_model(study: Path) -> None:
    """A file that nothing names."""
    shutil.copyfile(study / SRC / "models" / "mlp.py", study / SRC / "models" / "deeper.py")


def change_checks(study: Path) -> None:
    """Another constant in a check, and another line in a command."""
    edit(study / SRC / "harness" / "checks" / "preflight.py", "NUM_ROWS = 1000", "NUM_ROWS = 7")
    edit(study / SRC / "harness" / "commands" / "check.py", "return 0", "return 1")
    edit(study / "stages" / "report.py", "2.4), layout", "2.5), layout")


@pytest.mark.parametrize(
    "change", [add_comment, change_docstrings, reformat, add_model, change_checks]
)
def test_what_cannot_change_a_number_leaves_the_code_as_it_is(
    change: Callable[[Path], None], study: Path
) -> None:
    before = codes(study)
    assert before == codes(ROOT)
    change(study)
    assert codes(study) == before
    prints = [fingerprint({"code": each["cnn"]}) for each in (before, codes(study))]
    assert prints[0] == prints[1]


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("models/cnn.py", "padding=1", "padding=1 + 0", {"cnn"}),
        ("models/mlp.py", "nn.ReLU()", "nn.GELU()", {"mlp"}),
        ("models/outputs.py", "cross_entropy(", "cross_entropy(1 * ", set(MODELS)),
        ("metrics.py", "dim=-1", "dim=1", set(MODELS)),
        ("harness/training/step.py", "max(total, 1)", "max(total, 2)", set(MODELS)),
        ("harness/training/determinism.py", "0xBF58476D1CE4E5B9", "3", set(MODELS)),
        ("harness/configuration/building.py", "math.ceil(", "math.floor(", set(MODELS)),
        ("__init__.py", "", "X = 1\n", set(MODELS)),
    ],
)
def test_another_constant_changes_the_code_of_the_runs_that_reach_it(
    name: str, old: str, new: str, changed: set[str], study: Path
) -> None:
    before = codes(study)
    edit(study / SRC / name, old, new)
    after = codes(study)
    assert {model for model in MODELS if before[model] != after[model]} == changed
    for model in changed:
        differing = {key for key in after[model] if after[model][key] != before[model].get(key)}
        assert differing == {(SRC / name).as_posix()}


def test_a_file_with_an_error_is_named_with_its_line(study: Path) -> None:
    edit(study / SRC / "metrics.py", "class Accuracy:", "class Accuracy")
    with pytest.raises(code.StudyError, match=r"metrics\.py: line \d+: expected ':'"):
        codes(study)


def test_a_module_that_is_imported_by_a_computed_name_counts(study: Path) -> None:
    path = study / SRC / "models" / "cnn.py"
    text = path.read_text(encoding="utf-8")
    lines = "import importlib\n\nEXTRA = importlib.import_module('my_study.' + 'data')\n"
    path.write_text(f"{text}\n{lines}", encoding="utf-8")
    found = codes(study)
    assert (SRC / "data.py").as_posix() in found["cnn"]
    assert (SRC / "models" / "mlp.py").as_posix() in found["cnn"]  # any may be meant
    assert (SRC / "models" / "cnn.py").as_posix() not in found["mlp"]


def test_a_file_of_the_package_that_is_read_as_data_is_an_input(
    study: Path, values: dict[str, Any]
) -> None:
    (study / "requirements.lock").touch()
    words, other = study / SRC / "words.txt", study / SRC / "README.md"
    for path in (words, other):
        path.write_text("one two")
    watch_reads(study)
    with begin(values, root=study) as running:
        words.read_text(encoding="utf-8")
    # the rest of the package is hashed for the record, and no input: nothing of the run read it
    assert set(read_record(running.folder)["inputs"]) == {(SRC / "words.txt").as_posix()}


def test_the_code_of_a_record_is_recognised(study: Path) -> None:
    record = {"config": config_of("mlp"), "code": codes(study)["mlp"]}
    edit(study / SRC / "models" / "cnn.py", "padding=1", "padding=2")
    assert is_same_code(study, record)
    edit(study / SRC / "models" / "mlp.py", "nn.ReLU()", "nn.GELU()")
    assert not is_same_code(study, record)


DIGESTS = """
import json, pathlib, sys
from my_study.harness.runs.code import read_module
paths = sorted(pathlib.Path(sys.argv[1]).rglob("*.py"))
print(json.dumps({path.name: read_module(path, "a.b").digest for path in paths}))
"""
# syntax whose tree, or whose text, differs between versions of Python
TRICKY = '''
def function(a: int = 1, /, *args: "str", b=f"{a!r:>{10}}", **kwargs) -> None:
    """A docstring."""
    with (open("a") as file, open("b")):
        print(f"x{file}" f"" "y", 1_000, 0x10, 1e3, 1j, "ü", b"\\0", ..., -1, kwargs)
    match args:
        case {"a": [1, *rest], **others} if rest:
            return lambda x: (yield others)
    try:
        pass
    except* ValueError as error:
        del error
class Class[T]:
    pass
'''


@pytest.mark.skipif(not PYTHONS, reason="there is no other Python on this machine")
def test_a_digest_is_the_same_under_every_python(study: Path) -> None:
    tricky = TRICKY.replace("class Class[T]", "class Class")  # generics came with 3.12
    (study / "tricky.py").write_text(tricky, encoding="utf-8")
    answers = {}
    for python in [sys.executable, *PYTHONS]:
        words = [python, "-c", DIGESTS, str(study)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        answer = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if answer.returncode and python != sys.executable and "command not found" in answer.stderr:
            continue  # a shim of pyenv, for a version that is not chosen here
        answers[python] = json.loads(answer.stdout)
    if len(answers) < 2:
        pytest.skip("there is no second Python here")
    assert len({json.dumps(each) for each in answers.values()}) == 1
    assert "tricky.py" in answers[sys.executable]


IMPORTED = """
import atexit, sys
atexit.register(lambda: print("imported:", *sorted(
    name for name in sys.modules if name.partition(".")[0] == "my_study")))
"""


def harness_modules() -> set[str]:
    """Each module and package of the harness, by its name inside it."""
    paths = [path.relative_to(HARNESS).with_suffix("") for path in HARNESS.rglob("*.py")]
    return {".".join(path.parts).removesuffix(".__init__") for path in paths} - {"__init__"}


@pytest.mark.parametrize("knobs", [["preflight=true"], ["test=true", "training.num_workers=1"]])
def test_all_that_a_run_imports_is_in_its_code_or_cannot_change_a_number(
    knobs: list[str], tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(IMPORTED)
    library = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    paths = [f"data.prepare.read.path={TINY}", f"data.fixture={TINY}", f"data.folder={tiny}"]
    knobs = [*paths, "device=cpu", "model=cnn", "training.num_epochs=1", *knobs]
    answer = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *knobs],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": library},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in answer.stdout.splitlines() if line.startswith("imported: ")]
    (path,) = tmp_path.glob("runs/*/record.json")
    known = {
        ".".join(Path(name).relative_to("src").with_suffix("").parts).removesuffix(".__init__")
        for name in read_record(path.parent)["code"]
        if name.startswith("src/")
    }
    imported = set(line.split()[1:])
    assert "my_study.models.cnn" in imported and "my_study.harness.training.trainer" in imported
    unknown = {name for name in imported - known if not is_without_effect(name)}
    # what makes the prepared data, whose hash is in the record
    prepares = {"preparation", "splits", "chunks", "screening"}
    assert unknown <= {"my_study.data"} | {f"my_study.harness.training.{name}" for name in prepares}


def is_without_effect(module: str) -> bool:
    """Whether a module of the harness is listed as without effect, itself or by its package."""
    inside = module.removeprefix("my_study.harness.")
    return inside in WITHOUT_EFFECT or inside.partition(".")[0] in WITHOUT_EFFECT


def test_every_module_without_effect_exists_and_has_its_reason() -> None:
    assert set(WITHOUT_EFFECT) <= harness_modules()
    assert all(WITHOUT_EFFECT.values())


def test_the_harness_imports_itself_relatively_and_nothing_outside_of_it() -> None:
    for path in HARNESS.rglob("*.py"):
        inside = path.relative_to(HARNESS)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level <= len(inside.parts), f"{inside}: line {node.lineno}"
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert "my_study" not in {name.partition(".")[0] for name in names}, inside

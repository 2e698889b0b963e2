"""The study that comes out: as a user sets it up, checks it, reproduces it and hands it on."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TEMPLATE, Edit, Study, edit, generate, install
from warm import Warm

LONGEST = "a_study_whose_name_is_as_long_as_it_gets"
AWKWARD = {
    "project_slug": LONGEST,
    "author": 'Ægir "the \\ sea" <Ó> #1 {\'[é',
    "description": "\"Why?\" | *what* `x` _y_ \\ <b>&amp; 100 % # 'ş' 🙂",
}
pytestmark = pytest.mark.slow


def test_black_pylint_mypy_and_import_linter_find_nothing(study: Study) -> None:
    study.call("make", "lint")


def test_the_linters_miss_no_package_of_a_group_that_is_optional(
    baked: Path, tmp_path: Path
) -> None:
    bare = Study(Path(shutil.copytree(baked, tmp_path / "my_study", symlinks=True)))
    install(bare)
    bare.call("mypy")
    bare.call(
        "pylint", "--disable=all", "--enable=import-error", "run.py", "stages", "src", "tests"
    )


def test_black_changes_nothing_whatever_the_answers(study: Study, tmp_path: Path) -> None:
    assert len(LONGEST) == 40
    for answers in ({"project_slug": "a"}, AWKWARD):
        study.call("black", "--check", generate(tmp_path / answers["project_slug"], **answers))


def test_the_longest_name_leaves_no_line_too_long(tmp_path: Path) -> None:
    for path in generate(tmp_path, **AWKWARD).rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 100, f"{path}: {line}"


def test_its_own_tests_pass_without_a_network(study: Study) -> None:
    isolated = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode:
        isolated = []  # not allowed on this machine
    output = study.call(*isolated, "pytest", "-m", "slow or not slow")
    assert re.search(r"\d+ passed", output) and "failed" not in output
    for line in re.findall(r"^SKIPPED .*", output, re.M):  # a check that has nothing to look at
        assert "tests/test_models.py" in line, line


PAIR = ("linear", "mlp")


def add_model(study: Study) -> None:
    """A further model, which no experiment uses."""
    models, conf = study.folder / "src/my_study/models", study.folder / "conf/model"
    shutil.copyfile(models / "mlp.py", models / "new.py")
    text = (conf / "mlp.yaml").read_text(encoding="utf-8")
    (conf / "new.yaml").write_text(text.replace("mlp.MLP", "new.MLP"), encoding="utf-8")


# an edit: what is done to the study, and the stages of `dvc repro` that it re-runs besides those of
# compose (the report follows if the numbers differ)
MLP, STEP = "src/my_study/models/mlp.py", "src/my_study/harness/training/step.py"
BOTH = ["prepare@digits", "train@linear-0", "train@mlp-0"]  # prepare imports it too
ONE = ["train@mlp-0"]
RERUNS: dict[str, tuple[Edit, list[str]]] = {
    "a comment in a model": (edit(MLP, r"\Z", "# a comment\n"), []),
    "a docstring of a model": (edit(MLP, "with ReLU, dropout", "with dropout"), []),
    "a model formatted anew by black": (
        lambda study: study.call("black", "--quiet", "--line-length=60", MLP),
        [],
    ),
    "a comment in a model's YAML": (edit("conf/model/mlp.yaml", r"\Z", "# a comment\n"), []),
    "a new model and its YAML": (add_model, []),
    "a check": (edit("src/my_study/harness/checks/flow.py", r"\Z", "CHANGED = 1\n"), []),
    "a command": (edit("src/my_study/harness/commands/diff.py", r"\Z", "CHANGED = 1\n"), []),
    "the note of an experiment": (
        edit("conf/experiment/mlp.yaml", r"\Z", "note: another\n"),
        [],
    ),
    "a constant of a model": (edit(MLP, "nn.ReLU\\(\\)", "nn.ReLU6()"), ONE),
    "a value of a model": (edit("conf/model/mlp.yaml", "dropout: 0.2", "dropout: 0.1"), ONE),
    "a constant of the loop": (edit(STEP, "num_pieces > 1", "num_pieces > 2"), BOTH),
    "the table of results": (edit("stages/report.py", r"\Z", "CHANGED = 1\n"), ["report"]),
}


def test_an_edit_reruns_what_it_can_change_and_nothing_else(
    small: Study, warm: Warm, tmp_path: Path
) -> None:
    study = small.copy(tmp_path / "my_study")
    study.edit("dvc.yaml", r"experiments: \[.*\]", "experiments: [linear, mlp]")
    study.call("dvc", "repro")
    study.commit()
    found, wanted = {}, {}
    for name, (change, stages) in RERUNS.items():
        change(study)
        begun = warm.call(study.folder, "-m", "dvc", "repro", "compose_experiments")
        dry = warm.call(study.folder, "-m", "dvc", "repro", "--dry")
        said = [warm.call(study.folder, "run.py", f"experiment={each}") for each in PAIR]
        done = [each for each, line in zip(PAIR, said) if "already finished" in line]
        ran = re.findall(r"Running stage '(.*)'", begun + dry)
        found[name] = [stage for stage in ran if not stage.startswith("compose_")], done
        wanted[name] = stages, [each for each in PAIR if f"train@{each}-0" not in stages]
        study.call("git", "checkout", "--quiet", ".")
        study.call("git", "clean", "-d", "--force", "--quiet")
        for path in (study.folder / "runs").glob("20*"):
            shutil.rmtree(path)
    print(f"\n{'edit':34} {'dvc repro re-runs':38} run.py finds finished")
    for name, (stages, done) in found.items():
        print(f"{name:34} {', '.join(stages) or 'nothing':38} {', '.join(done) or 'none'}")
    assert found == wanted


def test_no_import_name_of_the_environment_can_be_a_slug(study: Study) -> None:
    script = "from importlib import metadata; print(*metadata.packages_distributions())"
    names = study.call("python", "-c", script).split()
    sys.path.insert(0, str(TEMPLATE / "hooks"))
    try:
        from pre_gen_project import fault_of_slug  # pylint: disable=import-outside-toplevel
    finally:
        sys.path.remove(str(TEMPLATE / "hooks"))
    free = [name for name in names if name.isidentifier() and not fault_of_slug(name.lower())]
    free = [name for name in free if name != study.folder.name]
    assert len(names) > 100 and not free, "add to DEPENDENCIES in hooks/pre_gen_project.py"


def test_the_library_is_the_same_whatever_the_answers(tmp_path: Path) -> None:
    libraries = []
    for answers in ({"project_slug": "a"}, AWKWARD):
        study = generate(tmp_path / answers["project_slug"], **answers)
        library = study / "src" / study.name
        files = [path for path in library.rglob("*") if path.is_file()]
        libraries.append({path.relative_to(library): path.read_bytes() for path in files})
    assert len(libraries[0]) > 50 and libraries[0] == libraries[1]

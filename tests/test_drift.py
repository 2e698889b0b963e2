"""What is named as the cause of a difference is the change that was made, and nothing else is."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import RAW, Edit, Study, edit, make_once, write
from warm import Warm

pytestmark = pytest.mark.slow
# files that a model reads
READ = ("words.txt", "own.local", "runs/weights/words.txt", "runs/weights/.words")


def record(study: Study, name: str) -> dict:
    """The record of a run in runs/."""
    return json.loads((study.folder / "runs" / name / "record.json").read_text(encoding="utf-8"))


def corrupt_data(study: Study) -> None:
    """Changes one byte of the table, and prepares the data again."""
    path = study.folder / RAW
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = lines[1].split(",")
    cells[0] = "1" if cells[0] == "0" else "0"
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n", encoding="utf-8")
    study.call("python", "stages/prepare.py")


def prepared_again(change: Edit) -> Edit:
    """An edit, and the data as they then are."""
    return lambda study: (change(study), study.call("python", "stages/prepare.py"))


def installed(name: str) -> Edit:
    """What `pip install` of a package leaves."""
    return lambda study: (study.folder / "src" / f"{name}.dist-info").mkdir()


def take_another_numpy(study: Study) -> None:
    """The files of the installed NumPy, as another version that comes first on the path."""
    (place,) = (study.folder / ".venv").resolve().glob("lib/python*/site-packages")
    for name in ("numpy", "numpy.libs"):
        (study.folder / "src" / name).symlink_to(place / name)
    (metadata,) = place.glob("numpy-*.dist-info")
    shutil.copytree(metadata, study.folder / "src" / "numpy-9.9.9.dist-info")


DATA = "src/my_study/data.py"
LINEAR = "src/my_study/models/linear.py"
OUTPUTS = "src/my_study/models/outputs.py"
PREPARED = "src/my_study/harness/training/prepared.py"
FLATTEN, TWICE = r"self.output\(image.flatten", "self.output(2 * image.flatten"
# what is done to the study, overrides, environment, what must be named
DRIFTS: dict[str, tuple[Edit | None, list[str], dict[str, str], str]] = {
    "a default": (
        edit("conf/training/default.yaml", "weight_decay: 1.0e-2", "weight_decay: 2.0e-2"),
        [],
        {},
        r"config: training.optimizer.weight_decay: 0.01 -> 0.02",
    ),
    "the rate": (None, ["model.lr=0.5"], {}, r"config: model.lr: 0.01 -> 0.5"),
    "the seed": (None, ["seed=1"], {}, r"config: seed: 0 -> 1"),
    "threads": (None, ["num_threads=2"], {}, r"config: num_threads: 1 -> 2"),
    "determinism": (None, ["deterministic=false"], {}, r"config: deterministic: True -> False"),
    "precision": (
        None,
        ["training.precision=bfloat16"],
        {},
        r"config: training.precision: float32 -> bfloat16",
    ),
    "the batch size": (
        None,
        ["training.batch_size=7"],
        {},
        r"config: training.batch_size: 32 -> 7",
    ),
    "the schedule": (
        None,
        ["training/schedule=constant"],
        {},
        r"config: training.schedule\.",
    ),
    # the code of the augmentation is reached by its configuration alone
    "augmentation": (
        None,
        [
            "++data.augmentation._target_=my_study.data.RandomShift",
            "++data.augmentation.max_shift=1",
        ],
        {},
        r"config: data.augmentation|code: src/my_study/data.py: is new",
    ),
    "a metric": (
        None,
        [
            "++data.metrics.second.compute._target_=my_study.metrics.Accuracy",
            "++data.metrics.second.higher_is_better=true",
        ],
        {},
        r"config: data.metrics.second.(compute._target_|higher_is_better): none -> ",
    ),
    "workers": (None, ["training.num_workers=1"], {}, r"config: training.num_workers: 0 -> 1"),
    "a byte of data": (corrupt_data, [], {}, f"data: {RAW}: changed"),
    "the code of the reader": (
        prepared_again(edit(DATA, r":-1\] / max_value", ":-1] / (2 * max_value)")),
        [],
        {},
        rf"data: {DATA} \(prepares it\): changed",
    ),
    "a parameter of the splits": (
        prepared_again(edit("conf/data/digits.yaml", "split_seed: 0", "split_seed: 1")),
        [],
        {},
        r"config: data.prepare.split_seed: 0 -> 1",
    ),
    "a constant of a model": (
        edit(LINEAR, FLATTEN, TWICE),
        [],
        {},
        rf"code: {LINEAR}: changed",
    ),
    "a line of the entrypoint": (
        edit("run.py", r"\Z", "\nprint('done')\n"),
        [],
        {},
        r"code: run.py: changed",
    ),
    "a constant of the loop": (
        edit("src/my_study/harness/training/step.py", "if num_pieces > 1:", "if num_pieces > 0:"),
        [],
        {},
        r"code: src/my_study/harness/training/step.py: changed",
    ),
    "a version in the lock": (
        edit("requirements.lock", r"\ntqdm==[\d.]+", "\ntqdm==9.9.9"),
        [],
        {},
        r"environment: tqdm \(locked\): [\d.]+ -> 9.9.9",
    ),
    "an installed version": (
        installed("tqdm-9.9.9"),
        [],
        {},
        r"environment: tqdm \(installed\): [\d.]+ -> 9.9.9",
    ),
    "a variable": (
        None,
        [],
        {"OMP_NUM_THREADS": "2"},
        r"environment: OMP_NUM_THREADS: none -> 2",
    ),
    "instructions of the processor": (
        None,
        [],
        {"ONEDNN_MAX_CPU_ISA": "SSE41"},
        r"environment: processor instructions limited by ONEDNN_MAX_CPU_ISA: none -> SSE41",
    ),
    "a file of another run": (
        write("runs/weights/words.txt", "other"),
        [],
        {},
        r"data: runs/weights/words.txt: changed",
    ),
    "a pointer to a file that is read": (
        write("words.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
        [],
        {},
        r"data: words.txt: changed",
    ),
    "a hidden file of another run": (
        write("runs/weights/.words", "other"),
        [],
        {},
        r"data: runs/weights/.words: changed",
    ),
    "another NumPy": (
        take_another_numpy,
        [],
        {},
        r"environment: numpy \(installed\): [\d.]+ -> 9.9.9",
    ),
    "the reproducibility of MKL": (
        None,
        [],
        {"MKL_CBWR": "COMPATIBLE"},
        r"environment: processor instructions limited by MKL_CBWR: none -> COMPATIBLE",
    ),
    "an untracked file that is read": (
        write("words.txt", "other"),
        [],
        {},
        r"data: words.txt: changed",
    ),
    "an ignored file that is read": (
        write("own.local", "other"),
        [],
        {},
        r"data: own.local: changed",
    ),
    "nothing": (None, [], {"NOISE": "1"}, r"nothing that is recorded changed$"),
}


@pytest.fixture(name="drifting", scope="session")
def _drifting(small: Study, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study with a run; its model reads files, SCALE and, if NOISE is set, the clock."""

    def make(folder: Path) -> None:
        study = small.copy(folder / "my_study")
        reads = ", ".join(f"open({name!r}, encoding='utf-8').read()" for name in READ)
        study.edit(OUTPUTS, r"\Z", f"\n\nimport os\nimport time\n\nWORDS = {reads}\n")
        noise = "(1 + time.time() % 1 * float(os.environ.get('NOISE', '0')))"
        noise += " * float(os.environ.get('SCALE', '1'))"
        before = "    outputs = {"
        study.edit(OUTPUTS, re.escape(before), f"    logits = logits * {noise}\n{before}")
        study.edit(".gitignore", r"\Z", "*.local\n")
        study.commit()
        (study.folder / "runs" / "weights").mkdir(parents=True)
        for name in READ:
            write(name, "one")(study)
        warm.call(study.folder, "run.py", "model=linear", "run_dir=runs/before")

    return Study(make_once(tmp_path_factory, "drifting", make) / "my_study")


def differences(warm: Warm, study: Study, overrides: Sequence[str], env: dict[str, str]) -> str:
    """What `study diff` prints of a run before a change and the same after it."""
    again = ("model=linear", "run_dir=runs/now", "force=true", "preflight=false")
    warm.call(study.folder, "run.py", *again, *overrides, env=env)
    return warm.call(study.folder, ".venv/bin/study", "diff", "runs/before", "runs/now")


@pytest.mark.parametrize("name", DRIFTS)
def test_the_cause_that_is_named_is_the_change_that_was_made(
    drifting: Study, warm: Warm, tmp_path: Path, name: str
) -> None:
    change, overrides, variables, line = DRIFTS[name]
    study = drifting.copy(tmp_path / "my_study")
    if change:
        change(study)
    said = differences(warm, study, overrides, variables)
    causes = re.split("\n---|\nedited", said.partition("causes:\n")[2])[0].splitlines()
    causes = [cause.strip() for cause in causes if cause.startswith("  ")]
    assert causes and all(re.match(line, cause) for cause in causes), said
    if change and LINEAR in line:
        assert TWICE in said
    if change is corrupt_data:  # the data of the run are restored
        assert "identical" in study.call("study", "reproduce", "runs/before")


def crlf(name: str) -> Edit:
    """The line endings of Windows."""

    def change(study: Study) -> None:
        path = study.folder / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    return change


def linked(name: str) -> Edit:
    """A file in another place, and a symbolic link to it."""

    def change(study: Study) -> None:
        path, elsewhere = study.folder / name, study.folder.parent / Path(name).name
        shutil.move(path, elsewhere)
        path.symlink_to(elsewhere)

    return change


WITHOUT_EFFECT: dict[str, Edit] = {
    LINEAR: edit(LINEAR, r"\Z", "\n# a comment\n"),
    OUTPUTS: edit(OUTPUTS, "unnormalised", "of any size"),
    "run.py": edit("run.py", "Seed, data, model, train", "Train"),
    "src/my_study/harness/checks/flow.py": edit(
        "src/my_study/harness/checks/flow.py", r"\Z", "\nUNUSED = 1\n"
    ),
    "src/my_study/new.py": write("src/my_study/new.py", "NEW = 1\n"),
    "src/my_study/words.json": write("src/my_study/words.json", "{}"),
    "stages/prepare.py": prepared_again(edit("stages/prepare.py", r"\Z", "\n# a comment\n")),
    "stages/report.py": edit("stages/report.py", r"\Z", "\nUNUSED = 1\n"),
    "src/my_study/metrics.py": crlf("src/my_study/metrics.py"),
}
# of these not even the name is worth a word
NO_CODE: dict[str, Edit] = {
    "docs": edit("docs/extending.md", r"\Z", "\nOne more line.\n"),
    "README": edit("README.md", r"\Z", "\nOne more line.\n"),
    "tests": edit("tests/test_models.py", r"\Z", "\nUNUSED = 1\n"),
    "a comment in YAML": edit("conf/model/linear.yaml", r"\Z", "# a comment\n"),
    "a package that no run imports": installed("dvc_s3-3.3.0"),
    "line endings of a table": prepared_again(crlf(RAW)),
    "a table that is a link": prepared_again(linked(RAW)),
    "a link to code": linked(OUTPUTS),
}


def test_an_edit_without_effect_on_a_number_is_no_cause(
    drifting: Study, warm: Warm, tmp_path: Path
) -> None:
    study = drifting.copy(tmp_path / "my_study")
    for change in [*WITHOUT_EFFECT.values(), *NO_CODE.values()]:
        change(study)
    again = warm.call(study.folder, "run.py", "model=linear", "run_dir=runs/before")
    assert "runs/before: already finished" in again
    # another package in the lock makes it another run, though no run imports it
    edit("requirements.lock", r"\nblack==[\d.]+", "\nblack==9.9.9")(study)
    said = differences(warm, study, [], {})
    assert "numbers:\n  all are the same\n" in said
    assert "causes:\n  nothing that is recorded differs\n" in said
    listed = said.partition("edited, without effect on a number:\n")[2].split()
    assert listed == sorted(WITHOUT_EFFECT)


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("NOISE", r"nondeterminism: two runs on this machine differ \(validation loss: .*\)"),
        ("SCALE", "nothing that is recorded changed, and two runs on this machine agree: .*"),
    ],
)
def test_nondeterminism_is_said_only_after_a_second_run(
    drifting: Study, tmp_path: Path, variable: str, reason: str
) -> None:
    study = drifting.copy(tmp_path / "my_study")
    said = study.call("study", "reproduce", "runs/before", code=3, env={variable: "2"})
    assert "different: runs/before" in said
    assert re.search(rf"causes:\n  {reason}\n", said), said
    assert len([*study.folder.glob("runs/*_again_*")]) == 1


def test_a_line_edited_in_an_installed_package_is_found_and_named(
    drifting: Study, tmp_path: Path
) -> None:
    study = drifting.copy(tmp_path / "my_study")
    (installed_here,) = (study.folder / ".venv").resolve().glob("lib/python*/site-packages")
    packages = tmp_path / "site-packages"  # tqdm in another place, so that it may be edited
    for path in installed_here.glob("tqdm*"):
        shutil.copytree(path, packages / path.name)
    env = {"PYTHONPATH": f"{packages}:{study.folder / 'src'}"}
    words = ("python", "run.py", "model=linear")
    assert "already finished" in study.call(*words, code=None, env=env)
    with open(packages / "tqdm" / "std.py", "a", encoding="utf-8") as file:
        file.write("# edited\n")
    assert "already finished" not in study.call(*words, "run_dir=runs/now", code=None, env=env)
    said = study.call("study", "diff", "runs/before", "runs/now")
    cause = "environment: tqdm/std.py (edited after its installation)"
    assert f"causes:\n  {cause}\n" in said, said


def test_an_environment_that_is_reached_by_a_link_is_verified_under_its_own_name(
    drifting: Study, tmp_path: Path
) -> None:
    study = drifting.copy(tmp_path / "my_study")
    environment = (study.folder / ".venv").resolve()
    study.call("python", "run.py", "model=linear")
    note = json.loads((environment / "study-verified.json").read_text(encoding="utf-8"))
    assert any(name.startswith(f"{environment}/") for name in note)
    assert not any(name.startswith(f"{study.folder}/") for name in note)


def test_a_file_that_only_loader_workers_read_is_an_input(
    drifting: Study, warm: Warm, tmp_path: Path
) -> None:
    study = drifting.copy(tmp_path / "my_study")
    read = (
        "if torch.utils.data.get_worker_info():\n            open('worker.txt').close()\n        "
    )
    study.edit(PREPARED, "(?=batch = {name: values.rows)", read)
    write("worker.txt", "one")(study)
    words = ("run.py", "model=linear", "training.num_workers=1")
    warm.call(study.folder, *words, "run_dir=runs/first")
    assert "worker.txt" in record(study, "first")["inputs"]
    write("worker.txt", "other")(study)
    warm.call(study.folder, *words, "run_dir=runs/second")
    said = warm.call(study.folder, ".venv/bin/study", "diff", "runs/first", "runs/second")
    assert "causes:\n  data: worker.txt: changed\n" in said


def test_a_study_that_was_renamed_reproduces_its_runs(drifting: Study, tmp_path: Path) -> None:
    study = drifting.copy(tmp_path / "other_name")
    study.call("git", "mv", "src/my_study", "src/other_name")
    for path in study.call("git", "grep", "--files-with-matches", "my_study").split():
        study.edit(path, "my_study", "other_name")
    study.commit()
    words = (".venv/bin/python", "-c", "from other_name.harness.commands import main; main()")
    assert study.call(*words, "reproduce", "runs/before") == "identical: runs/before\n"


def test_a_commit_that_is_missing_is_only_missed_where_the_code_has_changed(
    drifting: Study, tmp_path: Path
) -> None:
    edit("docs/extending.md", r"\Z", "\nMore.\n")(study := drifting.copy(tmp_path / "my_study"))
    study.commit()
    shallow = Study(tmp_path / "shallow")
    study.call("git", "clone", "--quiet", "--depth=1", f"file://{study.folder}", shallow.folder)
    (shallow.folder / ".venv").symlink_to(study.folder / ".venv")
    for name in ("data/prepared", "runs"):
        shutil.copytree(study.folder / name, shallow.folder / name)
    for name in READ[:2]:
        write(name, "one")(shallow)
    assert shallow.call("study", "reproduce", "runs/before") == "identical: runs/before\n"
    shallow.edit(LINEAR, FLATTEN, TWICE)
    said = shallow.call("study", "reproduce", "runs/before", code=4)
    assert re.match(r"cannot be reproduced: its commit \w+ is missing, and the code has chan", said)
    # a history that was rewritten
    study.call("git", "checkout", "--quiet", "--orphan", "new")
    study.commit()
    study.call("git", "branch", "--quiet", "-D", "main")
    study.call("git", "reflog", "expire", "--expire=now", "--all")
    study.call("git", "gc", "--quiet", "--prune=now")
    assert study.call("study", "reproduce", "runs/before") == "identical: runs/before\n"


@pytest.mark.parametrize("name", ["best.pt", "history.csv", "metrics.json", "config.yaml"])
def test_a_file_that_was_altered_after_the_run_is_named_before_anything_runs(
    drifting: Study, warm: Warm, tmp_path: Path, name: str
) -> None:
    study = drifting.copy(tmp_path / "my_study")
    with open(study.folder / "runs" / "before" / name, "ab") as file:
        file.write(b"1")
    words = (".venv/bin/study", "reproduce", "runs/before")
    said = warm.call(study.folder, *words, code=5)
    line = f"{name}: is not as the run wrote it"
    assert said == f"altered: runs/before\nnot as recorded:\n  {line}\n"


def test_a_record_that_was_edited_is_never_shown_as_a_result(
    drifting: Study, warm: Warm, tmp_path: Path
) -> None:
    study = drifting.copy(tmp_path / "my_study")
    study.edit("runs/before/record.json", r'"accuracy": [\d.]+', '"accuracy": 0.99')
    said = warm.call(study.folder, "run.py", "model=linear")
    assert "runs/before/record.json: was edited or damaged" in said
    assert "0.99" not in said and "already finished" not in said
    said = warm.call(study.folder, ".venv/bin/study", "reproduce", "runs/before", code=5)
    assert "its record was edited or damaged" in said


def test_a_record_with_an_older_version_written_into_it_is_no_result_either(
    drifting: Study, warm: Warm, tmp_path: Path
) -> None:
    study = drifting.copy(tmp_path / "my_study")
    path = study.folder / "runs" / "before" / "record.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    del known["seal"]
    known["version"], known["metrics"]["validation"]["accuracy"] = 3, 0.99
    path.write_text(json.dumps(known), encoding="utf-8")
    said = warm.call(study.folder, "run.py", "model=linear")
    assert "its record was altered after the run" in said and "0.99" not in said


@pytest.fixture(name="published", scope="session")
def _published(small: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study with its table, committed."""

    def make(folder: Path) -> None:
        study = small.copy(folder / "my_study")
        study.call("dvc", "repro")
        study.commit()

    return Study(make_once(tmp_path_factory, "published", make) / "my_study")


FALSE_ACCURACY = (r"(\| linear \| [^|]+ \|) [\d.]+", r"\1 98.30")
OTHER_PROCESSOR = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}


def prove(study: Study, *changes: Edit, code: int, env: dict[str, str] | None = None) -> str:
    """What `study pipeline` says after these changes were committed; errors go elsewhere."""
    for change in changes:
        change(study)
    study.commit()
    said = study.call(
        "sh", "-c", f"study pipeline 2>&1 1>said; [ $? = {code} ] && cat said", env=env
    )
    assert study.call("git", "worktree", "list").count("\n") == 1
    return said


def test_the_proof_names_each_change_outside_of_conf_and_src(
    published: Study, tmp_path: Path
) -> None:
    said = prove(
        published.copy(tmp_path / "my_study"),
        edit("dvc.yaml", r"seeds: \[0\]", "seeds: [1]"),
        edit("dvc.yaml", "cmd: python stages/prepare.py", "cmd: python -B stages/prepare.py"),
        edit("stages/report.py", r"2\.4\), layout", "2.5), layout"),
        edit("requirements.lock", r"\ntqdm==[\d.]+", "\ntqdm==9.9.9"),
        edit(LINEAR, FLATTEN, TWICE),
        write("docs/new.md", "A page.\n"),
        code=3,
    )
    changed = said.partition("changed since it was committed:\n")[2].partition("\nlinear-")[0]
    for line in (
        r"command: python stages/report.py .* --seeds 0 -> .* --seeds 1 \(report\)",
        r"command: python stages/prepare.py .* -> python -B .* \(prepare@digits\)",
        r"dependency: requirements.lock: changed \(prepare@digits, report\)",
        r"code: stages/report.py: changed \(report\)",
        rf"code: {LINEAR}: changed \(linear\)",
        r"the stage is new \(train@linear-1\)",
    ):
        changed, count = re.subn(rf"^  {line}\n?", "", changed, flags=re.M)
        assert count == 1, (line, said)
    assert "docs" not in said
    assert re.search(r"^  its record is not committed; .* \(linear-1\)$", said, re.M), said
    assert said.splitlines()[-1].startswith("different: ")


def test_the_proof_shows_the_lines_of_code_that_changed(published: Study, tmp_path: Path) -> None:
    study = published.copy(tmp_path / "my_study")
    said = prove(study, edit(LINEAR, FLATTEN, TWICE), corrupt_data, code=3)
    assert said.count(TWICE) == 1
    assert f"code: {LINEAR}: changed (linear-0)" in said
    assert f"data: {RAW}: changed (linear-0)" in said
    assert ".npy" not in said and "dependency: " not in said  # the same again
    assert "not as committed: dvc.lock, results/" in said
    assert re.search(r"^linear-0  different  +validation loss", said, re.M)


def test_on_another_processor_the_table_must_follow_from_the_committed_records(
    published: Study, tmp_path: Path
) -> None:
    study = published.copy(tmp_path / "my_study")
    said = prove(study, code=0, env=OTHER_PROCESSOR)
    assert "processor instructions limited by ATEN_CPU_CAPABILITY: none -> default" in said
    reason = "tables, figures and README are what the report makes of the records"
    assert said.splitlines()[-1] == f"within tolerance: {reason}"
    tables = [edit(name, *FALSE_ACCURACY) for name in ("README.md", "results/table.md")]
    said = prove(study, *tables, code=3, env=OTHER_PROCESSOR)
    assert "linear-0  within tolerance" in said
    reason = "README.md, results/table.md: not what the report makes of the records"
    assert said.splitlines()[-1] == f"different: {reason}"
    study.edit("results/records/linear-0.json", r'"accuracy": [\d.]+', '"accuracy": 0.99')
    said = prove(study, code=5)
    assert "linear-0.json: its record was edited or damaged" in said


def test_a_comment_leaves_the_proof_whole_and_another_number_does_not(
    published: Study, tmp_path: Path
) -> None:
    study = published.copy(tmp_path / "my_study")
    lock = edit("requirements.lock", r"\nblack==[\d.]+", "\nblack==9.9.9")  # no run imports it
    comments = (WITHOUT_EFFECT[name] for name in (LINEAR, "stages/prepare.py"))
    said = prove(study, *comments, NO_CODE["tests"], lock, code=0)
    line = "identical: results/ is that of the commit; what was edited has no effect"
    assert said.splitlines()[-1].startswith(line)
    said = prove(study, edit("results/table.md", *FALSE_ACCURACY), code=3)
    assert said.splitlines()[-1].startswith("different: every run is identical; the files named")


def test_a_truncated_record_is_one_line_of_the_table(published: Study, tmp_path: Path) -> None:
    study = published.copy(tmp_path / "my_study")
    path = study.folder / "results" / "records" / "linear-0.json"
    path.write_bytes(path.read_bytes()[:300])
    said = study.call("study", "reproduce", "--all", code=4)
    assert re.search(r"^linear-0  cannot be reproduced$", said, re.M) and "cannot be read" in said


def test_where_no_run_is_published_nothing_is_proved(published: Study, tmp_path: Path) -> None:
    study = published.copy(tmp_path / "my_study")
    lines = (study.folder / "dvc.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    start, end = lines.index("  train:\n"), lines.index("  report:\n")
    (study.folder / "dvc.yaml").write_text("".join(lines[:start] + lines[end:]), encoding="utf-8")
    study.edit(
        "dvc.yaml", "cmd: python stages/report.py .*", "cmd: mkdir -p runs/published results"
    )
    study.edit("dvc.yaml", "      - runs/published\n", "")
    study.edit("dvc.yaml", r"(?s)      - results/table.csv.*", "      - runs/published\n")
    study.call("git", "rm", "-r", "--quiet", "results/records")
    study.call("dvc", "repro", "--force")
    said = prove(study, code=4)
    assert "no run is published, so nothing was compared" in said

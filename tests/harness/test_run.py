"""`python run.py` as a user types it, in processes of their own."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from my_study.harness import checks
from my_study.harness.configuration import building, composing
from my_study.harness.runs.folder import status
from my_study.harness.runs.record import RESUMABLE, name_from, read_record
from my_study.harness.study import ROOT
from my_study.harness.training import checkpoints, determinism
from my_study.harness.training.prepared import Split

from .conftest import TINY, Compose, Copy

RUN = ROOT / "run.py"
Typed = Callable[..., subprocess.CompletedProcess[str]]
MISTAKES = {
    "model.lr=-1": "model.lr=-1.0: must be above 0",
    "training.num_epoch=3": "training.num_epoch: .* did you mean training.num_epochs?",
    "model.network.depth=3": "model.network.depth: there is no such key",
    "model=mpl": "model=mpl: there is no such option; did you mean mlp?",
    "tets=true": "tets: there is no such key; did you mean test?",
    "resume=nowhere": ".*: a resumed run keeps its configuration; remove this",
    "seed=${nowhere}": "Interpolation key 'nowhere' not found",
}


@pytest.fixture(name="command", scope="module")
def _command(tiny: Path) -> list[str]:
    """`python run.py` on the tiny data, briefly."""
    paths = [f"data.{key}={TINY}" for key in ("prepare.read.path", "fixture")]
    paths += [f"data.folder={tiny}"]
    knobs = ["device=cpu", "training.num_epochs=2", "model=linear", "num_threads=1"]
    return [sys.executable, str(RUN), *paths, *knobs]


@pytest.fixture(name="typed")
def _typed(command: list[str], tmp_path: Path) -> Typed:
    def typed(*overrides: str, sweep: bool = False) -> subprocess.CompletedProcess[str]:
        words = [*command[:2], *(["-m"] if sweep else []), *command[2:], *overrides]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    return typed


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_no_file(
    mistake: str, typed: Typed, tmp_path: Path
) -> None:
    answer = typed(mistake)
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert re.fullmatch(rf"error: .*{MISTAKES[mistake]}.*\n", answer.stderr), answer.stderr
    assert not list(tmp_path.iterdir())


def test_a_copy_is_not_run_with_the_code_of_another_study(tmp_path: Path) -> None:
    shutil.copyfile(RUN, tmp_path / "run.py")
    words = [sys.executable, str(tmp_path / "run.py"), "--help"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.endswith(f"belongs to the study in {ROOT}; type: make env\n")


def test_verbose_shows_the_traceback(typed: Typed) -> None:
    answer = typed("seed=-1", "hydra.verbose=true")
    assert answer.returncode == 1
    assert "Traceback" in answer.stderr
    assert answer.stderr.endswith("error: seed=-1: must be from 0 to 2^63 - 1\n")


# without a reader, full, closed; in the last everything is ASCII to Python
STREAMS = ("| true", ">/dev/full", ">&- 2>&- <&-", "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0")


@pytest.mark.parametrize("streams", STREAMS)
def test_a_run_does_not_depend_on_who_reads_its_output(
    command: list[str], tmp_path: Path, streams: str
) -> None:
    words = shlex.join([*command, 'note="Größe"', "run_dir='runs/Größe'"])
    line = f"{streams} {words}" if "=" in streams else f"{words} {streams}"
    bash = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"]
    answer = subprocess.run(bash, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    record = read_record(tmp_path / "runs" / "Größe")
    assert record["status"] == "finished" and record["note"] == "Größe"


@pytest.mark.parametrize(
    ("streams", "code", "line"),
    [
        ("| true", 1, ""),
        (">/dev/full", 1, "error: standard output: No space left on device\n"),
        (">&- 2>&-", 0, ""),
    ],
)
def test_study_ends_quietly_where_nobody_reads_and_says_that_the_disk_is_full(
    streams: str, code: int, line: str
) -> None:
    study = Path(sys.executable).with_name("study")
    words = f"{shlex.quote(str(study))} completion bash {streams}; exit ${{PIPESTATUS[0]}}"
    bash = ["bash", "-c", words]
    answer = subprocess.run(bash, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (code, line)


def test_a_word_that_is_not_utf_8_gets_one_line(command: list[str], tmp_path: Path) -> None:
    words = [*map(os.fsencode, command), b"note='Gr\xf6\xdfe'"]
    answer = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    assert answer.returncode == 1 and answer.stderr.startswith(rb"error: ")
    assert rb"is not UTF-8" in answer.stderr and answer.stderr.count(b"\n") == 1


def test_help_and_config_do_without_torch(typed: Typed) -> None:
    for flag in (["--help"], ["--cfg", "job"]):
        words = [sys.executable, "-X", "importtime", str(RUN), *flag]
        answer = subprocess.run(words, capture_output=True, text=True, check=True)
        assert "hydra" in answer.stderr and not re.search(r"\| +torch$", answer.stderr, re.M)
    assert typed("--hlep").returncode == 2


def test_the_stages_that_every_edit_runs_do_without_torch(copy: Copy) -> None:
    copy.call(sys.executable, "stages/prepare.py")
    program = """
import sys
from my_study.harness.commands import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    for words in (["stages", "--data", "digits"], ["experiments", "--seeds", "0"]):
        typed = ["compose", *words, "--experiments", "linear"]
        copy.call(sys.executable, "-c", program, *typed)
    assert len(list((copy.folder / "results" / "inputs").glob("*/*.yaml"))) == 3


def test_a_sweep_continues_after_a_failed_job_records_both_and_leaves_the_test_split_alone(
    typed: Typed, tmp_path: Path
) -> None:
    knobs = ("experiment=linear", "training/schedule=constant", "training.batch_size=8")
    answer = typed(*knobs, "model.lr=1.0e+30,0.01", sweep=True)
    assert answer.returncode == 1
    last = answer.stderr.splitlines()[-1]
    assert re.fullmatch(r"error: job 0 \(.*model.lr=1e\+30\): the loss is \w+ at step .*", last)
    assert "Traceback" not in answer.stderr
    broken, folder = sorted(
        (path.parent for path in tmp_path.glob("runs/*/record.json")),
        key=lambda path: (path / "metrics.json").exists(),
    )
    record = json.loads((broken / "record.json").read_text())
    assert record["status"] == "failed" and record["exit_code"] == 1
    assert record["error"].startswith("NonFiniteLoss: the loss is")
    names = {re.sub(r"-\d+-\w+", "", path.name) for path in folder.iterdir()}
    assert names - {"changes.patch"} == {
        *(".lock", "best.pt", "checkpoint.pt", "config.yaml", "history.csv", "metrics.json"),
        *("record.json", "run.log"),
    }
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) == {"validation"} and {"loss"} < set(metrics["validation"])
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    config = OmegaConf.load(folder / "config.yaml")
    assert config.training.num_epochs == 2 and config.model.network.num_classes == 10


def test_the_name_of_a_run_can_be_typed_after_resume() -> None:
    typed = ["model=linear", "seed=1", "+model.network={_target_: a b, c: [1,2]}", "device=/ü/x"]
    name = f"runs/2026-01-01_00-00-00_{name_from(typed)}"
    assert "model-linear_seed-1" in name
    assert composing.compose([f"resume={name}"]).resume == name


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_and_resumed_run_equals_fit_without_a_break(
    command: list[str], tmp_path: Path, tiny: Path, compose: Compose
) -> None:
    knobs = ["model=mlp", "training.checkpoint_steps=1", "training.num_epochs=60", "test=true"]
    knobs += ["seed=1", "preflight=true"]  # which changes no number
    config = compose(*knobs)
    determinism.seed_everything(1)
    train, validation = Split(tiny, "train"), Split(tiny, "validation")
    trainer = building.build_trainer(config, train, torch.device("cpu"), tmp_path)
    trainer.fit(train, validation)

    words = [*command, *knobs]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("epoch 5 "))
        process.kill()
    (killed,) = (path.parent for path in tmp_path.glob("runs/*/record.json"))
    assert read_record(killed)["status"] == "running" and status(killed) == "killed"
    subprocess.run(words, cwd=tmp_path, check=True)
    for name in ("best.pt", "history.csv"):
        assert (tmp_path / name).read_bytes() == (killed / name).read_bytes(), name
    metrics = json.loads((killed / "metrics.json").read_text())
    test = Split(tiny, "test")
    assert metrics == {"validation": trainer.evaluate(validation), "test": trainer.evaluate(test)}
    record = read_record(killed)
    assert record["status"] == "finished"
    assert "the_trainer_equals_a_reference_loop: passed" in record["checks"]
    assert record["inputs"] == {}  # the rows of the checks are none
    assert [part["status"] for part in record["parts"]] == ["killed", "finished"]
    epochs = re.findall(r"epoch (\d+) ", (killed / "run.log").read_text())
    assert epochs == [str(number) for number in range(1, 61)]  # none is missing, none twice
    assert record["log_lines"] == len((killed / "run.log").read_text().splitlines())


WRONG = "data.spec.outputs.logits.kind=probabilities"  # says what is not so


@pytest.mark.slow
def test_preflight_refuses_a_model_that_fails_and_records_what_it_saw(
    typed: Typed, tmp_path: Path
) -> None:
    answer = typed("preflight=true", WRONG)
    assert answer.returncode == 1
    said = r"error: \d+ of \d+ checks failed: .*outputs_are_finite_and_in_range.*"
    assert re.fullmatch(rf"{said}; to see each .*: study check\n", answer.stderr)
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/record.json"))
    record = read_record(folder)
    assert record["status"] == "failed" and not (folder / "history.csv").exists()
    seen = r"outputs_are_finite_and_in_range: failed: \w+ \(.*model=linear.*, seed 0\): output `log"
    assert any(re.match(seen, line) for line in record["checks"])
    assert "prepared data: 30 rows are as data.spec says" in record["checks"]
    assert "padding_changes_nothing: does not apply: no input has a mask" in record["checks"]


@pytest.mark.slow
def test_study_check_prints_a_table_and_trains_nothing(tmp_path: Path) -> None:
    def check(*overrides: str) -> subprocess.CompletedProcess[str]:
        study = str(Path(sys.executable).with_name("study"))
        words = [study, "check", "model=linear", "device=cpu", *overrides]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    before = sorted((ROOT / "runs").glob("[!.]*"))
    good, bad = check("+model.opt_outs.every_knob_acts='a reason'"), check(WRONG)
    assert (good.returncode, bad.returncode) == (0, 1), good.stderr
    for name in checks.CHECKS:
        assert re.search(rf"^{name} +(passed|opted out|does not apply) +[0-9.]+", good.stdout, re.M)
    assert re.search(r"every_knob_acts +opted out +\S+ +a reason$", good.stdout, re.M)
    seen = r"^outputs_are_finite_and_in_range +failed +\S+ +output `logits`, seed 0$"
    assert re.search(seen, bad.stdout, re.M)
    assert re.search(r"sums to \S+ to \S+ over the classes of an instance; expected: ", bad.stdout)
    assert "usual cause: a softmax over the wrong axis" in bad.stdout
    assert re.match(r"error: \d+ of \d+ checks failed: ", bad.stderr)
    assert sorted((ROOT / "runs").glob("[!.]*")) == before and not list(tmp_path.iterdir())


def test_preflight_names_what_is_not_as_the_spec_says(typed: Typed) -> None:
    answer = typed("preflight=true", "data.spec.inputs.image.high=0.5")
    assert answer.returncode == 1
    said = "/train: `image`: goes from 0 to 1; the spec says 0 to 0.5; see data.spec\n"
    assert answer.stderr.endswith(said)


@pytest.mark.slow
def test_the_same_command_again_does_nothing_and_prints_the_same_numbers(
    typed: Typed, tmp_path: Path
) -> None:
    first, second = typed("seed=3"), typed("seed=3", "note=again", "training.checkpoint_steps=1")
    assert first.returncode == second.returncode == 0
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/record.json"))
    said = second.stdout.splitlines()
    assert said[0].startswith(f"{folder.relative_to(tmp_path)}: already finished")
    assert said[1:] == first.stdout.splitlines()[-1:]  # the metrics
    assert len(read_record(folder)["parts"]) == 1


@pytest.mark.slow
def test_of_two_processes_with_the_same_run_one_works_and_the_other_waits(
    command: list[str], tmp_path: Path
) -> None:
    words = [*command, "training.num_epochs=20"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(words, cwd=tmp_path, stdout=pipe, text=True) as first,
        subprocess.Popen(words, cwd=tmp_path, stdout=pipe, text=True) as second,
    ):
        said = sorted((first.communicate()[0], second.communicate()[0]), key=len)
    assert first.returncode == second.returncode == 0
    assert "already finished" in said[0] and "epoch 20 " in said[1]
    assert len(list(tmp_path.glob("runs/*/record.json"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_ends_with_a_checkpoint_and_an_exit_code_that_says_resumable(
    command: list[str], tmp_path: Path, workers: int
) -> None:
    knobs = ("training.num_epochs=2000", "training.checkpoint_steps=1")
    words = [*command, *knobs, f"training.num_workers={workers}"]
    with subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        next(line for line in process.stdout if line.startswith("epoch 2 "))
        os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does, to every process
        said = process.communicate()[1]
    assert process.returncode == 75 == RESUMABLE
    assert re.search(
        r"^interrupted by SIGTERM after step \d+; the same command resumes the run", said
    )
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/record.json"))
    record = read_record(folder)
    assert record["status"] == "interrupted" and record["exit_code"] == 75
    assert checkpoints.load_checkpoint(folder) is not None

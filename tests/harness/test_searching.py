"""Searches: what is proposed, by which number, and that the same command continues them.

They need the group search of a study.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from my_study.harness.study import ROOT

from .commands import call
from .conftest import TINY, Copy

optuna = pytest.importorskip("optuna")
LR = "model.lr=tag(log, interval(1.0e-3, 1.0e-1))"
BRIEF = ("device=cpu", "num_threads=1", "training.num_epochs=1", "training.batch_size=8")
DIVERGED = ("search=random", "model=linear", "model.lr=1.0e+30,0.01", "hydra.sweeper.n_trials=3")


@pytest.fixture(name="words")
def _words(tiny: Path) -> list[str]:
    """`run.py` on the tiny data, briefly; a sweep."""
    return ["run.py", "-m", f"data.prepare.read.path={TINY}", f"data.folder={tiny}", *BRIEF]


def searches(folder: Path) -> dict[str, Any]:
    """Each search in the database of a folder, by its name."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/runs/search.db")
    names = optuna.get_all_study_names(storage)
    return {name: optuna.load_study(study_name=name, storage=storage) for name in names}


def points(folder: Path) -> list[tuple[dict[str, Any], float | None]]:
    """What the one search of a folder has tried, and the number of each."""
    (study,) = searches(folder).values()
    return [(trial.params, trial.value) for trial in study.trials]


@pytest.mark.slow
@pytest.mark.parametrize(("search", "num"), [("random", 4), ("tpe", 13)])  # tpe begins at random
def test_a_search_that_was_killed_is_continued_without_a_trace_and_ends(
    search: str, num: int, words: list[str], tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    typed = [*words, f"search={search}", f"hydra.sweeper.n_trials={num}", LR, "model=linear,mlp"]
    for folder in (whole, killed):
        folder.mkdir()
    assert call(ROOT, *typed, here=whole)[0] == 0
    with subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *typed[1:]],
        cwd=killed,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if f"#{num - 2} :" in line)
        next(line for line in process.stdout if line.startswith("run folder"))
        os.killpg(process.pid, signal.SIGKILL)
    assert [value for _, value in points(killed)].count(None) == 1
    assert call(ROOT, *typed, here=killed)[0] == 0
    assert points(killed) == points(whole)
    assert len({str(point) for point, _ in points(whole)}) == num
    runs = [json.loads(path.read_bytes()) for path in killed.glob("runs/*/record.json")]
    assert len(runs) == num and {run["status"] for run in runs} == {"finished"}
    code, said, _ = call(ROOT, *typed, here=killed)
    assert code == 0 and "run folder" not in said and "Launching" not in said
    assert f"best of {num} on validation: accuracy" in said
    rates = [run["config"]["model"]["lr"] for run in runs]
    assert sorted(rates) == sorted(point["model.lr"] for point, _ in points(whole))


@pytest.mark.parametrize(("monitor", "best"), [("loss", min), ("accuracy", max)])
def test_the_direction_is_that_of_the_metric_and_the_number_that_of_validation(
    monitor: str, best: Any, words: list[str], tmp_path: Path
) -> None:
    typed = ("search=random", "hydra.sweeper.n_trials=3", LR, f"training.monitor={monitor}")
    code, said, _ = call(ROOT, *words, *typed, "model=linear", here=tmp_path)
    (study,) = searches(tmp_path).values()
    metrics = [json.loads(path.read_bytes()) for path in tmp_path.glob("runs/*/metrics.json")]
    assert code == 0 and study.best_value == best(trial.value for trial in study.trials)
    assert sorted(run["validation"][monitor] for run in metrics) == sorted(
        trial.value for trial in study.trials
    )
    again = shlex.split(re.findall(rf"{monitor} [\d.]+: python (run\.py .*)", said)[0])
    assert f"model.lr={study.best_params['model.lr']}" in again and "search=random" not in again
    assert "already finished" in call(ROOT, *again, here=tmp_path)[1]


def test_a_point_that_diverges_ends_no_search_and_is_named_each_time(
    words: list[str], tmp_path: Path
) -> None:
    line = r"error: point \d \(model.lr=1e\+30\): the loss is \w+ at step \d+"
    typed = [*words, *DIVERGED, "training/schedule=constant"]
    code, said, errors = call(ROOT, *typed, here=tmp_path)
    values = [value for _, value in points(tmp_path)]
    assert code == 1 and len(values) == 3 and 0 < values.count(None) < 3
    assert len(re.findall(line, errors)) == values.count(None)
    assert "best of 3 on validation" in said and "Traceback" not in said + errors
    again = call(ROOT, *typed, here=tmp_path)
    assert (again[0], again[2]) == (code, errors) and "run folder" not in again[1]
    code, said, _ = call(ROOT, *typed, "force=true", here=tmp_path)
    assert code == 1 and said.count("run folder") == 3


def test_a_mistake_in_a_point_ends_the_search_and_says_nothing_about_the_point(
    words: list[str], tmp_path: Path
) -> None:
    typed = [*words, "search=random", "model=linear", "model.lr=-1,0.01", "hydra.sweeper.seed=1"]
    code, _, errors = call(ROOT, *typed, here=tmp_path)
    assert (code, errors) == (1, "error: model.lr=-1.0: must be above 0, and a float32\n")
    assert not (tmp_path / "runs").exists()
    typed[-2] = "model.lr=0.01,-1"
    code, _, errors = call(ROOT, *typed, here=tmp_path)
    assert code == 1 and re.fullmatch(r"error: job \d \(.*\): model.lr=-1.0: .*\n", errors)
    (study,) = searches(tmp_path).values()
    assert study.trials[-1].state == optuna.trial.TrialState.RUNNING


def test_other_code_is_another_search(words: list[str], copy: Copy, tmp_path: Path) -> None:
    typed = [*words, "search=random", "model=linear", LR, "hydra.sweeper.n_trials=1"]
    for note, expected in (("first", 1), ("second", 1), ("third", 2)):
        if expected == 2:
            copy.edit("src/my_study/models/linear.py", r"image.flatten", "2 * image.flatten")
        assert call(copy.folder, *typed, f"note={note}", here=tmp_path)[0] == 0
        assert len(searches(tmp_path)) == expected


MISTAKES = {
    f"'{LR}' test=true": "test=true: a search looks at validation alone",
    f"'{LR}' debug=brief": "debug=brief: a search trains whole runs; remove this",
    f"'{LR}' run_dir=runs/x": "run_dir=runs/x: a search has many runs; remove this",
    "model=linear": "search: nothing is searched; type, for example, 'model.lr=tag(log, ",
    "training.monitor=loss,accuracy": "training.monitor: cannot be searched: numbers would not",
    "'model.lr=tag(log, interval(0, 1))'": "model.lr=tag(log, interval(0, 1)): ",
    f"'{LR}' hydra.sweeper.n_trials=0": "hydra.sweeper.n_trials=0: must be at least 1",
    f"'{LR}' hydra.sweeper.n_trials=x": "hydra.sweeper.n_trials=x: must be of type int",
    f"'{LR}' hydra.sweeper.n_jobs=0": "hydra.sweeper.n_jobs=0: must be at least 1",
    f"'{LR}' hydra.sweeper.sampler=best": "hydra.sweeper.sampler=best: must be random or tpe",
    f"'{LR}' +hydra.sweeper.n_trial=1": "hydra.sweeper.n_trial: there is no such key; did you mean",
    f"'{LR}' hydra.sweeper.storage=/proc/1/x": "/proc/1/x: cannot be",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_no_run(
    mistake: str, words: list[str], tmp_path: Path
) -> None:
    code, _, errors = call(ROOT, *words, "search=tpe", *shlex.split(mistake), here=tmp_path)
    assert code == 1 and errors.startswith(f"error: {MISTAKES[mistake]}"), errors
    assert errors.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_without_its_package_a_search_says_what_to_type(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, errors = call(ROOT, *words, "search=tpe", LR, here=tmp_path)
    assert code == 1 and errors.startswith("error: search: optuna is not installed; type: uv pip ")
    assert errors.endswith(" --group search\n")
    assert call(ROOT, *words, "model=linear", here=tmp_path)[0] == 0


def test_two_processes_do_not_share_a_search(words: list[str], tmp_path: Path) -> None:
    typed = [*words, "search=random", "model=linear", LR, "hydra.sweeper.n_trials=1"]
    assert call(ROOT, *typed, here=tmp_path)[0] == 0
    (lock,) = tmp_path.glob("runs/.search.db-*.lock")
    with FileLock(lock):
        code, _, errors = call(ROOT, *typed, here=tmp_path)
    assert code == 1 and "runs/search.db: another process does this search" in errors

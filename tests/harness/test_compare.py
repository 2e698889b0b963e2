"""All runs as a table: what a column holds, which tell runs apart, folding, and the index."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from my_study.harness import commands
from my_study.harness.commands import compare, journal
from my_study.harness.reporting import columns, folding
from my_study.harness.runs import index
from my_study.harness.runs.leftovers import lock_of
from my_study.harness.runs.record import VERSION, write_record

Study = Callable[..., str]
METRIC = {"accuracy": {"higher_is_better": True, "unit": "%", "digits": 2}}
HEAD = {"hardware": {}, "parts": [], "packages": {}, "lock": "1", "device": "cpu", "data": {}}


def write_run(
    name: str,
    *typed: str,
    lr: float = 0.1,
    seed: int = 0,
    accuracy: float | None = 0.5,
    **more: Any,
) -> Path:
    """A record in runs/, as a run writes it; each is a minute later than the one before."""
    folder = Path("runs", name)
    folder.mkdir(parents=True)
    minute = len([*Path("runs").rglob("record.json")])
    config = {"model": {"lr": lr}, "seed": seed, "data": {"metrics": METRIC}, "note": name}
    record = {
        **{"version": VERSION, "fingerprint": f"{minute:064}", "status": "finished", **HEAD},
        **{"config": config, "overrides": list(typed), "code": {"run.py": "1"}},
        **{"started": f"2026-01-02T03:{minute:02}:00+00:00", "seconds": 61.0 + minute},
        "metrics": {"validation": {"loss": 1.0, "accuracy": accuracy}},
        **more,
    }
    if accuracy is None:
        del record["metrics"]
    write_record(folder, record)
    return folder


@pytest.fixture(name="study")
def _study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Study:
    """Calls `study` in an empty folder, and returns what it prints."""
    monkeypatch.chdir(tmp_path)
    for module in (compare, journal):
        monkeypatch.setattr(module, "ROOT", tmp_path)

    def study(*words: str, code: int | None = None) -> str:
        monkeypatch.setattr(sys, "argv", ["study", *words])
        with pytest.raises(SystemExit) as ended:
            commands.main()
        out = capsys.readouterr()
        if code is None:
            assert ended.value.code == 0, ended.value
            return out.out
        assert ended.value.code == code or isinstance(ended.value.code, str), ended.value
        return str(ended.value.code) + out.err

    return study


def rows_of(text: str) -> list[list[str]]:
    """The cells of a table for a terminal."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()]


def test_only_parameters_that_differ_are_columns_typed_or_not(study: Study) -> None:
    write_run("a", "model.lr=0.1", "note=x")
    write_run("b", "model.lr=0.2", "note=y", lr=0.2)
    write_run("c", "model.lr=0.2", lr=0.2, seed=7)  # the file was edited, nothing was typed
    text = study("compare")
    assert rows_of(text)[0] == [
        "run",
        "status",
        "age",
        "duration",
        "model.lr",
        "seed",
        "validation.accuracy",
    ]
    assert rows_of(text)[-1] == ["3 runs: 3 finished"]
    assert "1.0 min" in text


def test_what_was_typed_for_a_group_is_shown_in_place_of_its_values(study: Study) -> None:
    write_run("a", "model=linear")
    write_run("b", "model=mlp", lr=0.2)
    assert rows_of(study("compare"))[0][4:] == ["model", "validation.accuracy"]


@pytest.mark.parametrize(
    "condition, names",
    {
        "model.lr<0.2": ["a", "d"],
        "model.lr >= 0.2": ["b", "c"],
        "accuracy>0.6": ["b"],
        "status=running": [],
        "status!=finished": ["d"],
        "run~b": ["b"],
        "seed=7": ["c"],
    }.items(),
)
def test_runs_are_chosen_by_conditions(study: Study, condition: str, names: list[str]) -> None:
    write_run("a")
    write_run("b", lr=0.2, accuracy=0.7)
    write_run("c", lr=0.3, seed=7)
    write_run("d", accuracy=None, status="running")  # no process works on it: it was killed
    if not names:
        assert "no run is like this" in study("compare", "--where", condition, code=1)
        return
    found = csv.DictReader(io.StringIO(study("compare", "--where", condition, "--csv")))
    assert [row["run"] for row in found] == names


def test_runs_are_sorted_and_those_without_a_value_come_last(study: Study) -> None:
    write_run("a", accuracy=0.5)
    write_run("b", accuracy=None, status="failed", error="StudyError: no")
    write_run("c", accuracy=0.7)
    words = ("compare", "--columns", "run", "--csv", "--sort")
    assert study(*words, "-accuracy").split() == ["run", "c", "a", "b"]
    assert study(*words, "accuracy").split() == ["run", "a", "c", "b"]


def test_a_name_that_no_run_has_is_an_error_that_names_the_nearest(study: Study) -> None:
    assert "there is no run yet" in study("compare", code=1)
    write_run("a")
    for words in (("--sort", "acuracy"), ("--columns", "acuracy"), ("--where", "acuracy>1")):
        assert "did you mean" in study("compare", *words, code=1)
    assert "is no condition" in study("compare", "--where", "accuracy", code=1)
    assert "is not a run" in study("compare", "runs/b", code=1)


def test_seeds_are_folded_and_pairs_compared_seed_by_seed(study: Study) -> None:
    for seed, (low, high) in enumerate([(0.50, 0.60), (0.54, 0.65), (0.52, 0.62)]):
        write_run(f"low-{seed}", "model=low", seed=seed, accuracy=low)
        write_run(f"high-{seed}", "model=high", seed=seed, accuracy=high, lr=0.2)
    write_run("dead", "model=low", seed=3, accuracy=None, status="failed")
    write_run("again", "model=low", seed=0, accuracy=0.50)
    text = study("compare", "--over", "seed")
    # Student's t for 95 % and 2 degrees of freedom is 4.303; the differences: 0.10, 0.11, 0.10
    header, first, second, _, pair, *left_out = rows_of(text)
    assert header == ["model", "runs", "validation.accuracy", "±", "std"]
    assert first == ["low", "3", "0.52", "0.04968", "0.02"]
    assert second[:3] == ["high", "3", "0.6233"]
    assert "model=high is better than model=low (+0.103 ± 0.014, p = 0.001" in pair[0]
    assert left_out == [["left out: 1 of which there is a later one"], ["left out: 1 failed"]]


def test_of_rows_with_one_seed_nothing_is_said(study: Study) -> None:
    write_run("a", "model=a", accuracy=0.1)
    write_run("b", "model=b", accuracy=0.9, lr=0.2)
    text = study("compare", "--over", "seed")
    assert "nothing can be said" in text and "better" not in text


def test_runs_of_other_code_are_not_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run("a", seed=0)
    write_run("b", seed=1, code={"run.py": "2"})
    assert len(folding.fold(index.list_runs(tmp_path), ["seed"])) == 2


def test_a_record_that_cannot_be_read_is_named_and_hides_no_other(study: Study) -> None:
    write_run("a")
    for name, content in {"cut": b'{"version": 4, "fing', "old": b'{"version": 99}'}.items():
        (Path("runs") / name).mkdir()
        (Path("runs") / name / "record.json").write_bytes(content)
    altered = write_run("altered") / "record.json"
    altered.write_bytes(altered.read_bytes().replace(b"0.5", b"0.9"))
    text = study("compare")
    assert "4 runs: 3 unreadable, 1 finished" in text
    assert all(f"runs/{name}/record.json: " in text for name in ("cut", "old", "altered"))
    assert "runs/cut/record.json: " in study("compare", "--where", "status=finished")


def test_a_record_of_an_earlier_version_is_listed(study: Study) -> None:
    folder = Path("runs/old")
    folder.mkdir(parents=True)
    early = Path(__file__).with_name("fixtures") / "record_v2.json"
    (folder / "record.json").write_bytes(early.read_bytes())
    assert "1 run: 1 finished" in study("compare")


def test_the_index_is_read_in_place_of_records_that_have_not_changed(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = index.summarise

    def summarise(root: Path, folder: str) -> index.Entry:
        read.append(folder)
        return original(root, folder)

    monkeypatch.setattr(index, "summarise", summarise)
    write_run("a")
    write_run("published/b")
    first = study("compare", "--csv", "--columns", "run,accuracy")
    assert sorted(read) == ["runs/a", "runs/published/b"] and len(first.splitlines()) == 3
    write_run("c")
    study("compare")
    assert read[2:] == ["runs/c"]
    (Path("runs") / index.INDEX).write_bytes(b"no database" * 1000)
    assert "published/b" in study("compare") and len(read) == 6
    (Path("runs/c") / "record.json").unlink()
    assert "c" not in study("compare", "--columns", "run").split()


def test_a_run_that_another_process_does_is_running(study: Study) -> None:
    folder = write_run("a", accuracy=None, status="running")
    with lock_of(folder):
        assert "1 running" in study("compare")
    assert "1 killed" in study("compare")


def test_a_page_holds_every_value_and_asks_no_network(study: Study) -> None:
    write_run("a", "note=</script><b>")
    study("compare", "--html", "page.html", "--columns", "run,note,accuracy")
    page = Path("page.html").read_text(encoding="utf-8")
    assert '<td class="number" data-value="0.5">0.5</td>' in page
    assert not re.search(r"(src|href)=|https?:|@import|url\(", page)


def test_latex_has_no_character_with_a_meaning(study: Study) -> None:
    write_run("a_b", group="50%")
    text = study("compare", "--latex", "--columns", "run,group")
    assert r"a\_b & 50\% \\" in text


def test_every_column_is_listed_with_the_number_of_runs_that_have_it(study: Study) -> None:
    write_run("a", "model=x")
    write_run("b", accuracy=None, status="failed")
    rows = dict(row for row in rows_of(study("compare", "--columns")) if len(row) == 2)
    assert rows["status"] == "2" and rows["validation.accuracy"] == "1" and rows["model"] == "1"


def test_the_journal_tells_notes_changes_and_what_came_of_them(study: Study) -> None:
    write_run("a", note="first try", accuracy=0.5)
    write_run("b", note="faster?", lr=0.2, accuracy=0.75, code={"run.py": "2"})
    write_run("c", note="faster?", accuracy=None, status="failed", error="StudyError: too fast")
    text = study("journal")
    assert text.index("## 2026-01-02") < text.index("first try") < text.index("faster?")
    assert "`runs/b`: finished; validation accuracy 0.75 (+0.25)" in text
    assert "config: model.lr: 0.1 -> 0.2; code: run.py: changed" in text
    assert "`runs/c`: failed; no numbers\n  - StudyError: too fast" in text
    assert "no such run" in study("journal", "--group", "none", code=1)


def test_a_value_that_is_true_or_a_list_is_a_text() -> None:
    entry = index.Entry("runs/a", "finished", {}, parameters={"test": "true"})
    assert columns.value_of(entry, "test") == "true"
    assert json.dumps(entry.parameters)


def test_comparing_imports_nothing_that_takes_long() -> None:
    slow = {"torch", "scipy", "numpy", "matplotlib"}
    code = f"import sys, my_study.harness.commands; print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

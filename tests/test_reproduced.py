"""The study with every published number: nine runs, their table, a second clone, and the proof."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import TEMPLATE, Study

EXPECTED = {"linear": 0.94, "mlp": 0.96, "cnn": 0.98}
pytestmark = pytest.mark.slow


def test_every_experiment_is_as_accurate_as_promised(reproduced: Study) -> None:
    with open(reproduced.folder / "results" / "table.csv", encoding="utf-8", newline="") as file:
        rows = {row["experiment"]: row for row in csv.DictReader(file)}
    assert rows.keys() == EXPECTED.keys()
    for name, least in EXPECTED.items():
        assert float(rows[name]["mean"]) >= least and rows[name]["num_repeats"] == "3"


def test_the_readme_of_the_template_shows_what_comes_out(reproduced: Study) -> None:
    row = re.compile(r"^\| (\w+) \| 3 \| ([\d.]+) ± ", re.M)
    table = (reproduced.folder / "results" / "table.md").read_text(encoding="utf-8")
    shown = dict(row.findall((TEMPLATE / "README.md").read_text(encoding="utf-8")))
    assert shown.keys() == EXPECTED.keys()
    for name, mean in row.findall(table):  # another processor may round another way
        assert float(shown[name]) == pytest.approx(float(mean), abs=0.3)


def test_a_second_repro_does_nothing(reproduced: Study) -> None:
    assert "Running stage" not in reproduced.call("dvc", "repro")
    assert reproduced.call("git", "status", "--porcelain") == ""


def test_what_dvc_tracks_names_no_machine(reproduced: Study) -> None:
    results = (path for path in (reproduced.folder / "results").iterdir() if path.is_file())
    tracked = [reproduced.folder / "dvc.lock", *results]  # records/ is git's alone
    for pattern in ("**/metrics.json", "**/history.csv", "**/best.pt", "**/manifest.json"):
        tracked += reproduced.folder.glob(pattern)
    assert len(tracked) > 30
    for path in tracked:
        content = path.read_bytes()
        assert str(reproduced.folder).encode() not in content, path
        assert not re.search(rb"\b\d\d:\d\d:\d\d\b", content), path


def test_a_second_clone_pulls_every_result(reproduced: Study, tmp_path: Path) -> None:
    reproduced.call(
        "dvc", "remote", "add", "--local", "--force", "--default", "store", tmp_path / "s"
    )
    reproduced.call("dvc", "push")
    clone = reproduced.clone(tmp_path / "clone")
    clone.call("dvc", "remote", "add", "--local", "--default", "store", tmp_path / "s")
    clone.call("dvc", "pull")
    assert "up to date" in clone.call("dvc", "status")
    for path in (reproduced.folder / "runs" / "published").glob("*/best.pt"):
        assert (
            path.read_bytes() == (clone.folder / path.relative_to(reproduced.folder)).read_bytes()
        )


def test_the_readme_says_how_to_reproduce_the_paper(reproduced: Study, tmp_path: Path) -> None:
    study = reproduced.copy(tmp_path / "my_study")
    text = (study.folder / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Reproduce this paper\n")[2].partition("\n## ")[0]
    block = section.partition("```bash\n")[2].partition("```")[0]
    assert [line.partition("  #")[0].strip() for line in block.splitlines()] == [
        "git clone ADDRESS my_study",  # what comes of these is seen above and below
        "cd my_study",
        "make env",
        ". .venv/bin/activate",
        "dvc pull",
        "dvc repro",
        "make reproduce",
    ]
    parts = dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", section, re.M))
    commands = [
        command
        for part in parts.values()
        for command in re.findall(r"`((?:python|study) [^`]+)`", part)
    ]
    assert len(parts) == 1 + 5 and len(commands) == 4, commands
    for command in commands:
        words = command.split()
        study.call(*(["study", "export", "--help"] if words[1] == "export" else words))
    assert list(study.folder.glob("runs/published/*/best.pt"))
    for name in re.findall(r"\]\(([^)]+)\)", text):
        assert (study.folder / name).exists(), name  # those of the table too


def test_each_published_number_leads_to_a_record_that_has_it(reproduced: Study) -> None:
    with open(reproduced.folder / "results" / "runs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    for row in rows:
        record = json.loads((reproduced.folder / row["record"]).read_text(encoding="utf-8"))
        assert record["metrics"]["test"][row["metric"]] == float(row["value"])
        assert str(record["seed"]) == row["seed"] and record["fingerprint"] == row["fingerprint"]
        assert row["record"] in (reproduced.folder / "README.md").read_text(encoding="utf-8")


def test_a_terminal_shows_a_progress_bar_and_a_pipe_plain_lines(reproduced: Study) -> None:
    words = ["python", "run.py", "model=linear", "training.num_epochs=20", "force=true"]
    plain = reproduced.call("sh", "-c", f"{shlex.join(words)} 2>&1")
    assert "epoch 20 " in plain and "%|" not in plain and "\r" not in plain
    # script gives the command a terminal, stty its size
    terminal = f"stty cols 80 rows 24; {shlex.join(words)}"
    assert "%|" in reproduced.call("script", "--quiet", "--command", terminal, "/dev/null")


def test_one_command_in_a_second_clone_proves_all_nine_runs(
    reproduced: Study, tmp_path: Path
) -> None:
    clone = reproduced.clone(tmp_path / "my_study")
    said = clone.call("make", "reproduce", f"PYTHON={reproduced.folder / '.venv/bin/python'}")
    assert said.endswith(
        "identical: dvc.lock and results/ are, byte for byte, those of the commit\n"
    )
    assert clone.call("git", "status", "--porcelain") == ""
    (clone.folder / ".venv").unlink()
    assert "-m venv .venv" in clone.call("make", "--dry-run", "reproduce")

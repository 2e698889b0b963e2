"""Several ranks train one model: the numbers of one process, one folder, one record."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from conftest import Study

pytestmark = pytest.mark.slow
BRIEFLY = ("model=linear", "training.num_epochs=3")


def torchrun(num_ranks: int) -> list[str]:
    """How a command starts."""
    return ["torchrun", "--standalone", f"--nproc-per-node={num_ranks}", "run.py"]


def read(study: Study, folder: str) -> dict:
    """The record of a run."""
    return json.loads((study.folder / folder / "record.json").read_bytes())


def content(study: Study, folder: str) -> list[bytes]:
    """The weights and the history of a run."""
    return [(study.folder / folder / name).read_bytes() for name in ("best.pt", "history.csv")]


def wait_until_trained(study: Study, folder: str, num_epochs: int) -> None:
    """Waits until a run has so many rows of its history."""
    path = study.folder / folder / "history.csv"
    for _ in range(600):
        if path.exists() and len(path.read_text("utf-8").splitlines()) > num_epochs:
            return
        time.sleep(0.1)
    raise AssertionError(f"{folder} does not train")


def ranks_of(torchrun_id: int) -> dict[int, int]:
    """The process of each rank, by its number."""
    children = Path(f"/proc/{torchrun_id}/task/{torchrun_id}/children").read_text("utf-8").split()
    found: dict[int, int] = {}
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(each[5:]): int(child) for each in variables if each.startswith(b"RANK=")}
    return found


def test_two_ranks_get_the_numbers_of_one_process_in_one_folder(mine: Study) -> None:
    mine.call("python", "run.py", *BRIEFLY, "run_dir=runs/one")
    mine.call(*torchrun(2), *BRIEFLY, "run_dir=runs/two")
    assert sorted(path.name for path in (mine.folder / "runs").glob("[!.]*")) == ["one", "two"]
    one, two = (read(mine, f"runs/{name}") for name in ("one", "two"))
    assert (one["ranks"], two["ranks"]) == (1, 2) and len(two["parts"]) == 1
    assert two["status"] == "finished" and one["fingerprint"] != two["fingerprint"]
    for name, value in one["metrics"]["validation"].items():  # the last batch is odd
        assert two["metrics"]["validation"][name] == pytest.approx(value, rel=1e-6)
    columns = "history.csv"
    rows = [
        (mine.folder / "runs" / name / columns).read_text("utf-8").split()
        for name in ("one", "two")
    ]
    assert rows[0][0] == rows[1][0] and len(rows[0]) == len(rows[1]) == 4
    for left, right in zip(rows[0][1:], rows[1][1:], strict=True):
        numbers = [[float(value) for value in row.split(",")] for row in (left, right)]
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-6)
    # what all ranks counted together is what one process counts, bit for bit
    assert "identical" in mine.call("study", "evaluate", "runs/two")
    said = mine.call(*torchrun(2), *BRIEFLY, "run_dir=runs/two")
    assert "already finished" in said and "epoch 1" not in said
    assert "identical" in mine.call("study", "reproduce", "runs/two")


def test_three_ranks_that_are_interrupted_resume_bit_for_bit_and_by_three_alone(
    mine: Study,
) -> None:
    words = ("model=cnn", "training.num_epochs=12", "training.num_accumulation_steps=2")
    mine.call(*torchrun(3), *words, "run_dir=runs/whole")
    process = mine.start(*torchrun(3), *words, "run_dir=runs/parts", "force=true")
    wait_until_trained(mine, "runs/parts", 2)
    process.send_signal(signal.SIGTERM)  # torchrun sends it on
    assert process.wait() != 0
    record = read(mine, "runs/parts")
    assert record["status"] == "interrupted" and "SIGTERM after step" in record["error"]
    assert list((mine.folder / "runs" / "parts").glob("checkpoint-*.pt"))
    said = mine.call("python", "run.py", "resume=runs/parts", code=1)
    assert "was begun by 3 ranks, not 1" in said
    said = mine.call("python", "run.py", *words, code=1)
    assert "was begun by 3 ranks, not 1" in said and "force=true" in said
    mine.call(*torchrun(3), "resume=runs/parts")
    assert content(mine, "runs/parts") == content(mine, "runs/whole")
    assert len(read(mine, "runs/parts")["parts"]) == 2


def test_a_rank_that_is_killed_ends_the_others(mine: Study) -> None:
    process = mine.start(*torchrun(2), "model=mlp", "training.num_epochs=5000", "run_dir=runs/it")
    wait_until_trained(mine, "runs/it", 1)
    try:
        os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
        assert process.wait(timeout=60) != 0
    finally:
        process.terminate()
    record = read(mine, "runs/it")
    assert record["status"] in ("failed", "interrupted")
    assert "another rank was killed" in record["error"] or "SIGTERM" in record["error"]


def break_rank_1(study: Study) -> None:
    """Its model raises an error in training."""
    where = "        return classify("
    broken = (
        "        import os\n\n        if os.environ['RANK'] == '1' and self.training:\n"
        "            raise ArithmeticError('it is broken')\n" + where
    )
    study.edit("src/my_study/models/linear.py", where.replace("(", r"\("), broken)


def test_the_error_of_a_rank_stands_in_the_record(mine: Study) -> None:
    break_rank_1(mine)
    said = mine.call(*torchrun(2), *BRIEFLY, "run_dir=runs/it", code=1)
    assert "it is broken" in said
    error = read(mine, "runs/it")["error"]
    assert "rank 1 ended with ArithmeticError: it is broken" in error


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (
            "src/my_study/harness/training/trainer.py",
            r"            self\.forward,\n",
            "            self.model,\n",
            "the weights after a step .*: not the same on all ranks",
        ),
        (
            "src/my_study/models/linear.py",
            r"        self\.output = ",
            "        self.norm = nn.BatchNorm1d(64)\n        self.output = ",
            "batch norm over several ranks needs GPUs",
        ),
    ],
)
def test_what_cannot_be_right_over_several_ranks_is_refused(
    mine: Study, file: str, old: str, new: str, reason: str
) -> None:
    mine.edit(file, old, new)
    said = mine.call(*torchrun(2), *BRIEFLY, "run_dir=runs/it", code=1)
    assert re.search(reason, said), said
    assert read(mine, "runs/it")["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("debug=brief",), "debug=brief: not with several ranks"),
        (("-m", "launcher=joblib", "seed=0,1"), "hydra/launcher: not in a process of several"),
    ],
)
def test_what_ranks_would_not_do_alike_is_refused(
    mine: Study, words: tuple[str, ...], reason: str
) -> None:
    assert reason in mine.call(*torchrun(2), *words, code=1)
    assert not list((mine.folder / "runs").glob("*/record.json"))


def test_a_sweep_of_several_ranks_ends_by_one_clock(mine: Study) -> None:
    words = ("model=linear", "training.num_epochs=100000", "training.max_minutes=0.02")
    mine.call(*torchrun(2), "-m", *words, "seed=0,1")
    paths = sorted((mine.folder / "runs").glob("*/record.json"))
    records = [json.loads(path.read_bytes()) for path in paths]
    assert [record["ended_by"] for record in records] == ["time budget", "time budget"]
    assert [record["inputs"] for record in records] == [{}, {}]  # of the second, not the first run


def test_a_sweep_ends_where_one_rank_alone_fails(mine: Study) -> None:
    break_rank_1(mine)
    said = mine.call(*torchrun(2), "-m", *BRIEFLY, "seed=0,1", code=1)
    assert "it is broken" in said
    (path,) = (mine.folder / "runs").glob("*/record.json")
    assert "rank 1 ended with ArithmeticError" in json.loads(path.read_bytes())["error"]

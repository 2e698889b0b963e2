"""Milliseconds that a run spends on its record, its checkpoints, and on being found again.

With an uncommitted change, which is the slower case. Runs in a study's environment: make bench.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from my_study.harness.configuration.building import build_trainer
from my_study.harness.configuration.composing import compose, to_values
from my_study.harness.runs import code, fingerprint, folder
from my_study.harness.runs.record import RESULTS, VERSION, Record, write_record
from my_study.harness.runs.run import Run
from my_study.harness.study import ROOT
from my_study.harness.training.determinism import set_determinism
from my_study.harness.training.prepared import Split, verify_prepared

NUM_TURNS = 15
NUM_RUNS = 1000


def milliseconds(function: Callable[[], object]) -> float:
    """The median of the turns."""
    seconds = []
    for _ in range(NUM_TURNS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def measure_record() -> None:
    """A record from its beginning to its end, of a run that does nothing."""
    config = compose(["model=linear"])
    values, data = to_values(config), ROOT / config.data.folder
    hashes = verify_prepared(data, values["data"]["prepare"])
    identity = fingerprint.identify(ROOT, values, hashes, "cpu")

    def record() -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name)
            head = {"version": VERSION, "fingerprint": fingerprint.fingerprint(identity)}
            write_record(path, {**head, "status": "running"})
            with Record(Run(ROOT, path, identity, values, [], None)) as made:
                for result in RESULTS:
                    (path / result).touch()
                made.finish({})

    def digest_first() -> None:
        code._parse.cache_clear()  # pylint: disable=protected-access
        code.code_of(ROOT, code.called_by(values))

    for name, function in {
        "a record": record,
        "the identity of a run: code, lock, configuration": lambda: fingerprint.identify(
            ROOT, values, hashes, "cpu"
        ),
        "of it, the digest of its code, the first time in a process": digest_first,
        "and each further time": lambda: code.code_of(ROOT, code.called_by(values)),
        "its data, hashed before": lambda: verify_prepared(data, values["data"]["prepare"]),
    }.items():
        print(f"{milliseconds(function):8.1f} ms   {name}")
    measure_finding(values)


def measure_finding(values: Mapping[str, Any]) -> None:
    """A run among many others."""
    with tempfile.TemporaryDirectory() as name:
        for number in range(NUM_RUNS):
            path = Path(name, str(number))
            path.mkdir()
            begun = {"version": VERSION, "fingerprint": f"{number:064}", "config": values}
            write_record(path, begun)
        folder.RUNS = Path(name)
        found = milliseconds(lambda: folder.find(ROOT, "x"))
        print(f"{found:8.1f} ms   finding it in {NUM_RUNS} runs")


def measure_checkpoint(model: str) -> None:
    """A checkpoint, against a training step of the same model."""
    config = compose([f"model={model}"])
    set_determinism(True, num_threads=config.num_threads)
    train = Split(ROOT / config.data.folder, "train")
    trainer = build_trainer(config, train, torch.device("cpu"))
    batch = train[range(int(config.training.batch_size))]
    step = milliseconds(lambda: trainer.advance(batch))
    with tempfile.TemporaryDirectory() as name:
        trainer.folder = Path(name)
        save = milliseconds(trainer.save)
        size = next(trainer.folder.glob("checkpoint-*")).stat().st_size / 1e6
    print(
        f"{save:8.1f} ms   a checkpoint of the {model} ({size:.2f} MB); a step takes {step:.2f} ms"
    )


if __name__ == "__main__":
    measure_record()
    for each in ("linear", "mlp", "cnn"):
        measure_checkpoint(each)

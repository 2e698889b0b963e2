"""Milliseconds that a run spends on its record, its checkpoints, and on being found again.

With an uncommitted change, which is the dearer case. Runs in a study's environment: make bench.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from my_study import configuration, data, files, identity, records, reproducibility, runs

NUM_TURNS = 15
NUM_RUNS = 1000
ROOT = configuration.ROOT


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
    config = configuration.compose(["model=linear"])
    values = configuration.to_values(config)
    hashes = data.check_prepared(ROOT / config.data.folder, config.data.prepare)
    known_by = identity.identify(ROOT, values, hashes, "cpu")

    def record() -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "record.json").write_bytes(files.to_json({"version": records.VERSION}))
            with records.recording(folder, ROOT, identity=known_by, config=values, overrides=[]):
                for result in records.RESULTS:
                    (folder / result).touch()

    print(f"{milliseconds(record):8.1f} ms   a record")
    identify = milliseconds(lambda: identity.identify(ROOT, values, hashes, "cpu"))
    print(f"{identify:8.1f} ms   the identity of a run: code, lock, configuration")
    check = milliseconds(
        lambda: data.check_prepared(ROOT / config.data.folder, config.data.prepare)
    )
    print(f"{check:8.1f} ms   its data, hashed before")
    with tempfile.TemporaryDirectory() as name:
        for number in range(NUM_RUNS):
            folder = Path(name, str(number))
            folder.mkdir()
            begun = {"version": records.VERSION, "fingerprint": f"{number:064}", "config": values}
            (folder / "record.json").write_bytes(files.to_json(begun))
        runs.RUNS = Path(name)
        print(
            f"{milliseconds(lambda: runs.find(ROOT, 'x')):8.1f} ms   finding it in {NUM_RUNS} runs"
        )


def measure_checkpoint(model: str) -> None:
    """A checkpoint, against a training step of the same model."""
    config = configuration.compose([f"model={model}"])
    reproducibility.set_determinism(True, num_threads=config.num_threads)
    train = data.Split(ROOT / config.data.folder, "train")
    trainer = configuration.build_trainer(config, train, torch.device("cpu"))
    batch = train[range(int(config.training.batch_size))]
    step = milliseconds(lambda: trainer.train_step(batch))
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

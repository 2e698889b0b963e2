"""Data larger than memory: what preparing and training hold, and how fast they read.

Rows of float32 come from a generator, are prepared, and a linear model learns an epoch from them by
memory map and from memory, by turns: the same batches, in one process. Runs in a study's
environment: make bench. In another size: python benchmarks/larger_than_memory.py 4000
"""

# pylint: disable=import-outside-toplevel  # preparing is measured without torch
import logging
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

BUILD = Path(__file__).parent.parent / "build"
NUM_FEATURES = 1024
CHUNK_ROWS = 4096  # 16 MiB
BATCH_SIZE = 128
NUM_TURNS = 3
SHARES: dict[str, Any] = {"split_seed": 0, "validation_fraction": 0.1, "test_fraction": 0.1}


def read(megabytes: int) -> Iterator[dict[str, np.ndarray]]:
    """Chunks of noise, and which of two features is larger."""
    generator = np.random.default_rng(0)
    for _ in range(max(1, megabytes * 1_000_000 // (CHUNK_ROWS * NUM_FEATURES * 4))):
        rows = generator.standard_normal((CHUNK_ROWS, NUM_FEATURES), dtype=np.float32)
        yield {"features": rows, "target": (rows[:, 0] > rows[:, 1]).astype(np.int64)}


class Peak:
    """The most memory that this process holds inside a context, in MB, looked at 50 times a second.

    `anonymous` is its own; `resident` counts the pages of mapped files too, which the system takes
    back when memory is short.
    """

    def __init__(self) -> None:
        self.anonymous, self.resident = 0.0, 0.0
        self.ended = Event()
        self.thread = Thread(target=self._watch)

    def _watch(self) -> None:
        while not self.ended.wait(0.02):
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            held = {
                name: int(size) / 1000 for name, size in re.findall(r"(\w+):\s+(\d+) kB", status)
            }
            self.anonymous = max(self.anonymous, held["RssAnon"])
            self.resident = max(self.resident, held["VmRSS"])

    def __enter__(self) -> "Peak":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def __str__(self) -> str:
        return f"{self.anonymous:6.0f} MB of its own, {self.resident:6.0f} MB with mapped files"


def epoch(split: Any, number: int) -> float:
    """Trains on every row once; returns rows per second."""
    import torch
    from my_study.harness.training.prepared import batches, order_of

    torch.manual_seed(0)
    model = torch.nn.Linear(NUM_FEATURES, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    start = time.perf_counter()
    order = order_of(split, seed=0, epoch=number, batch_size=BATCH_SIZE)
    for batch in batches(split, order, batch_size=BATCH_SIZE):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch["features"]), batch["target"])
        loss.backward()
        optimizer.step()
    return len(split) / (time.perf_counter() - start)


def main(megabytes: int) -> None:
    """Prints a line for preparing and for training, and the ratio of the two ways to read."""
    from my_study.harness.training.preparation import prepare

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    with tempfile.TemporaryDirectory(dir=BUILD) as name:  # not a /tmp that is memory
        folder, start = Path(name, "prepared"), time.perf_counter()
        with Peak() as peak:
            prepare(folder, read(megabytes), SHARES, dict)
        seconds = time.perf_counter() - start
        print(f"prepare  {peak}   {megabytes / seconds:6.0f} MB/s of {megabytes} MB")
        train(folder)


def train(folder: Path) -> None:
    """Measures epochs by memory map and from memory."""
    import torch
    from my_study.harness.training.prepared import Split, verify_prepared

    torch.set_num_threads(1)
    start = time.perf_counter()
    verify_prepared(folder, SHARES)
    print(f"hashed once in {time.perf_counter() - start:.1f} s")
    mapped = Split(folder, "train")
    with Peak() as peak:
        rates = [epoch(mapped, 0)]
    print(f"train    {peak}   {rates[0]:6.0f} rows/s by memory map, the first epoch")
    held = Split(folder, "train")
    held.fields = {field: values.clone() for field, values in held.fields.items()}
    turns = [(epoch(mapped, turn), epoch(held, turn)) for turn in range(1, NUM_TURNS + 1)]
    ours, theirs = (statistics.median(each) for each in zip(*turns, strict=True))
    print(
        f"train    {ours:.0f} rows/s by memory map, {theirs:.0f} from memory: {ours / theirs:.2f}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)

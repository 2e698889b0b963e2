"""Samples per second of `fit`, against a bare PyTorch loop on preloaded tensors.

The same model, optimizer, schedule, batch size and validation, in one process, by turns; the
median of the turns. Runs in a study's environment: make bench.
"""

import statistics
import time
from pathlib import Path

import torch
from my_study.harness.configuration.building import build_trainer
from my_study.harness.configuration.composing import compose
from my_study.harness.training.determinism import set_determinism
from my_study.harness.training.prepared import Split
from omegaconf import DictConfig

NUM_TURNS = 7
CPU = torch.device("cpu")
FOLDER = Path(__file__).parent.parent / "build" / "my_study" / "data" / "prepared" / "digits"


def load(name: str) -> dict[str, torch.Tensor]:
    """A whole split, in memory."""
    split = Split(FOLDER, name)
    return split[range(len(split))]


def fit(config: DictConfig) -> int:
    """The study's own loop; returns how many samples it trained on."""
    train = Split(FOLDER, "train")
    trainer = build_trainer(config, train, CPU)
    trainer.fit(train, Split(FOLDER, "validation"))
    return len(train) * int(config.training.num_epochs)


def bare_loop(config: DictConfig) -> int:
    """What one would write in a notebook."""
    train, validation = load("train"), load("validation")
    size, num_rows = config.training.batch_size, len(train["target"])
    parts = build_trainer(config, Split(FOLDER, "train"), CPU)
    for _ in range(config.training.num_epochs):
        parts.model.train()
        order = torch.randperm(num_rows)
        for start in range(0, num_rows, size):
            rows = order[start : start + size]
            parts.optimizer.zero_grad()
            loss = parts.model(image=train["image"][rows], target=train["target"][rows])["loss"]
            loss.backward()
            parts.optimizer.step()
            parts.scheduler.step()
        parts.model.eval()
        with torch.no_grad():
            for start in range(0, len(validation["target"]), size):
                rows = slice(start, start + size)
                target = validation["target"][rows]
                outputs = parts.model(image=validation["image"][rows], target=target)
                float(outputs["loss"])
                int((outputs["logits"].argmax(-1) == target).sum())
    return num_rows * int(config.training.num_epochs)


def measure(model: str) -> None:
    """Prints a line for a model."""
    config = compose([f"model={model}", "training.num_epochs=15"])
    set_determinism(True, num_threads=config.num_threads)
    loops = {"fit": fit, "bare loop": bare_loop}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(NUM_TURNS + 1):
        for name, loop in loops.items():
            start = time.perf_counter()
            num_samples = loop(config)
            if turn:  # the first one warms up
                rates[name].append(num_samples / (time.perf_counter() - start))
    ours, bare = (statistics.median(rates[name]) for name in loops)
    print(f"{model:8} fit {ours:8.0f}/s   bare loop {bare:8.0f}/s   ratio {ours / bare:.2f}")


if __name__ == "__main__":
    for each in ("linear", "mlp", "cnn"):
        measure(each)

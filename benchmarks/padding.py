"""Rows per second of `fit` on words whose padding is cut and sorted, against all 20 columns.

The same model, optimizer and schedule, in one process, by turns; the median of the turns. Beside
the rate, the accuracy: batches of one length are no longer a fair sample of the rows.
Runs in the environment of a study of text, in whose folder the data are prepared: make bench.
"""

import statistics
import time

import torch
from my_study.harness.configuration.building import build_trainer, open_split
from my_study.harness.configuration.composing import compose
from my_study.harness.training.determinism import seed_everything, set_determinism
from omegaconf import DictConfig

NUM_TURNS = 3
WAYS = {"all": "data.padding=null", "cut": "data.padding.bucket_size=null"}
WAYS |= {f"buckets of {size}": f"data.padding.bucket_size={size}" for size in (2, 8)}


def fit(config: DictConfig) -> tuple[float, float]:
    """Rows per second of training with validation, and the accuracy of the best epoch."""
    seed_everything(config.seed)
    train, validation = (open_split(config, name) for name in ("train", "validation"))
    trainer = build_trainer(config, train, torch.device("cpu"))
    start = time.perf_counter()
    trainer.fit(train, validation)
    seconds = time.perf_counter() - start
    best = max(epoch["validation_accuracy"] for epoch in trainer.history)
    return len(train) * config.training.num_epochs / seconds, best


def measure(model: str) -> None:
    """Prints a line for each way."""
    configs = {way: compose([f"model={model}", typed]) for way, typed in WAYS.items()}
    set_determinism(True, num_threads=1)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    accuracies = {}
    for _ in range(NUM_TURNS):
        for way, config in configs.items():
            rate, accuracies[way] = fit(config)
            rates[way].append(rate)
    medians = {way: statistics.median(each) for way, each in rates.items()}
    for way, rate in medians.items():
        ratio = rate / medians["all"]
        print(
            f"{model:12} {way:12} {rate:7.0f}/s  ratio {ratio:.2f}  accuracy {accuracies[way]:.3f}"
        )


if __name__ == "__main__":
    for each in ("bag", "lstm", "transformer"):
        measure(each)

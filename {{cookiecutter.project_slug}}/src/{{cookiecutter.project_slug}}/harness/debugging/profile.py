"""`python run.py debug=profile`: what takes time, and how much of it is waiting for data."""

import itertools
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configuration import build_trainer, open_split
from ..files import temporary_path, write_atomically
from .aside import folder_aside, set_up_aside
from .find_lr import CONSTANT

if TYPE_CHECKING:  # torch takes seconds to import
    import torch

    from ..training.prepared import Batch, Split
    from ..training.trainer import Trainer

log = logging.getLogger(__name__)
os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch reads it once: else its profiler is noisy
NUM_WARM = 10  # steps before anything is measured: kernels are chosen, memory is taken
NUM_STEPS = 20  # of each measurement
NUM_SHOWN = 10  # operations


def profile(config: Any) -> float:
    """Times steps of training, then profiles as many; logs both, and writes table and trace.

    Args:
        config: Resolved and checked, as of a run.

    Returns:
        Rows per second.

    Raises:
        StudyError: the data are not prepared, or the model cannot be built.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    device = set_up_aside(config)
    train = open_split(config, "train")
    constant = config.copy()
    constant.training.schedule = CONSTANT  # a run may have fewer steps than are taken here
    trainer = build_trainer(constant, train, device)
    trainer.model.train()
    endless = _endless(trainer, train)
    _measure(trainer, endless, NUM_WARM)
    rows_per_second = _report(trainer, *_measure(trainer, endless, NUM_STEPS))
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profiler(activities=activities) as profiled:
        _measure(trainer, endless, NUM_STEPS)
    _write(profiled, folder_aside("debug"), device)
    return rows_per_second


def _endless(trainer: "Trainer", train: "Split") -> "Iterator[Batch]":
    """The batches of one epoch after another, loaded as in a run."""
    from ..training.prepared import batches, order_of

    size, workers = trainer.settings.batch_size, trainer.settings.num_workers
    for epoch in itertools.count():
        order = order_of(train, seed=trainer.seed, epoch=epoch, batch_size=size)
        yield from batches(train, order, batch_size=size, num_workers=workers)


def _measure(
    trainer: "Trainer", endless: "Iterator[Batch]", num_steps: int
) -> tuple[int, float, float]:
    """Takes some steps; returns the number of rows, the seconds, and those of waiting for data."""
    rows, waited, began = 0, 0.0, time.perf_counter()
    for _ in range(num_steps):
        asked = time.perf_counter()
        batch = next(endless)
        waited += time.perf_counter() - asked
        rows += len(next(iter(batch.values())))
        trainer.advance(batch)
        _wait_for(trainer.device)
    return rows, time.perf_counter() - began, waited


def _wait_for(device: "torch.device") -> None:
    """Until the device has done what it was told: it works on while Python goes on."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _report(trainer: "Trainer", rows: int, seconds: float, waited: float) -> float:
    """Logs how fast a run is; returns the rows per second."""
    speed = rows / seconds
    log.info(
        "%.1f ms a step, %.0f rows a second on %s", 1e3 * seconds / NUM_STEPS, speed, trainer.device
    )
    log.info(
        "%.0f %% of the time is waiting for data (training.num_workers=%d)",
        100 * waited / seconds,
        trainer.settings.num_workers,
    )
    if memory := _peak_memory(trainer.device):
        log.info("peak memory: %s", memory)
    return speed


def _peak_memory(device: "torch.device") -> str:
    """Of the device, or of this process; nothing where it is not known."""
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e6:.0f} MB of the device"
    if sys.platform == "win32":
        return ""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{used / 1e6:.0f} MB of the process, with torch itself"


def _write(profiled: Any, folder: Path, device: "torch.device") -> None:
    """Logs the slowest operations; writes all to table.txt, and a trace to trace.json."""
    kind = "device" if device.type == "cuda" else "cpu"
    events = profiled.key_averages()
    sort = f"self_{kind}_time_total"
    ranked = sorted(events, key=lambda event: getattr(event, sort), reverse=True)
    total = sum(getattr(event, sort) for event in ranked) or 1
    log.info(
        "%-40s %8s %10s %7s", f"operation (itself, on the {kind})", "calls", "ms a step", "share"
    )
    for event in ranked[:NUM_SHOWN]:
        spent = getattr(event, sort)
        log.info(
            "%-40s %8d %10.3f %6.1f %%",
            event.key[:40],
            event.count,
            spent / 1e3 / NUM_STEPS,
            100 * spent / total,
        )
    table = events.table(sort_by=sort, row_limit=-1, max_name_column_width=60)
    write_atomically(folder / "table.txt", f"{table}\n".encode())
    temporary = temporary_path(folder / "trace.json")
    profiled.export_chrome_trace(str(temporary))
    temporary.replace(folder / "trace.json")
    log.info("%s: every operation; trace.json opens in ui.perfetto.dev", folder / "table.txt")

"""The folder of the run that a configuration describes: new, interrupted or finished."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from ..runs.fingerprint import identify
from ..runs.folder import claim, read_finished
from ..runs.run import Metrics, Run
from ..study import ROOT
from .composing import to_values, typed_overrides, write_config

log = logging.getLogger(__name__)


@contextmanager
def open_run(config: DictConfig) -> Iterator[Run]:
    """Locks the folder of a run for as long as the run lasts.

    Args:
        config: Resolved and checked.

    Raises:
        StudyError: the data are not prepared, or the folder cannot be used.
    """
    # torch takes seconds to import: --help and --cfg do without it
    from ..training import checkpoints, determinism, prepared

    values, overrides = to_values(config), typed_overrides()
    data = prepared.verify_prepared(config.data.folder, values["data"]["prepare"])
    identity = identify(ROOT, values, data, determinism.kind_of(config.device))
    resume = None if config.resume is None else Path(config.resume)
    with claim(ROOT, identity, values, overrides, resume=resume) as folder:
        record = read_finished(folder, except_budget=resume is not None)
        metrics = None
        if record is not None and checkpoints.restore_results(folder, record):
            log.info("%s: already finished; to run it again from scratch: force=true", folder)
            metrics = record["metrics"]
        has_config = (folder / "config.yaml").exists()
        if resume is None and (metrics is None or config.run_dir is not None or not has_config):
            write_config(config, folder)
        yield Run(ROOT, folder, identity, values, overrides, metrics)


def log_metrics(metrics: Metrics) -> None:
    """Logs the final numbers, a line a split."""
    for split, numbers in metrics.items():
        log.info("%s: %s", split, "  ".join(f"{key} {val:.4f}" for key, val in numbers.items()))

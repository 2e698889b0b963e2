"""The folder of the run that a configuration describes: new, interrupted or finished."""

import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ..files import ENCODER, write_atomically
from ..runs.fingerprint import fingerprint, identify
from ..runs.folder import claim, find_on_any_device, read_finished
from ..runs.record import record_config
from ..runs.run import Metrics, Run
from ..runs.source import find_source
from ..study import ROOT
from .composing import to_record, to_values, to_yaml, typed_overrides

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What is known of the run of a configuration: its numbers, if it is finished."""

    fingerprint: str
    metrics: Metrics | None


def look_up(config: DictConfig, ranks: int) -> Known:
    """What is known of the run of a configuration; makes nothing.

    Args:
        config: Resolved and checked.
        ranks: How many processes will train together.

    Raises:
        StudyError: the data are not prepared.
    """
    from ..training import checkpoints

    identity = {**_identify(config)[0], "ranks": ranks}
    name = None if config.run_dir is None else Path(config.run_dir)
    for folder in find_on_any_device(ROOT, identity, to_values(config), name):
        record = read_finished(folder)
        if record is not None and checkpoints.restore_results(folder, record):
            return Known(fingerprint(identity), record["metrics"])
    return Known(fingerprint(identity), None)


def _identify(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run is known by, and its values as its record has them."""
    from ..training import determinism, prepared

    values = to_record(config)
    command = describe_preparing(config, typed_overrides())
    data = prepared.verify_prepared(config.data.folder, values["data"]["prepare"], command)
    source = find_source(config.get("initial_weights"))
    known = None if source is None else source.describe()
    return identify(ROOT, values, data, determinism.kind_of(config.device), known), values


@contextmanager
def open_run(config: DictConfig) -> Iterator[Run]:
    """Locks the folder of a run for as long as the run lasts; of several ranks, rank 0 does.

    Args:
        config: Resolved and checked.

    Raises:
        StudyError: the data are not prepared, or the folder cannot be used.
    """
    # torch takes seconds to import: --help and --cfg do without it
    from ..training import checkpoints, distributed

    distributed.join(config.device)
    with ExitStack() as stack, distributed.together():
        overrides = typed_overrides()
        identity, values = _identify(config)
        resume = None if config.resume is None else Path(config.resume)
        distributed.refuse_different("configuration, code or data", fingerprint(identity))

        def begin() -> tuple[Path, Metrics | None]:
            folder = stack.enter_context(
                claim(ROOT, identity, to_values(config), overrides, resume=resume)
            )
            record = read_finished(folder, except_budget=resume is not None)
            metrics = None
            if record is not None and checkpoints.restore_results(folder, record):
                log.info("%s: already finished; to run it again from scratch: force=true", folder)
                metrics = record["metrics"]
            if resume is None and (metrics is None or not (folder / "config.yaml").exists()):
                content = to_yaml(config)
                if metrics is not None:  # first: what is written must be as recorded, at any moment
                    record_config(folder, values, content)
                write_atomically(folder / "config.yaml", content)
                copy_encoder(Path(config.data.folder), folder)
            return folder, metrics

        folder, metrics = distributed.share(begin)
        yield Run(ROOT, folder, identity, values, overrides, metrics)


def describe_preparing(config: DictConfig, overrides: Sequence[str]) -> str:
    """The command that prepares the data of what was typed."""
    name = HydraConfig.get().runtime.choices.get("data")
    typed = [item for item in overrides if item.lstrip("+~").startswith("data.")]
    if "fold" in (config.data.prepare.get("split") or {}):
        typed.append(f"seed={config.seed}")  # in folds, each seed has data of its own
    return shlex.join(["python", "stages/prepare.py", f"data={name}", *typed])


def copy_encoder(data: Path, folder: Path) -> None:
    """Keeps with a run what was fitted on its training rows: predictions need it."""
    if (data / ENCODER).is_file():
        write_atomically(folder / ENCODER, (data / ENCODER).read_bytes())


def log_metrics(metrics: Metrics) -> None:
    """Logs the final numbers, a line a split."""
    for split, numbers in metrics.items():
        log.info("%s: %s", split, "  ".join(f"{key} {val:.4f}" for key, val in numbers.items()))

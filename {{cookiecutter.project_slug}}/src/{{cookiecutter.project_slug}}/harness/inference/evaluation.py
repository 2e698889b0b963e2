"""The metrics of a finished run: on a split of its data, or on new data with targets."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from ..configuration.building import build_splitter, read_raw, rebuild_trainer
from ..configuration.composing import from_values
from ..errors import StudyError
from ..study import ROOT
from ..training.chunks import count_rows, kept
from ..training.prepared import Batch, Split
from ..training.preparation import write_prepared
from ..training.splits import split_only
from .loading import LoadedRun

NEW = "new"  # the one split of data that are not prepared


def evaluate(run: LoadedRun, split: Dataset[Batch]) -> dict[str, float]:
    """The loss and every metric, computed by the trainer of the run."""
    trainer = rebuild_trainer(run.config, split, run.device)
    trainer.model.load_state_dict(run.model.state_dict())
    return trainer.evaluate(split)


@contextlib.contextmanager
def read_new(run: LoadedRun, path: Path) -> Iterator[Split]:
    """New data, as the reader and the fitted encoder of the run make them of a file.

    Raises:
        StudyError: the reader or the encoder refuses them, or they have no target.
    """
    data = run.config["data"]
    read = data["prepare"]["read"]
    if "path" not in read:
        raise StudyError("data.prepare.read: takes no `path`, so it reads no other file")
    if not path.is_file():
        raise StudyError(f"{path}: there is no such file")
    read = {**read, "path": os.path.relpath(path, ROOT)}
    new = {**data, "prepare": {**data["prepare"], "read": read}}
    config = from_values({**run.config, "data": new})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary, "data")
        with contextlib.chdir(ROOT), kept(read_raw(config), Path(temporary, "raw")) as chunks:
            splitter = build_splitter(config)
            hidden = set() if splitter is None else split_only(splitter)
            rows = {NEW: np.arange(sum(map(count_rows, chunks)))}
            shown = (
                {name: each for name, each in fields.items() if name not in hidden}
                for fields in chunks
            )
            write_prepared(folder, shown, rows, {}, run.encoder)
        split = Split(folder, NEW, data.get("padding"))
        if run.spec.target is not None and "target" not in split.fields:
            raise StudyError(f"{path}: has no target, so there is nothing to compare with")
        yield split

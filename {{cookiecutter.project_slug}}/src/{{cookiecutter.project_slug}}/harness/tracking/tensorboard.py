"""`tracker=tensorboard`: event files in the run's folder, for `tensorboard --logdir runs`."""

import importlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import need

need("tensorboard", tracker="tensorboard")


class TensorBoard:
    """Writes runs/NAME/tensorboard/: a scalar for each column of the history, by the step.

    Args:
        name: Of the run; TensorBoard shows the folder.
        folder: Of the run. What an interrupted part has written there is written again.
        parameters: By their names; compared under HPARAMS.
    """

    def __init__(self, *, name: str, folder: Path, parameters: Mapping[str, Any]) -> None:
        del name
        library = importlib.import_module("torch.utils.tensorboard")
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.writer = library.SummaryWriter(str(folder / "tensorboard"))
        plain = (bool, int, float, str)
        self.parameters = {
            key: value if isinstance(value, plain) else str(value)
            for key, value in parameters.items()
        }

    def log(self, row: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        for key, value in row.items():
            self.writer.add_scalar(key, value, int(row["step"]))
        self.writer.flush()

    def close(self, status: str, metrics: Mapping[str, float]) -> None:
        """Adds the parameters with the final numbers, and the status as a text."""
        self.writer.add_hparams(self.parameters, dict(metrics), run_name=".")
        self.writer.add_text("status", status)
        self.writer.close()

"""`tracker=wandb`: a folder wandb/ in the study; nothing is sent before `wandb sync wandb/*`."""

import hashlib
import importlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import need

need("wandb", tracker="wandb")
# Nothing of the machine, the code, the environment or what is printed.
QUIET = {"console": "off", "silent": True, "save_code": False}
QUIET |= {"disable_git": True, "disable_code": True, "disable_job_creation": True}
QUIET |= {"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True}
QUIET |= {"x_save_requirements": False}


class Wandb:
    """Writes each run as Weights & Biases does, without an account.

    Args:
        project: The project that the runs stand in.
        mode: `offline`, or `online`, which needs an account and the network.
        name: Of the run.
        folder: Of the run. What an interrupted part of it has written offline is deleted first.
        parameters: By their names.
    """

    def __init__(
        self, *, project: str, mode: str, name: str, folder: Path, parameters: Mapping[str, Any]
    ) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to its makers
        library = importlib.import_module("wandb")
        number = hashlib.sha256(str(folder).encode()).hexdigest()[:12]  # the same when resumed
        for earlier in Path("wandb").glob(f"offline-run-*-{number}"):
            shutil.rmtree(earlier)
        self.run = library.init(
            project=project,
            mode=mode,
            name=name,
            id=number,
            resume=None if mode == "offline" else "allow",
            dir=".",
            config=dict(parameters),
            reinit="create_new",
            settings=library.Settings(**QUIET),
        )

    def log(self, row: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        self.run.log(dict(row), step=int(row["step"]))

    def close(self, status: str, metrics: Mapping[str, float]) -> None:
        """Adds the final numbers and the status, and ends the run."""
        self.run.summary.update({**metrics, "status": status})
        self.run.finish(exit_code=0 if status == "finished" else 1)

"""`tracker=mlflow`: a database in the study, for `mlflow ui --backend-store-uri URI`."""

import importlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from . import need

need("mlflow", tracker="mlflow")
STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
MAX_LENGTH = 6000  # of a parameter


class Mlflow:
    """Writes each run into a database of MLflow. It sends nothing anywhere else.

    Args:
        uri: Of the database, or of a server.
        experiment: The experiment that the runs stand in; it is made if it is not there.
        name: Of the run.
        folder: Of the run. What an interrupted part of it has written is deleted first.
        parameters: By their names.
    """

    def __init__(
        self, *, uri: str, experiment: str, name: str, folder: Path, parameters: Mapping[str, Any]
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        self.library = importlib.import_module("mlflow")
        for noisy in ("mlflow", "alembic"):  # lines about tables
            logging.getLogger(noisy).setLevel(logging.WARNING)
        with FileLock("mlflow.db.lock"):  # several jobs of a sweep may find no database
            self.client = self.library.MlflowClient(tracking_uri=uri)
            number = self._experiment(experiment)
            for earlier in self.client.search_runs([number], f'tags.folder = "{folder}"'):
                self.client.delete_run(earlier.info.run_id)
            made = self.client.create_run(number, tags={"folder": str(folder)}, run_name=name)
        self.run_id = made.info.run_id
        params = [
            self.library.entities.Param(key, str(value)[:MAX_LENGTH])
            for key, value in parameters.items()
        ]
        for start in range(0, len(params), 100):  # as many as it takes at once
            self.client.log_batch(self.run_id, params=params[start : start + 100])

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name))

    def log(self, row: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        self._log(row, step=int(row["step"]))

    def close(self, status: str, metrics: Mapping[str, float]) -> None:
        """Adds the final numbers, and ends the run."""
        self._log(metrics, step=0)
        self.client.set_terminated(self.run_id, STATUS[status])

    def _log(self, values: Mapping[str, float], *, step: int) -> None:
        now = int(1000 * time.time())
        metric = self.library.entities.Metric
        points = [metric(key, float(value), now, step) for key, value in values.items()]
        self.client.log_batch(self.run_id, metrics=points)

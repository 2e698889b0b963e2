"""A finished run and its model, ready to predict."""

import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..configuration.building import build_encoder, build_network
from ..configuration.composing import from_values
from ..errors import StudyError
from ..files import ENCODER
from ..runs.code import called_by, code_of, hash_source, is_same_code
from ..runs.drift import Change, code_drift
from ..runs.fingerprint import code_of_prepare
from ..runs.published import PUBLISHED
from ..runs.record import find_altered_files
from ..runs.source import WEIGHTS, read_trained
from ..study import ROOT
from ..training.checkpoints import load_weights
from ..training.determinism import choose_device
from ..training.prepared import PREPARE, SPLITS, Split, verify_prepared
from ..training.results import HISTORY, read_history
from ..training.spec import Spec
from .predicting import encode, predict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedRun:
    """A finished run.

    Attributes:
        folder: Where it is.
        record: See docs/record.md.
        device: Where the model is.
        model: In evaluation mode, with the weights that its numbers are of.
        encoder: What turns raw fields into those of a batch, fitted; None where the raw data are
            numbers already.
    """

    folder: Path
    record: dict[str, Any]
    device: torch.device
    model: nn.Module
    encoder: Any

    @property
    def config(self) -> dict[str, Any]:
        """Every value of the run."""
        values: dict[str, Any] = self.record["config"]
        return values

    @property
    def precision(self) -> str:
        """That of training and evaluation: `float32` or `bfloat16`."""
        return str(self.config["training"]["precision"])

    @functools.cached_property
    def history(self) -> list[dict[str, float]]:
        """A row an epoch."""
        rows: list[dict[str, float]] = self.record.get("history") or read_history(self.folder)
        return rows

    @functools.cached_property
    def spec(self) -> Spec:
        """The inputs and outputs of the model, as `data.spec` of the run says.

        Raises:
            StudyError: there is none, or it is wrong.
        """
        values = self.config["data"].get("spec")
        if not isinstance(values, Mapping):
            raise StudyError(f"{self.folder}: its data have no spec (data.spec)")
        try:
            return Spec.from_values(values)
        except (ValueError, TypeError) as error:
            raise StudyError(f"{self.folder}: data.spec.{error}") from error

    def split(self, name: str) -> Split:
        """A split of the prepared data that the run has read: `train`, `validation` or `test`.

        Raises:
            StudyError: they are not prepared, or are not those that the run has read.
        """
        if name not in SPLITS:
            raise StudyError(f"split={name}: must be one of {', '.join(SPLITS)}")
        data = self.config["data"]
        folder = ROOT / data["folder"]
        command = prepare_command(self.record)
        found = verify_prepared(folder, data["prepare"], command)
        for path, known in self.record["data"].items():
            if found.get(path) != known:
                hint = f"restore the data of the run: dvc pull, or {command}"
                raise StudyError(f"{folder}/{path}: is not what {self.folder} has read; {hint}")
        return Split(folder, name, data.get("padding"))

    def predict(
        self, fields: Mapping[str, np.ndarray], *, batch_size: int = 256
    ) -> dict[str, np.ndarray]:
        """The outputs of new instances.

        Args:
            fields: Raw fields by name, an instance a row; a `target` is not looked at.
            batch_size: How many instances the model is given at a time.

        Returns:
            Each output that the spec declares, an instance a row.

        Raises:
            StudyError: the encoder refuses a row, or the fields are not as the spec says.
        """
        inputs = {name: values for name, values in fields.items() if name != "target"}
        return predict(self, encode(self, inputs), batch_size=batch_size)


def load_run(folder: str | Path, device: str | torch.device | None = "cpu") -> LoadedRun:
    """Loads a finished run. Where the code has changed since, a warning names what did.

    Args:
        folder: In runs/; of a published run, the one that `dvc pull` restores.
        device: Where the model is to be: `auto`, `cpu`, `cuda` or `mps`; None for the kind on which
            it was trained, or the CPU if this machine has no such.

    Raises:
        StudyError: it is no finished run, or its weights are missing or altered.
    """
    folder = Path(folder)
    record = read_trained(folder, str(folder), ROOT / PUBLISHED)
    if not record.get("config"):
        raise StudyError(f"{folder}: its record of version 1 holds no configuration")
    known = {name: record["files"].get(name) for name in (ENCODER, HISTORY)}
    here = {name: each for name, each in known.items() if each and (folder / name).is_file()}
    if altered := find_altered_files(folder, {"files": here}):
        raise StudyError(f"{folder}/{altered[0]}; run it again")
    changes = changed_code(record)
    if changes:
        names = ", ".join(change.key for change in changes)
        log.warning("%s: the code has changed since: %s", folder, names)
    chosen = _device_of(record) if device is None else choose_device(str(device))
    model = _load_model(folder, record, changes).to(chosen).eval()
    return LoadedRun(folder, record, chosen, model, _load_encoder(folder, record))


def _device_of(record: Mapping[str, Any]) -> torch.device:
    try:
        return choose_device(record["device"])
    except StudyError:
        return torch.device("cpu")


def changed_code(record: Mapping[str, Any]) -> list[Change]:
    """Each file that differs of the code of a run, and of that which prepared its data."""
    config, changes = record["config"], []
    if not is_same_code(ROOT, record):
        now = {"code": code_of(ROOT, called_by(config)), "source": hash_source(ROOT)}
        changes = code_drift(record, now)
    prepared = (record.get("prepared_from") or {}).get("code")
    if prepared and config["data"]["prepare"].get("encode"):
        code = code_of_prepare(ROOT, config["data"]["prepare"])
        told = {change.key for change in changes}
        later = code_drift({"code": prepared}, {"code": code})
        changes += [change for change in later if change.key not in told]
    return changes


def prepare_command(record: Mapping[str, Any]) -> str:
    """What to type to prepare the data of a run."""
    chosen = ("data", "experiment=", "model=")  # an experiment or a model may name its data set
    typed = [item for item in record["overrides"] if item.lstrip("+~").startswith(chosen)]
    return " ".join([PREPARE, *typed])


def _load_model(folder: Path, record: Mapping[str, Any], changes: list[Change]) -> nn.Module:
    """The network with its weights, on the CPU."""
    hint = f"; to see it as it was: git checkout {(record.get('git') or {}).get('commit')}"
    since = f"; {changes[0].key} has changed since the run{hint}" if changes else ""
    weights = load_weights(folder / WEIGHTS)
    try:
        model = build_network(record["config"])
        model.load_state_dict(weights)
    except StudyError as error:
        raise StudyError(f"{folder}: {error}{since}") from error
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"{folder}/{WEIGHTS}: does not fit its model ({reason}){since}") from error
    return model


def _load_encoder(folder: Path, record: Mapping[str, Any]) -> Any:
    """What was fitted on the training rows; DVC keeps no copy in the run's folder.

    Raises:
        StudyError: its state is missing.
    """
    data = record["config"]["data"]
    if data["prepare"].get("encode") is None:
        return None
    known = record["data"].get(ENCODER)
    for place in (folder, ROOT / data["folder"]):
        if not find_altered_files(place, {"files": {ENCODER: known}}):
            if (place / ENCODER).is_file():
                state = json.loads((place / ENCODER).read_bytes())
                return build_encoder(from_values(record["config"]), state)
    hint = f"type: dvc pull, or {prepare_command(record)}"
    raise StudyError(f"{folder}/{ENCODER}: is missing, or not what the run was fitted with; {hint}")

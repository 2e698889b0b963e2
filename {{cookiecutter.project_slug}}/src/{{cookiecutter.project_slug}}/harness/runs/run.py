"""A run that is about to start, or that has been found: what it is, and where it is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Metrics = Mapping[str, Mapping[str, float]]  # split, name, value


@dataclass(frozen=True)
class Run:
    """A run and its folder.

    Attributes:
        root: The study's folder.
        folder: The run's own, which no other process works in.
        identity: What the run is known by: see `fingerprint.identify`.
        values: The resolved configuration, as plain values.
        overrides: The command line after `python run.py`.
        finished_metrics: Its numbers, by split and name, if it is finished already.
    """

    root: Path
    folder: Path
    identity: Mapping[str, Any]
    values: Mapping[str, Any]
    overrides: Sequence[str]
    finished_metrics: Metrics | None = None

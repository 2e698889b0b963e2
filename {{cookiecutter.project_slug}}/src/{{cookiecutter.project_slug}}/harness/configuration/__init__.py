"""Composes, checks and builds: the only part of the library that knows Hydra.

Configuration is data. What a `_target_` may name is decided in targets.py.
"""

from .building import build_encoder, build_splitter, build_trainer, open_split, read_raw
from .composing import compose, to_record, to_values
from .entrypoint import entrypoint
from .opening import log_metrics, open_run
from .resolving import resolve, resolve_data
from .tracking import track

__all__ = [
    "build_encoder",
    "build_splitter",
    "build_trainer",
    "compose",
    "entrypoint",
    "log_metrics",
    "open_run",
    "open_split",
    "read_raw",
    "resolve",
    "resolve_data",
    "to_record",
    "to_values",
    "track",
]

"""Composes, checks and builds: the only part of the library that knows Hydra.

Configuration is data. What a `_target_` may name is decided in targets.py.
"""

from .building import build_trainer
from .composing import compose, to_values
from .entrypoint import entrypoint
from .opening import log_metrics, open_run
from .resolving import resolve

__all__ = [
    "build_trainer",
    "compose",
    "entrypoint",
    "log_metrics",
    "open_run",
    "resolve",
    "to_values",
]

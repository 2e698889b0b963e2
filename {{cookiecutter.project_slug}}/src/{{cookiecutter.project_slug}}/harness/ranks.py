"""Which of several processes that train one model together this one is: see distributed.py."""

import os

from .errors import StudyError


class Told(StudyError):
    """An error of rank 0, on another rank: rank 0 shows it."""


def num_ranks() -> int:
    """How many they are, as torchrun or Slurm says; 1 for a run in one process."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them, from 0. Rank 0 alone writes."""
    return int(os.environ.get("RANK", "0")) if num_ranks() > 1 else 0

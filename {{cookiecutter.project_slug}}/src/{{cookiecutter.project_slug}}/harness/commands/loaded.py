"""What the commands share that load a finished run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import
    from ..inference import LoadedRun


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run, and where its model computes."""
    parser.add_argument("run", metavar="RUN", type=Path, help="its folder in runs/")
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="auto, cpu, cuda or mps; else that of the run, if it is here",
    )


def open_run(arguments: argparse.Namespace) -> "LoadedRun":
    """Loads the run, and computes as it did: with as many threads, and deterministically or not.

    Raises:
        StudyError: it is no finished run, or its weights are missing or altered.
    """
    from ..inference import load_run
    from ..training.determinism import set_determinism

    loaded = load_run(arguments.run, arguments.device)
    set_determinism(loaded.config["deterministic"], num_threads=loaded.config["num_threads"])
    return loaded


def positive(text: str) -> int:
    """A whole number above 0, as argparse reads one.

    Raises:
        ValueError: it is none.
    """
    if (value := int(text)) < 1:
        raise ValueError(text)
    return value

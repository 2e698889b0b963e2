"""Write what each published experiment is known by into results/inputs/, for dvc.yaml.

A file an experiment holds the values and the digest of each file of code that can change its
numbers; data.yaml holds the same of the prepared data. A comment, a docstring, another
model or another command changes none of them, so `dvc repro` re-runs only what follows from a
changed value.
    study compose --experiments linear mlp cnn
"""

import argparse
import os
from pathlib import Path
from typing import Any

from ..configuration.composing import compose, to_values, to_yaml
from ..files import write_atomically
from ..runs.code import called_by, code_of, versions_of_targets
from ..runs.fingerprint import flatten
from ..study import ROOT

INPUTS = Path("results", "inputs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--experiments", nargs="+", required=True, help="those in dvc.yaml")


def run(arguments: argparse.Namespace) -> int:
    """Writes a file for each experiment and one for the data, and removes those of others."""
    os.chdir(ROOT)
    contents = {name: _inputs_of_run(name) for name in arguments.experiments}
    contents["data"] = _inputs_of_data()
    INPUTS.mkdir(parents=True, exist_ok=True)
    for name, values in contents.items():
        write_atomically(INPUTS / f"{name}.yaml", to_yaml(values))
    for path in INPUTS.glob("*.yaml"):
        if path.stem not in contents:
            path.unlink()
    return 0


def _inputs_of_run(experiment: str) -> dict[str, Any]:
    config = to_values(compose([f"experiment={experiment}"]))
    called = called_by(config)
    code = {**code_of(ROOT, called), **versions_of_targets(called)}
    return {"config": flatten(config), "code": code}


def _inputs_of_data() -> dict[str, Any]:
    parameters = to_values(compose().data.prepare)
    return {
        "parameters": parameters,
        "code": code_of(ROOT, parameters, start="stages/prepare.py"),
    }

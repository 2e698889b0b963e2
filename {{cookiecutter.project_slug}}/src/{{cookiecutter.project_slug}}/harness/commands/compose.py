"""Write results/inputs/: what each experiment is known by, for dvc.yaml.

A file an experiment contains the values and the digest of each file of code that can change its
numbers; a file a stage contains the same of stages/prepare.py and stages/report.py. A comment, a
docstring, another model or another command changes none of them, so `dvc repro` re-runs only what
depends on a changed value.
    study compose --experiments linear mlp cnn
"""

import argparse
import os
from pathlib import Path
from typing import Any

from ..configuration.composing import compose, to_values, to_yaml
from ..files import write_atomically
from ..runs.code import called_by, code_of
from ..runs.fingerprint import flatten
from ..study import ROOT

INPUTS = Path("results", "inputs")
STAGES = INPUTS / "stages"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--experiments", nargs="+", required=True, help="those in dvc.yaml")


def run(arguments: argparse.Namespace) -> int:
    """Writes a file for each experiment and each stage, and removes those of others."""
    os.chdir(ROOT)
    contents = {INPUTS / f"{name}.yaml": _inputs_of_run(name) for name in arguments.experiments}
    contents[STAGES / "prepare.yaml"] = _inputs_of_prepare()
    contents[STAGES / "report.yaml"] = {"code": code_of(ROOT, {}, start="stages/report.py")}
    STAGES.mkdir(parents=True, exist_ok=True)
    for path, values in contents.items():
        write_atomically(path, to_yaml(values))
    for path in INPUTS.rglob("*.yaml"):
        if path not in contents:
            path.unlink()
    return 0


def _inputs_of_run(experiment: str) -> dict[str, Any]:
    values = to_values(compose([f"experiment={experiment}"]))
    return {"config": flatten(values), "code": code_of(ROOT, called_by(values))}


def _inputs_of_prepare() -> dict[str, Any]:
    parameters = to_values(compose().data.prepare)
    code = code_of(ROOT, parameters, start="stages/prepare.py")
    return {"parameters": parameters, "code": code}

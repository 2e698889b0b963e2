"""Export the model of a finished run, for programs that do not have the code of the study.

Writes to DIR, which must be new: model.pt2 (torch.export, for any number of rows), a card
(README.md), what turns raw fields into numbers (encoder.json) where there is such, and with --onnx
model.onnx. Each program is loaded again and compared with the run on the validation split.
    study export runs/NAME exported
Exit code: 0; 1 a mistake, or other outputs than the run's; 2 wrong usage.
"""

import argparse
from pathlib import Path

from .loaded import open_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("run", metavar="RUN", type=Path, help="its folder in runs/")
    parser.add_argument("folder", metavar="DIR", type=Path, help="a new folder")
    parser.add_argument("--onnx", action="store_true", help="ONNX, too")
    parser.set_defaults(device="cpu")


def run(arguments: argparse.Namespace) -> int:
    """Writes the folder, and prints how far each program is from the run."""
    from ..inference.exporting import export

    apart = export(open_run(arguments), arguments.folder, onnx=arguments.onnx)
    for name, share in apart.items():
        path = arguments.folder / name
        print(f"{path}: largest difference on the validation split {share:.1e}")
    return 0

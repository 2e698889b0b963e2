"""The model of a finished run as programs that need no code of the study: torch.export and ONNX."""

import contextlib
import importlib
import importlib.util
import io
import logging
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ..errors import StudyError
from ..files import ENCODER, to_json, write_atomically
from ..training.prepared import Batch, cut_padding
from ..training.step import autocast
from .card import CARD, Shapes, write_card
from .loading import LoadedRun
from .packing import without_packing
from .predicting import predict

PROGRAM, ONNX = "model.pt2", "model.onnx"
NUM_ROWS = 8  # to trace the model with, and to compare the ONNX program on
TOLERANCE = 1e-5  # of the largest output
Program = Callable[..., Any]  # inputs by name to outputs by name


def export(run: LoadedRun, folder: Path, *, onnx: bool) -> dict[str, float]:
    """Writes the program, its card and the encoder's state to a new folder, and verifies it.

    Args:
        run: On the CPU.
        folder: A new one.
        onnx: Whether to write an ONNX program, too.

    Returns:
        By file, how far its outputs are from the run's on rows of the validation split, as a share
        of the largest output.

    Raises:
        StudyError: the model cannot be exported, or its program gives other outputs; nothing is
            left behind.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StudyError(f"{folder}: is there already; name a new folder")
    missing = [name for name in ("onnx", "onnxscript") if not importlib.util.find_spec(name)]
    if onnx and missing:
        hint = "uv pip install -c requirements.lock --group export"
        raise StudyError(f"--onnx: needs the package {missing[0]}; type: {hint}")
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        apart = _write(run, new, onnx=onnx)
        if folder.exists():
            folder.rmdir()
        new.rename(folder)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return apart


def _write(run: LoadedRun, new: Path, *, onnx: bool) -> dict[str, float]:
    """Writes and verifies each file."""
    split = run.split("validation")
    batch = {name: split.fields[name] for name in run.spec.inputs}
    few = {name: values[:NUM_ROWS] for name, values in batch.items()}
    one = {name: values[:1] for name, values in batch.items()}
    program, shapes = trace(run, few)
    if split.padding is not None and _is_any_length(shapes):
        one = cut_padding(one, split.padding)
    torch.export.save(program, new / PROGRAM)
    loaded = torch.export.load(new / PROGRAM).module()
    apart = {PROGRAM: verify(run, loaded, (batch, one), PROGRAM)}
    if onnx:
        with torch.no_grad():
            write_onnx(program, new / ONNX, list(run.model(**few)))
        apart[ONNX] = verify(run, load_onnx(new / ONNX), (few, one), ONNX)
    if run.encoder is not None:
        write_atomically(new / ENCODER, to_json(run.encoder.state_dict()))
    write_card(run, new / CARD, shapes, apart)
    return apart


def _is_any_length(shapes: Shapes) -> bool:
    return any(isinstance(axis, str) for shape in shapes.values() for axis in shape[1:])


def trace(run: LoadedRun, batch: Batch) -> tuple[ExportedProgram, Shapes]:
    """The program of a model, for any number of rows, and of any length where the model allows it.

    Returns:
        The program, and the shape of each of its inputs: a word for an axis of any size.

    Raises:
        StudyError: torch.export cannot trace the model.
    """
    if len(next(iter(batch.values()))) < 2:
        raise StudyError(f"{run.folder}: to be exported, it needs two rows of validation data")
    free = {name: ["batch", *run.spec.inputs[name].shape] for name in batch}
    sizes = {name: [*values.shape] for name, values in batch.items()}
    fixed: Shapes = {name: ["batch", *sizes[name][1:]] for name in batch}
    with contextlib.suppress(Exception):  # a recurrent layer is traced for one length
        return _trace(run, batch, free), free
    try:
        return _trace(run, batch, fixed), fixed
    except Exception as error:  # pylint: disable=broad-exception-caught # torch raises many kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise StudyError(f"{run.folder}: torch.export cannot trace its model ({reason})") from error


def _trace(run: LoadedRun, batch: Batch, shapes: Shapes) -> ExportedProgram:
    words = {axis for shape in shapes.values() for axis in shape if isinstance(axis, str)}
    sizes = {axis: Dim(axis, min=1) for axis in sorted(words)}
    dynamic = {
        name: {number: sizes[axis] for number, axis in enumerate(shape) if isinstance(axis, str)}
        for name, shape in shapes.items()
    }
    with warnings.catch_warnings(), without_packing(), autocast(run.device, run.precision):
        warnings.simplefilter("ignore")
        with torch.no_grad():
            program = torch.export.export(run.model, (), dict(batch), dynamic_shapes=dynamic)
    for node in program.graph.nodes:  # where its lines stood on this machine
        node.meta.pop("stack_trace", None)
    return program


def verify(run: LoadedRun, program: Program, batches: Sequence[Batch], name: str) -> float:
    """How far the outputs of a program are from the run's, as a share of the largest output.

    Raises:
        StudyError: further than TOLERANCE.
    """
    shares = []
    for batch in batches:
        wanted = predict(run, batch, batch_size=256)
        with torch.no_grad():
            found = program(**batch)
        for key, values in wanted.items():
            gap = np.abs(np.asarray(found[key], dtype=np.float64) - values).max()
            shares.append(gap / max(np.abs(values).max(), 1e-12))
    apart = float(np.max(shares))  # not a number, if one is not
    if math.isnan(apart) or apart > TOLERANCE:
        reason = f"its outputs differ from the run's by {apart:.1e} of the largest"
        raise StudyError(f"{run.folder}: {name}: {reason}; nothing was written")
    return apart


def write_onnx(program: ExportedProgram, path: Path, names: Sequence[str]) -> None:
    """The same as ONNX, with the same names of inputs and outputs.

    Raises:
        StudyError: it holds something that ONNX lacks.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # of packages that are not needed
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            made = torch.onnx.export(program, output_names=names, dynamo=True, verbose=False)
            assert made is not None
            made.save(path)
        except Exception as error:  # pylint: disable=broad-exception-caught
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise StudyError(f"--onnx: the model cannot be translated ({reason})") from error


def load_onnx(path: Path) -> Program:
    """An ONNX program, run by the reference implementation."""
    reference: Any = importlib.import_module("onnx.reference")
    session = reference.ReferenceEvaluator(str(path))

    def call(**inputs: Tensor) -> dict[str, np.ndarray]:
        values = {name: tensor.numpy() for name, tensor in inputs.items()}
        return dict(zip(session.output_names, session.run(None, values), strict=True))

    return call

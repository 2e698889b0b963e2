"""Weights of an earlier training, read from a file and put into a new model."""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import StudyError
from .checkpoints import load_weights
from .patterns import find

log = logging.getLogger(__name__)
DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U8": torch.uint8, "BOOL": torch.bool},
}


def read_weights(paths: Iterable[Path]) -> dict[str, Tensor]:
    """The tensors of one or several files, by name: of safetensors, or as `torch.save` writes them.

    Raises:
        StudyError: a file is corrupt, or holds anything but tensors; no code in it is run.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        read = _read_safetensors if path.suffix == ".safetensors" else load_weights
        for name, value in read(path).items():
            if not isinstance(value, Tensor):
                reason = f"{name} is no tensor; save model.state_dict() alone"
                raise StudyError(f"{path}: is not a file of weights: {reason}")
            found[name] = value
    return found


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The length of a header, the header as JSON, the bytes of all tensors.

    https://huggingface.co/docs/safetensors describes the format.
    """
    try:
        content = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        return {name: _to_tensor(known, content, start) for name, known in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise StudyError(f"{path}: not a readable safetensors file ({error})") from error


def _to_tensor(known: Mapping[str, Any], content: bytearray, start: int) -> Tensor:
    dtype, shape = DTYPES[known["dtype"]], known["shape"]
    begin, end = (start + offset for offset in known["data_offsets"])
    if not start <= begin <= end <= len(content):
        raise ValueError("it is truncated")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("a tensor has another size than its shape says")
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(content[begin:end], dtype=dtype).reshape(shape)


def load_initial_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, drop: Sequence[str], strict: bool
) -> None:
    """Puts weights into a model, each where one of its name is.

    Args:
        model: Fresh.
        weights: By name.
        drop: Patterns of names that keep their fresh values.
        strict: Whether every other name must be in both.

    Raises:
        StudyError: a name is in one of both only, shapes differ, or nothing is left to load.
    """
    own = model.state_dict()
    dropped = set()
    for pattern in drop:
        dropped |= set(find(pattern, [*own, *weights], "initial_weights.drop"))
    wanted = [name for name in own if name not in dropped]
    given = [name for name in weights if name not in dropped]
    if strict:
        _refuse_others(wanted, given)
    loaded = {name: weights[name] for name in wanted if name in weights}
    if not loaded:
        raise StudyError("initial_weights: no name is both in the model and in the file")
    for name, value in loaded.items():
        if not is_lazy(own[name]) and own[name].shape != value.shape:
            shapes = f"is {list(value.shape)} in the file, and {list(own[name].shape)} in the model"
            hint = f"to leave it at its fresh value, add it to initial_weights.drop: [{name}]"
            raise StudyError(f"initial_weights: {name}: {shapes}; {hint}")
    model.load_state_dict(loaded, strict=False)
    log.info("initial weights: %d of %d tensors are loaded", len(loaded), len(own))


def _refuse_others(wanted: Sequence[str], given: Sequence[str]) -> None:
    """Refuses a name of the model that the file lacks, or one of the file that the model lacks."""
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if name not in wanted]
    for names, where in ((missing, "missing in the file"), (unexpected, "not in the model")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            hint = "add them to initial_weights.drop, or set strict: false"
            raise StudyError(f"initial_weights: {names[0]}{more}: {where}; {hint}")

"""Packed sequences, which torch.export cannot trace, as padded ones that give the same numbers.

A recurrent layer reads each row from both ends: its letters turned around, padding stays last, so
neither direction has read padding where a letter is.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

KERNELS = {"LSTM": torch.lstm, "GRU": torch.gru}
KERNELS |= {"RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}


class Padded(NamedTuple):
    """What stands for a packed sequence."""

    values: Tensor  # [batch, length, features]
    lengths: Tensor  # [batch]

    @property
    def counted(self) -> Tensor:
        """Where a row has a value. Shape: [batch, length, 1], bool."""
        positions = torch.arange(self.values.shape[1], device=self.values.device)
        return (positions < self.lengths[:, None])[..., None]

    def turn(self, values: Tensor) -> Tensor:
        """Each row from its end to its beginning, and padding where it was."""
        positions = torch.arange(values.shape[1], device=values.device)
        ends = self.lengths[:, None] - 1 - positions
        places = torch.where(ends >= 0, ends, positions)[..., None]
        return values.gather(1, places.expand_as(values))


@contextlib.contextmanager
def without_packing() -> Iterator[None]:
    """In here, models pad where they would pack; their outputs are the same.

    The last cell state of an LSTM is not a number: that of a padded row is not known.
    """
    with contextlib.ExitStack() as stack:
        for name, new in (("pack_padded_sequence", pack), ("pad_packed_sequence", unpack)):
            old = getattr(rnn, name)
            for module in [*sys.modules.values()]:
                if getattr(module, "__dict__", {}).get(name) is old:
                    stack.enter_context(_replaced(module, name, new))
        for kind in (nn.LSTM, nn.GRU, nn.RNN):
            stack.enter_context(_replaced(kind, "forward", _padding(kind.forward)))
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


def pack(
    values: Tensor, lengths: Tensor, batch_first: bool = False, enforce_sorted: bool = True
) -> Padded:
    """In place of `pack_padded_sequence`; the order of the rows does not matter here."""
    del enforce_sorted
    return Padded(values if batch_first else values.transpose(0, 1), lengths.to(values.device))


def unpack(
    sequence: Padded,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """In place of `pad_packed_sequence`; rows keep the length that they had."""
    del total_length
    values = sequence.values.masked_fill(~sequence.counted, padding_value)
    return values if batch_first else values.transpose(0, 1), sequence.lengths


def _padding(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a recurrent layer that takes a padded sequence, too."""

    def replacement(layer: nn.RNNBase, values: Any, hx: Any = None) -> Any:
        if not isinstance(values, Padded):
            return forward(layer, values, hx)
        return _read(layer, values, hx)

    return replacement


def _read(layer: nn.RNNBase, sequence: Padded, hx: Any) -> tuple[Padded, Any]:
    """What a recurrent layer makes of a padded sequence, and its last states."""
    if hx is not None or layer.proj_size:
        raise ValueError("a packed sequence with a first state, or with proj_size")
    last, num_directions = [], 2 if layer.bidirectional else 1
    for number in range(layer.num_layers):
        outputs = []
        for direction in range(num_directions):
            weights = layer.all_weights[number * num_directions + direction]
            output = _read_once(layer, weights, sequence, backwards=direction == 1)
            end = (sequence.lengths - 1)[:, None, None].expand(-1, 1, output.shape[2])
            last.append(output.gather(1, end)[:, 0])
            outputs.append(sequence.turn(output) if direction else output)
        sequence = Padded(torch.cat(outputs, dim=-1), sequence.lengths)
    hidden = torch.stack(last)  # [layers * directions, batch, features]
    return sequence, ((hidden, hidden * torch.nan) if layer.mode == "LSTM" else hidden)


def _read_once(
    layer: nn.RNNBase, weights: Sequence[Tensor], sequence: Padded, *, backwards: bool
) -> Tensor:
    """One direction of one layer. Shape: [batch, length, features], in the order that it reads."""
    values = sequence.turn(sequence.values) if backwards else sequence.values
    first = values.new_zeros(1, values.shape[0], layer.hidden_size)
    state: Any = [first, first] if layer.mode == "LSTM" else first
    kernel: Any = KERNELS[layer.mode]
    output: Tensor = kernel(values, state, weights, layer.bias, 1, 0.0, False, False, True)[0]
    return output

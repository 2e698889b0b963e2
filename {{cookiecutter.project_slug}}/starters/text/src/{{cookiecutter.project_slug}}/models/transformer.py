"""A small transformer, with a choice of how it knows where a letter stands."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .counter import Encoder

POSITIONS = ("sinusoidal", "learnt", "rotary", "none")


class Transformer(Encoder):
    """Layers of self-attention and two linear layers, each after a layer norm (pre-norm).

    Args:
        max_index: The largest index of a letter.
        max_length: Of a word: the slowest wave of a position turns once in about six such words.
        num_features: Of each letter; `rotary` needs twice `num_heads` to divide it.
        num_layers: Each of attention and two linear layers.
        num_heads: Of the attention.
        position: `sinusoidal` (Vaswani et al., 2017) or `learnt`, added to the letters; `rotary`
            (Su et al., 2021), which turns queries and keys; `none`, a set of letters.
        dropout: After each attention and each pair of linear layers.
    """

    def __init__(
        self,
        *,
        max_index: int,
        max_length: int,
        num_features: int,
        num_layers: int,
        num_heads: int,
        position: str,
        dropout: float,
    ) -> None:
        super().__init__()
        if position not in POSITIONS:
            raise ValueError(f"position={position}: must be one of {', '.join(POSITIONS)}")
        if num_features % (2 * num_heads):
            raise ValueError(f"num_features={num_features}: must be a multiple of {2 * num_heads}")
        self.num_features, self.max_length, self.position = num_features, max_length, position
        self.embedding = nn.Embedding(max_index + 1, num_features)
        if position == "learnt":
            self.learnt = nn.Embedding(max_length, num_features)
        rotate = max_length if position == "rotary" else None
        self.layers = nn.ModuleList(
            Layer(num_features, num_heads, dropout, rotate) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(num_features)

    def forward(self, letters: Tensor, mask: Tensor) -> Tensor:
        """Letters and mask [batch, length] to [batch, length, num_features]."""
        length = letters.shape[1]
        vectors: Tensor = self.embedding(letters)
        if self.position == "sinusoidal":
            turned = angles(length, self.num_features, self.max_length).to(vectors)
            vectors = vectors + torch.cat([turned.sin(), turned.cos()], dim=-1)
        elif self.position == "learnt":
            vectors = vectors + self.learnt(torch.arange(length, device=letters.device))
        for layer in self.layers:
            vectors = layer(vectors, mask)
        normed: Tensor = self.norm(vectors)
        return normed


class Layer(nn.Module):
    """Self-attention, then two linear layers with a GELU, each added to its input."""

    def __init__(
        self, num_features: int, num_heads: int, dropout: float, rotate: int | None
    ) -> None:
        super().__init__()
        self.num_heads, self.rotate = num_heads, rotate
        self.attention_norm = nn.LayerNorm(num_features)
        self.query_key_value = nn.Linear(num_features, 3 * num_features)
        self.attended = nn.Linear(num_features, num_features)
        self.linear = nn.Sequential(
            nn.LayerNorm(num_features),
            nn.Linear(num_features, 2 * num_features),
            nn.GELU(),
            nn.Linear(2 * num_features, num_features),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Vectors [batch, length, num_features] to as many; none looks at padding."""
        vectors = vectors + self.dropout(self._attend(self.attention_norm(vectors), mask))
        deeper: Tensor = vectors + self.dropout(self.linear(vectors))
        return deeper

    def _attend(self, vectors: Tensor, mask: Tensor) -> Tensor:
        parts = self.query_key_value(vectors).unflatten(2, (3, self.num_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each [batch, heads, length, size]
        if self.rotate is not None:
            query, key = turn(query, self.rotate), turn(key, self.rotate)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        attended: Tensor = self.attended(mixed.transpose(1, 2).flatten(2))
        return attended


def angles(length: int, size: int, base: float) -> Tensor:
    """By how much each position turns each of `size / 2` waves. Shape: [length, size / 2]."""
    rates = base ** -(torch.arange(0, size, 2) / size)
    return torch.arange(length)[:, None] * rates


def turn(vectors: Tensor, base: float) -> Tensor:
    """Turns pairs of values by their position [..., length, size]: products then know distances."""
    length, size = vectors.shape[-2:]
    turned = angles(length, size, base).to(vectors)
    left, right = vectors.chunk(2, dim=-1)
    sin, cos = turned.sin(), turned.cos()
    return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)

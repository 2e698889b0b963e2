"""A multilayer perceptron with entity embeddings."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .outputs import regress


class MLP(nn.Module):
    """Embeddings of the categories beside the numbers; linear layers with ReLU and dropout.

    Guo and Berkhahn, "Entity embeddings of categorical variables", 2016.
    """

    def __init__(
        self,
        *,
        num_numbers: int,
        num_columns: int,
        num_categories: int,
        embedding_size: int,
        hidden_sizes: Sequence[int],
        dropout: float,
        target_mean: float,
        target_std: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_categories, embedding_size)
        sizes = [num_numbers + num_columns * embedding_size, *hidden_sizes]
        layers: list[nn.Module] = []
        for num_inputs, num_outputs in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(num_inputs, num_outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(sizes[-1], 1)
        self.scale = {"target_mean": target_mean, "target_std": target_std}

    def forward(
        self, numbers: Tensor, categories: Tensor, target: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Numbers and categories, both [batch, columns], to predictions [batch]."""
        embedded = self.embedding(categories).flatten(start_dim=1)
        features = self.hidden(torch.cat([numbers, embedded], dim=1))
        return regress(self.output(features), target, **self.scale)

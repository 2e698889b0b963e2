"""Scores candidates against a query."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Matcher(nn.Module):
    """A perceptron on each pair of query and candidate."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.pair = nn.Linear(9, width)
        self.output = nn.Linear(width, 1)

    def forward(
        self, query: Tensor, candidates: Tensor, offered: Tensor, target: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Query [batch, 3], candidates [batch, 5, 3] to scores [batch, 5], lowest for none."""
        repeated = query[:, None].expand_as(candidates)
        pairs = torch.cat([repeated, candidates, repeated * candidates], dim=-1)
        scores = self.output(F.relu(self.pair(pairs))).squeeze(-1)
        outputs = {"scores": scores.masked_fill(~offered, -1e4)}
        if target is not None:
            outputs["loss"] = F.cross_entropy(outputs["scores"], target)
        return outputs

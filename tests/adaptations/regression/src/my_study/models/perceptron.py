"""A perceptron that predicts a number."""

import torch.nn.functional as F
from torch import Tensor, nn


class Perceptron(nn.Module):
    """One hidden layer."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, width)
        self.output = nn.Linear(width, 1)

    def forward(self, features: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Features [batch, 4] to a prediction [batch]."""
        outputs = {"prediction": self.output(F.relu(self.hidden(features))).squeeze(-1)}
        if target is not None:
            outputs["loss"] = F.mse_loss(outputs["prediction"], target)
        return outputs

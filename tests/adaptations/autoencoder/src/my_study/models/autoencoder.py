"""An image to itself, through a few numbers."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """A hidden layer on each side of the code."""

    def __init__(self, *, image_shape: Sequence[int], width: int, code_size: int) -> None:
        super().__init__()
        size = math.prod(image_shape)
        self.encoder = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, code_size))
        self.decoder = nn.Sequential(nn.Linear(code_size, width), nn.ReLU(), nn.Linear(width, size))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image [batch, channels, height, width] to its reconstruction, and code [batch, size]."""
        code = self.encoder(image.flatten(start_dim=1))
        reconstruction = self.decoder(code).reshape(image.shape)
        loss = F.mse_loss(reconstruction, image)
        return {"reconstruction": reconstruction, "code": code, "loss": loss}

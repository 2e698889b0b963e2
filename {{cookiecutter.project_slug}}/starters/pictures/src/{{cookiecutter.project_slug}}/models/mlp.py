"""A multilayer perceptron."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from .outputs import classify


class MLP(nn.Module):
    """Linear layers with ReLU, dropout after each, then one linear layer."""

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        num_classes: int,
        hidden_sizes: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        sizes = [math.prod(image_shape), *hidden_sizes]
        layers: list[nn.Module] = []
        for num_inputs, num_outputs in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(num_inputs, num_outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(sizes[-1], num_classes)

    def forward(self, image: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Image [batch, channels, height, width] in [0, 1] to logits [batch, num_classes]."""
        return classify(self.output(self.hidden(image.flatten(start_dim=1))), target)

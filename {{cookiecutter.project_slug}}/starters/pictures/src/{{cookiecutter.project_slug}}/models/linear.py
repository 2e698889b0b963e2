"""The baseline that every other model must beat."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from .outputs import classify


class Linear(nn.Module):
    """Multinomial logistic regression."""

    def __init__(self, *, image_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.output = nn.Linear(math.prod(image_shape), num_classes)

    def forward(self, image: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Image [batch, channels, height, width] in [0, 1] to logits [batch, num_classes]."""
        return classify(self.output(image.flatten(start_dim=1)), target)

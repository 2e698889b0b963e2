"""A linear classifier on what another module makes of an image."""

from torch import Tensor, nn

from .outputs import classify


class Pooled(nn.Module):
    """A module that turns images into vectors, and one linear layer."""

    def __init__(self, *, pool: nn.Module, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.pool = pool
        self.output = nn.Linear(num_features, num_classes)

    def forward(self, image: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Image [batch, channels, height, width] in [0, 1] to logits [batch, num_classes]."""
        return classify(self.output(self.pool(image)), target)

"""The baseline that every other model must beat."""

from torch import Tensor, nn

from .counter import Encoder


class Bag(Encoder):
    """A vector for each letter, wherever it stands: which letters there are, not their order."""

    def __init__(self, *, max_index: int, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.embedding = nn.Embedding(max_index + 1, num_features)

    def forward(self, letters: Tensor, _mask: Tensor) -> Tensor:
        """Letters [batch, length] to [batch, length, num_features]."""
        vectors: Tensor = self.embedding(letters)
        return vectors

"""A bag of embedded letters: their order does not matter."""

import torch.nn.functional as F
from torch import Tensor, nn

from .outputs import classify


class Bag(nn.Module):
    """The sum of embedded letters, and a hidden layer."""

    def __init__(self, *, num_letters: int, width: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(num_letters + 1, width)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, 3)

    def forward(
        self, letters: Tensor, mask: Tensor, target: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Letters [batch, length] and mask [batch, length] to logits [batch, 3]."""
        embedded = self.letters(letters) * mask[..., None]
        return classify(self.output(F.relu(self.hidden(embedded.sum(dim=1)))), target)

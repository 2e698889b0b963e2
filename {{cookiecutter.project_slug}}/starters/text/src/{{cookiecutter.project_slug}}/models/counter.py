"""The syllables of a word, counted on what an encoder makes of its letters."""

from torch import Tensor, nn

from .outputs import classify


class Encoder(nn.Module):
    """What a SyllableCounter needs: letters to a vector for each.

    `forward` takes `letters`, int64, and `mask`, bool, true where a letter is, both [batch,
    length]; it returns [batch, length, num_features].
    """

    num_features: int


class SyllableCounter(nn.Module):
    """The vectors of the letters are summed, since syllables add up; then a hidden layer."""

    def __init__(
        self, *, encoder: Encoder, num_classes: int, hidden_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.Linear(encoder.num_features, hidden_size),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, num_classes),
        )

    def forward(
        self, letters: Tensor, mask: Tensor, target: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Letters and mask [batch, length] to logits [batch, num_classes]."""
        vectors: Tensor = self.encoder(letters, mask)
        word = vectors.masked_fill(~mask[..., None], 0).sum(dim=1)
        return classify(self.head(word), target)

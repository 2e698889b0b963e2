"""A recurrent network that reads a word from both ends."""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .counter import Encoder


class LSTM(Encoder):
    """Embedded letters through a bidirectional LSTM, packed: padding is never read."""

    def __init__(self, *, max_index: int, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.num_features = 2 * hidden_size
        self.embedding = nn.Embedding(max_index + 1, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size, batch_first=True, bidirectional=True)

    def forward(self, letters: Tensor, mask: Tensor) -> Tensor:
        """Letters and mask [batch, length] to [batch, length, num_features]."""
        lengths = mask.sum(dim=1).cpu()  # where torch wants them, whatever the device
        packed = pack_padded_sequence(
            self.embedding(letters), lengths, batch_first=True, enforce_sorted=False
        )
        outputs, _ = self.lstm(packed)
        vectors, _ = pad_packed_sequence(outputs, batch_first=True, total_length=letters.shape[1])
        return vectors

"""A small convolutional network."""

from collections.abc import Sequence

from torch import Tensor, nn

from .outputs import classify


class CNN(nn.Module):
    """Blocks of 3x3 convolution, ReLU and 2x2 max-pooling, then one linear layer."""

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        num_classes: int,
        num_channels: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        channels = [image_shape[0], *num_channels]
        blocks: list[nn.Module] = []
        for num_inputs, num_outputs in zip(channels[:-1], channels[1:], strict=True):
            convolution = nn.Conv2d(num_inputs, num_outputs, kernel_size=3, padding=1)
            blocks += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
        self.blocks = nn.Sequential(*blocks)
        shrink = 2 ** len(num_channels)  # of each side, by the poolings
        height, width = image_shape[1] // shrink, image_shape[2] // shrink
        if not height * width:
            raise ValueError(f"num_channels={list(num_channels)}: nothing is left of {image_shape}")
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels[-1] * height * width, num_classes)

    def forward(self, image: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Image [batch, channels, height, width] in [0, 1] to logits [batch, num_classes]."""
        features: Tensor = self.blocks(image).flatten(start_dim=1)
        return classify(self.output(self.dropout(features)), target)

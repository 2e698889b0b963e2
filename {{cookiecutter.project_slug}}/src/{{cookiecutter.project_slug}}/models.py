"""Inputs to predictions.

A model is an `nn.Module` whose `forward` names its inputs as the batch does, and takes a
`target`: it returns a dictionary with its predictions and, where the target is given, its mean
`loss`. To add one: a class here, a YAML file in conf/model/. It is tested because that file exists.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def classify(logits: Tensor, target: Tensor | None) -> dict[str, Tensor]:
    """The outputs of a classifier.

    Args:
        logits: Shape [batch, num_classes], unnormalised.
        target: Shape [batch], the index of the right class, or None.

    Returns:
        `logits`, and where the target is given `loss`, the mean cross-entropy in nats.
    """
    outputs = {"logits": logits}
    if target is not None:
        outputs["loss"] = F.cross_entropy(logits, target)
    return outputs


class Linear(nn.Module):
    """Multinomial logistic regression: the baseline that every other model must beat."""

    def __init__(self, *, image_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.output = nn.Linear(math.prod(image_shape), num_classes)

    def forward(self, image: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Image [batch, channels, height, width] in [0, 1] to logits [batch, num_classes]."""
        return classify(self.output(image.flatten(start_dim=1)), target)


class MLP(nn.Module):
    """A perceptron with ReLU layers, dropout behind each."""

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

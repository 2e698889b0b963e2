"""The digits without their classes, and how well a model reconstructs them."""

from typing import Any

import numpy as np
from torch import Tensor

from .data import read_digits
from .metrics import ratio


def read_images(path: str, **arguments: Any) -> dict[str, np.ndarray]:
    """`image` of read_digits, which the arguments are for."""
    return {"image": read_digits(path, **arguments)["image"]}


class ReconstructionError:
    """The mean of |reconstruction - image| over all pixels."""

    def __init__(self) -> None:
        self.total, self.num_pixels = 0.0, 0

    def update(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Takes in two of shape [batch, channels, height, width]."""
        self.total += float((outputs["reconstruction"] - batch["image"]).abs().double().sum())
        self.num_pixels += batch["image"].numel()

    def compute(self) -> float:
        """The mean; nan before the first image."""
        return ratio(self.total, self.num_pixels)

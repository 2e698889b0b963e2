"""What the models of a task have in common: from logits to outputs with a loss."""

import torch.nn.functional as F
from torch import Tensor


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

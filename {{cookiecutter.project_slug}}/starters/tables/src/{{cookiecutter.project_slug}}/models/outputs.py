"""What the models of a task have in common: from the last layer to outputs with a loss."""

import torch.nn.functional as F
from torch import Tensor


def regress(
    output: Tensor, target: Tensor | None, *, target_mean: float, target_std: float
) -> dict[str, Tensor]:
    """The outputs of a regression, in the unit of the target.

    Args:
        output: Shape [batch, 1], about 0 before training, so that the first guess is the mean.
        target: Shape [batch], or None.
        target_mean: About the mean of the targets.
        target_std: About their standard deviation: one step of the output.

    Returns:
        `prediction` [batch], and where the target is given `loss`, the mean squared error.
    """
    prediction = target_mean + target_std * output.squeeze(dim=-1)
    outputs = {"prediction": prediction}
    if target is not None:
        outputs["loss"] = F.mse_loss(prediction, target)
    return outputs

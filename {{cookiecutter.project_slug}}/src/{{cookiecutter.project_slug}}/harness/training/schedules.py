"""Schedules of the learning rate that torch has not."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Straight up to the optimizer's rate, then along half a cosine down to nothing.

    The cosine is that of Loshchilov and Hutter, "SGDR", 2017, without its restarts.

    Args:
        optimizer: With `model.lr`, the highest rate.
        total_steps: Of the run, which supplies it.
        warmup_fraction: Of these steps, for the way up: from 0, no way up, to below 1.
    """

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup_fraction: float) -> None:
        if not 0 <= warmup_fraction < 1:
            raise ValueError(f"warmup_fraction={warmup_fraction}: must be from 0 to below 1")
        num_up = round(warmup_fraction * total_steps)
        num_down = max(1, total_steps - num_up)

        def factor(step: int) -> float:
            if step < num_up:
                return (step + 1) / (num_up + 1)
            return (1 + math.cos(math.pi * min(1.0, (step - num_up) / num_down))) / 2

        super().__init__(optimizer, factor)

"""The baseline that every other model must beat."""

from torch import Tensor, nn

from .outputs import regress


class Linear(nn.Module):
    """Linear regression: a weight a number, and a weight a category."""

    def __init__(
        self,
        *,
        num_numbers: int,
        num_categories: int,
        target_mean: float,
        target_std: float,
    ) -> None:
        super().__init__()
        self.output = nn.Linear(num_numbers, 1)
        self.weights = nn.Embedding(num_categories, 1)  # a column of ones a category
        nn.init.zeros_(self.weights.weight)  # a category that is never seen adds nothing
        self.scale = {"target_mean": target_mean, "target_std": target_std}

    def forward(
        self, numbers: Tensor, categories: Tensor, target: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Numbers and categories, both [batch, columns], to predictions [batch]."""
        output = self.output(numbers) + self.weights(categories).sum(dim=1)
        return regress(output, target, **self.scale)

"""How a model is trained, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

MAX_WORKERS = 1024  # processes


@dataclass(frozen=True, kw_only=True)
class Group:
    """The keys of a group in training.groups: parameters with a learning rate of their own.

    Args:
        parameters: Patterns of their names; that of a module means all that is in it.
        lr: Times model.lr, whatever the schedule.
        decay: Each pattern gets so much of the rate of the next: they stand from input to output.
        from_epoch: They are frozen in the epochs before.

    Raises:
        ValueError: a value is out of its range.
    """

    parameters: list[str]
    lr: float = 1.0
    decay: float | None = None
    from_epoch: int = 1

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ValueError("parameters=[]: must hold a pattern")
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: must be above 0")
        if self.decay is not None and not 0 < self.decay <= 1:
            raise ValueError(f"decay={self.decay}: must be above 0, and at most 1")
        if self.from_epoch < 1:
            raise ValueError(f"from_epoch={self.from_epoch}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is trained; conf/training/ gives every value and describes it.

    Raises:
        ValueError: a value is out of its range.
    """

    num_epochs: int
    batch_size: int
    num_accumulation_steps: int
    max_gradient_norm: float | None
    patience: int | None
    max_minutes: float | None
    monitor: str
    precision: str
    compile: bool
    num_workers: int
    checkpoint_steps: int | None
    checkpoint_minutes: float | None
    freeze: Sequence[str] = ()  # these two are younger than some studies
    groups: Mapping[str, Group] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least = 0 if item.name == "num_workers" else 1
            whole = item.type in (int, int | None)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if value < least if whole else not value > 0:
                bound = f"at least {least}" if whole else "above 0"
                raise ValueError(f"{item.name}={value}: must be {bound}")
        if self.num_workers > MAX_WORKERS:
            raise ValueError(f"num_workers={self.num_workers}: must be at most {MAX_WORKERS}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision={self.precision}: must be float32 or bfloat16")

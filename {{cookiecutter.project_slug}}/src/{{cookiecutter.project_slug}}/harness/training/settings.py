"""How a model is trained, as values."""

from dataclasses import dataclass, fields


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

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "num_workers" else 1
            whole = field.type in (int, int | None)
            if value is None or isinstance(value, (str, bool)):
                continue
            if value < least if whole else not value > 0:
                bound = f"at least {least}" if whole else "above 0"
                raise ValueError(f"{field.name}={value}: must be {bound}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision={self.precision}: must be float32 or bfloat16")

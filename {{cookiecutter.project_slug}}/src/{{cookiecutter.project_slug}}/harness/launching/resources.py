"""What a job asks of a cluster, in the same words for Slurm and for Kubernetes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import StudyError

PLACE = "hydra.launcher"


@dataclass(kw_only=True)
class Resources:
    """The keys of both; conf/launcher/ gives every value and describes it."""

    nodes: int = 1
    tasks_per_node: int = 1
    cpus_per_task: int = 1
    gpus_per_node: int = 0
    mem_gb: float = 4
    timeout_min: int = 60

    def __post_init__(self) -> None:
        least = {"nodes": 1, "tasks_per_node": 1, "cpus_per_task": 1, "timeout_min": 1}
        for name, bound in {**least, "gpus_per_node": 0}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise StudyError(
                    f"{PLACE}.{name}={value}: must be a whole number, at least {bound}"
                )
        if isinstance(self.mem_gb, (bool, str)) or not self.mem_gb > 0:
            raise StudyError(f"{PLACE}.mem_gb={self.mem_gb}: must be above 0")
        if 0 < self.gpus_per_node < self.tasks_per_node:
            hint = f"must be at least {self.tasks_per_node}, one for each task"
            raise StudyError(f"{PLACE}.gpus_per_node={self.gpus_per_node}: {hint}")

    @property
    def ranks(self) -> int:
        """How many processes train one model together."""
        return self.nodes * self.tasks_per_node


@dataclass(kw_only=True)
class SlurmKeys(Resources):
    """The keys of conf/launcher/slurm.yaml."""

    partition: str | None = None
    account: str | None = None
    signal_delay_s: int = 90
    array_parallelism: int = 256
    setup: Sequence[str] = ()
    additional_parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("signal_delay_s", "array_parallelism"):
            if not getattr(self, name) > 0:
                raise StudyError(f"{PLACE}.{name}={getattr(self, name)}: must be above 0")
        if self.signal_delay_s >= 60 * self.timeout_min:
            hint = f"leaves no time of the {self.timeout_min} minutes of timeout_min"
            raise StudyError(f"{PLACE}.signal_delay_s={self.signal_delay_s}: {hint}")
        for line in self.setup:
            if not isinstance(line, str) or "\n" in line:
                raise StudyError(f"{PLACE}.setup={line!r}: must be lines of the shell")

"""What a job asks of a cluster, in the same words for Slurm and for Kubernetes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import StudyError

PLACE = "hydra.launcher"
WHOLE = ("nodes", "tasks_per_node", "cpus_per_task", "timeout_min", "signal_delay_s")


def require_whole(name: str, value: object, least: int) -> None:
    """Refuses what is no whole number of at least this.

    Raises:
        StudyError: names the key.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StudyError(f"{PLACE}.{name}={value}: must be a whole number, at least {least}")


@dataclass(kw_only=True)
class Resources:
    """The keys of both; conf/launcher/ gives every value and describes it."""

    nodes: int = 1
    tasks_per_node: int = 1
    cpus_per_task: int = 1
    gpus_per_node: int = 0
    mem_gb: float = 4
    timeout_min: int = 60
    signal_delay_s: int = 90

    def __post_init__(self) -> None:
        least = dict.fromkeys(WHOLE, 1) | {"gpus_per_node": 0}
        for name, bound in least.items():
            require_whole(name, getattr(self, name), bound)
        if not isinstance(self.mem_gb, (int, float)) or not 1 <= 1024 * self.mem_gb < 2**30:
            raise StudyError(f"{PLACE}.mem_gb={self.mem_gb}: must be above 0.001")
        if 0 < self.gpus_per_node < self.tasks_per_node:
            hint = f"must be at least {self.tasks_per_node}, one for each task"
            raise StudyError(f"{PLACE}.gpus_per_node={self.gpus_per_node}: {hint}")
        if self.signal_delay_s >= 60 * self.timeout_min:
            hint = f"leaves no time of the {self.timeout_min} minutes of timeout_min"
            raise StudyError(f"{PLACE}.signal_delay_s={self.signal_delay_s}: {hint}")

    @property
    def ranks(self) -> int:
        """How many processes train one model together."""
        return self.nodes * self.tasks_per_node


@dataclass(kw_only=True)
class SlurmKeys(Resources):
    """The keys of conf/launcher/slurm.yaml."""

    partition: str | None = None
    account: str | None = None
    array_parallelism: int = 256
    setup: Sequence[str] = ()
    additional_parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("array_parallelism", self.array_parallelism, 1)
        for key in self.additional_parameters:  # each becomes a line of the script
            if not re.fullmatch(r"[\w-]+", str(key)):
                raise StudyError(f"{PLACE}.additional_parameters.{key}: is no option of sbatch")
        for line in self.setup:
            if not isinstance(line, str) or "\n" in line:
                raise StudyError(f"{PLACE}.setup={line!r}: must be lines of the shell")


@dataclass(kw_only=True)
class KubernetesKeys(Resources):
    """The keys of conf/launcher/kubernetes.yaml."""

    image: str
    volume: str
    queue: str | None = None
    parallelism: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("parallelism", self.parallelism, 1)
        for name in ("image", "volume"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise StudyError(f"{PLACE}.{name}={getattr(self, name)}: must be a name")
        if self.nodes > 1:
            raise StudyError(f"{PLACE}.nodes={self.nodes}: a pod is on one node")

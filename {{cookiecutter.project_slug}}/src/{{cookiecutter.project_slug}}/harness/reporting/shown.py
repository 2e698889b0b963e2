"""What results/ show: for each data set its metrics, and the experiments that learn from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import StudyError

INPUTS = Path("results", "inputs", "stages", "report.yaml")  # written by `study compose stages`


@dataclass(frozen=True)
class Metric:
    """A metric, as conf/data/ says that it is shown."""

    name: str
    higher_is_better: bool
    unit: str | None
    digits: int  # after the point

    @property
    def scale(self) -> int:
        """What a value is shown times."""
        return 100 if self.unit == "%" else 1

    def label(self, split: str) -> str:
        """The metric with split and unit, for a column or an axis."""
        return f"{split} {self.name}" + (f" ({self.unit})" if self.unit else "")


@dataclass(frozen=True)
class Shown:
    """A data set: its experiments, the first of which is the baseline, and their metrics."""

    data: str
    experiments: tuple[str, ...]
    split: str
    metrics: tuple[Metric, ...]


def read_shown(experiments: Sequence[str]) -> list[Shown]:
    """What is shown of these experiments, a data set each, in their order.

    Raises:
        StudyError: an experiment is not as `study compose stages` has left it, or two experiments
            of one data set are shown in different ways.
    """
    try:
        known = yaml.safe_load(INPUTS.read_text(encoding="utf-8"))["shown"]
        values = {name: known[name] for name in experiments}
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise StudyError(f"{INPUTS}: is not of these experiments; type: dvc repro") from error
    groups: dict[str, list[str]] = {}
    for name in experiments:
        groups.setdefault(values[name]["data"], []).append(name)
    for data, names in groups.items():
        for name in names:
            if values[name] != values[names[0]]:
                reason = f"its metrics are shown otherwise than those of {names[0]}, on {data} too"
                raise StudyError(f"experiment={name}: {reason}; see data.metrics and report")
    return [_shown(data, names, values[names[0]]) for data, names in groups.items()]


def _shown(data: str, names: Sequence[str], values: dict[str, Any]) -> Shown:
    metrics = tuple(Metric(name, **choice) for name, choice in values["metrics"].items())
    if not metrics:
        raise StudyError(f"data={data}: data.metrics is empty, so there is nothing to show")
    return Shown(data, tuple(names), values["split"], metrics)

"""What results/ show: for each data set its metrics, and the experiments that learn from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import StudyError

if TYPE_CHECKING:  # scipy takes half a second to import
    from .estimates import Estimate

INPUTS = Path("results", "inputs", "stages", "report.yaml")  # written by `study compose stages`
SPLITS = Path("results", "inputs", "splits.yaml")  # written by `study compose experiments`


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

    def number(self, value: float, sign: str = "") -> str:
        """A value as it is shown; with the sign "+", that of a difference."""
        return f"{self.scale * value:{sign}.{self.digits}f}"

    def spread(self, found: "Estimate", plus_minus: str, sign: str = "") -> str:
        """A mean and half the width of its interval, if there is one."""
        shown = self.number(found.mean, sign)
        if found.half_width is None:
            return shown
        return f"{shown} {plus_minus} {self.number(found.half_width)}"


@dataclass(frozen=True)
class Shown:
    """A data set: its experiments, the first of which is the baseline, and their metrics.

    Attributes:
        repeats: What an experiment is repeated over: `seeds`, or `folds`, of which each has a seed.
        rows: How many rows each split has, once; or of each seed, if each has splits of its own.
            None where it is not known.
    """

    data: str
    experiments: tuple[str, ...]
    split: str
    metrics: tuple[Metric, ...]
    repeats: str = "seeds"
    rows: tuple[Mapping[str, int], ...] = ()

    @property
    def num_rows(self) -> tuple[int, ...]:
        """How many rows the split has; of folds, each; none if seeds draw rows of their own."""
        is_one = len(self.rows) == 1 or self.repeats == "folds"
        return tuple(rows[self.split] for rows in self.rows) if is_one else ()

    @property
    def overlap(self) -> float:
        """How far the training rows of one seed are those of another; see `Estimate.of`."""
        if len(self.rows) < 2:
            return 0.0
        return mean(rows[self.split] / rows["train"] for rows in self.rows)


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
    splits = _read_splits()
    return [
        _shown(names, values[names[0]], [splits.get(name) for name in names])
        for names in groups.values()
    ]


def _read_splits() -> dict[str, Any]:
    """What each experiment is repeated over, and the rows of its splits.

    Raises:
        StudyError: the file that `study compose experiments` writes cannot be read.
    """
    try:
        splits: dict[str, Any] = yaml.safe_load(SPLITS.read_text(encoding="utf-8"))["splits"]
        return splits
    except FileNotFoundError:  # no pipeline: a report of some runs
        return {}
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise StudyError(f"{SPLITS}: cannot be read; type: dvc repro") from error


def _shown(names: Sequence[str], values: dict[str, Any], splits: Sequence[Any]) -> Shown:
    data = values["data"]
    metrics = tuple(Metric(name, **choice) for name, choice in values["metrics"].items())
    if not metrics:
        raise StudyError(f"data={data}: data.metrics is empty, so there is nothing to show")
    shown = Shown(data, tuple(names), values["split"], metrics)
    first = splits[0]
    if first is None or any(each != first for each in splits):
        return shown
    known = all(name in rows for rows in first["rows"] for name in ("train", shown.split))
    return replace(shown, repeats=first["repeats"], rows=tuple(first["rows"] if known else ()))

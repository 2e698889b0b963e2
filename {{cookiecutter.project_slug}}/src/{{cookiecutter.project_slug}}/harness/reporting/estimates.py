"""Mean, spread and confidence over seeds, and differences to a baseline seed by seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """Mean, standard deviation and half the width of the confidence interval, over seeds."""

    mean: float
    std: float | None
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Student's t on n - 1 degrees of freedom; with one value the spread is unknown (None)."""
        if len(values) < 2:
            return cls(values[0], None, None)
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
        spread = stdev(values)
        return cls(mean(values), spread, float(quantile) * spread / math.sqrt(len(values)))


@dataclass(frozen=True)
class Row:
    """An experiment: its estimate, and that of its paired differences to the baseline."""

    experiment: str
    num_seeds: int
    value: Estimate
    difference: Estimate | None  # None for the baseline itself


def compare_to_baseline(values: Mapping[str, Sequence[float]]) -> list[Row]:
    """A row an experiment, the first of which is the baseline.

    Differences are paired: the same seed, so the same order of the data.
    """
    names = list(values)
    baseline = values[names[0]]
    rows = []
    for name in names:
        pairs = zip(values[name], baseline, strict=True)
        difference = Estimate.of([ours - theirs for ours, theirs in pairs])
        rows.append(
            Row(
                experiment=name,
                num_seeds=len(values[name]),
                value=Estimate.of(values[name]),
                difference=None if name == names[0] else difference,
            )
        )
    return rows

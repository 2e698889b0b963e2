"""Mean, spread and confidence: over seeds, over the rows of a split, and of differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

# scipy.stats has the same, and takes a second to import
from scipy.special import betaincinv, stdtrit  # pylint: disable=no-name-in-module

CONFIDENCE = 0.95
WHOLE = 1e-6  # a share of rows, times the rows, is a whole number, but for rounding


@dataclass(frozen=True)
class Estimate:
    """Mean, standard deviation and half the width of the confidence interval, over seeds."""

    mean: float
    std: float | None
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float], overlap: float = 0.0) -> "Estimate":
        """Student's t on n - 1 degrees of freedom; with one value the spread is unknown (None).

        Args:
            values: Of a seed, or of a fold, each.
            overlap: 0 for seeds. Folds share training rows, so their mean varies more than it
                seems: then rows for test / rows for training (Nadeau and Bengio, "Inference for
                the generalization error", 2003).
        """
        if len(values) < 2:
            return cls(values[0], None, None)
        spread = stdev(values)
        quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
        return cls(mean(values), spread, quantile * standard_error(spread, len(values), overlap))


def standard_error(spread: float, num_values: int, overlap: float = 0.0) -> float:
    """That of a mean of values with this standard deviation; `overlap` as in `Estimate.of`."""
    return spread * math.sqrt(1 / num_values + overlap)


def interval_of_share(share: float, num_rows: int) -> tuple[float, float]:
    """Where the share of right rows lies with 95 % confidence, had other rows been drawn.

    Clopper and Pearson, "The use of confidence or fiducial limits" (1934). The share may be a mean
    over seeds, so that it is not of a whole number of rows.

    Args:
        share: From 0 to 1.
        num_rows: At least 1.
    """
    right, tail = share * num_rows, (1 - CONFIDENCE) / 2
    wrong = num_rows - right
    low = 0.0 if right <= 0 else float(betaincinv(right, wrong + 1, tail))
    high = 1.0 if wrong <= 0 else float(betaincinv(right + 1, wrong, 1 - tail))
    return low, high


def interval_over_rows(
    values: Sequence[float], num_rows: Sequence[int]
) -> tuple[float, float] | None:
    """The same of the values of each seed; None where they are no shares of rows, as F1 is none.

    Args:
        values: Of a seed, or of a fold, each.
        num_rows: Of the one split of every seed, or of each fold; none where it is not known.
    """
    each = [*num_rows] * len(values) if len(num_rows) == 1 else [*num_rows]
    if len(each) != len(values):
        return None
    counts = [value * rows for value, rows in zip(values, each, strict=True)]
    if any(abs(count - round(count)) > WHOLE for count in counts):
        return None
    return interval_of_share(sum(counts) / sum(each), sum(num_rows))


@dataclass(frozen=True)
class Row:
    """An experiment: its value of each seed, their estimate, and that of the differences.

    Attributes:
        difference: To the baseline, paired by seed; None for the baseline itself.
        over_rows: The interval over the rows of the split; None where the metric is no share.
    """

    experiment: str
    values: tuple[float, ...]
    value: Estimate
    difference: Estimate | None
    over_rows: tuple[float, float] | None = None


def compare_to_baseline(
    values: Mapping[str, Sequence[float]], overlap: float = 0.0, num_rows: Sequence[int] = ()
) -> list[Row]:
    """A row an experiment, the first of which is the baseline.

    Differences are paired: the same seed, so the same order of the data.

    Args:
        values: Of each experiment one metric, with a value a seed.
        overlap: As in `Estimate.of`.
        num_rows: As in `interval_over_rows`, if the metric may be a share.
    """
    names = list(values)
    baseline = values[names[0]]
    rows = []
    for name in names:
        pairs = zip(values[name], baseline, strict=True)
        difference = Estimate.of([ours - theirs for ours, theirs in pairs], overlap)
        rows.append(
            Row(
                experiment=name,
                values=tuple(values[name]),
                value=Estimate.of(values[name], overlap),
                difference=None if name == names[0] else difference,
                over_rows=interval_over_rows(values[name], num_rows),
            )
        )
    return rows

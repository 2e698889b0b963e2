"""Which experiment is better than which: each pair seed by seed, corrected for their number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from scipy.special import stdtr  # pylint: disable=no-name-in-module

from .estimates import CONFIDENCE, Estimate, standard_error

NO_SPREAD = 1e-9  # of the largest value: differences closer than this are rounding


@dataclass(frozen=True)
class Pair:
    """Two experiments, the one with the better mean first.

    Attributes:
        difference: First minus second, seed by seed.
        p: Of the two-sided paired t-test; None where there is nothing to test: one seed, or the
            same difference for each seed.
        corrected: The same by Holm's method, for all pairs that were compared.
    """

    first: str
    second: str
    difference: Estimate
    p: float | None
    corrected: float | None

    @property
    def is_better(self) -> bool:
        """Whether the first may be called better than the second."""
        return self.corrected is not None and self.corrected < 1 - CONFIDENCE


def compare_pairs(
    values: Mapping[str, Sequence[float]], higher_is_better: bool, overlap: float = 0.0
) -> list[Pair]:
    """Every pair of experiments.

    Args:
        values: Of each experiment one metric, with a value a seed, in the same order of the seeds.
        higher_is_better: Otherwise lower is.
        overlap: As in `Estimate.of`.

    Raises:
        ValueError: two experiments have not as many values.
    """
    found = []
    for pair in combinations(values, 2):
        first, second = sorted(pair, key=lambda name: sum(values[name]), reverse=higher_is_better)
        gaps = [ours - theirs for ours, theirs in zip(values[first], values[second], strict=True)]
        largest = max(abs(value) for name in pair for value in values[name])
        difference = Estimate.of(gaps, overlap)
        found.append((first, second, difference, _test(difference, gaps, largest, overlap)))
    corrected = correct([p for *_, p in found])
    return [Pair(*parts, other) for parts, other in zip(found, corrected, strict=True)]


def _test(
    difference: Estimate, gaps: Sequence[float], largest: float, overlap: float
) -> float | None:
    """The p-value of a paired t-test; None without a spread, which says nothing of other seeds."""
    if difference.std is None or difference.std <= NO_SPREAD * largest:
        return None
    error = standard_error(difference.std, len(gaps), overlap)
    return 2 * float(stdtr(len(gaps) - 1, -abs(difference.mean) / error))


def correct(values: Sequence[float | None]) -> list[float | None]:
    """p-values for their number: Holm, "A simple sequentially rejective multiple test procedure".

    A pair without one stays so, and counts as one that was compared.
    """
    known = sorted((p, index) for index, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(values) - rank)))
        corrected[index] = highest
    return corrected

"""What stands below a table of results: what its intervals mean, and what may be called better."""

from collections.abc import Iterator, Mapping, Sequence

from .estimates import Row
from .pairs import Pair, compare_pairs
from .shown import Metric, Shown

Rows = Mapping[Metric, Sequence[Row]]  # of each metric, an experiment a row
MAX_PAIRS = 6  # of more, only those of the best experiment are told


def compare_all(shown: Shown, rows: Rows, metric: Metric) -> list[Pair]:
    """Each pair of the experiments of a data set, by one metric."""
    values = {row.experiment: row.values for row in rows[metric]}
    return compare_pairs(values, metric.higher_is_better, shown.overlap)


def describe(shown: Shown, rows: Rows) -> list[str]:
    """The caption: a line for the intervals, then a line a metric for the pairs."""
    repeat = shown.repeats[:-1]
    first = [_over_repeats(shown, rows), *_over_rows(shown, rows)]
    if len(shown.experiments) < 2:
        return [" ".join(first)]
    if _count_repeats(rows) < 2:
        unknown = f"Which is better cannot be said from one {repeat}."
        return [" ".join([*first, unknown])]
    pairs = {metric: compare_all(shown, rows, metric) for metric in rows}
    number = len(shown.experiments) * (len(shown.experiments) - 1) // 2
    counted = f", after Holm's correction for {number} pairs" if number > 1 else ""
    note = f"p: of a t-test of the differences, {repeat} by {repeat}{counted}."
    return [" ".join(first), *(_tell(shown, *each) for each in pairs.items()), note]


def _count_repeats(rows: Rows) -> int:
    return len(next(iter(rows.values()))[0].values)


def _over_repeats(shown: Shown, rows: Rows) -> str:
    number = _count_repeats(rows)
    if number < 2:
        return f"Of one {shown.repeats[:-1]}: without a confidence interval over {shown.repeats}."
    how = "Student's t"
    if shown.overlap:
        how += ", corrected for the training rows that they share"
    return f"Mean ± half of the 95 % confidence interval over {number} {shown.repeats} ({how})."


def _over_rows(shown: Shown, rows: Rows) -> Iterator[str]:
    """How many rows the numbers are of, and what their interval is."""
    if not shown.num_rows:
        return
    total = f"{sum(shown.num_rows):,}"
    where = f"of the {shown.split} split" if len(shown.num_rows) == 1 else "of all folds"
    yield f"Measured on the {total} rows {where}."
    if any(row.over_rows for group in rows.values() for row in group):
        yield "Over rows: the 95 % interval of Clopper and Pearson, had other rows been drawn."


def _tell(shown: Shown, metric: Metric, pairs: Sequence[Pair]) -> str:
    """Which pairs differ by a metric, and which are not shown to."""
    if len(pairs) > MAX_PAIRS:
        (best,) = {pair.first for pair in pairs} - {pair.second for pair in pairs}
        pairs = [pair for pair in pairs if pair.first == best]
    better = [_tell_pair(metric, pair, "better than") for pair in pairs if pair.is_better]
    others = [_tell_pair(metric, pair, "and") for pair in pairs if not pair.is_better]
    told = ["; ".join(better)] if better else []
    told += [f"no difference is shown between {'; '.join(others)}"] if others else []
    return f"By {metric.label(shown.split)}: {'; '.join(told)}."


def _tell_pair(metric: Metric, pair: Pair, between: str) -> str:
    gap = metric.spread(pair.difference, "±", "+")
    test = "the same each time, so not tested" if pair.corrected is None else _p(pair.corrected)
    return f"{pair.first} {between} {pair.second} ({gap}, {test})"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"

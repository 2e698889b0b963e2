"""Runs that differ in the seed alone, folded into one: mean, spread and interval of each metric."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..runs.index import Entry, Value
from .columns import value_of
from .estimates import CONFIDENCE, Estimate
from .pairs import Pair, compare_pairs, correct

FOLD = "data.prepare.split.fold"  # a seed may be a fold


@dataclass(frozen=True)
class Fold:
    """Runs that are alike but for one thing: `entries`, by what they differ in."""

    entries: Mapping[tuple[Value, ...], Entry]

    @property
    def first(self) -> Entry:
        """One of the runs, for what they have in common."""
        return next(iter(self.entries.values()))

    def values(self, column: str) -> dict[tuple[Value, ...], float]:
        """A metric of each run that has it."""
        found = {key: value_of(entry, column) for key, entry in self.entries.items()}
        return {key: value for key, value in found.items() if isinstance(value, (int, float))}


def fold(entries: Sequence[Entry], over: Sequence[str]) -> list[Fold]:
    """The finished runs, those in one that differ in these columns alone: the same code, too.

    Of two runs that are alike in these columns as well, the later counts.
    """
    groups: dict[str, dict[tuple[Value, ...], Entry]] = {}
    for entry in entries:
        if entry.status == "finished":
            rest = {
                key: value for key, value in entry.parameters.items() if key not in (*over, FOLD)
            }
            alike = json.dumps([rest, entry.code, entry.texts.get("device")], sort_keys=True)
            groups.setdefault(alike, {})[tuple(value_of(entry, column) for column in over)] = entry
    return [
        Fold(dict(sorted(group.items(), key=lambda item: str(item[0]))))
        for group in groups.values()
    ]


def name_of(fold_: Fold, parameters: Sequence[str]) -> str:
    """What tells runs apart from others: `model=mlp`; the folder where nothing does."""
    pairs = [(name, value_of(fold_.first, name)) for name in parameters]
    return " ".join(f"{name}={value}" for name, value in pairs if value is not None) or "these runs"


def to_rows(
    folds: Sequence[Fold], parameters: Sequence[str], metrics: Sequence[str]
) -> tuple[list[str], list[list[Value]]]:
    """A header and a row of each: parameters, number of runs, and three cells a metric."""
    header = [*parameters, "runs"]
    for metric in metrics:
        header += [metric, "±", "std"]
    rows: list[list[Value]] = []
    for each in folds:
        row: list[Value] = [value_of(each.first, name) for name in parameters]
        row.append(len(each.entries))
        for metric in metrics:
            values = list(each.values(metric).values())
            found = Estimate.of(values) if values else None
            row += [None] * 3 if found is None else [found.mean, found.half_width, found.std]
        rows.append(row)
    return header, rows


def describe_pairs(
    folds: Sequence[Fold], parameters: Sequence[str], metrics: Sequence[str]
) -> Iterator[str]:
    """For each metric a line for each pair: which is better, if that holds, and by how much.

    Pairs are compared seed by seed; p is corrected by Holm for the number of pairs of a metric.
    """
    for metric in metrics:
        pairs = _pairs(folds, parameters, metric)
        if not pairs and len(folds) > 1:
            yield f"{metric}: nothing can be said of two rows that have not two runs in common"
        for pair, corrected in zip(pairs, correct([pair.p for pair in pairs]), strict=True):
            holds = corrected is not None and corrected < 1 - CONFIDENCE
            verdict = "is better than" if holds else "cannot be told from"
            gap, width = pair.difference.mean, pair.difference.half_width
            chance = "the same for each" if corrected is None else f"p = {corrected:.2g}"
            apart = f"{gap:+.3g} ± {width:.2g}, {chance}"
            yield f"{metric}: {pair.first} {verdict} {pair.second} ({apart})"


def _pairs(folds: Sequence[Fold], parameters: Sequence[str], metric: str) -> list[Pair]:
    """Every two that have two runs or more in common, on these."""
    higher_is_better = folds[0].first.higher_is_better.get(metric.rpartition(".")[2], False)
    values = {name_of(each, parameters): each.values(metric) for each in folds}
    found = []
    for names in itertools.combinations(values, 2):
        left, right = (values[name] for name in names)
        keys = [key for key in left if key in right]
        if len(keys) > 1:
            numbers = {name: [values[name][key] for key in keys] for name in names}
            found += compare_pairs(numbers, higher_is_better)
    return found


def describe_left_out(entries: Sequence[Entry], folds: Sequence[Fold]) -> Iterator[str]:
    """How many of the runs are in no row, and why."""
    counts = Counter(entry.status for entry in entries)
    num_finished = counts.pop("finished", 0)
    if twice := num_finished - sum(len(each.entries) for each in folds):
        yield f"left out: {twice} of which there is a later one"
    if counts:
        yield "left out: " + ", ".join(f"{count} {status}" for status, count in counts.items())

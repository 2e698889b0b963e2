"""From a number to its run: the record of each, which `study reproduce` runs again."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..runs.index import Value
from ..runs.published import PUBLISHED
from . import grid
from .tables import Estimates

Folders = Mapping[str, Sequence[Path]]  # of each experiment, a run a seed
Known = Mapping[str, str | None]  # of each run that has a published record, its fingerprint


def to_runs_csv(estimates: Estimates, folders: Folders, known: Known) -> str:
    """Each number of each run in full precision, with the record that tells where it is from."""
    lines: list[list[Value]] = []
    for shown, rows in estimates:
        for metric, group in rows.items():
            for row in group:
                for folder, value in zip(folders[row.experiment], row.values, strict=True):
                    seed = _seed(row.experiment, folder)
                    names = (shown.data, row.experiment, seed, shown.split, metric.name)
                    record = _record(folder) if folder.name in known else None
                    lines.append([*names, value, record, known.get(folder.name)])
    header = ["data", "experiment", "seed", "split", "metric", "value", "record", "fingerprint"]
    return grid.to_csv(header, lines)


def link_records(folders: Folders, known: Known) -> dict[str, str]:
    """The seeds of each experiment in Markdown, each with a link to its record, from README.md."""
    return {
        name: " ".join(
            f"[{seed}]({_record(run)})" if run.name in known else seed
            for run, seed in ((folder, _seed(name, folder)) for folder in group)
        )
        for name, group in folders.items()
    }


def _record(folder: Path) -> str:
    return (PUBLISHED / f"{folder.name}.json").as_posix()


def _seed(experiment: str, folder: Path) -> str:
    return folder.name.removeprefix(f"{experiment}-")

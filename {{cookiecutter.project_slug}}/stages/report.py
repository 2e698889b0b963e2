"""Runs to results/: a table (CSV, Markdown, LaTeX), a figure, and the table in README.md.

Type:
    python stages/report.py --experiments A B --seeds 0 1 2

Of each data set, the first experiment is the baseline: the others are compared to it seed by seed.
Which metrics are shown, and how, stands in conf/data/.
"""

import argparse
import io
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from {{ cookiecutter.project_slug }}.harness.errors import StudyError
from {{ cookiecutter.project_slug }}.harness.files import write_atomically
from {{ cookiecutter.project_slug }}.harness.reporting import figures, origins, tables
from {{ cookiecutter.project_slug }}.harness.reporting.shown import Shown, read_shown
from {{ cookiecutter.project_slug }}.harness.runs.published import find_published, publish
from {{ cookiecutter.project_slug }}.harness.terminal import settle_streams
from {{ cookiecutter.project_slug }}.harness.training import results

PUBLISHED = Path("runs/published")
RESULTS = Path("results")
Folders = Mapping[str, list[Path]]  # of each experiment, a run a seed


def main() -> None:
    """Read, estimate, write."""
    settle_streams()
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--experiments", nargs="+", required=True)
    parser.add_argument("--tuned", nargs="*", action="extend", default=[], help="shown after them")
    parser.add_argument("--source", action="append", help="of those: named above")
    parser.add_argument("--seeds", nargs="+", required=True)
    arguments = parser.parse_args()
    try:
        report([*arguments.experiments, *arguments.tuned], arguments.seeds)
    except StudyError as error:
        sys.exit(f"error: {error}")


def report(experiments: list[str], seeds: list[str]) -> None:
    """Writes every result, or nothing.

    Raises:
        StudyError: a run is missing, or one is there that no experiment accounts for.
    """
    folders = {name: [PUBLISHED / f"{name}-{seed}" for seed in seeds] for name in experiments}
    known = {folder for group in folders.values() for folder in group}
    for folder in sorted(PUBLISHED.glob("[!.]*")):
        if folder.is_dir() and folder not in known:
            raise StudyError(f"{folder}: belongs to no experiment in dvc.yaml; delete or add it")
    groups = read_shown(experiments)
    estimates = [(shown, tables.estimate(shown, folders)) for shown in groups]
    contents = {
        "table.csv": tables.to_csv(estimates),
        "pairs.csv": tables.to_pairs_csv(estimates),
        "table.md": tables.to_markdown(estimates),
        "table.tex": tables.to_latex(estimates),
    }
    with figures.plain_style():
        drawn = draw(groups, folders)
    publish(known)  # first, because it may refuse: then nothing is written
    records = find_published(known)
    contents["runs.csv"] = origins.to_runs_csv(estimates, folders, records)
    for name, text in contents.items():
        write_atomically(RESULTS / name, text.encode())
    for suffix, content in drawn.items():
        write_atomically(RESULTS / f"learning_curves.{suffix}", content)
    linked = tables.to_markdown(estimates, origins.link_records(folders, records))
    tables.put_into_readme(Path("README.md"), linked)
    print(contents["table.md"])


def draw(groups: list[Shown], folders: Folders) -> dict[str, bytes]:
    """Learning curves, a panel a data set.

    Returns:
        The same figure as `svg` and `pdf`, with the same bytes each time.
    """
    figure = Figure(figsize=(3.4 * len(groups), 2.4), layout="constrained")  # a column of a paper
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, shown in zip(panels, groups, strict=True):
        draw_panel(axes, shown, folders)
        if len(groups) > 1:
            axes.set_title(shown.data)
    contents = {}
    for suffix, metadata in {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, metadata=metadata)
        contents[suffix] = buffer.getvalue()
    return contents


def draw_panel(axes: Axes, shown: Shown, folders: Folders) -> None:
    """The first metric on validation: the mean over seeds, and a band from worst seed to best."""
    metric = shown.metrics[0]
    styles, colours = map(itertools.cycle, (figures.STYLES, figures.COLOURS))
    later = []  # the values from an eighth of the epochs on: the first would squeeze the others
    for name, style, colour in zip(shown.experiments, styles, colours, strict=False):
        curves = [results.read_history(folder) for folder in folders[name]]
        rows = [
            [metric.scale * row[f"validation_{metric.name}"] for row in epoch]
            for epoch in zip(*curves, strict=False)  # as far as every seed went
        ]
        epochs, lows, highs = range(1, len(rows) + 1), [*map(min, rows)], [*map(max, rows)]
        axes.plot(epochs, [*map(mean, rows)], style, color=colour, label=name)
        axes.fill_between(epochs, lows, highs, color=colour, alpha=0.2, linewidth=0)
        later += (lows if metric.higher_is_better else highs)[len(rows) // 8 :]
    if metric.higher_is_better:
        axes.set_ylim(bottom=min(later))
    else:
        axes.set_ylim(top=max(later))
    axes.set(xlabel="epoch", ylabel=metric.label("validation"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")


if __name__ == "__main__":
    main()

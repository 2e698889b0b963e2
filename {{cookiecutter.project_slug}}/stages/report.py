"""Runs to results/: a table (CSV, Markdown, LaTeX), a figure, and the table in README.md.

Type:
    python stages/report.py --experiments linear mlp cnn --seeds 0 1 2

The first experiment is the baseline: the others are compared to it seed by seed.
"""

import argparse
import io
import itertools
import sys
from pathlib import Path
from statistics import mean

import matplotlib
from matplotlib.figure import Figure

from {{ cookiecutter.project_slug }}.harness.errors import StudyError
from {{ cookiecutter.project_slug }}.harness.files import write_atomically
from {{ cookiecutter.project_slug }}.harness.reporting import estimates, tables
from {{ cookiecutter.project_slug }}.harness.runs.published import publish
from {{ cookiecutter.project_slug }}.harness.training import results

PUBLISHED = Path("runs/published")
RESULTS = Path("results")
METRIC = "accuracy"  # the table shows it on the test split, the figure on validation


def main() -> None:
    """Read, estimate, write."""
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--experiments", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", required=True)
    arguments = parser.parse_args()
    try:
        report(arguments.experiments, arguments.seeds)
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
    values = {name: [read_metric(folder) for folder in folders[name]] for name in folders}
    rows = estimates.compare_to_baseline(values)
    contents = {
        "csv": tables.to_csv(rows),
        "md": tables.to_markdown(rows, METRIC),
        "tex": tables.to_latex(rows, METRIC),
    }
    # the salt makes the SVG's identifiers, so its bytes, the same each time; 42: editable fonts
    with matplotlib.rc_context({"font.size": 8, "svg.hashsalt": "study", "pdf.fonttype": 42}):
        figures = draw(folders)
    RESULTS.mkdir(exist_ok=True)
    for suffix, text in contents.items():
        write_atomically(RESULTS / f"table.{suffix}", text.encode())
    for suffix, content in figures.items():
        write_atomically(RESULTS / f"learning_curves.{suffix}", content)
    tables.put_into_readme(Path("README.md"), contents["md"])
    publish(known)
    print(contents["md"])


def read_metric(folder: Path) -> float:
    """The metric of a run on the test split."""
    try:
        return results.read_metrics(folder)["test"][METRIC]
    except KeyError as error:
        hint = "see test: in conf/experiment/, and METRIC in stages/report.py"
        raise StudyError(f"{folder}: its metrics have no {error}; {hint}") from error


def read_curve(folder: Path) -> list[float]:
    """The metric on validation after each epoch, in percent."""
    return [100 * row[f"validation_{METRIC}"] for row in results.read_history(folder)]


def draw(folders: dict[str, list[Path]]) -> dict[str, bytes]:
    """Learning curves: the mean over seeds, and a band from the worst seed to the best.

    Returns:
        The same figure as `svg` and `pdf`, with the same bytes each time.
    """
    figure = Figure(figsize=(3.4, 2.4), layout="constrained")  # a column of a paper
    axes = figure.add_subplot()
    styles = itertools.cycle(["-", "--", ":", "-."])
    colours = itertools.cycle(["#0072b2", "#d55e00", "#009e73", "#cc79a7"])  # Okabe and Ito
    bottom = 100.0
    for (name, group), style, colour in zip(folders.items(), styles, colours, strict=False):
        curves = list(zip(*map(read_curve, group), strict=False))  # as far as every seed went
        epochs = range(1, len(curves) + 1)
        axes.plot(epochs, [mean(values) for values in curves], style, color=colour, label=name)
        lows, highs = [min(values) for values in curves], [max(values) for values in curves]
        axes.fill_between(epochs, lows, highs, color=colour, alpha=0.2, linewidth=0)
        bottom = min(bottom, lows[len(lows) // 8])  # the first epochs would squeeze the others
    axes.set(xlabel="epoch", ylabel=f"validation {METRIC} (%)", ylim=(bottom, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    contents = {}
    for suffix, metadata in {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, metadata=metadata)
        contents[suffix] = buffer.getvalue()
    return contents


if __name__ == "__main__":
    main()

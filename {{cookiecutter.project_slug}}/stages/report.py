"""Runs to results/: a table (CSV, Markdown, LaTeX), a figure, and the table in README.md.

Type:
    python stages/report.py --experiments linear mlp cnn --seeds 0 1 2

The first experiment is the baseline: the others are compared to it seed by seed.
"""

import argparse
import csv
import io
import itertools
import json
import math
import sys
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import mean, stdev

import matplotlib
from matplotlib.figure import Figure
from scipy import stats

from {{ cookiecutter.project_slug }} import StudyError
from {{ cookiecutter.project_slug }}.files import write_atomically
from {{ cookiecutter.project_slug }}.records import publish, read_record

PUBLISHED = Path("runs/published")
RESULTS = Path("results")
RECORDS = RESULTS / "records"
MARKERS = ("<!-- results: begin -->", "<!-- results: end -->")
METRIC = "accuracy"  # on the test split: what the table shows, and the figure on validation
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """Mean, standard deviation and half the width of the confidence interval, over seeds."""

    mean: float
    std: float
    half_width: float

    @classmethod
    def of(cls, values: list[float]) -> "Estimate":
        """Student's t on n - 1 degrees of freedom; with one value the spread is unknown (nan)."""
        if len(values) < 2:
            return cls(values[0], math.nan, math.nan)
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
    rows = compare(values)
    tables = {"csv": to_csv(rows), "md": to_markdown(rows), "tex": to_latex(rows)}
    # the salt makes the SVG's identifiers, so its bytes, the same each time; 42: editable fonts
    with matplotlib.rc_context({"font.size": 8, "svg.hashsalt": "study", "pdf.fonttype": 42}):
        figures = draw(folders)
    RESULTS.mkdir(exist_ok=True)
    for suffix, text in tables.items():
        write_atomically(RESULTS / f"table.{suffix}", text.encode())
    for suffix, content in figures.items():
        write_atomically(RESULTS / f"learning_curves.{suffix}", content)
    put_into_readme(Path("README.md"), tables["md"])
    publish_records(known)
    print(tables["md"])


def publish_records(folders: set[Path]) -> None:
    """Writes results/records/: what it takes to run each published run again, in any clone."""
    for folder in folders:
        publish(folder, RECORDS / f"{folder.name}.json")
    names = {f"{folder.name}.json" for folder in folders}
    for path in RECORDS.glob("*.json"):
        if path.name not in names:
            path.unlink()
    patches = {read_record(path).get("patch") for path in RECORDS.glob("*.json")}
    for path in RECORDS.glob("*.patch"):
        if path.name not in patches:
            path.unlink()


def read_metric(folder: Path) -> float:
    """The metric of a run on the test split."""
    path = folder / "metrics.json"
    try:
        return float(json.loads(path.read_bytes())["test"][METRIC])
    except FileNotFoundError as error:
        raise StudyError(f"{path}: there is no such run; type: dvc repro") from error
    except KeyError as error:
        hint = "see test: in conf/experiment/, and METRIC in stages/report.py"
        raise StudyError(f"{path}: has no {error}; {hint}") from error


def compare(values: dict[str, list[float]]) -> list[Row]:
    """A row an experiment. Differences are paired: the same seed, so the same order of the data."""
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


def to_csv(rows: list[Row]) -> str:
    """Plain numbers in full precision."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "std", "ci95_half_width")
    writer.writerow(
        ["experiment", "num_seeds", *parts, *(f"difference_to_baseline_{part}" for part in parts)]
    )
    for row in rows:
        difference = ("", "", "") if row.difference is None else astuple(row.difference)
        writer.writerow([row.experiment, row.num_seeds, *astuple(row.value), *difference])
    return text.getvalue()


def shown(row: Row, plus_minus: str) -> list[str]:
    """What the Markdown and the LaTeX table show of a row, in percent."""

    def spread(estimate: Estimate, sign: str) -> str:
        value = f"{100 * estimate.mean:{sign}.2f}"
        return f"{value} {plus_minus} {100 * estimate.half_width:.2f}"

    difference = "" if row.difference is None else spread(row.difference, "+")
    std = f"{100 * row.value.std:.2f}"
    return [row.experiment, str(row.num_seeds), spread(row.value, ""), std, difference]


def to_markdown(rows: list[Row]) -> str:
    """The table of README.md."""
    header = ["experiment", "seeds", f"test {METRIC} (%)", "std", f"minus {rows[0].experiment}"]
    lines = [header, ["---", *["---:"] * 4], *(shown(row, "±") for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nMean over seeds ± half of the 95 % confidence interval (Student's t).\n"


def to_latex(rows: list[Row]) -> str:
    """The same table for a paper; needs the package booktabs."""
    header = ["experiment", "seeds", f"test {METRIC} (\\%)", "std", f"minus {rows[0].experiment}"]
    table = [header, *(shown(row, r"$\pm$") for row in rows)]
    lines = [" & ".join(cells).replace("_", r"\_") + r" \\" for cells in table]
    begin = [r"\begin{tabular}{lrrrr}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*begin, *lines[1:], r"\bottomrule", r"\end{tabular}"]) + "\n"


def read_curve(folder: Path) -> list[float]:
    """The metric on validation after each epoch, in percent."""
    with open(folder / "history.csv", encoding="utf-8", newline="") as file:
        return [100 * float(row[f"validation_{METRIC}"]) for row in csv.DictReader(file)]


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


def put_into_readme(path: Path, table: str) -> None:
    """Replaces what stands between the two markers of the README."""
    text = path.read_text(encoding="utf-8")
    begin, end = (text.find(marker) for marker in MARKERS)
    if not 0 <= begin < end:
        raise StudyError(f"{path}: {MARKERS[0]} and {MARKERS[1]} must stand in it, in this order")
    changed = f"{text[:begin]}{MARKERS[0]}\n{table}{text[end:]}"
    if changed != text:
        write_atomically(path, changed.encode())


if __name__ == "__main__":
    main()

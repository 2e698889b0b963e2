"""Figures as SVG and PNG, with the same bytes each time, whatever the matplotlibrc of a machine."""

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

COLUMN = (3.4, 2.4)  # inches: of a paper
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito
SIGNED = LinearSegmentedColormap.from_list("signed", [COLOURS[1], "white", COLOURS[0]])
STYLES = ("-", "--", ":", "-.")
MOST_NAMED = 20  # curves in a legend
MOST_PLANES = 32  # of a layer


@contextmanager
def plain_style() -> Iterator[None]:
    """The style of every figure; the salt makes the identifiers in an SVG."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 8, "svg.hashsalt": "study", "pdf.fonttype": 42})
        yield


@contextmanager
def figure_as_svg(size: tuple[float, float] = COLUMN) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Axes to draw on, and what holds the SVG after that."""
    content = io.BytesIO()
    with plain_style():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        yield axes, content
        figure.savefig(content, format="svg", metadata={"Date": None})


def draw_curves(history: Sequence[Mapping[str, float]], names: Sequence[str], label: str) -> bytes:
    """Columns of a history over the epochs. SVG."""
    with figure_as_svg() as (axes, content):
        epochs = [row["epoch"] for row in history]
        for name, colour, style in zip(names, COLOURS, STYLES, strict=False):
            mark = "o" if len(epochs) == 1 else None
            values = [row[name] for row in history]
            axes.plot(epochs, values, style, color=colour, label=name, marker=mark)
        axes.set(xlabel="epoch", ylabel=label)
        axes.legend(frameon=False, loc="best")
    return content.getvalue()


def draw_overlay(histories: Mapping[str, Sequence[Mapping[str, float]]], name: str) -> bytes:
    """One column of several histories over the epochs. SVG."""
    with figure_as_svg((7, 3.2)) as (axes, content):
        looks = itertools.cycle(itertools.product(STYLES, COLOURS))
        for (run, history), (style, colour) in zip(histories.items(), looks, strict=False):
            rows = [row for row in history if name in row]
            points = [row["epoch"] for row in rows], [row[name] for row in rows]
            mark = "o" if len(rows) == 1 else None
            axes.plot(*points, style, color=colour, label=run, linewidth=1, marker=mark)
        axes.set(xlabel="epoch", ylabel=name)
        if len(histories) <= MOST_NAMED:
            axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=6)
    return content.getvalue()


def draw_parallel(names: Sequence[str], rows: Sequence[Sequence[float | None]]) -> bytes:
    """Parallel coordinates: an axis a name, a line a run, coloured by the last name. SVG."""
    whole = np.array([row for row in rows if None not in row], dtype=float).reshape(-1, len(names))
    with figure_as_svg((7, 3.2)) as (axes, content):
        if len(whole):
            low, high = whole.min(axis=0), whole.max(axis=0)
            scaled = (whole - low) / np.where(high > low, high - low, 1)
            for line in scaled[scaled[:, -1].argsort()]:
                axes.plot(line, color=matplotlib.colormaps["viridis"](line[-1]), linewidth=1)
            for place, (lowest, highest) in enumerate(zip(low, high, strict=True)):
                axes.axvline(place, color="grey", linewidth=0.8)
                axes.text(place, -0.03, f"{lowest:.3g}", ha="center", va="top")
                axes.text(place, 1.03, f"{highest:.3g}", ha="center", va="bottom")
        axes.set(xticks=range(len(names)), xticklabels=names, yticks=[], ylim=(-0.15, 1.15))
        axes.spines[:].set_visible(False)
    return content.getvalue()


def draw_confusion(counts: np.ndarray, labels: Sequence[int]) -> bytes:
    """How many targets of each class were taken for each. Shape: [classes, classes]. SVG."""
    side = max(2.4, 0.28 * len(labels) + 0.6)
    with figure_as_svg((side, side)) as (axes, content):
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=6)
        axes.set(xlabel="prediction", ylabel="target")
        axes.set_xticks(range(len(labels)), map(str, labels))
        axes.set_yticks(range(len(labels)), map(str, labels))
    return content.getvalue()


def draw_residuals(targets: np.ndarray, predictions: np.ndarray) -> bytes:
    """Predictions over targets, and the line on which they are equal. SVG."""
    with figure_as_svg() as (axes, content):
        axes.plot(targets, predictions, ".", color=COLOURS[0], alpha=0.4, markersize=4)
        axes.axline((float(targets.mean()),) * 2, slope=1, color="grey", linewidth=0.8)
        axes.set(xlabel="target", ylabel="prediction")
    return content.getvalue()


def is_picture(shape: Sequence[int]) -> bool:
    """Whether a field of this shape is an image of one or three channels, height and width."""
    return len(shape) == 3 and shape[0] in (1, 3)


def draw_picture(image: np.ndarray) -> bytes:
    """An image [channels, height, width], grey or coloured, from its lowest to its highest. PNG."""
    content = io.BytesIO()
    low, high = float(image.min()), float(image.max())
    scaled = (image.astype(float) - low) / ((high - low) or 1)
    pixels = scaled.transpose(1, 2, 0) if len(image) == 3 else scaled[0]
    matplotlib.image.imsave(content, pixels, format="png", cmap="gray", vmin=0, vmax=1)
    return content.getvalue()


def draw_signed(values: np.ndarray) -> bytes:
    """A plane [height, width]: blue where it is above 0, orange where below. SVG."""
    with figure_as_svg((2.4, 2.4)) as (axes, content):
        largest = float(np.abs(values).max()) or 1.0
        axes.imshow(values, cmap=SIGNED, vmin=-largest, vmax=largest)
        axes.set_axis_off()
    return content.getvalue()


def draw_planes(values: np.ndarray) -> bytes:
    """The first planes of [..., height, width], a picture each; of fewer axes one. SVG."""
    flat = np.atleast_2d(values)
    planes = flat.reshape(-1, *flat.shape[-2:])[:MOST_PLANES]
    columns = min(8, len(planes))
    rows = -(-len(planes) // columns)
    content = io.BytesIO()
    with plain_style():
        size = (0.9 * columns, 0.9 * rows) if len(planes) > 1 else (7, 2.4)
        figure = Figure(figsize=size, layout="constrained")
        for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
            axes.set_axis_off()
            if place < len(planes):
                axes.imshow(planes[place], cmap="viridis", aspect="auto")
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()

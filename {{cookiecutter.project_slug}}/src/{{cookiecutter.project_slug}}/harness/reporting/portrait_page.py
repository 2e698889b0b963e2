"""A run as a page of one file: what `portrait.py` describes, with learning curves and pictures."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import figures, pages
from .portrait import Section, describe_history, read_log

if TYPE_CHECKING:
    from .mistakes import Instance, Mistakes


def make_portrait(
    name: str,
    sections: Sequence[Section],
    history: Sequence[Mapping[str, float]],
    mistakes: "Mistakes | None",
    reason: str,
    folder: Path,
) -> bytes:
    """The page.

    Args:
        name: Of the run.
        sections: From its record.
        history: A row an epoch.
        mistakes: Where the model is wrong; None if that cannot be told.
        reason: Why it cannot.
        folder: Where the log is, and its pictures are relative to nothing: all are in the page.
    """
    parts = [_section(section) for section in sections]
    parts[2:2] = [_curves(history)] if history else []
    parts[3:3] = [_mistakes(mistakes, reason)]
    log = "\n".join(read_log(folder))
    parts.append(pages.details("Log", pages.code(log)) if log else "")
    return pages.make_page(name, *parts)


def _section(section: Section) -> str:
    parts = [pages.make_table(section.header or ("", ""), section.rows)] if section.rows else []
    parts += [pages.code("\n".join(section.lines))] if section.lines else []
    if not parts:
        return ""
    make = pages.details if section.is_long else pages.section
    return make(section.title, *parts)


def _curves(history: Sequence[Mapping[str, float]]) -> str:
    names = [name for name in history[0] if name.startswith("validation_")]
    others = [name for name in names if name != "validation_loss"]
    svgs = [figures.draw_curves(history, ["train_loss", "validation_loss"], "loss")]
    svgs += [
        figures.draw_curves(history, [name], name.removeprefix("validation_")) for name in others
    ]
    whole = describe_history(history, whole=True)
    table = pages.details("Every epoch", pages.make_table(whole.header, whole.rows))
    return pages.section("Learning curves", *map(pages.inline_svg, svgs), table)


def _mistakes(mistakes: "Mistakes | None", reason: str) -> str:
    title = "Where it is wrong, on validation"
    if mistakes is None:
        return pages.section(title, pages.paragraph(f"Cannot be told: {reason}"))
    if mistakes.labels is None:
        svg = figures.draw_residuals(mistakes.targets, mistakes.predictions)
    else:
        svg = figures.draw_confusion(mistakes.count_confusions(), list(mistakes.labels))
    worst = "".join(map(_instance, mistakes.worst)) or pages.paragraph("None is wrong.")
    return pages.section(
        title,
        pages.make_table(mistakes.header, mistakes.rows),
        pages.inline_svg(svg),
        "<h3>Most surely wrong</h3>",
        f'<div class="instances">{worst}</div>',
    )


def _instance(instance: "Instance") -> str:
    """Drawn where it is a picture, written out elsewhere."""
    drawn = [
        f'<img alt="{name}" src="data:image/png;base64,'
        f'{base64.b64encode(figures.draw_picture(value)).decode()}">'
        for name, value in instance.fields.items()
        if figures.is_picture(np.shape(value))
    ]
    told = [instance.describe()] if not drawn else []
    return pages.figure("".join(drawn), [*told, f"row {instance.row} {instance.told}"])

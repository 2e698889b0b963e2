"""The inputs and answers of a demo page, from what the data say: needs the group `notebooks`."""

import base64
import contextlib
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import marimo as mo
import numpy as np
from PIL import Image, ImageOps
from wigglystuff import Paint

from ..configuration.building import read_fixture
from ..inference import LoadedRun
from ..inference.instances import RawField, raw_fields
from ..study import ROOT
from ..training.preparation import gather_inputs
from . import figures, pages

SHARP = {"image-rendering": "pixelated"}
CANVAS = 280  # pixels of a side
MOST_CHOICES = 40  # of a text that is chosen from a list
HIDDEN = ("probabilities", "logits")  # outputs that are shown as bars
Fields = Mapping[str, np.ndarray]


def read_examples(run: LoadedRun) -> Fields:
    """The raw fields of the few rows of `data.fixture`."""
    with contextlib.chdir(ROOT):
        found, _, splitter = read_fixture(run.config)
    return gather_inputs(found, splitter)


def make_canvas(run: LoadedRun) -> Any:
    """What the picture of an instance is drawn on; None where it has none."""
    pictures = [
        field for field in raw_fields(run.config).values() if figures.is_picture(field.shape)
    ]
    if not pictures:
        return None
    is_coloured = list(pictures[0].shape)[0] == 3
    paint = Paint(width=CANVAS, height=CANVAS, color_picker=is_coloured, brush=False)
    return mo.ui.anywidget(paint)


def make_inputs(run: LoadedRun, examples: Fields, row: int) -> Any:
    """An element for each raw field, which begins with the value of an example."""
    fields = raw_fields(run.config)
    return mo.ui.dictionary(
        {name: make_input(each, examples[name], row) for name, each in fields.items()}
    )


def make_input(field: RawField, known: np.ndarray, row: int) -> Any:
    """A list, a text, a number, a switch; a file for a picture; a text of numbers for the rest."""
    value = known[row]
    if figures.is_picture(field.shape):
        return mo.ui.file(filetypes=["image/*"], label="or upload a picture")
    if field.shape:
        text = " ".join(f"{each:g}" for each in value.ravel())
        return mo.ui.text_area(text, label=f"{field.name}: {value.size} numbers")
    if field.dtype.kind == "U":
        choices = sorted(set(known.tolist()))
        if len(choices) < min(MOST_CHOICES, len(known) / 2):
            return mo.ui.dropdown(choices, value=str(value), label=field.name)
        return mo.ui.text(str(value), label=field.name)
    if field.dtype.kind == "b":
        return mo.ui.switch(bool(value), label=field.name)
    step = 1 if field.dtype.kind in "iu" else None
    start = None if np.isnan(value) else value.item()  # missing
    return mo.ui.number(value=start, step=step, label=field.name)


def read_inputs(
    run: LoadedRun, values: Mapping[str, Any], canvas: Any, examples: Fields, row: int
) -> Fields:
    """One instance, as a reader would give it: each field [1, ...].

    A picture that is neither drawn nor uploaded is that of the example.

    Raises:
        ValueError: a value is missing, or cannot be read.
    """
    found = {}
    for name, field in raw_fields(run.config).items():
        value = values[name]
        if figures.is_picture(field.shape):
            image = _open(value, canvas.value)
            made = examples[name][row] if image is None else to_field(image, field, examples[name])
        else:
            is_list = field.shape and isinstance(value, str)
            made = field.read([float(each) for each in value.split()] if is_list else value)
        found[name] = np.asarray(made)[None]
    return found


def _open(files: Sequence[Any], canvas: Mapping[str, Any]) -> Image.Image | None:
    """What was uploaded, or drawn on a transparent ground; None if neither was."""
    if files:
        return Image.open(io.BytesIO(files[0].contents))
    drawn = str(canvas.get("base64") or "").rpartition(",")[2]
    if not drawn:
        return None
    image = Image.open(io.BytesIO(base64.b64decode(drawn))).convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image)
    image.putalpha(ImageOps.invert(paper.convert("L")))  # ink is what is darker than paper
    return image if image.getchannel("A").getbbox() else None


def to_field(image: Image.Image, field: RawField, known: np.ndarray) -> np.ndarray:
    """A picture as the data have theirs: as large, as bright, on a ground like theirs.

    A drawing is cut to its ink, grows until it fills the height or the width, and a thin line,
    which would pale, is made as strong as those of the data.

    Args:
        image: With a transparent ground if it was drawn.
        field: The channels, the height and the width.
        known: Some of the data. Shape: [rows, channels, height, width].
    """
    channels, height, width = known.shape[1:]
    low, high = float(known.min()), float(known.max())
    ground = 0.0 if known.mean() < (low + high) / 2 else 1.0
    rgba = image.convert("RGBA")
    box = rgba.getchannel("A").getbbox()
    is_drawn = bool((np.asarray(rgba)[..., 3] == 0).any())
    if is_drawn and box:
        rgba = _square(rgba.crop(box), width / height)
    pixels = np.asarray(rgba.resize((width, height), Image.Resampling.BOX), dtype=float) / 255
    ink, alpha = pixels[..., :3], pixels[..., 3:]
    if is_drawn:
        alpha = alpha / alpha.max()
    if channels == 1:
        grey = ink.mean(axis=-1, keepdims=True)
        ink = np.full_like(grey, 1 - ground) if is_drawn else grey
    mixed = alpha * ink + (1 - alpha) * ground
    return (low + (high - low) * mixed.transpose(2, 0, 1)).astype(field.dtype)


def _square(image: Image.Image, ratio: float) -> Image.Image:
    """An image in the middle of a transparent one of this ratio of width to height."""
    width, height = image.size
    size = max(width, round(height * ratio)), max(height, round(width / ratio))
    framed = Image.new("RGBA", size)
    framed.paste(image, ((size[0] - width) // 2, (size[1] - height) // 2))
    return framed


def show_pictures(fields: Fields) -> Any:
    """The pictures of an instance, as the model sees them."""
    drawn = [figures.draw_picture(values[0]) for values in fields.values() if values.ndim == 4]
    return mo.hstack(
        [mo.image(each, width=CANVAS // 2, style=SHARP) for each in drawn], justify="start"
    )


def show_answer(answer: Mapping[str, Any]) -> Any:
    """The probabilities as bars, or the outputs as they are."""
    rows = [
        (name, value) for name, value in answer.items() if name not in ("probabilities", "logits")
    ]
    parts = [mo.md("## " + ", ".join(f"{name} {_short(value)}" for name, value in rows))]
    chances = np.asarray(answer.get("probabilities", []))
    if chances.ndim == 1 and chances.size:
        named = {str(name): chance for name, chance in enumerate(chances.tolist())}
        parts.append(mo.Html(_bars(named, ".1%")))
    return mo.vstack(parts)


def _short(value: Any) -> str:
    numbers = np.asarray(value)
    return f"{numbers.item():.4g}" if numbers.size == 1 else f"of shape {list(numbers.shape)}"


def _bars(values: Mapping[str, float], form: str = "+.3g") -> str:
    """A bar a name, in another colour where it is negative."""
    largest = max(map(abs, values.values())) or 1
    cells = []
    for name, value in values.items():
        colour, width = figures.COLOURS[int(value < 0)], 100 * abs(value) / largest
        grown = f'<div style="background:{colour};height:.9em;width:{width:.1f}%"></div>'
        cells.append(f"<span>{escape(name)}</span>{grown}<span>{value:{form}}</span>")
    columns = "max-content 1fr max-content"
    style = f"display:grid;grid-template-columns:{columns};gap:0 .8em;align-items:center"
    return f'<div style="{style};max-width:40em">{"".join(cells)}</div>'


def show_attribution(gains: Mapping[str, np.ndarray], fields: Fields) -> Any:
    """How much each value counts: over the picture, over the letters, or as bars."""
    parts = []
    texts = [str(values[0]) for values in fields.values() if values.dtype.kind == "U"]
    for name, values in gains.items():
        if values.ndim == 3:
            parts.append(pages.inline_svg(figures.draw_signed(values.sum(axis=0))))
        elif values.ndim == 1 and len(texts) == 1 and len(texts[0]) <= len(values):
            parts.append(_coloured(texts[0], values))
        else:
            numbers = values.ravel().tolist()
            parts.append(_bars({f"{name} {place}": each for place, each in enumerate(numbers)}))
    return mo.vstack([mo.Html(part) for part in parts])


def _coloured(text: str, gains: np.ndarray) -> str:
    """Letters, on blue where they speak for the prediction, on orange where against it."""
    largest = float(np.abs(gains).max()) or 1
    spans = []
    for letter, gain in zip(text, gains, strict=False):
        colour = figures.COLOURS[int(gain < 0)] + f"{round(200 * abs(gain) / largest):02x}"
        style = f"padding:.1em;background:{colour}"
        spans.append(f'<span title="{gain:+.3g}" style="{style}">{escape(letter)}</span>')
    return f'<p style="font-size:2em;letter-spacing:.1em">{"".join(spans)}</p>'


def show_layer(values: np.ndarray) -> Any:
    """Activations: a picture a channel, or rows and columns."""
    return mo.Html(pages.inline_svg(figures.draw_planes(values)))


def show_attention(weights: Sequence[np.ndarray]) -> Any:
    """A picture a head, of queries from top to bottom and keys from left to right."""
    parts = [mo.Html(pages.inline_svg(figures.draw_planes(each))) for each in weights]
    return mo.vstack(parts) if parts else mo.md("This model has no attention.")

"""The inputs of the demo page: what is drawn or typed becomes what a reader would give."""

import io
from typing import Any

import numpy as np
import pytest

from my_study.harness.inference import LoadedRun, load_run
from my_study.harness.inference.instances import RawField

Image = pytest.importorskip("PIL.Image", reason="no pillow: make notebooks")
ImageDraw = pytest.importorskip("PIL.ImageDraw")
pytest.importorskip("marimo", reason="no marimo: make notebooks")
widgets = pytest.importorskip("my_study.harness.reporting.widgets", reason="make notebooks")
FIELD = RawField("image", np.dtype("float32"), (1, 8, 8))


def drawing() -> Any:
    """A thin line from top to bottom, left of the middle, on a transparent ground."""
    image = Image.new("RGBA", (280, 280))
    ImageDraw.Draw(image).line([(100, 60), (100, 220)], fill=(0, 0, 0, 255), width=8)
    return image


@pytest.mark.parametrize("ground", [0.0, 16.0])
def test_a_drawing_fills_the_picture_on_the_ground_of_the_data(ground: float) -> None:
    known = np.full((2, 1, 8, 8), ground)
    known[:, :, 3] = 16 - ground  # a line of ink
    (plane,) = widgets.to_field(drawing(), FIELD, known)
    assert plane.shape == (8, 8) and plane.dtype == np.float32
    # in the middle, from top to bottom, and strong though it is thin
    assert np.abs(plane[:, 3:5] - ground).max(axis=1) == pytest.approx(16)
    assert plane[:, [0, 1, 6, 7]] == pytest.approx(ground)


def test_an_uploaded_picture_is_made_as_large_and_as_bright_as_the_data() -> None:
    known = np.zeros((1, 1, 8, 8))
    known[0, 0, 0, 0] = 1.0
    half = Image.new("L", (64, 64))
    half.paste(255, (0, 0, 32, 64))
    (plane,) = widgets.to_field(half, FIELD, known)
    assert (plane[:, :4] == 1).all() and (plane[:, 4:] == 0).all()


def test_colours_stay_colours() -> None:
    known = np.zeros((1, 3, 4, 4))
    known[0, 0, 0, 0] = 1.0
    field = RawField("image", np.dtype("float32"), (3, 4, 4))
    red = widgets.to_field(Image.new("RGB", (9, 9), "red"), field, known)
    assert red.shape == (3, 4, 4) and (red[0] == 1).all() and (red[1:] == 0).all()


@pytest.fixture(name="run")
def _run(trained: object) -> LoadedRun:
    return load_run(str(trained))


class Uploaded:
    """What marimo hands over of a file."""

    def __init__(self, image: Any) -> None:
        content = io.BytesIO()
        image.save(content, format="PNG")
        self.contents = content.getvalue()


def test_an_instance_is_that_of_the_example_until_another_is_given(run: LoadedRun) -> None:
    examples = widgets.read_examples(run)
    canvas = widgets.make_canvas(run)
    inputs = widgets.make_inputs(run, examples, 3)
    found = widgets.read_inputs(run, inputs.value, canvas, examples, 3)
    assert (found["image"] == examples["image"][3]).all()
    given = {"image": [Uploaded(Image.new("L", (8, 8), 255))]}
    assert (widgets.read_inputs(run, given, canvas, examples, 3)["image"] == 1).all()


def test_the_kind_of_a_field_says_how_it_is_given() -> None:
    texts = np.array(["usa", "japan"] * 10)
    cases = {
        "ui.number": (RawField("a", np.dtype("float64"), ()), np.array([1.5, np.nan])),
        "ui.switch": (RawField("a", np.dtype("bool"), ()), np.array([True])),
        "ui.dropdown": (RawField("a", texts.dtype, ()), texts),
        "ui.text": (RawField("a", texts.dtype, ()), np.array(["word"])),
        "ui.text_area": (RawField("a", np.dtype("float32"), (3,)), np.ones((1, 3))),
    }
    for kind, (field, known) in cases.items():
        made = widgets.make_input(field, known, 0)
        assert type(made).__name__ == kind.partition(".")[2]

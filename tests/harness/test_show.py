"""A run on the terminal and as a page: its numbers, where it is wrong, what happens inside."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from my_study.harness.errors import StudyError
from my_study.harness.inference import LoadedRun, load_run
from my_study.harness.reporting import figures, inside
from my_study.harness.reporting.mistakes import find_mistakes

from .commands import call


@pytest.fixture(name="run")
def _run(trained: Path) -> LoadedRun:
    return load_run(trained)


def show(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of `study show`, in the folder of a run."""
    code, said, error = call(folder, "study", "show", str(folder), *words)
    return code, said + error


def test_every_number_of_the_record_and_every_mistake_is_shown(trained: Path) -> None:
    run = load_run(trained)
    code, text = show(trained)
    assert code == 0, text
    accuracy = run.record["metrics"]["validation"]["accuracy"]
    assert re.search(rf"validation +[\d.]+ +{accuracy:.4g}\n", text)
    assert run.record["command"] in text and "study reproduce " in text
    assert len(re.findall(r"as recorded$", text, re.M)) == len(run.record["files"])
    num_wrong = round(10 * (1 - accuracy))
    assert len(re.findall(r"row \d+ is \d, taken for \d with", text)) == num_wrong > 0


def test_a_file_that_is_not_as_the_run_wrote_it_is_named(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    (folder / "best.pt").write_bytes(b"others")
    (folder / "notes.txt").write_text("mine")
    code, text = show(folder)
    assert code == 1 and re.search(r"best\.pt .* is not as the run wrote it", text)
    assert re.search(r"notes\.txt .* not recorded", text)
    assert "cannot be told" in text


def test_a_page_is_one_file_with_curves_and_pictures(trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    assert show(trained, "--html", str(page))[0] == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 3 and 'src="data:image/png;base64,' in text
    assert not re.search(r'(src|href)="(?!data:|#)|@import', text)


def test_counts_by_class_follow_from_predictions(run: LoadedRun) -> None:
    mistakes = find_mistakes(run, "validation")
    counts = mistakes.count_confusions()
    assert counts.sum() == len(mistakes.targets) == 10
    accuracy = counts.trace() / counts.sum()
    assert accuracy == pytest.approx(run.record["metrics"]["validation"]["accuracy"])
    for label, _, recall, _, count in mistakes.rows:
        assert count == counts[label].sum()
        assert recall == (counts[label, label] / count if count else None)


def test_the_most_surely_wrong_come_first_and_are_of_their_rows(run: LoadedRun) -> None:
    mistakes = find_mistakes(run, "validation")
    shares = [float(re.search(r"([\d.]+)%", each.told)[1]) for each in mistakes.worst]  # type: ignore
    assert shares == sorted(shares, reverse=True)
    split = run.split("validation").fields
    for each in mistakes.worst:
        assert (each.fields["image"] == split["image"][each.row].numpy()).all()
        assert each.told.startswith(f"is {int(split['target'][each.row])}, ")


def batch_of(run: LoadedRun) -> dict[str, torch.Tensor]:
    """The first instance of validation, without its target."""
    batch = run.split("validation")[[0]]
    del batch["target"]
    return batch


def test_attributions_add_up_to_what_the_input_changes(run: LoadedRun) -> None:
    pytest.importorskip("captum", reason="no captum: make notebooks")
    batch = batch_of(run)
    with torch.no_grad():
        logits, nothing = (
            run.model(image=image)["logits"][0]
            for image in (batch["image"], torch.zeros_like(batch["image"]))
        )
    index = int(logits.argmax())
    gains = inside.attribute(run, batch)["image"]
    assert gains.shape == (1, 8, 8)
    assert gains.sum() == pytest.approx(float(logits[index] - nothing[index]), rel=0.05)


def test_every_layer_that_runs_can_be_looked_into(run: LoadedRun) -> None:
    batch, names = batch_of(run), inside.layers(run.model)
    for name in names:
        values = inside.activations(run, batch, name)
        assert np.isfinite(values).all() and figures.draw_planes(values).startswith(b"<?xml")
    run.model.unused = nn.Linear(1, 1)
    with pytest.raises(StudyError, match="gives no tensor"):
        inside.activations(run, batch, "unused")
    assert inside.attention(run, batch) == []


class Attending(nn.Module):
    """One head, with a mask: no position sees a later one."""

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Image [batch, 1, length, size]."""
        return {"logits": F.scaled_dot_product_attention(image, image, image, is_causal=True)}


def test_attention_is_that_of_the_fused_kernel(run: LoadedRun) -> None:
    batch, model = batch_of(run), Attending()
    attending = LoadedRun(run.folder, run.record, run.device, model, None)
    (weights,) = inside.attention(attending, batch)
    image = batch["image"][0].numpy()
    mixed = model(batch["image"])["logits"][0].numpy()
    assert weights.shape == (1, 8, 8) and not np.triu(weights[0], 1).any()
    assert weights @ image == pytest.approx(mixed, abs=1e-5)


def test_figures_have_the_same_bytes_each_time() -> None:
    history = [{"epoch": 1, "a": 1.0}, {"epoch": 2, "a": 0.5}]
    for draw in (
        lambda: figures.draw_curves(history, ["a"], "a"),
        lambda: figures.draw_overlay({"x": history, "y": history[:1]}, "a"),
        lambda: figures.draw_parallel(["lr", "a"], [[0.1, 1.0], [0.2, None], [0.3, 0.5]]),
        lambda: figures.draw_residuals(np.array([1.0, 2.0]), np.array([1.5, 2.0])),
        lambda: figures.draw_picture(np.arange(16.0).reshape(1, 4, 4)),
    ):
        assert draw() == draw()

"""What is done with a finished run: load it, predict, evaluate, export."""

import csv
import dataclasses
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from my_study.harness.errors import StudyError
from my_study.harness.inference import LoadedRun, exporting, load_run
from my_study.harness.inference.answering import answer_all, columns_of, with_classes
from my_study.harness.inference.evaluation import evaluate, read_new
from my_study.harness.inference.instances import Instance, RawField, raw_fields, read_csv, read_json
from my_study.harness.inference.packing import without_packing
from my_study.harness.runs.folder import count_test_look, looks_at_test
from my_study.harness.runs.record import read_record, write_record
from my_study.harness.study import ROOT
from my_study.harness.training.spec import Spec

from .commands import call
from .conftest import TINY

CPU = torch.device("cpu")
TRAINED = ("model=mlp", "training.num_epochs=3", "test=true", "device=cpu")


@pytest.fixture(name="folder")
def _folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(name="run")
def _run(trained: Path) -> LoadedRun:
    return load_run(trained)


def images_of(run: LoadedRun, name: str = "validation") -> np.ndarray:
    """The raw images of a split, which has no encoder."""
    return run.split(name).fields["image"].numpy()


def test_a_loaded_run_predicts_what_its_metrics_are_of(run: LoadedRun) -> None:
    assert not run.model.training and run.encoder is None
    assert run.config["model"]["network"]["_target_"] == "my_study.models.mlp.MLP"
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    for name in ("validation", "test"):
        target = run.split(name).fields["target"].numpy()
        found = run.predict({"image": images_of(run, name)}, batch_size=4)["logits"].argmax(1)
        assert (found == target).mean() == pytest.approx(run.record["metrics"][name]["accuracy"])


def edit_record(folder: Path, **changes: Any) -> None:
    """Writes the record of a run with other values, and with its seal."""
    write_record(folder, {**read_record(folder), **changes})


def test_what_is_no_finished_run_with_its_weights_is_refused(folder: Path) -> None:
    with pytest.raises(StudyError, match="elsewhere: there is no such run"):
        load_run(folder.with_name("elsewhere"))
    weights = (folder / "best.pt").read_bytes()
    (folder / "best.pt").write_bytes(weights + b" ")
    with pytest.raises(StudyError, match="best.pt is not as the run wrote it"):
        load_run(folder)
    (folder / "best.pt").unlink()
    with pytest.raises(StudyError, match="best.pt is missing; type: dvc pull, or .* model=mlp"):
        load_run(folder)
    (folder / "best.pt").write_bytes(weights)
    history = (folder / "history.csv").read_text()
    (folder / "history.csv").write_text(history.replace("1,", "2,"))
    with pytest.raises(StudyError, match="history.csv: is not as the run wrote it"):
        load_run(folder)
    edit_record(folder, status="interrupted")
    with pytest.raises(StudyError, match="is interrupted, and not finished; .* resume="):
        load_run(folder)


def test_code_that_has_changed_since_is_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_run(folder)
    assert not caplog.messages
    code = {**read_record(folder)["code"], "src/my_study/models/mlp.py": "0" * 64}
    edit_record(folder, code=code)
    with caplog.at_level(logging.WARNING):
        load_run(folder)
    assert "the code has changed since: src/my_study/models/mlp.py" in caplog.text


def test_weights_of_another_model_are_refused_with_what_changed(folder: Path) -> None:
    record = read_record(folder)
    record["config"]["model"]["network"]["hidden_sizes"] = [7]
    edit_record(folder, config=record["config"])
    with pytest.raises(StudyError, match=r"best.pt: does not fit its model \(.*size mismatch"):
        load_run(folder)


def test_data_that_the_run_has_not_read_are_refused(folder: Path) -> None:
    data = {name: "0" * 64 for name in read_record(folder)["data"]}
    edit_record(folder, data=data)
    with pytest.raises(StudyError, match=r"is not what .* has read; .* stages/prepare.py"):
        load_run(folder).split("validation")


def answers(run: LoadedRun, lines: list[str], batch_size: int = 4) -> list[dict[str, Any]]:
    """What `study predict` answers to JSON lines."""
    stream = io.BytesIO("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
    instances = read_json(stream, raw_fields(run.config))
    return [each for batch in answer_all(run, instances, batch_size=batch_size) for each in batch]


def test_typed_rows_are_answered_with_the_numbers_of_evaluation(run: LoadedRun) -> None:
    images, split = images_of(run), run.split("validation")
    shapes = [images, images[:, 0], images.reshape(len(images), -1)]  # whole, grey, flat
    for shaped in shapes:
        found = answers(run, [json.dumps({"image": image.tolist()}) for image in shaped])
        with torch.inference_mode():
            wanted = run.model(image=split.fields["image"])["logits"]
        logits = np.array([each["logits"] for each in found])
        assert np.allclose(logits, wanted, rtol=1e-6, atol=1e-6)
        likely = np.array([each["probabilities"] for each in found])
        assert np.allclose(likely, wanted.softmax(1), atol=1e-6)
        right = np.array([each["class"] for each in found]) == split.fields["target"].numpy()
        assert right.mean() == pytest.approx(run.record["metrics"]["validation"]["accuracy"])


def test_an_answer_does_not_depend_on_its_neighbours(run: LoadedRun) -> None:
    lines = [json.dumps({"image": image.tolist()}) for image in images_of(run)]
    together, alone = answers(run, lines, batch_size=10), answers(run, lines, batch_size=1)
    for left, right in zip(together, alone, strict=True):
        assert np.allclose(left["logits"], right["logits"], rtol=1e-6, atol=1e-6)


IMAGE = [[0.5] * 8] * 8
WRONG = {
    "nope": "is not JSON",
    "": "is not JSON",
    "\udcff": "is not JSON",
    "[" * 100_000: "is not JSON",
    "[1]": "is no object",
    "{}": "field image: is missing",
    '{"image": null}': "field image: is missing",
    json.dumps({"imgae": IMAGE}): "there is no such field; did you mean image",
    json.dumps({"image": IMAGE, "target": 1}): "field target: there is no such field",
    json.dumps({"image": IMAGE[:7]}): r"has shape \[7, 8\], not 64 values, shape \[1, 8, 8\]",
    json.dumps({"image": [*IMAGE[:7], [0.5]]}): "its rows differ in length",
    json.dumps({"image": [IMAGE, IMAGE]}): "has shape",
    json.dumps({"image": [["a"] * 8] * 8}): "must be a number",
    json.dumps({"image": [[True] * 8] * 8}): "must be a number",
    json.dumps({"image": [[1.5] * 8] * 8}): "goes from 1.5 to 1.5; the spec says 0 to 1",
    json.dumps({"image": [[float("nan")] * 8] * 8}): "NaN is no number",
    json.dumps({"image": IMAGE}).replace("0.5", "1e999"): "is too large",
}


def test_a_wrong_line_gets_an_error_in_its_place_and_the_others_are_answered(
    run: LoadedRun,
) -> None:
    good = json.dumps({"image": IMAGE})
    lines = [line for wrong in WRONG for line in (good, wrong)]
    found = answers(run, lines)
    assert len(found) == len(lines)
    for number, (each, reason) in enumerate(zip(found[1::2], WRONG.values(), strict=True)):
        assert each["line"] == 2 * number + 2 and re.search(reason, each["error"]), each
    for each in found[::2]:
        assert np.allclose(each["logits"], found[0]["logits"], rtol=1e-6, atol=1e-6)


class Letters:
    """Turns a word and a number into a picture; refuses what is missing, and one word."""

    def encode(self, fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A picture, all of one grey."""
        if np.isnan(fields["weight"]).any():
            raise StudyError("row 1 has no weight")
        if "bad" in fields["word"].tolist():
            raise KeyError("bad")
        grey = fields["weight"] * [len(word) for word in fields["word"].tolist()]
        image = np.broadcast_to(grey[:, None, None, None], (len(grey), 1, 8, 8))
        return {"image": image.astype(np.float32)}


RAW = {
    "word": RawField("word", np.dtype("U3"), ()),
    "weight": RawField("weight", np.dtype("f8"), ()),
}


def test_what_an_encoder_refuses_is_the_error_of_its_line_alone(run: LoadedRun) -> None:
    encoded = dataclasses.replace(run, encoder=Letters())
    rows = [("a", 0.5), ("bad", 0.5), ("longer", 0.1), ("a", None), (3, 0.5), ("longer", 0.5)]
    lines = [json.dumps({"word": word, "weight": weight}) for word, weight in rows]
    stream = io.BytesIO("\n".join([*lines, '{"word": "a"}']).encode())
    (found,) = answer_all(encoded, read_json(stream, RAW), batch_size=256)
    assert ["error" in each for each in found] == [False, True, False, True, True, True, True]
    errors = [each["error"] for each in found if "error" in each]
    assert errors[0] == "KeyError: 'bad'"
    assert errors[1] == errors[4] == "no weight: row 1 has no weight"
    assert errors[2] == "field word: must be text in quotes, not 3"
    assert "goes from 3 to 3" in errors[3]  # 0.5 times six letters
    alone = run.predict({"image": np.full((1, 1, 8, 8), 0.5, np.float32)})["logits"][0]
    assert np.allclose(found[0]["logits"], alone, atol=1e-6)


def test_a_csv_is_read_by_its_header_and_written_with_one_column_a_value(run: LoadedRun) -> None:
    fields = {**raw_fields(run.config), **RAW}
    names = [column for each in fields.values() for column in each.columns]
    assert names[:2] == ["image_0", "image_1"] and names[-3:] == ["image_63", "word", "weight"]
    cells = [*["0.25"] * 64, 'a "b", c', ""]
    text = io.StringIO()
    csv.writer(text).writerows([names[::-1], cells[::-1], cells[1:], [*cells[::-1][:-1], "nan"]])
    good, short, wrong = read_csv(io.BytesIO(b"\xef\xbb\xbf" + text.getvalue().encode()), fields)
    assert good.values["image"].tolist() == [[[0.25] * 8] * 8]
    assert good.values["word"] == 'a "b", c' and np.isnan(good.values["weight"])
    assert (short.line, short.error) == (3, "has 65 columns, not 66")
    assert wrong.error == "field image: must be a number, not 'nan'"
    for header, reason in (("wrod", "column wrod: is no input; did"), ("word,word", "is there tw")):
        with pytest.raises(StudyError, match=f"line 1: .*{reason}"):
            list(read_csv(io.BytesIO(header.encode()), fields))
    columns = columns_of(run.spec)
    assert [*columns] == ["class", "probabilities", "logits"]
    assert columns["class"] == ["class"] and columns["logits"][-1] == "logits_9"


def test_answers_come_batch_by_batch(run: LoadedRun) -> None:
    taken = []

    def instances() -> Iterator[Instance]:
        for line in range(1, 8):
            taken.append(line)
            yield Instance(line, {"image": np.full((1, 8, 8), 0.5, np.float32)})

    found = answer_all(run, instances(), batch_size=3)
    assert len(next(found)) == 3 and taken == [1, 2, 3]


def test_a_class_counts_from_the_lowest_and_one_logit_is_yes_or_no() -> None:
    values: dict[str, Any] = {"task": "classification", "inputs": {"image": {"shape": [2]}}}
    values["target"] = {"shape": [], "kind": "index", "low": 1, "high": 2}
    logits = np.array([[0.0, 1.0], [2.0, 0.0]])
    many = {**values, "outputs": {"logits": {"shape": [2], "kind": "logits"}}}
    found = with_classes(Spec.from_values(many), {"logits": logits})
    assert found["class"].tolist() == [2, 1]
    for shape in ([], [1]):
        one = {**values, "outputs": {"logits": {"shape": shape, "kind": "logits"}}}
        single = (logits[:, 1] - logits[:, 0]).reshape(-1, *shape)
        again = with_classes(Spec.from_values(one), {"logits": single})
        assert again["class"].tolist() == [2, 1]
        assert np.allclose(again["probabilities"], found["probabilities"])


def test_metrics_of_a_split_are_those_of_the_record(run: LoadedRun) -> None:
    for name in ("validation", "test"):
        assert evaluate(run, run.split(name)) == run.record["metrics"][name]


def test_new_data_are_read_by_the_reader_of_the_data_set(run: LoadedRun, tmp_path: Path) -> None:
    with read_new(run, TINY) as split:
        found, num_rows = evaluate(run, split), len(split)
    shares = {name: len(run.split(name)) for name in ("train", "validation", "test")}
    wanted = sum(evaluate(run, run.split(name))["accuracy"] * shares[name] for name in shares)
    assert num_rows == sum(shares.values()) == 50
    assert found["accuracy"] == pytest.approx(wanted / 50)
    (tmp_path / "new.csv").write_text("pixel\n1\n")
    with pytest.raises(StudyError, match="new.csv: row 1: column 1 must be pixel_0_0"):
        with read_new(run, tmp_path / "new.csv"):
            pass


def test_each_look_at_the_test_split_is_counted_and_the_seal_holds(folder: Path) -> None:
    assert looks_at_test(read_record(folder)) == 1  # it was trained with test=true
    assert [count_test_look(folder) for _ in range(2)] == [2, 3]
    before = read_record(folder)
    assert before["test_looks"] == 3 and load_run(folder).record == before
    del before["test_looks"]
    assert looks_at_test(before) == 1 and looks_at_test({**before, "metrics": {}}) == 0


def typed(*words: str) -> tuple[int, str, str]:
    """What `study WORDS` prints."""
    return call(ROOT, "study", *words)


def test_the_commands_print_what_was_asked_for(folder: Path, tmp_path: Path) -> None:
    lines = tmp_path / "new.jsonl"
    lines.write_text(json.dumps({"image": IMAGE}) + "\nnope\n")
    code, output, errors = typed("predict", str(folder), str(lines))
    first, second = map(json.loads, output.splitlines())
    assert code == 1 and [*first] == ["class", "probabilities", "logits"]
    assert second["line"] == 2 and "error: 1 of 2 not answered, first line 2: is not" in errors
    lines.write_text("")
    code, output, errors = typed("predict", str(folder), str(lines))
    assert (code, output) == (1, "") and "nothing to predict: the input has no line" in errors
    code, output, _ = typed("evaluate", str(folder), "--split", "test")
    assert code == 0 and "identical to the record" in output
    assert "looks at the test split with this run: 2" in output
    code, output, _ = typed("evaluate", str(folder), "--json")
    assert code == 0 and json.loads(output)["metrics"] == json.loads(output)["recorded"]
    assert read_record(folder)["test_looks"] == 2  # validation is not counted
    record = read_record(folder)
    record["metrics"]["validation"]["accuracy"] += 0.1
    edit_record(folder, metrics=record["metrics"])
    code, output, _ = typed("evaluate", str(folder))
    assert code == 3 and "different: accuracy was" in output


def test_an_exported_model_gives_the_outputs_of_the_run_without_its_code(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = tmp_path / "exported"
    apart = exporting.export(run, folder, onnx=False)
    assert sorted(os.listdir(folder)) == ["README.md", "model.pt2"]
    assert apart["model.pt2"] <= exporting.TOLERANCE
    card = (folder / "README.md").read_text()
    accuracy = run.record["metrics"]["test"]["accuracy"]
    for word in (run.record["fingerprint"], f"| test | accuracy | {accuracy:.6g} |", "[batch, 10]"):
        assert word in card
    assert not re.search(rf"\b{re.escape(os.uname().nodename)}\b", card)
    for secret in (str(tmp_path.parent), str(ROOT)):
        assert secret not in card
        assert secret.encode() not in (folder / "model.pt2").read_bytes()
    code = re.search(r"```python\n(.*?)```", card, re.S)
    assert code
    monkeypatch.chdir(folder)
    exec(code[1], {})  # pylint: disable=exec-used # as a reader of the card would
    assert capsys.readouterr().out.startswith("tensor([[")
    with pytest.raises(StudyError, match="exported: is there already"):
        exporting.export(run, folder, onnx=False)


def test_nothing_is_left_of_an_export_that_gives_other_outputs(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "TOLERANCE", -1)
    with pytest.raises(StudyError, match="model.pt2: its outputs differ from the run's by"):
        exporting.export(run, tmp_path / "exported", onnx=False)
    assert not os.listdir(tmp_path)
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match="--onnx: needs the package onnx; type: uv pip install"):
        exporting.export(run, tmp_path / "exported", onnx=True)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both", [False, True])
def test_a_padded_sequence_gives_what_a_packed_one_gives(kind: Any, both: bool) -> None:
    layer = kind(3, 4, num_layers=2, bidirectional=both, batch_first=True)
    values, lengths = torch.randn(5, 6, 3), torch.tensor([2, 6, 1, 4, 3])

    def read() -> tuple[Tensor, Tensor]:
        packed = rnn.pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
        outputs, state = layer(packed)
        padded, _ = rnn.pad_packed_sequence(outputs, batch_first=True, total_length=6)
        return padded, state[0] if kind is nn.LSTM else state

    wanted = read()
    with without_packing():
        found = read()
    for left, right in zip(wanted, found, strict=True):
        assert torch.allclose(left, right, atol=1e-6)
    assert torch.equal(read()[0], wanted[0])  # what was replaced is put back

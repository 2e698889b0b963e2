"""Training: deterministic, bit-identical when resumed, and equal to a loop of ten lines."""

import itertools
import math
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from my_study import data
from my_study.harness import checks, files
from my_study.harness.checks.trainer import difference
from my_study.harness.configuration import building
from my_study.harness.errors import StudyError
from my_study.harness.runs.record import RESULTS
from my_study.harness.training import checkpoints, determinism
from my_study.harness.training.prepared import Batch, Split, batches
from my_study.harness.training.step import backward, evaluate
from my_study.harness.training.trainer import Interrupted, NonFiniteLoss, Trainer

from .conftest import CaseOf, Compose

CPU = torch.device("cpu")
FAST = ("training.num_epochs=4", "training.batch_size=8")  # 4 steps an epoch, the last one smaller
SHIFT = (
    f"++data.augmentation._target_={data.__name__}.RandomShift",
    "++data.augmentation.max_shift=1",
)


@pytest.fixture(name="splits")
def _splits(tiny: Path) -> tuple[Split, Split]:
    return Split(tiny, "train"), Split(tiny, "validation")


def raise_interrupt(*_: object) -> None:
    """Ctrl-C, between two steps."""
    raise KeyboardInterrupt


class Study:
    """Makes trainers on the tiny data."""

    def __init__(self, compose: Compose, splits: tuple[Split, Split]) -> None:
        self.compose, self.splits = compose, splits

    def trainer(self, *overrides: str, folder: Path | None = None) -> Trainer:
        """A trainer as run.py makes it."""
        config = self.compose(*FAST, *overrides)
        determinism.seed_everything(config.seed)
        trainer = building.build_trainer(config, self.splits[0], CPU, folder)
        return trainer

    def fitted(self, *overrides: str, folder: Path | None = None) -> Trainer:
        """The same, after its last step."""
        trainer = self.trainer(*overrides, folder=folder)
        trainer.fit(*self.splits)
        return trainer


@pytest.fixture(name="study")
def _study(compose: Compose, splits: tuple[Split, Split]) -> Study:
    return Study(compose, splits)


def state(trainer: Trainer) -> dict[str, object]:
    """Everything that a run leaves."""
    return {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        "history": trainer.history,
        "best": trainer.best_weights,
        "step": trainer.step,
    }


def test_the_same_seed_gives_the_same_bits_and_another_does_not(study: Study) -> None:
    first = state(study.fitted())
    torch.rand(7)  # what was drawn before does not matter
    assert not difference(first, state(study.fitted()))
    assert difference(first, state(study.fitted("seed=1")))


def test_the_seed_decides_order_and_noise_besides_the_weights(study: Study) -> None:
    weights, states = study.trainer().model.state_dict(), []
    for seed in (0, 1):
        trainer = study.trainer(f"seed={seed}")
        trainer.model.load_state_dict(weights)
        trainer.fit(*study.splits)
        states.append(state(trainer))
    assert difference(states[0], states[1])


def test_determinism_can_be_switched() -> None:
    for deterministic in (False, True):
        determinism.set_determinism(deterministic, num_threads=1)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.backends.cudnn.allow_tf32 is not deterministic


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (4, 0), (6, 0), (15, 0), (6, 2)])
def test_resumed_run_equals_uninterrupted_run(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, workers: int
) -> None:
    knobs = (
        "model.network.dropout=0.5",
        "training.num_accumulation_steps=2",
        "training.max_gradient_norm=1.0",
        f"training.num_workers={workers}",
        *SHIFT,
    )
    whole = study.fitted(*knobs)
    stopped = study.trainer(*knobs, folder=tmp_path)
    advance = stopped.advance

    def advance_and_signal(batch: Batch) -> None:
        advance(batch)
        if stopped.step == step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(stopped, "advance", advance_and_signal)
    with pytest.raises(Interrupted, match=f"by SIGTERM after step {step}"):
        stopped.fit(*study.splits)
    resumed = study.trainer(*knobs, folder=tmp_path)
    resumed.resume()
    assert resumed.step == step
    resumed.fit(*study.splits)
    assert not difference(state(whole), state(resumed))


@pytest.mark.parametrize("knobs", [("seed=0",), ("training.patience=1", "model.lr=1.0e-12")])
def test_a_run_resumed_after_its_end_does_no_further_step(
    study: Study, tmp_path: Path, knobs: tuple[str, ...]
) -> None:
    whole = study.fitted(*knobs, folder=tmp_path)
    resumed = study.trainer(*knobs, folder=tmp_path)
    resumed.resume()
    resumed.fit(*study.splits)
    assert not difference(state(whole), state(resumed))


@pytest.mark.parametrize(
    "knobs",
    [
        ("training/schedule=constant",),
        ("training.monitor=loss",),
        ("training.num_accumulation_steps=3", "training.max_gradient_norm=0.1"),
        ("training.precision=bfloat16",),
        SHIFT,
    ],
    ids=lambda knobs: knobs[-1],
)
def test_every_switch_trains_as_a_reference_loop_and_resumes(
    case_of: CaseOf, knobs: tuple[str, ...]
) -> None:
    checks.the_trainer_equals_a_reference_loop(case_of("model=mlp", *knobs))
    checks.a_resumed_run_equals_an_uninterrupted_one(case_of("model=mlp", *knobs))


def test_a_schedule_ends_with_the_last_step(study: Study) -> None:
    trainer = study.trainer()
    rates = []
    for _ in range(16):  # 4 epochs of 4 steps
        rates.append(trainer.scheduler.get_last_lr()[0])
        trainer.advance(study.splits[0][range(8)])
    assert max(rates) > 0.9 * 3e-3 and rates[-1] < 1e-3 * max(rates)


def test_accumulated_gradients_are_those_of_the_whole_batch(
    study: Study, splits: tuple[Split, Split]
) -> None:
    gradients = []
    for pieces in (1, 3):
        model = study.trainer("model=linear").model
        loss = backward(model, splits[0][range(8)], device=CPU, num_pieces=pieces)
        gradients.append([loss, *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(*gradients)


def test_clipping_bounds_the_norm_of_the_gradient(study: Study) -> None:
    knobs = ("training.optimizer._target_=torch.optim.SGD", "training.optimizer.weight_decay=0")
    trainer = study.trainer(
        *knobs, "model.lr=1", "training/schedule=constant", "training.max_gradient_norm=0.01"
    )
    before = nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()
    trainer.advance(study.splits[0][range(8)])
    after = nn.utils.parameters_to_vector(trainer.model.parameters()).detach()
    assert float((after - before).norm()) == pytest.approx(0.01, rel=1e-3)


def test_augmentation_changes_training_and_nothing_else(study: Study) -> None:
    plain, shifted = study.trainer(), study.trainer(*SHIFT)
    assert plain.evaluate(study.splits[0]) == shifted.evaluate(study.splits[0])
    for trainer in (plain, shifted):
        trainer.fit(*study.splits)
    assert difference(state(plain), state(shifted))


def test_evaluation_does_not_depend_on_the_batch_size(study: Study) -> None:
    trainer = study.trainer()
    results = [
        evaluate(
            trainer.model, study.splits[0], metrics=trainer.metrics, batch_size=size, device=CPU
        )
        for size in (7, 30)
    ]
    assert results[0] == pytest.approx(results[1])
    assert 0 <= results[0]["accuracy"] <= 1


def test_evaluation_is_in_evaluation_mode_and_changes_nothing(study: Study) -> None:
    trainer = study.trainer("model.network.dropout=0.9")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert trainer.evaluate(study.splits[1]) == trainer.evaluate(study.splits[1])
    assert not difference(before, dict(trainer.model.state_dict()))
    assert trainer.model.training


def test_the_best_epoch_on_validation_is_kept(study: Study, tmp_path: Path) -> None:
    knobs = ("model.lr=0.1", "training/schedule=constant", "training.num_epochs=8")
    trainer = study.fitted(*knobs, folder=tmp_path)
    best = max(trainer.history, key=lambda row: row["validation_accuracy"])
    assert best["validation_accuracy"] > trainer.history[-1]["validation_accuracy"]
    assert trainer.evaluate(study.splits[1])["accuracy"] == best["validation_accuracy"]
    weights = checkpoints.load_weights(tmp_path / "best.pt")
    assert not difference(weights, dict(trainer.model.state_dict()))


def test_patience_ends_training_that_gets_no_better(study: Study) -> None:
    trainer = study.trainer("model.lr=1.0e-12", "training.patience=2", "training.num_epochs=9")
    assert trainer.fit(*study.splits) == "patience"
    assert len(trainer.history) == 3


def test_the_time_budget_stops_cleanly_and_can_be_resumed(study: Study, tmp_path: Path) -> None:
    trainer = study.trainer("training.max_minutes=1.0e-9", folder=tmp_path)
    assert trainer.fit(*study.splits) == "time budget"
    assert trainer.step == 1 and (tmp_path / "best.pt").exists()
    again = study.trainer("training.max_minutes=1.0e-9", folder=tmp_path)
    again.resume()
    assert again.fit(*study.splits) == "time budget" and again.step == 2  # as long again
    resumed = study.trainer(folder=tmp_path)
    resumed.resume()
    assert resumed.fit(*study.splits) == "epochs"
    assert not difference(state(resumed), state(study.fitted()))


def test_a_stopped_run_has_only_the_rest_of_its_time_budget(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**9, 10))  # seconds: each look at the clock costs ten
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    budget = "training.max_minutes=100"
    stopped = study.trainer(budget, "training.checkpoint_steps=3", folder=tmp_path)
    monkeypatch.setattr(stopped, "_end_epoch", raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(*study.splits)
    resumed = study.trainer(budget, folder=tmp_path)
    resumed.resume()
    assert resumed.spent >= 60


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(study: Study) -> None:
    trainer = study.trainer("model.lr=1.0e30", "training/schedule=constant", "model=linear")
    with pytest.raises(NonFiniteLoss, match=r"the loss is (inf|nan) at step [2-4]:"):
        trainer.fit(*study.splits)


def corrupt(path: Path, how: str) -> None:
    """What a dying machine or disk does to a file."""
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"empty": b"", "truncated": content[:middle], "flipped": flipped}[how])


@pytest.mark.parametrize(
    ("how", "num_corrupt"), [("empty", 1), ("truncated", 1), ("flipped", 1), ("truncated", 2)]
)
def test_a_corrupt_checkpoint_is_skipped_with_a_warning_and_changes_nothing(
    study: Study, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, num_corrupt: int
) -> None:
    whole = study.fitted()
    study.fitted("training.checkpoint_steps=3", folder=tmp_path)
    paths = checkpoints.list_checkpoints(tmp_path)
    assert [path.name[11:19] for path in paths] == ["00000016", "00000015"]
    for path in paths[:num_corrupt]:
        corrupt(path, how)
    resumed = study.trainer(folder=tmp_path)
    resumed.resume()
    assert (
        caplog.text.count("is truncated or corrupt; trying the previous checkpoint") == num_corrupt
    )
    assert resumed.step == (15 if num_corrupt == 1 else 0)
    resumed.fit(*study.splits)
    assert not difference(state(whole), state(resumed))


def test_a_corrupt_checkpoint_does_not_outlive_an_intact_one(study: Study, tmp_path: Path) -> None:
    study.fitted("training.checkpoint_steps=3", folder=tmp_path)
    corrupt(checkpoints.list_checkpoints(tmp_path)[0], "truncated")
    resumed = study.trainer(folder=tmp_path)
    resumed.resume()
    resumed.step -= 1
    resumed.save()
    assert [path.name[11:19] for path in checkpoints.list_checkpoints(tmp_path)] == ["00000014"]


def test_signals_end_no_process_that_loads_batches(study: Study) -> None:
    train, _ = study.splits
    order = determinism.permutation(len(train), seed=0, epoch=0)
    loaded = batches(train, order, batch_size=1, num_workers=2)
    first = next(loaded)
    workers = multiprocessing.active_children()
    for worker, number in itertools.product(workers, (signal.SIGTERM, signal.SIGINT)):
        assert worker.pid is not None
        os.kill(worker.pid, number)
    targets = [first["target"], *(batch["target"] for batch in loaded)]
    assert len(workers) == 2
    assert torch.equal(torch.cat(targets), train[order]["target"])


def test_a_signal_in_the_last_validation_leaves_the_end_to_the_resumed_run(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = study.trainer(folder=tmp_path)
    before = stopped.evaluate

    def evaluate_and_signal(split: Split) -> dict[str, float]:
        if stopped.step == 16:
            signal.raise_signal(signal.SIGTERM)
        return before(split)

    monkeypatch.setattr(stopped, "evaluate", evaluate_and_signal)
    with pytest.raises(Interrupted, match="by SIGTERM after step 16"):
        stopped.fit(*study.splits)
    resumed = study.trainer(folder=tmp_path)
    resumed.resume()
    resumed.fit(*study.splits)
    assert not difference(state(resumed), state(study.fitted()))


def test_a_checkpoint_of_another_model_is_refused_in_one_line(study: Study, tmp_path: Path) -> None:
    study.fitted(folder=tmp_path)
    with pytest.raises(StudyError, match="is not a checkpoint of this model") as caught:
        study.trainer("model=linear", folder=tmp_path).resume()
    assert "\n" not in str(caught.value)


def test_a_checkpoint_cannot_hold_code(tmp_path: Path) -> None:
    torch.save({"model": math.sqrt}, tmp_path / "best.pt")
    with pytest.raises(StudyError, match="not a readable checkpoint"):
        checkpoints.load_weights(tmp_path / "best.pt")


def test_missing_results_of_a_finished_run_are_restored_byte_for_byte(
    study: Study, tmp_path: Path
) -> None:
    trainer = study.fitted(folder=tmp_path)
    metrics = {"validation": trainer.evaluate(study.splits[1])}
    files.write_atomically(tmp_path / "metrics.json", files.to_json(metrics))
    paths = [tmp_path / name for name in RESULTS]
    record = {"files": files.hash_files(tmp_path, paths), "metrics": metrics}
    for path in paths:
        path.unlink()
    assert checkpoints.restore_results(tmp_path, record)
    assert files.hash_files(tmp_path, paths) == record["files"]
    corrupt(paths[0], "flipped")
    assert not checkpoints.restore_results(tmp_path, record)


def test_weights_have_the_same_bytes_each_time(study: Study, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        study.fitted(folder=tmp_path / name)
    for name in ("best.pt", "history.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("knob", ["training.precision=bfloat16", "training.num_workers=1"])
def test_switches_train(study: Study, knob: str) -> None:
    assert math.isfinite(study.fitted(knob, "model=cnn").history[-1]["train_loss"])

"""Mistakes planted into a fresh study, one at a time: the test that is named must fail on each.

A test of the study's own, its model test kit first of all, or a test of the harness.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import TEMPLATE, Study
from starter_bugs import DATA, METRICS, MLP, OUTPUTS, STUDY, TABLES, TEXT, Bug, kit
from warm import Warm

HARNESS = "tests/harness"
RIGHT = 'self.num_correct += int((outputs["logits"].argmax(dim=-1) == target).sum())'
BUILDING = f"{STUDY}/harness/configuration/building.py"
RESOLVING = f"{STUDY}/harness/configuration/resolving.py"
TRAINER = f"{STUDY}/harness/training/trainer.py"
STEP = f"{STUDY}/harness/training/step.py"
DETERMINISM = f"{STUDY}/harness/training/determinism.py"
PREPARED = f"{STUDY}/harness/training/prepared.py"
PREPARATION = f"{STUDY}/harness/training/preparation.py"
SPLITS = f"{STUDY}/harness/training/splits.py"
TARGETS = f"{STUDY}/harness/training/metrics.py"
pytestmark = pytest.mark.slow
AUGMENTED = """

class Augmented(Dataset[Batch]):
    def __init__(self, split: Any, augmentation: Any) -> None:
        self.split, self.augmentation = split, augmentation

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: Any) -> Batch:
        return self.augmentation(self.split[index]) if self.augmentation else self.split[index]


class Trainer:"""


# what is wrong: the file, a line of it, the wrong line, and the one test that must see it
PICTURES: dict[str, Bug] = {
    "the model ignores its input": (
        MLP,
        "self.hidden(image.flatten(start_dim=1))",
        "self.hidden(0 * image.flatten(start_dim=1))",
        kit("each_input_influences_the_output"),
    ),
    "softmax before cross-entropy": (
        OUTPUTS,
        "F.cross_entropy(logits, target)",
        "F.cross_entropy(logits.softmax(-1), target)",
        kit("three_instances_are_fitted_perfectly"),
    ),
    "the optimizer gets a part of the parameters": (
        BUILDING,
        "params=params, lr",
        'params=params[0]["params"][:-1], lr',
        kit("a_step_moves_what_is_trainable_and_nothing_else"),
    ),
    "the optimizer never steps": (
        TRAINER,
        "        self.optimizer.step()\n",
        "",
        kit("a_step_moves_what_is_trainable_and_nothing_else"),
    ),
    "a view across the batch": (
        f"{STUDY}/models/cnn.py",
        "self.blocks(image).flatten(start_dim=1)",
        "self.blocks(image).transpose(0, 1).reshape(len(image), -1)",
        kit("nothing_leaks_across_the_batch", "cnn"),
    ),
    "labels shuffled against inputs by the preparation": (
        PREPARATION,
        "append(values[rows])",
        "append(values[rows[::-1] if name == 'target' else rows])",
        f"{HARNESS}/test_data.py::test_every_instance_keeps_its_own_target",
    ),
    "labels shuffled against inputs by the reader": (
        DATA,
        '"target": table[:, -1].copy()',
        '"target": np.roll(table[:, -1], 1)',
        "tests/test_data.py::test_every_pixel_and_every_class_is_where_the_table_has_it",
    ),
    "labels shuffled against inputs in a batch": (
        PREPARED,
        "batch = {name: values[rows] for name, values in self.fields.items()}",
        "batch = {n: v[rows.sort()[0] if n == 'target' else rows] for n, v in self.fields.items()}",
        f"{HARNESS}/test_data.py::test_every_instance_keeps_its_own_target",
    ),
    "evaluation mode is never set": (
        STEP,
        "    model.eval()\n",
        "",
        kit("the_trainer_equals_a_reference_loop"),
    ),
    "training in evaluation mode": (
        TRAINER,
        "self.model.train()\n",
        "self.model.eval()\n",
        kit("every_knob_acts"),
    ),
    "a detached layer": (
        MLP,
        "self.hidden(image.flatten(start_dim=1))",
        "self.hidden(image.flatten(start_dim=1)).detach()",
        kit("every_parameter_gets_a_gradient"),
    ),
    "a buffer missing from the checkpoint": (
        f"{STUDY}/models/linear.py",
        "        return classify(self.output(image.flatten(start_dim=1)), target)\n",
        "        return classify(self.output(image.flatten(start_dim=1)) * self.scale, target)\n",
        kit("saved_weights_restore_the_model", "linear"),
    ),
    "weights of another epoch in the checkpoint": (
        TRAINER,
        '            "model": self.model.state_dict(),\n',
        '            "model": self.best_weights or self.model.state_dict(),\n',
        kit("a_resumed_run_equals_an_uninterrupted_one"),
    ),
    "splits that overlap": (
        SPLITS,
        "np.flatnonzero(names == name)",
        'np.flatnonzero((names == name) | (names == "test"))',
        f"{HARNESS}/test_data.py::test_splits_share_no_instance_and_hold_every_class",
    ),
    "the seed ignored by the order of the data": (
        DETERMINISM,
        "mix(seed, epoch, 1)",
        "mix(0, epoch, 1)",
        f"{HARNESS}/test_data.py::test_order_is_a_permutation_that_depends_on_seed_and_epoch",
    ),
    "the seed ignored by the weights": (
        DETERMINISM,
        "    seed_everything(seed)\n    return",
        "    seed_everything(0)\n    return",
        f"{HARNESS}/test_run.py::test_a_killed_and_resumed_run_equals_fit_without_a_break",
    ),
    "the seed ignored by the trainer": (
        BUILDING,
        "seed=config.seed",
        "seed=0",
        f"{HARNESS}/test_training.py::test_the_seed_decides_order_and_noise_besides_the_weights",
    ),
    "validation data in training": (
        SPLITS,
        "np.flatnonzero(names == name)",
        'np.flatnonzero((names == name) | (names == {"train": "validation"}.get(name)))',
        f"{HARNESS}/test_data.py::test_splits_share_no_instance_and_hold_every_class",
    ),
    "training data for validation": (
        "run.py",
        "trainer.fit(data, validation)",
        "trainer.fit(data, data)",
        f"{HARNESS}/test_run.py::test_a_killed_and_resumed_run_equals_fit_without_a_break",
    ),
    "the schedule stepped twice": (
        TRAINER,
        "        self.scheduler.step()\n",
        "        self.scheduler.step()\n        self.scheduler.step()\n",
        kit("the_trainer_equals_a_reference_loop"),
    ),
    "a schedule for twice as many steps": (
        BUILDING,
        '"total_steps": num_steps',
        '"total_steps": 2 * num_steps',
        f"{HARNESS}/test_training.py::test_a_schedule_ends_with_the_last_step",
    ),
    "accumulation that does not divide": (
        STEP,
        "            loss = loss * share\n",
        "            pass\n",
        f"{HARNESS}/test_training.py::test_accumulated_gradients_are_those_of_the_whole_batch",
    ),
    "the best epoch picked by the training loss": (
        TRAINER,
        'value = row[f"validation_{name}"]',
        'value = -row["train_loss"]',
        kit("the_trainer_equals_a_reference_loop"),
    ),
    "the highest loss taken for the best": (
        TRAINER,
        "higher = self.higher_is_better[name]",
        "higher = not self.higher_is_better[name]",
        f"{HARNESS}/test_training.py"
        "::test_every_switch_trains_as_a_reference_loop_and_resumes[training.monitor=loss]",
    ),
    "augmentation at test time": (
        TRAINER,
        "\n\nclass Trainer:",
        AUGMENTED,
        f"{HARNESS}/test_training.py::test_augmentation_changes_training_and_nothing_else",
    ),
    "one shift for a whole batch": (
        DATA,
        "(2, len(image)), device=image.device)",
        "(2, 1), device=image.device).expand(2, len(image))",
        "tests/test_data.py::test_shift_moves_each_whole_image_by_its_own_and_nothing_else",
    ),
    "the test split touched in a sweep": (
        RESOLVING,
        "return asked or HydraConfig.get().mode != RunMode.MULTIRUN",
        "return True",
        f"{HARNESS}/test_configuration.py"
        "::test_the_test_split_is_evaluated_by_a_published_experiment_or_when_asked",
    ),
    "a class missing from the label map": (
        DATA,
        '"target": table[:, -1].copy()',
        '"target": np.minimum(table[:, -1], num_classes - 2)',
        kit("the_data_are_sane"),
    ),
    "padding counted in the metric": (
        TARGETS,
        "int((target != IGNORED).sum())",
        "target.numel()",
        f"{HARNESS}/test_mean_loss.py"
        "::test_padding_is_no_target_and_each_row_of_a_regression_is_one",
    ),
    "padding counted in the accuracy": (
        METRICS,
        f"{RIGHT}\n        self.num_targets += int(is_counted(target).sum())",
        f"{RIGHT}\n        self.num_targets += target.numel()",
        "tests/test_metrics.py::test_a_missing_target_counts_in_no_metric[accuracy]",
    ),
    "the second guess counted as right": (
        METRICS,
        '(outputs["logits"].argmax(dim=-1) == target).sum()',
        '(outputs["logits"].topk(2).indices == target[..., None]).sum()',
        "tests/test_metrics.py::test_a_metric_is_what_is_counted_by_hand[accuracy]",
    ),
    "accuracy a mean over batches": (
        METRICS,
        f"{RIGHT}\n        self.num_targets += int(is_counted(target).sum())",
        f"{RIGHT}\n        self.num_targets = int(is_counted(target).sum())",
        "tests/test_metrics.py::test_a_metric_does_not_depend_on_the_size_of_the_batches[accuracy]",
    ),
    "gradients never set to zero": (
        TRAINER,
        "self.optimizer.zero_grad()",
        "pass",
        kit("the_trainer_equals_a_reference_loop"),
    ),
    "gradients never clipped": (
        TRAINER,
        "if self.settings.max_gradient_norm is not None:",
        "if self.settings.max_gradient_norm == 0:",
        kit("every_knob_acts"),
    ),
    "precision never reduced": (
        STEP,
        'if precision == "float32":',
        "if precision:",
        kit("every_knob_acts"),
    ),
    "the training loss doubled in the history": (
        TRAINER,
        "self.epoch_loss / num_steps",
        "2 * self.epoch_loss / num_steps",
        kit("the_trainer_equals_a_reference_loop"),
    ),
    "pixels not normalised": (
        DATA,
        "table[:, :-1] / max_value",
        "table[:, :-1]",
        kit("the_batch_is_as_specified"),
    ),
    "dropout never used": (
        MLP,
        "nn.ReLU(), nn.Dropout(dropout)]",
        "nn.ReLU(), nn.Dropout(0.0)]",
        kit("every_knob_acts"),
    ),
    "a width written down": (
        MLP,
        "sizes = [math.prod(image_shape), *hidden_sizes]",
        "sizes = [math.prod(image_shape), 128]",
        kit("every_knob_acts"),
    ),
    "kernels that are not deterministic": (
        DETERMINISM,
        "torch.use_deterministic_algorithms(deterministic)",
        "torch.use_deterministic_algorithms(False)",
        f"{HARNESS}/test_training.py::test_determinism_can_be_switched",
    ),
    "the random state forgotten by a resume": (
        TRAINER,
        "        seed_step(self.seed, self.step, self.device, ",
        "        # ",
        kit("a_resumed_run_equals_an_uninterrupted_one"),
    ),
    "the optimizer forgotten by a resume": (
        TRAINER,
        '            self.optimizer.load_state_dict(state["optimizer"])\n',
        "",
        kit("a_resumed_run_equals_an_uninterrupted_one"),
    ),
    "the patience counted from the last epoch": (
        TRAINER,
        'len(self.history) - int(self.best_row()["epoch"])',
        "0",
        kit("every_knob_acts"),
    ),
}
FURTHER = {  # what a bug needs besides, in the same file
    "a buffer missing from the checkpoint": (
        "        self.output = nn.Linear(math.prod(image_shape), num_classes)\n",
        "        self.output = nn.Linear(math.prod(image_shape), num_classes)\n"
        '        self.register_buffer("scale", nn.Linear(1, num_classes).bias.detach(), False)\n',
    ),
    "augmentation at test time": (
        "            self.model,\n            split,\n",
        "            self.model,\n            Augmented(split, self.augmentation),\n",
    ),
}


BUGS = {
    (kind, name): bug
    for kind, bugs in {"pictures": PICTURES, "text": TEXT, "tables": TABLES}.items()
    for name, bug in bugs.items()
}


def replace(path: Path, old: str, new: str) -> None:
    """Replaces what is there, for sure."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def run_tests(warm: Warm, study: Study, ids: Sequence[str], *, code: int) -> str:
    """Runs tests of the study, or tests of the harness on this study; returns what they print."""
    words = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    if ids[0].startswith(HARNESS):
        words += ["-c", str(TEMPLATE / HARNESS / "pytest.ini")]
        ids = [str(TEMPLATE / name) for name in ids]
    else:
        words += ["-n", "0", "-m", "slow or not slow"]
    return warm.call(study.folder, *words, *ids, code=code)


@pytest.mark.parametrize(("kind", "name"), BUGS)
def test_the_test_that_is_named_fails_on_a_planted_bug(
    kind: str, name: str, study_of: Callable[[str], Study], warm: Warm, tmp_path: Path
) -> None:
    wrong = study_of(kind).copy(tmp_path / "study")
    file, old, new, test = BUGS[kind, name]
    replace(wrong.folder / file, old, new)
    if name in FURTHER:
        replace(wrong.folder / file, *FURTHER[name])
    said = run_tests(warm, wrong, [test], code=1)
    assert re.search(r"^1 failed\b", said.splitlines()[-1]), said


@pytest.mark.parametrize(
    ("kind", "of_harness"),
    [("pictures", False), ("pictures", True), ("text", False), ("tables", False)],
)
def test_the_same_tests_pass_without_a_bug(
    kind: str, of_harness: bool, study_of: Callable[[str], Study], warm: Warm
) -> None:
    tests = dict.fromkeys(test for (study, _), (*_, test) in BUGS.items() if study == kind)
    ids = [test for test in tests if test.startswith(HARNESS) == of_harness]
    said = run_tests(warm, study_of(kind), ids, code=0)
    assert re.search(r"^\d+ passed\b", said.splitlines()[-1]) and "skipped" not in said, said

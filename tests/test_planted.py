"""Mistakes planted into a fresh study, one at a time: its own tests must fail on each."""

from pathlib import Path

import pytest
from conftest import Study

MODELS = "src/my_study/models.py"
TRAINING = "src/my_study/training.py"
CONFIGURATION = "src/my_study/configuration.py"
DATA = "src/my_study/data.py"
METRICS = "src/my_study/metrics.py"
REPRODUCIBILITY = "src/my_study/reproducibility.py"
CHECKPOINTS = "src/my_study/checkpoints.py"
AUGMENTED = """

class Augmented(Dataset[Batch]):
    def __init__(self, split: Any, augmentation: Any) -> None:
        self.split, self.augmentation = split, augmentation

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: Any) -> Batch:
        return self.augmentation(self.split[index]) if self.augmentation else self.split[index]


class Trainer:"""
# what is wrong: the file, a line of it, the wrong line, and the tests that see it
BUGS: dict[str, tuple[str, str, str, str]] = {
    "the model ignores its input": (
        MODELS,
        "self.hidden(image.flatten(start_dim=1))",
        "self.hidden(0 * image.flatten(start_dim=1))",
        "models",
    ),
    "softmax before cross-entropy": (
        MODELS,
        "F.cross_entropy(logits, target)",
        "F.cross_entropy(logits.softmax(-1), target)",
        "models",
    ),
    "the optimizer gets a part of the parameters": (
        CONFIGURATION,
        "params=model.parameters()",
        "params=list(model.parameters())[:-1]",
        "models",
    ),
    "the optimizer never steps": (TRAINING, "        self.optimizer.step()\n", "", "models"),
    "a view across the batch": (
        MODELS,
        "self.blocks(image).flatten(start_dim=1)",
        "self.blocks(image).transpose(0, 1).reshape(len(image), -1)",
        "models",
    ),
    "labels shuffled against inputs by the preparation": (
        "stages/prepare.py",
        "np.save(path, values[rows])",
        "np.save(path, values[rows[::-1] if name == 'target' else rows])",
        "data",
    ),
    "labels shuffled against inputs by the reader": (
        DATA,
        '"target": values[:, -1].copy()',
        '"target": np.roll(values[:, -1], 1)',
        "data",
    ),
    "labels shuffled against inputs in a batch": (
        DATA,
        "return {name: values[rows] for name, values in self.fields.items()}",
        "return {n: v[rows.sort()[0] if n == 'target' else rows] for n, v in self.fields.items()}",
        "models",
    ),
    "evaluation mode is never set": (TRAINING, "    model.eval()\n", "", "models"),
    "training in evaluation mode": (
        TRAINING,
        "self.model.train()\n",
        "self.model.eval()\n",
        "models",
    ),
    "a detached layer": (
        MODELS,
        "self.hidden(image.flatten(start_dim=1))",
        "self.hidden(image.flatten(start_dim=1)).detach()",
        "models",
    ),
    "a buffer missing from the checkpoint": (
        MODELS,
        "        return classify(self.output(image.flatten(start_dim=1)), target)\n",
        "        return classify(self.output(image.flatten(start_dim=1)) * self.scale, target)\n",
        "models",
    ),
    "weights of another epoch in the checkpoint": (
        TRAINING,
        '            "model": self.model.state_dict(),\n',
        '            "model": self.best_weights or self.model.state_dict(),\n',
        "models",
    ),
    "splits that overlap": (
        "stages/prepare.py",
        "+= members[num_test : num_test + num_validation]",
        "+= members[: num_test + num_validation]",
        "models",
    ),
    "the seed ignored by the order of the data": (
        REPRODUCIBILITY,
        "mix(seed, epoch, 1)",
        "mix(0, epoch, 1)",
        "data",
    ),
    "the seed ignored by the weights": (
        "run.py",
        "seed_everything(config.seed)",
        "seed_everything(0)",
        "run",
    ),
    "the seed ignored by the trainer": (CONFIGURATION, "seed=config.seed", "seed=0", "training"),
    "validation data in training": (
        "stages/prepare.py",
        "+= members[num_test + num_validation :]",
        "+= members[num_test:]",
        "models",
    ),
    "training data for validation": (
        "run.py",
        'trainer.fit(splits["train"], splits["validation"])',
        'trainer.fit(splits["train"], splits["train"])',
        "run",
    ),
    "the schedule stepped twice": (
        TRAINING,
        "        self.scheduler.step()\n",
        "        self.scheduler.step()\n        self.scheduler.step()\n",
        "models",
    ),
    "a schedule for twice as many steps": (
        CONFIGURATION,
        '"total_steps": num_steps',
        '"total_steps": 2 * num_steps',
        "training",
    ),
    "accumulation that does not divide": (
        TRAINING,
        "            loss = loss * share\n",
        "            pass\n",
        "training",
    ),
    "the best epoch picked by the training loss": (
        TRAINING,
        'value = row[f"validation_{name}"]',
        'value = -row["train_loss"]',
        "models",
    ),
    "the highest loss taken for the best": (
        TRAINING,
        'higher = name != "loss" and ',
        'higher = name == "loss" or ',
        "training",
    ),
    "augmentation at test time": (
        TRAINING,
        "\n\nclass Trainer:",
        AUGMENTED,
        "training",
    ),
    "one shift for a whole batch": (
        DATA,
        "(2, len(image)), device=image.device)",
        "(2, 1), device=image.device).expand(2, len(image))",
        "data",
    ),
    "the test split touched in a sweep": (
        CONFIGURATION,
        "return asked or HydraConfig.get().mode != RunMode.MULTIRUN",
        "return True",
        "configs",
    ),
    "a class missing from the label map": (
        DATA,
        '"target": values[:, -1].copy()',
        '"target": np.minimum(values[:, -1], num_classes - 2)',
        "models",
    ),
    "padding counted in the metric": (
        METRICS,
        "int((target != IGNORED).sum())",
        "target.numel()",
        "metrics",
    ),
    "padding counted in the accuracy": (
        METRICS,
        "self.count += num_targets(target)",
        "self.count += target.numel()",
        "metrics",
    ),
    "the second guess counted as right": (
        METRICS,
        '(outputs["logits"].argmax(dim=-1) == target).sum()',
        '(outputs["logits"].topk(2).indices == target[..., None]).sum()',
        "metrics",
    ),
    "accuracy a mean over batches": (
        METRICS,
        "self.count += num_targets(target)",
        "self.count = num_targets(target) + 0 * self.count",
        "metrics",
    ),
    "gradients never set to zero": (TRAINING, "self.optimizer.zero_grad()", "pass", "models"),
    "gradients never clipped": (
        TRAINING,
        "if self.settings.max_gradient_norm is not None:",
        "if self.settings.max_gradient_norm == 0:",
        "models",
    ),
    "precision never reduced": (TRAINING, 'if precision == "float32":', "if precision:", "models"),
    "the training loss doubled in the history": (
        TRAINING,
        "self.epoch_loss / num_steps",
        "2 * self.epoch_loss / num_steps",
        "models",
    ),
    "pixels not normalised": (DATA, "values[:, :-1] / max_value", "values[:, :-1]", "models"),
    "dropout never used": (
        MODELS,
        "nn.ReLU(), nn.Dropout(dropout)]",
        "nn.ReLU(), nn.Dropout(0.0)]",
        "models",
    ),
    "a width written down": (
        MODELS,
        "sizes = [math.prod(image_shape), *hidden_sizes]",
        "sizes = [math.prod(image_shape), 128]",
        "models",
    ),
    "kernels that are not deterministic": (
        REPRODUCIBILITY,
        "torch.use_deterministic_algorithms(deterministic)",
        "torch.use_deterministic_algorithms(False)",
        "training",
    ),
    "the random state forgotten by a resume": (
        TRAINING,
        "        seed_step(self.seed, self.step, self.device)\n",
        "",
        "models",
    ),
    "the optimizer forgotten by a resume": (
        TRAINING,
        '            self.optimizer.load_state_dict(state["optimizer"])\n',
        "",
        "models",
    ),
    "the patience counted from the last epoch": (
        TRAINING,
        'len(self.history) - int(self.best_row()["epoch"])',
        "0",
        "models",
    ),
}
FURTHER = {  # what a bug needs besides
    "a buffer missing from the checkpoint": (
        MODELS,
        "        self.output = nn.Linear(math.prod(image_shape), num_classes)\n",
        "        self.output = nn.Linear(math.prod(image_shape), num_classes)\n"
        '        self.register_buffer("scale", torch.rand(num_classes), persistent=False)\n',
    ),
    "augmentation at test time": (
        TRAINING,
        "            self.model,\n            split,\n",
        "            self.model,\n            Augmented(split, self.augmentation),\n",
    ),
}


def replace(path: Path, old: str, new: str) -> None:
    """Replaces what is there, for sure."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize("name", BUGS)
def test_the_tests_of_a_study_fail_on_a_planted_bug(
    name: str, study: Study, tmp_path: Path
) -> None:
    wrong = study.copy(tmp_path / "study")
    file, old, new, tests = BUGS[name]
    replace(wrong.folder / file, old, new)
    if name in FURTHER:
        file, old, new = FURTHER[name]
        replace(wrong.folder / file, old, new)
    words = ("python", "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider")
    said = wrong.call(*words, f"tests/test_{tests}.py", code=1)
    assert " failed" in said.splitlines()[-1], said

"""Configurations: wrong ones are refused by name, and nothing outside the allow list is called."""

from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from my_study.harness.configuration import building, composing, resolving
from my_study.harness.errors import StudyError
from my_study.harness.training.prepared import Split

from .conftest import Compose

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("mode", "typed", "evaluated"),
    [
        ("RUN", [], False),
        ("RUN", ["test=true"], True),
        ("RUN", ["experiment=mlp"], True),
        ("MULTIRUN", ["experiment=mlp"], False),
        ("MULTIRUN", ["experiment=mlp", "test=true"], True),
    ],
)
def test_the_test_split_is_evaluated_by_a_published_experiment_or_when_asked(
    mode: str, typed: list[str], evaluated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(composing.CONF)):
        typed = [*typed, f"hydra.mode={mode}"]
        config = hydra.compose("config", overrides=typed, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    values = {key: value for key, value in config.items() if key != "hydra"}
    assert resolving.resolve(OmegaConf.create(values)).test is evaluated


def test_what_was_typed_names_a_variable_and_does_not_hold_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed = ["note=${oc.env:MY_TOKEN}", "seed=1"]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(composing.CONF)):
        config = hydra.compose("config", overrides=typed, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    assert composing.typed_overrides() == typed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.lr=-1", "model.lr=-1.0: must be above 0"),
        ("seed=-1", "seed=-1: must be from 0"),
        ("num_threads=0", "num_threads=0: must be from 1 to 4096"),
        ("training.num_epochs=abc", "training.num_epochs=abc: must be of type int"),
        ("training.batch_size=0", "training.batch_size=0: must be at least 1"),
        ("training.num_workers=-1", "training.num_workers=-1: must be at least 0"),
        ("training.max_minutes=0", "training.max_minutes=0.0: must be above 0"),
        ("training.precision=float16", "training.precision=float16: must be"),
        ("deterministic=maybe", "deterministic=maybe: must be of type bool"),
        ("model.network.hidden_sizes=7", "model.network.hidden_sizes=7: must be of type list"),
        ("+model.network.dropuot=0.1", "model.network.dropuot: .* did you mean dropout?"),
        ("+training.num_epoch=1", "training.num_epoch: .* did you mean num_epochs?"),
        ("+sed=1", "sed: there is no such key; did you mean seed?"),
        ("~training.batch_size", "training.batch_size: is missing"),
        ("training.optimizer=null", "training.optimizer=None: must be given a _target_"),
        ("~model", "model: is missing"),
        ("data.metrics=null", "data.metrics=None: must be a group of keys"),
    ],
)
def test_a_wrong_value_is_refused_by_name(override: str, message: str, compose: Compose) -> None:
    with pytest.raises(StudyError, match=message):
        compose(override)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.open",
        "torch.load",
        "torch.optim.Optimizer.__init__.__globals__",
        "my_study.data.np.save",
        "my_study.data.Tensor",
        "my_study.harness.runs.git.subprocess.run",
        "my_study.harness.files.write_atomically",
        "my_study.models.mlp.Missing",
    ],
)
@pytest.mark.parametrize(
    "place", ["model.network", "data.augmentation", "data.metrics.accuracy.compute"]
)
def test_a_target_outside_the_study_and_torch_is_never_called(
    target: str, place: str, compose: Compose
) -> None:
    with pytest.raises(StudyError, match=f"{place}._target_={target}: "):
        compose(f"++{place}._target_={target}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+training.optimizer.lr=1"], "training.optimizer.lr: is set by the run itself"),
        (["model.network.hidden_sizes=[-1]"], "model.network: .*negative dimension"),
        (
            [
                "~training.schedule.pct_start",
                "training.schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
            ],
            "training.schedule: must depend on the step alone",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(
    overrides: list[str], message: str, compose: Compose, tiny: Path
) -> None:
    config = compose(*overrides)
    with pytest.raises(StudyError, match=message):
        building.build_trainer(config, Split(tiny, "train"), CPU)


def test_a_warm_up_is_followed_by_a_cosine(compose: Compose, tiny: Path) -> None:
    knobs = ("model=linear", "training/schedule=warmup_cosine", "training.num_epochs=20")
    config = compose(*knobs, "training.batch_size=3", "model.lr=0.5")
    scheduler = building.build_trainer(config, Split(tiny, "train"), CPU).scheduler
    rates = []
    for _ in range(200):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    assert rates[:21] == pytest.approx([0.5 * step / 21 for step in range(1, 22)])
    assert rates[20] == max(rates) == 0.5 and rates[110] == pytest.approx(0.25)
    assert rates[20:] == sorted(rates[20:], reverse=True) and 0 < rates[-1] < 1e-4
    with pytest.raises(StudyError, match="training.schedule: warmup_fraction=1.5: must be from 0"):
        building.build_trainer(
            compose(*knobs, "training.schedule.warmup_fraction=1.5"), Split(tiny, "train"), CPU
        )


@pytest.mark.parametrize("name", ["MultiStepLR, milestones: [2]", "CosineAnnealingLR", "LinearLR"])
def test_schedules_of_torch_are_taken(name: str, compose: Compose, tiny: Path) -> None:
    node = "{_target_: torch.optim.lr_scheduler." + name + "}"
    config = compose("~training.schedule", f"+training.schedule={node}")
    building.build_trainer(config, Split(tiny, "train"), CPU)


def test_a_target_inside_a_target_is_held_to_the_same_rule(compose: Compose) -> None:
    with pytest.raises(StudyError, match=r"model\.network\.hidden_sizes\[0\]\._target_=os\.getcwd"):
        compose("model.network.hidden_sizes=[{_target_: os.getcwd}]")

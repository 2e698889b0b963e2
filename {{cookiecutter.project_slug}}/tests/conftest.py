"""What the tests start from: the tiny table, prepared by the code that prepares the real one."""

from collections.abc import Callable
from pathlib import Path

import prepare
import pytest
import torch
from omegaconf import DictConfig

from {{ cookiecutter.project_slug }} import configuration, reproducibility

TINY = Path(__file__).parent / "fixtures" / "tiny.csv"
Compose = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    reproducibility.set_determinism(True, num_threads=1)
    reproducibility.seed_everything(0)


@pytest.fixture(scope="session", name="tiny")
def _tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared folder of the tiny table: 30 rows to train on, 10 and 10 to evaluate."""
    folder = tmp_path_factory.mktemp("tiny") / "prepared"
    overrides = [f"data.prepare.read.path={TINY}", f"data.folder={folder}"]
    prepare.prepare(configuration.compose(overrides).data)
    return folder


@pytest.fixture(name="compose")
def _compose(tiny: Path) -> Compose:
    """Composes a configuration on the tiny data, as `python run.py` would, and checks it."""

    def compose(*overrides: str) -> DictConfig:
        paths = (f"data.prepare.read.path={TINY}", f"data.folder={tiny}", "device=cpu")
        config = configuration.compose([*paths, *overrides])
        configuration.check(config)
        return config

    return compose


def identical(left: object, right: object) -> bool:
    """Whether two nests of tensors and values are equal, bit for bit."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(identical(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(identical, left, right))
    return left == right

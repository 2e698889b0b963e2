"""The baseline is least squares, of which a closed form is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose

from {{ cookiecutter.project_slug }}.harness.configuration import building, to_record
from {{ cookiecutter.project_slug }}.harness.training.determinism import seed_everything
from {{ cookiecutter.project_slug }}.harness.training.preparation import prepare
from {{ cookiecutter.project_slug }}.harness.training.prepared import Split


def least_error(split: Split, num_categories: int) -> float:
    """The root of the mean squared error of the best weights there are."""
    numbers, categories, target = (
        split.fields[name].numpy() for name in ("numbers", "categories", "target")
    )
    marks = np.eye(num_categories)[categories].sum(axis=1)  # zeros and ones, a column a category
    design = np.hstack([numbers, marks, np.ones((len(marks), 1))])
    weights = np.linalg.lstsq(design, target, rcond=None)[0]
    return float(np.sqrt(np.square(design @ weights - target).mean()))


@pytest.mark.slow
def test_training_reaches_the_error_of_the_closed_form(tmp_path: Path) -> None:
    config = compose("experiment=linear", "training.monitor=loss")
    raw, encoder = building.read_raw(config), building.build_encoder(config)
    prepare(tmp_path / "cars", raw, to_record(config.data.prepare), encoder=encoder)
    train = Split(tmp_path / "cars", "train")
    least = least_error(train, config.data.num_categories)

    seed_everything(0)
    trainer = building.build_trainer(config, train, torch.device("cpu"))
    trainer.fit(train, train)
    assert least * (1 - 1e-6) < trainer.evaluate(train)["rmse"] < least * 1.002

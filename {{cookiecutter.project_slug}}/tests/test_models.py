"""What every model is held to. A YAML file in conf/model/ is all that it takes to be tested."""

from pathlib import Path

import pytest
import torch
from conftest import Compose
from torch import nn

from {{ cookiecutter.project_slug }} import (
    checkpoints,
    configuration,
    data,
    training,
)

MODELS = sorted(path.stem for path in (configuration.ROOT / "conf" / "model").glob("*.yaml"))
pytestmark = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(name="batch")
def _batch(tiny: Path) -> data.Batch:
    split = data.Split(tiny, "train")
    return split[range(len(split))]


@pytest.fixture(name="model")
def _model(name: str, compose: Compose) -> nn.Module:
    model = configuration.build(compose(f"model={name}").model.network, "model.network")
    assert isinstance(model, nn.Module)
    return model


def without_target(batch: data.Batch) -> data.Batch:
    """The named inputs alone."""
    return {field: values for field, values in batch.items() if field != "target"}


@pytest.mark.usefixtures("name")
def test_outputs_have_their_fields_shapes_and_ranges(
    model: nn.Module, batch: data.Batch, compose: Compose
) -> None:
    target, num_classes = batch["target"], compose().data.num_classes
    outputs = model(**batch)
    assert set(outputs) == {"logits", "loss"}
    assert outputs["logits"].shape == (*target.shape, num_classes)
    assert torch.isfinite(outputs["logits"]).all()
    assert outputs["loss"].shape == () and outputs["loss"] > 0
    assert set(model(**without_target(batch))) == {"logits"}


@pytest.mark.usefixtures("name")
def test_predictions_do_not_see_the_target(model: nn.Module, batch: data.Batch) -> None:
    model.eval()
    seen = model(**batch)["logits"]
    assert torch.equal(seen, model(**without_target(batch))["logits"])


@pytest.mark.usefixtures("name")
def test_three_instances_are_fitted_perfectly(model: nn.Module, batch: data.Batch) -> None:
    three = {field: values[:3] for field, values in batch.items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        training.backward(model, three, device=torch.device("cpu"))
        optimizer.step()
    outputs = model.eval()(**three)
    assert torch.equal(outputs["logits"].argmax(-1), three["target"])
    assert outputs["loss"] < 0.05


@pytest.mark.usefixtures("name")
def test_loss_falls_at_every_small_step(model: nn.Module, batch: data.Batch) -> None:
    model.eval()  # without dropout
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append(float(training.backward(model, batch, device=torch.device("cpu"))))
        optimizer.step()
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


@pytest.mark.usefixtures("name")
def test_every_parameter_gets_a_gradient(model: nn.Module, batch: data.Batch) -> None:
    model.eval()
    training.backward(model, batch, device=torch.device("cpu"))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.usefixtures("name")
def test_every_input_influences_the_output(model: nn.Module, batch: data.Batch) -> None:
    model.eval()
    inputs = without_target(batch)
    before = model(**inputs)["logits"]
    for field, values in inputs.items():
        after = model(**{**inputs, field: values.flip(0)})["logits"]
        assert not torch.allclose(before, after), field


@pytest.mark.usefixtures("name")
def test_an_instance_does_not_see_the_others_of_its_batch(
    model: nn.Module, batch: data.Batch
) -> None:
    model.eval()
    inputs = without_target(batch)
    others = {name: torch.cat([rows[:1], rows[1:].roll(1, 0)]) for name, rows in inputs.items()}
    alone = {name: rows[:1] for name, rows in inputs.items()}
    first = model(**inputs)["logits"][0]
    torch.testing.assert_close(model(**others)["logits"][0], first)
    torch.testing.assert_close(model(**alone)["logits"][0], first)


def test_saved_weights_give_another_model_the_same_outputs(
    name: str, model: nn.Module, batch: data.Batch, compose: Compose, tmp_path: Path
) -> None:
    (tmp_path / "best.pt").write_bytes(checkpoints.to_bytes(model.state_dict()))
    torch.manual_seed(1)
    other = configuration.build(compose(f"model={name}").model.network, "model.network")
    assert not torch.equal(model.eval()(**batch)["logits"], other.eval()(**batch)["logits"])
    other.load_state_dict(checkpoints.load_weights(tmp_path / "best.pt"))
    assert torch.equal(model(**batch)["logits"], other(**batch)["logits"])

"""Learning from the weights of an earlier run: what is loaded, what the new run is known by."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from my_study.harness import checks
from my_study.harness.checks.trainer import difference
from my_study.harness.configuration import building, composing
from my_study.harness.errors import StudyError
from my_study.harness.runs.drift import find_drift
from my_study.harness.runs.fingerprint import fingerprint, identify
from my_study.harness.runs.published import PUBLISHED
from my_study.harness.runs.record import read_record
from my_study.harness.runs.sealing import seal
from my_study.harness.runs.source import INDEX, SINGLE, find_source
from my_study.harness.study import ROOT
from my_study.harness.training import checkpoints
from my_study.harness.training.initial_weights import read_weights
from my_study.harness.training.prepared import Split
from my_study.harness.training.trainer import Trainer

from .commands import call
from .conftest import CaseOf, Compose, Copy
from .runs import DATA, begin

CPU = torch.device("cpu")
FIXTURE = Path(__file__).parent / "fixtures" / "tiny.safetensors"  # the library itself wrote it
Build = Callable[..., Trainer]


@pytest.fixture(name="build")
def _build(compose: Compose, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Makes trainers in an empty working folder, from what is typed."""
    monkeypatch.chdir(tmp_path)
    return lambda *typed: building.build_trainer(compose(*typed), Split(tiny, "train"), CPU)


def weights_of(model: str = "mlp") -> dict[str, Tensor]:
    """Weights that no fresh model has."""
    torch.manual_seed(1)
    network = building.build_network(composing.to_values(composing.compose([f"model={model}"])))
    return {name: torch.rand_like(value) for name, value in network.state_dict().items()}


def save(path: Path, weights: dict[str, Tensor]) -> Path:
    """Writes them as `torch.save` does."""
    path.write_bytes(checkpoints.to_bytes(weights))
    return path


def save_safetensors(path: Path, weights: dict[str, Tensor]) -> Path:
    """Writes them in the format of safetensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    content = b""
    for name, value in weights.items():
        assert value.dtype == torch.float32
        data = value.numpy().tobytes()
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": offsets}
        content += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


@pytest.fixture(name="source")
def _source(values: dict[str, Any]) -> Path:
    """A finished run with weights of its own, in runs/."""
    with begin({**values, "run_dir": "runs/source"}) as record:
        save(record.folder / "best.pt", weights_of())
        record.finish({"validation": {"loss": 1.0}})
    return Path("runs/source")


def same(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, bool]:
    """Of each name, whether the model has that value, bit for bit."""
    return {name: torch.equal(value, weights[name]) for name, value in model.state_dict().items()}


def test_a_run_begins_with_the_weights_of_another_and_what_is_dropped_is_fresh(
    source: Path, build: Build
) -> None:
    fresh = same(build().model, weights_of())
    whole = same(build(f"initial_weights={{run: {source}}}").model, weights_of())
    part = same(build(f"initial_weights={{run: {source}, drop: [output]}}").model, weights_of())
    assert not any(fresh.values()) and all(whole.values())
    assert {name.split(".")[0] for name, loaded in part.items() if not loaded} == {"output"}
    assert any(part.values())


def test_weights_are_read_from_a_state_dict_a_safetensors_file_and_a_folder_of_a_model_hub(
    build: Build, tmp_path: Path
) -> None:
    weights = weights_of()
    names = sorted(weights)
    hub, shards = tmp_path / "hub", tmp_path / "shards"
    for folder in (hub, shards):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    save_safetensors(hub / SINGLE, weights)
    first, second = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    save_safetensors(shards / first, {name: weights[name] for name in names[:1]})
    save_safetensors(shards / second, {name: weights[name] for name in names[1:]})
    places = {name: first if name == names[0] else second for name in names}
    (shards / INDEX).write_text(json.dumps({"weight_map": places}))
    files = [
        save(tmp_path / "w.pt", weights),
        save_safetensors(tmp_path / "w.safetensors", weights),
    ]
    for path in (*files, hub, shards):
        assert all(same(build(f"initial_weights={{file: {path}}}").model, weights).values()), path


def test_a_file_that_the_library_of_the_format_wrote_is_read() -> None:
    read = read_weights([FIXTURE])
    assert torch.equal(read["weight"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(read["half"], torch.tensor([1.5, -2.0], dtype=torch.float16))
    assert torch.equal(read["count"], torch.tensor(7))
    assert read["none"].shape == (0, 3)
    assert read["flag"].tolist() == [True, False]


MISTAKES = {
    "initial_weights={run: runs/nix}": "run=runs/nix: there is no such run",
    "initial_weights={file: nix.pt}": "file=nix.pt: there is no nix.pt",
    "initial_weights={run: runs/source, file: w.pt}": "must be given a run or a file",
    "initial_weights={drop: [output]}": "must be given a run or a file",
    "initial_weights=runs/source": "must be null, or such as {run: runs/NAME}",
    "initial_weights={run: runs/source, dorp: []}": "there is no such key; did you mean drop",
    "initial_weights={run: runs/source, drop: [outptu]}": (
        "drop: outptu: there is no such parameter; there are: hidden.0.weight, .*output.bias"
    ),
    "initial_weights={run: runs/source, drop: ['*']}": "no name is both in the model and",
    "initial_weights={file: text.pt}": "text.pt: not a readable checkpoint",
    "initial_weights={file: deep.pt}": "deep.pt: is not a file of weights: model is no tensor",
    "initial_weights={file: text.safetensors}": "not a readable safetensors file",
    "initial_weights={file: cut.safetensors}": "not a readable safetensors file .it is truncated",
    "initial_weights={file: hub}": "there is no hub/model.safetensors",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_what_cannot_be_loaded_is_refused_in_one_line(
    typed: str, source: Path, build: Build
) -> None:
    assert source.is_dir()
    for name in ("text.pt", "text.safetensors"):
        Path(name).write_text("these are no weights", encoding="utf-8")
    save(Path("deep.pt"), {"model": weights_of()})
    whole = save_safetensors(Path("cut.safetensors"), weights_of()).read_bytes()
    Path("cut.safetensors").write_bytes(whole[:-1])
    Path("hub").mkdir()
    with pytest.raises(StudyError, match=MISTAKES[typed]) as error:
        build(typed)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"output.weight": torch.ones(3, 128)}, r"output.weight: is \[3, 128\] in the file, and "),
        ({"output.weight": None}, "output.weight: missing in the file; add them to"),
        ({"more": torch.ones(1)}, "more: not in the model; add them to initial_weights.drop"),
    ],
)
def test_names_and_shapes_must_fit_unless_they_are_dropped(
    changed: dict[str, Tensor | None], message: str, build: Build
) -> None:
    weights = {name: item for name, item in {**weights_of(), **changed}.items() if item is not None}
    save(Path("w.pt"), weights)
    (name,) = changed
    with pytest.raises(StudyError, match=message):
        build("initial_weights={file: w.pt}")
    build(f"initial_weights={{file: w.pt, drop: [{name}]}}")
    if name == "output.weight" and name in weights:  # a shape is no matter of names
        with pytest.raises(StudyError, match=message):
            build("initial_weights={file: w.pt, strict: false}")
    else:
        build("initial_weights={file: w.pt, strict: false}")


def test_a_run_that_is_not_finished_or_was_altered_gives_no_weights(
    source: Path, values: dict[str, Any]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        with begin({**values, "seed": 7, "run_dir": "runs/begun"}):
            raise KeyboardInterrupt
    with pytest.raises(StudyError, match="is interrupted, and not finished; .* resume=runs/begun"):
        find_source({"run": "runs/begun"})
    save(source / "best.pt", {"weight": torch.ones(1)})
    with pytest.raises(StudyError, match="best.pt is not as the run wrote it"):
        find_source({"run": str(source)})
    (source / "best.pt").unlink()
    with pytest.raises(StudyError, match="best.pt is missing; .* dvc pull"):
        find_source({"run": str(source)})


def test_a_published_run_whose_record_is_in_results_alone_gives_its_weights(source: Path) -> None:
    found = find_source({"run": str(source)})
    PUBLISHED.mkdir(parents=True)
    shutil.move(source / "record.json", PUBLISHED / "source.json")
    assert find_source({"run": str(source)}) == found


def known_by(values: dict[str, Any], run: Path) -> dict[str, Any]:
    """What a run is known by that starts from another."""
    node = {"run": str(run), "drop": [], "strict": True}
    source = find_source(node)
    assert source is not None
    return identify(ROOT, {**values, "initial_weights": node}, DATA, "cpu", source.describe())


def test_a_run_is_known_by_its_source_wherever_that_lies(
    source: Path, values: dict[str, Any]
) -> None:
    first = known_by(values, source)
    moved = source.rename("runs/moved")
    assert fingerprint(known_by(values, moved)) == fingerprint(first)

    record = read_record(moved)
    otherwise = {**record, "fingerprint": "f" * 64}  # trained otherwise, to the same weights
    (moved / "record.json").write_text(json.dumps(seal(otherwise)))
    assert fingerprint(known_by(values, moved)) != fingerprint(first)

    save(moved / "best.pt", {"weight": torch.ones(1)})
    known = read_weights([moved / "best.pt"])
    assert known["weight"].tolist() == [1.0]
    files = find_source({"file": str(moved / "best.pt")})
    assert files is not None
    trained_again = {**record, "files": dict(files.files)}
    (moved / "record.json").write_text(json.dumps(seal(trained_again)))
    again = known_by(values, moved)
    assert fingerprint(again) != fingerprint(first)
    assert "data: initial weights (best.pt): changed" in map(str, find_drift(first, again))


def write_experiment(copy: Copy, name: str, source: str | None = None) -> None:
    """An experiment of the study; with a source, one that starts from the weights of another."""
    text = "# @package _global_\ndefaults:\n  - override /model: mlp\ntest: true\n"
    if source is not None:
        text += f"initial_weights: {{run: '{source}', drop: [output]}}\n"
    (copy.folder / "conf" / "experiment" / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize(
    ("tuned", "source", "message"),
    [
        ([], "runs/published/mlp-${seed}", "experiment=adapted: starts from the weights of a run"),
        (["mlp"], "runs/published/mlp-0", "does not start from its source; write .*mlp-.{seed}"),
        (["gone"], "runs/published/gone-${seed}", "source gone: is no published experiment"),
        (["mlp"], "", "must be given a run or a file"),
    ],
)
def test_a_published_run_starts_only_from_one_that_is_made_before_it(
    tuned: list[str], source: str, message: str, copy: Copy
) -> None:
    write_experiment(copy, "adapted", source)
    words = ["--experiments", "mlp", *([] if tuned else ["adapted"]), "--data", "digits"]
    words += ["--tuned", "adapted", "--source", *tuned] if tuned else ["--source", "None"]
    code, _, errors = call(copy.folder, "study", "compose", "stages", *words)
    assert code == 1 and re.search(message, errors) and errors.count("\n") == 1, errors


@pytest.mark.slow
def test_repro_makes_the_source_first_and_a_fresh_clone_reproduces_the_chain(
    copy: Copy, tmp_path: Path
) -> None:
    """The example of docs/fine-tuning.md, on the tiny table."""
    page = (copy.folder / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```\w+\n# ((?:src|conf)/[\w/]+\.\w+)\n(.*?)```", page, re.DOTALL))
    for name, text in blocks.items():
        with open(copy.folder / name, "a", encoding="utf-8") as file:
            file.write(f"\n\n{text}" if name.endswith(".py") else text)
    copy.edit("conf/data/high_5.yaml", r"0\.772", "0.4")
    copy.edit("conf/experiment/tuned_5.yaml", "num_epochs: 100", "num_epochs: 1")
    for name in ("low", "high_5"):
        (copy.folder / "data" / "raw" / name).symlink_to("digits")
    copy.edit("dvc.yaml", r"experiments: \[.*\]", "experiments: [base]")
    copy.edit("dvc.yaml", r"data: \[.*\]", "data: [low, high_5]")
    copy.edit("dvc.yaml", r"tuned: \[\]", "tuned: [tuned_5]")
    copy.edit("dvc.yaml", r"source: null", "source: base")
    (copy.folder / ".gitignore").write_text("/runs/\n/data/prepared/\n.dvc/\n__pycache__/\n")
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org")
    copy.call("git", "init", "--quiet")
    copy.call("git", "add", "--all")
    copy.call(*git, "commit", "--quiet", "--message=code")
    copy.call("dvc", "repro", "--quiet", "finetune@tuned_5-0", "report")
    records = copy.folder / "results" / "records"
    source, tuned = (read_record(records / f"{name}-0.json") for name in ("base", "tuned_5"))
    assert tuned["initial_weights"] == {
        "fingerprint": source["fingerprint"],
        "files": {"best.pt": source["files"]["best.pt"]},
    }

    copy.call("git", "add", "--all")
    copy.call(*git, "commit", "--quiet", "--message=records")
    clone = tmp_path / "clone"
    copy.call("git", "clone", "--quiet", str(copy.folder), str(clone))
    assert not (clone / "runs").exists()
    code, told, errors = call(clone, "study", "reproduce", "results/records/tuned_5-0.json")
    assert (code, told.partition(":")[0]) == (0, "identical"), told + errors
    assert "first runs/published/base-0, from whose weights it starts" in errors
    assert not list((clone / "runs").glob("[!.]*"))


class Normalised(nn.Module):
    """Two layers with a batch norm between them, whose statistics change with each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(64, 8), nn.BatchNorm1d(8), nn.BatchNorm1d(8, affine=False)
        )
        self.output = nn.Linear(8, 10)

    def forward(self, image: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Image [batch, 1, 8, 8] to logits [batch, 10]."""
        logits = self.output(self.body(image.flatten(start_dim=1)))
        assert target is not None
        return {"logits": logits, "loss": nn.functional.cross_entropy(logits, target)}


def history_of(build: Build, tiny: Path, *typed: str) -> tuple[Trainer, list[dict[str, float]]]:
    """Of a trainer of three epochs, which is given back too."""
    trainer = build("training.num_epochs=3", "training.batch_size=8", *typed)
    trainer.fit(Split(tiny, "train"), Split(tiny, "validation"))
    return trainer, trainer.history


@pytest.fixture(name="normalised")
def _normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every configuration builds the network with the batch norm."""
    monkeypatch.setattr(building, "_build_network", lambda _: Normalised())


@pytest.mark.usefixtures("normalised")
def test_what_is_frozen_keeps_its_bytes_and_so_do_the_statistics_of_a_batch_norm(
    build: Build, tiny: Path
) -> None:
    torch.manual_seed(0)
    before = Normalised().state_dict()
    torch.manual_seed(0)
    trainer, _ = history_of(
        build, tiny, "training.freeze=[body]", "training.optimizer.weight_decay=1"
    )
    kept = same(trainer.model, before)
    assert {name for name, same_bytes in kept.items() if not same_bytes} == {
        "output.weight",
        "output.bias",
    }


@pytest.mark.usefixtures("normalised")
def test_a_group_is_unfrozen_from_its_epoch_on(build: Build, tiny: Path) -> None:
    group = "training.groups={body: {parameters: [body], lr: 0.5, from_epoch: 3}}"
    trainer = build("training.num_epochs=3", "training.batch_size=8", group)
    seen = []
    train_step = trainer.train_step

    def step(batch: dict[str, Tensor]) -> Tensor:
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        loss = train_step(batch)
        kept = same(trainer.model, before)
        seen.append({name.split(".")[0] for name, is_same in kept.items() if not is_same})
        return loss

    trainer.train_step = step
    trainer.fit(Split(tiny, "train"), Split(tiny, "validation"))
    num_steps = trainer.step // 3
    assert seen == [{"output"}] * 2 * num_steps + [{"output", "body"}] * num_steps
    assert [row["lr_body"] for row in trainer.history[:2]] == [0.0, 0.0]
    assert trainer.history[2]["lr_body"] == 0.5 * trainer.history[2]["lr"]


SCHEDULES = {
    "ConstantLR": "total_iters: 1, factor: 0.5",
    "CosineAnnealingLR": "eta_min: 1.0e-3",
    "CosineAnnealingWarmRestarts": "T_0: 5, eta_min: 1.0e-3",
    "CyclicLR": "base_lr: 1.0e-3, step_size_up: 3, cycle_momentum: false",
    "ExponentialLR": "gamma: 0.9",
    "LinearLR": "total_iters: 5",
    "MultiStepLR": "milestones: [2]",
    "OneCycleLR": "pct_start: 0.3, cycle_momentum: false",
    "PolynomialLR": "total_iters: 9",
    "StepLR": "step_size: 2",
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_groups_keep_the_ratio_of_their_rates_under_every_schedule(
    name: str, build: Build, tiny: Path
) -> None:
    """By what plain gradient descent does to each: the change of a weight over its gradient."""
    node = f"{{_target_: torch.optim.lr_scheduler.{name}, {SCHEDULES[name]}}}"
    trainer = build(
        *("training.num_epochs=2", "training.batch_size=8", "model.lr=0.01"),
        *("~training.optimizer", "+training.optimizer={_target_: torch.optim.SGD}"),
        *("~training.schedule", f"+training.schedule={node}"),
        "training.groups={slow: {parameters: [hidden], lr: 0.125}}",
    )
    train = Split(tiny, "train")
    parameters = {"": trainer.model.output.weight, "slow": trainer.model.hidden[0].weight}
    for start in range(0, 24, 3):
        scheduled = trainer.scheduler.get_last_lr()[0]
        before = {key: item.detach().clone() for key, item in parameters.items()}
        trainer.advance(train[list(range(start, start + 3))])
        for key, item in parameters.items():
            factor = 0.125 if key else 1.0
            assert item.grad is not None
            moved = before[key] - scheduled * factor * item.grad
            torch.testing.assert_close(item.detach(), moved, rtol=1e-5, atol=1e-8)


def test_rates_of_every_named_group_stand_in_the_history_decayed_by_depth(
    build: Build, tiny: Path
) -> None:
    one = history_of(build, tiny)[1]
    assert [key for key in one[0] if key.startswith("lr")] == ["lr"]
    groups = "{layers: {parameters: [hidden, output], lr: 0.5, decay: 0.1}}"
    for row in history_of(build, tiny, f"training.groups={groups}")[1]:
        assert row["lr_layers_1"] == pytest.approx(0.05 * row["lr"])
        assert row["lr_layers_2"] == pytest.approx(0.5 * row["lr"])


WRONG_GROUPS = {
    "training.freeze=[hiden]": "freeze: hiden: there is no such parameter; there are: hidden.0.w",
    "training.freeze=['*']": "training.freeze: no parameter learns in the first epoch",
    "training.freeze=hidden": "training.freeze=hidden: must be of type",
    "training.groups={a: {parameters: [body]}}": "groups.a.parameters: body: there is no such",
    "training.groups={a: {parameters: [hidden]}, b: {parameters: ['*.bias']}}": (
        "groups.b.parameters: hidden.0.bias: is in two groups"
    ),
    "training.groups={a: {parameters: ['*'], from_epoch: 2}}": "no parameter learns in the first",
    "training.groups={a: {parameters: [hidden], lr: 0}}": "groups.a.lr=0.0: must be above 0",
    "training.groups={a: {parameters: [hidden], decay: 2}}": "groups.a.decay=2.0: must be",
    "training.groups={a: {parameters: [hidden], from_epoch: 0}}": "groups.a.from_epoch=0: must",
    "training.groups={a: {parameters: []}}": "groups.a.parameters=..: must hold a pattern",
    "training.groups={a: {lr: 1}}": "training.groups.a.parameters: is missing",
    "training.groups={a: {parameters: [hidden], rate: 1}}": "groups.a.rate: there is no such key",
    "training.groups={a: 0.1}": "training.groups.a=0.1: must be such as",
    "training.groups=0.1": "training.groups=0.1: must be",
}


@pytest.mark.parametrize("typed", WRONG_GROUPS)
def test_a_group_that_means_nothing_is_refused_in_one_line(typed: str, build: Build) -> None:
    with pytest.raises(StudyError, match=WRONG_GROUPS[typed]) as error:
        build(typed)
    assert "\n" not in str(error.value)


def test_a_group_that_is_frozen_as_a_whole_is_refused(build: Build) -> None:
    with pytest.raises(StudyError, match="hidden: is frozen by training.freeze"):
        build("training.freeze=[hidden]", "training.groups={a: {parameters: [hidden]}}")


def test_a_schedule_is_switched_by_its_name_alone(build: Build) -> None:
    scheduler = build("training/schedule=constant").scheduler
    assert isinstance(scheduler, torch.optim.lr_scheduler.ConstantLR)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("last", [5, 8, 10])  # in the second epoch, at its end, once all learns
@pytest.mark.usefixtures("normalised")
def test_fine_tuning_that_was_killed_resumes_bit_identically(
    last: int, compose: Compose, tiny: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    save(tmp_path / "w.pt", Normalised().state_dict())
    typed = [
        f"initial_weights={{file: {tmp_path / 'w.pt'}, drop: [output]}}",
        "training.freeze=[body.0]",
        "training.groups={norm: {parameters: [body.1, body.2], lr: 0.1, from_epoch: 3}}",
        *("training.num_epochs=3", "training.batch_size=8", "training.checkpoint_steps=2"),
    ]
    train, validation = Split(tiny, "train"), Split(tiny, "validation")

    def trainer(folder: Path) -> Trainer:
        torch.manual_seed(0)
        folder.mkdir(exist_ok=True)
        return building.build_trainer(compose(*typed), train, CPU, folder)

    whole, killed = trainer(tmp_path / "whole"), trainer(tmp_path / "killed")
    whole.fit(train, validation)
    child = os.fork()
    if not child:
        step = killed.train_step
        killed.train_step = lambda batch: (
            os.kill(os.getpid(), signal.SIGKILL) if killed.step == last else step(batch)
        )
        killed.fit(train, validation)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    resumed = trainer(tmp_path / "killed")
    resumed.resume()
    assert 0 < resumed.step <= last
    resumed.fit(train, validation)
    assert resumed.history == whole.history
    assert all(same(resumed.model, whole.model.state_dict()).values())
    assert not difference(resumed.optimizer.state_dict(), whole.optimizer.state_dict())


@pytest.mark.parametrize("check", ["every_knob_acts", "the_trainer_equals_a_reference_loop"])
@pytest.mark.parametrize(
    "typed",
    ["training.freeze=[hidden]", "training.groups={a: {parameters: [hidden], lr: 0.1}}"],
)
def test_the_checks_hold_for_groups_and_frozen_layers(
    check: str, typed: str, case_of: CaseOf
) -> None:
    checks.CHECKS[check](case_of(typed))

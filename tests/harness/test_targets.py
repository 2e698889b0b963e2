"""A configuration is data: what it may name is listed here, and tricks that would call more."""

import copy
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from my_study import models
from my_study.harness import study
from my_study.harness.configuration import building, checking, composing
from my_study.harness.errors import StudyError
from my_study.harness.study import ROOT
from my_study.harness.training.prepared import Split

from .conftest import TINY

Construct = Callable[[str, str], None]

# A file of the researcher's: what it defines may be named, what it imports may not.
OWN = """
import os
import subprocess
from functools import partial
from os import system
from shutil import copyfile
from subprocess import Popen, run

import torch
from torch import nn

from ..harness.files import write_atomically
from ..harness.training.trainer import Trainer

touch = partial(os.system)


def network(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width))


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.output = layer, nn.Linear(64, 10)

    @classmethod
    def touch(cls, path):
        open(path, "w").close()


class Sign(torch.optim.SGD):
    pass


class Late(torch.optim.lr_scheduler.ConstantLR):
    pass


def constant(optimizer):
    return Late(optimizer)


def decay(step, rate):
    return rate**step


class Count:

    def update(self, outputs, batch):
        pass

    def compute(self):
        return 1.0


class Quiet(Trainer):
    pass


class Reader:
    def __init__(self, inner=None):
        self.inner = inner


class Noise:
    def __init__(self, layer=None, reader=None):
        self.layer = layer
"""
PLACES = {
    "network": "model.network",
    "optimizer": "training.optimizer",
    "schedule": "training.schedule",
    "trainer": "training.trainer",
    "metric": "data.metrics.accuracy.compute",
    "read": "data.prepare.read",
    "augment": "data.augmentation",
    "callback": "training.callbacks.own",
}
HARNESS = "my_study.harness"
LR = "torch.optim.lr_scheduler"
# A place and what is tried there. MARK is a file that a trick would write, PICKLE one that would.
TRICKS = [
    # what is not of the study, nor of torch
    ("augment", "os.system, command: touch MARK"),
    ("network", "os.system, _args_: [touch MARK]"),
    ("metric", "os.mkdir, path: MARK"),
    ("augment", "subprocess.run, args: [touch, MARK]"),
    ("trainer", "subprocess.Popen, args: [touch, MARK]"),
    ("read", "builtins.open, file: MARK, mode: w"),
    ("read", 'builtins.exec, _args_: [\'open("MARK", "w")\']'),
    ("augment", 'builtins.eval, _args_: [\'open("MARK", "w")\']'),
    ("read", "numpy.save, file: MARK, arr: [1]"),
    ("augment", "torch.save, obj: 1, f: MARK"),
    ("read", "torch.load, f: PICKLE, weights_only: false"),
    ("read", "pickle.load, file: PICKLE"),
    ("network", "torch.hub.load, repo_or_dir: MARK, model: x, source: local"),
    ("augment", "torch.utils.cpp_extension.load_inline, name: x, cpp_sources: ''"),
    ("augment", "hydra.utils.call, config: {_target_: os.mkdir, path: MARK}"),
    ("augment", "hydra.utils.get_method, path: antigravity.geohash"),
    ("network", "antigravity.geohash"),
    ("metric", "this.c"),
    ("augment", "idlelib.idle.main"),
    # what a file of one's own imports
    ("augment", "my_study.data.np.save, file: MARK, arr: [1]"),
    ("read", "my_study.data.np.save, file: MARK, arr: [1]"),
    ("augment", "my_study.data.torch.save, obj: 1, f: MARK"),
    ("read", "my_study.data.torch.load, f: PICKLE, weights_only: false"),
    ("augment", "my_study.data.Path"),
    ("augment", "my_study.data.Tensor"),
    ("augment", "my_study.data.StudyError"),
    ("network", "my_study.models.mlp.math.prod, _args_: [[1]]"),
    ("augment", "my_study.metrics.num_targets"),
    ("augment", "my_study.models.own.system, command: touch MARK"),
    ("augment", "my_study.models.own.run, args: [touch, MARK]"),
    ("augment", "my_study.models.own.Popen, args: [touch, MARK]"),
    ("augment", "my_study.models.own.touch, command: touch MARK"),
    ("augment", "my_study.models.own.copyfile, src: PICKLE, dst: MARK"),
    ("augment", "my_study.models.own.os.mkdir, path: MARK"),
    ("augment", "my_study.models.own.write_atomically, path: MARK, content: x"),
    # the harness
    ("augment", f"{HARNESS}.files.write_atomically, path: MARK, content: x"),
    ("augment", f"{HARNESS}.files.temporary_path, path: MARK"),
    ("augment", f"{HARNESS}.files.os.mkdir, path: MARK"),
    ("augment", f"{HARNESS}.runs.git.run_git, root: MARK"),
    ("augment", f"{HARNESS}.runs.git.subprocess.run, args: [touch, MARK]"),
    ("read", f"{HARNESS}.training.preparation.prepare, folder: MARK"),
    ("augment", f"{HARNESS}.training.determinism.seed_everything, seed: 1"),
    ("augment", f"{HARNESS}.training.metrics.MeanLoss"),
    ("metric", f"{HARNESS}.training.metrics.num_targets"),
    ("read", f"{HARNESS}.training.trainer.Trainer"),
    ("trainer", f"{HARNESS}.training.metrics.MeanLoss"),
    ("trainer", f"{HARNESS}.training.trainer.Path, _args_: [MARK]"),
    ("augment", f"{HARNESS}.study.conf_of, package: my_study"),
    ("augment", f"{HARNESS}.commands.main"),
    ("augment", f"{HARNESS}.tracking.need, package: my_study, tracker: x"),
    ("callback", f"{HARNESS}.tracking.need, package: my_study, tracker: x"),
    ("callback", f"{HARNESS}.training.callbacks.Callbacks"),
    ("callback", "torch.nn.ReLU"),
    ("callback", "my_study.models.own.Popen, args: [touch, MARK]"),
    # what is no public name
    ("augment", "my_study.data._read_table, path: PICKLE"),
    ("read", "my_study.data.__builtins__.open, file: MARK, mode: w"),
    ("augment", "my_study.data.read_digits.__globals__"),
    ("network", "my_study.models.mlp.MLP.__init__"),
    ("network", "my_study.__main__.main"),
    ("optimizer", "torch.optim.Optimizer.__init__.__globals__"),
    ("read", ".data.read_digits"),
    ("read", "my_study..data.read_digits"),
    ("read", "'my_study.data.read_digits '"),
    ("network", '"torch.nn.Flatten\\n"'),
    ("network", "''"),
    ("network", "null"),
    ("network", "7"),
    ("network", "[os.system]"),
    ("network", "{_target_: os.mkdir, path: MARK}"),
    ("network", "my_study"),
    ("network", "torch.nn"),
    ("network", "torch.nn.NoSuchLayer"),
    ("augment", "'${oc.env:HOME}'"),
    # what belongs to a class
    ("network", "my_study.models.mlp.MLP.load_state_dict"),
    ("augment", "my_study.models.own.Net.touch, path: MARK"),
    ("network", "torch.nn.Module.apply"),
    ("augment", "torch.nn.Linear.to"),
    ("schedule", f"{LR}.LRScheduler.state_dict"),
    # functions of torch, and what talks to other machines
    ("network", "torch.nn.init.zeros_"),
    ("augment", "torch.nn.functional.relu"),
    ("augment", "torch.nn.functional.torch.save, obj: 1, f: MARK"),
    ("augment", "torch.nn.modules.module.register_module_forward_hook, hook: x"),
    ("augment", "torch.nn.utils.clip_grad_norm_"),
    ("network", "torch.nn.DataParallel, module: {_target_: torch.nn.Flatten}"),
    ("network", "torch.nn.parallel.DistributedDataParallel, module: {_target_: torch.nn.Flatten}"),
    ("augment", "torch.nn.parallel.replicate"),
    ("schedule", "torch.optim.swa_utils.update_bn"),
    ("augment", "torch.optim.optimizer.functools.partial"),
    # another kind than its place takes
    ("network", "torch.optim.Adam"),
    ("network", "torch.nn.Parameter"),
    ("network", "my_study.data.RandomShift, max_shift: 1"),
    ("network", "my_study.metrics.Accuracy"),
    ("optimizer", "torch.nn.ReLU"),
    ("optimizer", f"{LR}.ConstantLR"),
    ("optimizer", "my_study.models.own.decay, rate: 1"),
    ("schedule", "torch.optim.Adam"),
    ("schedule", "torch.nn.ReLU"),
    ("trainer", "torch.nn.ReLU"),
    ("trainer", "my_study.models.own.Count"),
    ("metric", "torch.nn.ReLU"),
    ("metric", "my_study.data.RandomShift, max_shift: 1"),
    ("metric", "my_study.data.read_digits"),
    ("read", "torch.nn.ReLU"),
    ("augment", "torch.optim.Adam"),
    # arguments
    ("augment", "my_study.data.RandomShift, _args_: [1]"),
    ("augment", "my_study.data.RandomShift, max_shift: 1, _recursive_: false"),
    ("augment", "my_study.data.RandomShift, max_shift: 1, _convert_: all"),
    ("augment", "my_study.data.RandomShift, max_shift: 1, _partial_: os.system"),
    ("augment", "my_study.models.own.Noise, layer: {_target_: os.mkdir, path: MARK}"),
    ("augment", "my_study.models.own.Noise, layer: {x: [{_target_: os.mkdir, path: MARK}]}"),
    (
        "augment",
        f"my_study.models.own.Noise, reader: {{_target_: {HARNESS}.training.trainer.Trainer}}",
    ),
    (
        "network",
        "my_study.models.own.Net, layer: {_target_: os.mkdir, _partial_: true, path: MARK}",
    ),
    ("network", "my_study.models.own.Net, layer: {_target_: torch.optim.Adam}"),
    ("read", "my_study.models.own.Reader, inner: {_target_: torch.nn.init.zeros_}"),
    ("read", "my_study.models.own.Reader, inner: 1, allow_pickle: true"),
    ("read", "my_study.models.own.Reader, inner: 1, allow_pickle: 1"),
    ("read", "my_study.models.own.Reader, inner: 1, weights_only: false"),
]
ALLOWED = [
    ("network", "torch.nn.Linear, in_features: 8, out_features: 10"),
    ("network", "my_study.models.own.network, width: 10"),
    ("network", "my_study.models.own.Net, layer: {_target_: torch.nn.ReLU}"),
    ("network", "my_study.models.own.Net, layer: {_target_: torch.nn.ReLU, _partial_: true}"),
    (
        "network",
        "my_study.models.own.Net, layer: [{_target_: my_study.models.own.network, width: 1}]",
    ),
    ("optimizer", "torch.optim.SGD, momentum: 0.9"),
    ("optimizer", "my_study.models.own.Sign"),
    ("schedule", f"{LR}.CosineAnnealingLR"),
    ("schedule", "my_study.models.own.Late"),
    (
        "schedule",
        f"{LR}.LambdaLR, lr_lambda: "
        "{_target_: my_study.models.own.decay, _partial_: true, rate: 0.9}",
    ),
    ("trainer", "my_study.models.own.Quiet"),
    ("metric", "my_study.models.own.Count"),
    ("metric", f"{HARNESS}.training.metrics.MeanLoss"),
    ("read", "my_study.models.own.Reader, inner: {_target_: my_study.models.own.Reader}"),
    ("augment", "my_study.data.RandomShift, max_shift: 1"),
    ("augment", "my_study.models.own.Noise, layer: {_target_: torch.nn.ReLU}"),
]

MAKE = "{_target_: os.mkdir, path: MARK}"
CORE = "hydra._internal.core_plugins"
SEARCH = "my_study.harness.configuration.searching.Search"
INNER = f"{{_target_: {CORE}.file_config_source.os.mkdir, _args_: [MARK]}}"
# Files of configurations, in a folder that is named on the command line.
FILES = {
    "callbacks": f"{{callbacks: {{x: {MAKE}}}}}",
    "handler": "{job_logging: {handlers: {x: {class: logging.FileHandler, filename: MARK}}}}",
    "filter": "{job_logging: {filters: {x: {(): os.mkdir, path: MARK}}}}",
    "formatter": "{hydra_logging: {formatters: {x: {(): os.mkdir, path: MARK}}}}",
}
# What is typed, and where the refusal points.
COMMAND_LINES = [
    ([f"+hydra.callbacks.x={MAKE}"], "hydra.callbacks.x._target_=os.mkdir"),
    (["++hydra.callbacks.x._target_=this.c"], "hydra.callbacks.x._target_=this.c"),
    ([f"+hydra.callbacks.x={INNER}"], "hydra.callbacks.x._target_=hydra._internal"),
    ([f"+hydra.callbacks.x={{y: [{MAKE}]}}"], "hydra.callbacks.x.y.0._target_=os.mkdir"),
    ([f"hydra.callbacks={{x: {MAKE}}}"], "hydra.callbacks"),
    ([f"+hydra.callbacks.x={MAKE}", "-m"], "hydra.callbacks.x._target_=os.mkdir"),
    (["hydra.launcher._target_=os.system", "-m"], "hydra.launcher._target_=os.system"),
    ([f"+hydra.launcher.x={MAKE}", "-m"], "hydra.launcher.x._target_=os.mkdir"),
    ([f"+hydra.launcher.x={INNER}", "-m"], "hydra.launcher.x._target_=hydra._internal"),
    (["hydra.sweeper._target_=subprocess.run", "-m"], "hydra.sweeper._target_=subprocess.run"),
    ([f"+hydra.sweeper.x={MAKE}", "-m"], "hydra.sweeper.x._target_=os.mkdir"),
    ([f"hydra.launcher._target_={SEARCH}", "-m"], f"hydra.launcher._target_={SEARCH}"),
    ([f"hydra.sweeper._target_={SEARCH}er", "-m"], f"hydra.sweeper._target_={SEARCH}er"),
    (
        ["+hydra.job_logging.handlers.x={class: logging.FileHandler, filename: MARK}"],
        "hydra.job_logging.handlers.x.class=logging.FileHandler",
    ),
    (
        ["+hydra.hydra_logging.handlers.x={class: logging.FileHandler, filename: MARK}"],
        "hydra.hydra_logging.handlers.x.class=logging.FileHandler",
    ),
    (
        ["+hydra.job_logging.handlers.x={class: logging.StreamHandler, stream: 'ext://this.c'}"],
        "hydra.job_logging.handlers.x.stream=ext://this.c",
    ),
    (["hydra/job_logging=default"], "hydra.job_logging.handlers.file.class=logging.FileHandler"),
    (["hydra.run.dir=MARK"], "hydra.run.dir=MARK"),
    (["hydra.output_subdir=MARK"], "hydra.output_subdir=MARK"),
    (["hydra.sweep.dir=MARK", "-m"], "hydra.sweep.dir=MARK"),
    (["hydra.job.chdir=true"], "hydra.job.chdir=True"),
    (["+hydra.job.env_set.LD_PRELOAD=MARK"], "hydra.job.env_set.LD_PRELOAD"),
    (["hydra.searchpath=[pkg://this]"], "pkg://this"),
    (["hydra.searchpath=[PKG://this]"], "PKG://this"),
    (["--config-path=pkg://this"], "pkg://this"),
    (["--config-dir=FOLDER", "+evil=callbacks"], "hydra.callbacks.x._target_=os.mkdir"),
    (["hydra.searchpath=[FOLDER]", "+evil=callbacks"], "hydra.callbacks.x._target_=os.mkdir"),
    (["--config-dir=FOLDER", "+evil=handler"], "hydra.job_logging.handlers.x.class=logging.File"),
    (["--config-dir=FOLDER", "+evil=filter"], "hydra.job_logging.filters.x.()=os.mkdir"),
    (["--config-dir=FOLDER", "+evil=formatter"], "hydra.hydra_logging.formatters.x.()=os.mkdir"),
    (["--config-path=FOLDER", "--config-name=evil/callbacks"], "hydra.run.dir=outputs"),
    (["--experimental-rerun=PICKLE"], "PICKLE"),
    (["--experimental-rer", "PICKLE"], "PICKLE"),
]


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file of the researcher's, in the package for as long as a test lasts."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.py").write_text(OWN, encoding="utf-8")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path / "own")])
    yield
    sys.modules.pop("my_study.models.own", None)
    vars(models).pop("own", None)


class Touch:
    """Its pickle, when it is read, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(name="fill")
def _fill(tmp_path: Path) -> Callable[[str], str]:
    """Puts the paths of the files, and of a folder of configurations, into a text."""
    (tmp_path / "pickle").write_bytes(pickle.dumps(Touch(tmp_path / "mark")))

    def fill(text: str) -> str:
        for word in ("MARK", "PICKLE", "FOLDER"):
            text = text.replace(word, str(tmp_path / word.lower()))
        return text

    return fill


@pytest.fixture(scope="module", name="config")
def _config(tiny: Path) -> DictConfig:
    """The configuration of the study, on the tiny data."""
    return composing.compose(
        [f"data.prepare.read.path={TINY}", f"data.folder={tiny}", "device=cpu"]
    )


@pytest.fixture(name="construct")
def _construct(config: DictConfig, tiny: Path) -> Construct:
    """Names something at a place, then checks the configuration and builds all that it names."""

    def construct(place: str, node: str) -> None:
        changed = copy.deepcopy(config)
        named = OmegaConf.create(f"{{_target_: {node}}}")
        OmegaConf.update(changed, place, named, merge=False, force_add=True)
        checking.check_config(changed)
        building.build_trainer(changed, Split(tiny, "train"), torch.device("cpu"))
        building.read_raw(changed)

    return construct


@pytest.mark.parametrize(("place", "node"), TRICKS)
def test_a_trick_is_refused_in_one_line_and_has_no_effect(
    place: str, node: str, construct: Construct, tmp_path: Path, fill: Callable[[str], str]
) -> None:
    with pytest.raises(StudyError, match=re.escape(PLACES[place])) as refusal:
        construct(PLACES[place], fill(node))
    assert len(str(refusal.value).splitlines()) == 1
    assert not (tmp_path / "mark").exists()
    assert not {"antigravity", "this", "idlelib.idle"} & set(sys.modules)


@pytest.mark.parametrize(("place", "node"), ALLOWED)
def test_what_a_researcher_names_is_built(place: str, node: str, construct: Construct) -> None:
    construct(PLACES[place], node)


def test_a_wrong_kind_is_told_the_right_one(construct: Construct) -> None:
    message = "training.optimizer._target_=torch.nn.ReLU: must name a subclass of torch.optim.Opt"
    with pytest.raises(StudyError, match=message):
        construct("training.optimizer", "torch.nn.ReLU")


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "place"), COMMAND_LINES)
def test_what_hydra_would_call_or_write_is_refused_before_it_does(
    typed: list[str], place: str, tmp_path: Path, fill: Callable[[str], str]
) -> None:
    (tmp_path / "folder" / "evil").mkdir(parents=True)
    for name, node in FILES.items():
        path = tmp_path / "folder" / "evil" / f"{name}.yaml"
        path.write_text(f"# @package _global_\nhydra: {fill(node)}\n", encoding="utf-8")
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", *map(fill, typed)],
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(fill(f"error: {place}")) and done.stderr.count("\n") == 1
    assert not done.stdout  # `import this` prints
    assert not (tmp_path / "mark").exists() and not list((tmp_path / "here").iterdir())


@pytest.fixture(name="allowed")
def _allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that is not the study's, named under [tool.study] in pyproject.toml."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.py").write_text(
        OWN.replace("..harness", "my_study.harness")
    )
    settings = '[tool.study]\nallow = ["elsewhere"]\n'
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(study, "ROOT", tmp_path)
    study.allow_list.cache_clear()
    yield
    study.allow_list.cache_clear()
    sys.modules.pop("elsewhere", None)


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("place", "node"),
    [
        ("network", "elsewhere.network, width: 10"),
        ("network", "elsewhere.Net, layer: {_target_: elsewhere.network, width: 10}"),
        ("optimizer", "elsewhere.Sign"),
        ("schedule", "elsewhere.constant"),
        ("read", "elsewhere.Reader"),
        ("augment", "elsewhere.Noise"),
    ],
)
def test_what_an_allowed_package_defines_is_built(
    place: str, node: str, construct: Construct
) -> None:
    construct(PLACES[place], node)


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("place", "node"),
    [
        ("network", "elsewhere.Sign"),
        ("optimizer", "elsewhere.Net, layer: 1"),
        ("augment", "elsewhere.system, command: touch MARK"),
        ("augment", "elsewhere.copyfile, src: PICKLE, dst: MARK"),
        ("augment", "elsewhere.os.mkdir, path: MARK"),
        ("augment", "elsewhere.write_atomically, path: MARK, content: x"),
        ("augment", "elsewhere_too.touch, path: MARK"),
    ],
)
def test_what_an_allowed_package_imports_is_refused(
    place: str, node: str, construct: Construct, tmp_path: Path, fill: Callable[[str], str]
) -> None:
    with pytest.raises(StudyError, match=re.escape(f"{PLACES[place]}._target_=elsewhere")):
        construct(PLACES[place], fill(node))
    assert not (tmp_path / "mark").exists()


def test_every_file_that_the_harness_reads_is_read_as_data() -> None:
    """A pickle may call anything; without these words numpy and torch read none."""
    texts = {path: path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py")}
    calls = [call for text in texts.values() for call in re.findall(r"torch\.load\([^\n]*", text)]
    assert calls and all("weights_only=True" in call for call in calls)
    for path, text in texts.items():
        if path.name != "targets.py":  # which refuses the words
            assert not re.search(r"allow_pickle|pickle\.loads?\(|weights_only=False", text), path

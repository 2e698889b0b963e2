"""Write results/inputs/: what each stage and each experiment of dvc.yaml is known by.

A file contains the values and the digest of each file of code that can change a result; that of an
experiment the hashes of its prepared data too, so that it depends on no other data set. A comment,
a docstring, another model or another command changes none of them: `dvc repro` re-runs only what
depends on a changed value.
    study compose stages --experiments A B --data D
    study compose experiments --experiments A B --tuned C --source A --seeds 0 1 2
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..configuration.checking import check_initial_weights, describe_report
from ..configuration.composing import CONF, compose, composed_of, to_record, to_yaml
from ..errors import StudyError
from ..files import read_manifest, write_atomically
from ..runs.code import called_by, code_of
from ..runs.fingerprint import code_of_prepare, flatten
from ..runs.source import find_source
from ..study import ROOT

INPUTS = Path("results", "inputs")
OTHER_SEED = 271  # one that no file names: what an experiment starts from must follow the seed
Contents = dict[str, dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("what", choices=("stages", "experiments"))
    parser.add_argument("--experiments", nargs="*", default=[], help="those in dvc.yaml")
    parser.add_argument(
        "--tuned", nargs="*", action="append", default=[], help="those that start from another"
    )
    parser.add_argument("--source", action="append", default=[], help="that other one")
    parser.add_argument("--data", nargs="*", default=[], help="their data sets, in dvc.yaml")
    seeds = "of the runs: each may have data of its own, such as a fold"
    parser.add_argument("--seeds", nargs="*", default=[], type=int, help=seeds)


def run(arguments: argparse.Namespace) -> int:
    """Writes a file for each stage or each experiment, and removes those of others."""
    os.chdir(ROOT)
    if not arguments.experiments:
        hint = "write conf/experiment/NAME.yaml, and NAME under `published`"
        raise StudyError(f"dvc.yaml: publishes no experiment; {hint}")
    pairs = zip(arguments.tuned, arguments.source, strict=False)
    sources = {name: source for names, source in pairs for name in names}
    experiments = [*arguments.experiments, *sources]
    if arguments.what == "stages":
        _check_sources(arguments.experiments, sources)
        _write(INPUTS / "stages", _stages(experiments, arguments.data))
        return 0
    seeds = arguments.seeds
    _write(INPUTS / "experiments", {name: _inputs_of_run(name, seeds) for name in experiments})
    splits = {name: _splits_of(name, seeds) for name in experiments}
    write_atomically(INPUTS / "splits.yaml", to_yaml({"splits": splits}))
    return 0


def _write(folder: Path, contents: Contents) -> None:
    """A file for each, and none for others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in contents.items():
        write_atomically(folder / f"{name}.yaml", to_yaml(values))
    for path in folder.glob("*.yaml"):
        if path.stem not in contents:
            path.unlink()


def _stages(experiments: Sequence[str], data: Sequence[str]) -> Contents:
    """What preparing each data set and the report depend on."""
    configs = {name: compose([f"experiment={name}"]) for name in experiments}
    used = {name: _data_of(name) for name in experiments}
    _check_data_sets(used, data)
    for name, config in configs.items():
        if config.report.split == "test" and not config.test:
            hint = f"write test: true into conf/experiment/{name}.yaml"
            raise StudyError(f"experiment={name}: evaluates no test split, which is shown; {hint}")
    shown = {
        name: {"data": used[name], **describe_report(config)} for name, config in configs.items()
    }
    contents: Contents = {f"prepare-{name}": _inputs_of_prepare(name) for name in data}
    contents["report"] = {"code": code_of(ROOT, {}, start="stages/report.py"), "shown": shown}
    return contents


def _check_data_sets(used: dict[str, str], data: Sequence[str]) -> None:
    """Refuses a data set that is used and not prepared, or prepared and not used.

    Raises:
        StudyError: names it, and what to change in dvc.yaml.
    """
    for experiment, name in used.items():
        if name not in data:
            hint = f"add {name} to the data sets under `prepared` in dvc.yaml"
            raise StudyError(f"experiment={experiment}: learns from data={name}; {hint}")
    for name in data:
        if name not in used.values():
            reason = "no published experiment learns from it; remove it under `prepared`"
            raise StudyError(f"dvc.yaml: data set {name}: {reason}")


def _check_sources(published: Sequence[str], sources: Mapping[str, str]) -> None:
    """Refuses an experiment that starts from a run which dvc.yaml does not make before it.

    Raises:
        StudyError: names it, and what to change.
    """
    for name in [*published, *sources]:
        node = compose([f"experiment={name}", f"seed={OTHER_SEED}"]).get("initial_weights")
        check_initial_weights(node)
        started = None if node is None else node.get("run")
        if name not in sources and started is not None:
            hint = "name it under `tuned` in dvc.yaml, and there its source"
            raise StudyError(f"experiment={name}: starts from the weights of a run; {hint}")
        if name in sources and started != f"runs/published/{sources[name]}-{OTHER_SEED}":
            wanted = f"runs/published/{sources[name]}-" + "${seed}"
            hint = f"write initial_weights.run: {wanted} into conf/experiment/{name}.yaml"
            raise StudyError(f"experiment={name}: does not start from its source; {hint}")
    for source in sources.values():
        if source not in [*published, *sources]:
            raise StudyError(f"dvc.yaml: source {source}: is no published experiment")


def _data_of(experiment: str) -> str:
    """The data set of an experiment: the name of its file in conf/data/."""
    return str(composed_of([f"experiment={experiment}"])[1].get("data"))


def _inputs_of_run(experiment: str, seeds: Sequence[int]) -> dict[str, Any]:
    config = compose([f"experiment={experiment}"])
    values = to_record(config)
    inputs = {
        "config": flatten(values),
        "code": code_of(ROOT, called_by(values)),
        "data": _data_hashes(experiment, config, seeds),
    }
    node = config.get("initial_weights")
    if node is not None and node.get("file") and (source := find_source(node)):
        inputs["initial_weights"] = dict(source.files)  # those of a run are a dependency of DVC's
    return inputs


def _data_hashes(experiment: str, config: Any, seeds: Sequence[int]) -> dict[str, str]:
    """The hash of each prepared file; of folds, by its folder too."""
    data: dict[str, str] = {}
    folders = _folders_of(config, seeds)
    for folder, seed in folders.items():
        typed = f"data={_data_of(experiment)}"
        if len(folders) == 1:
            data = _hashes_of(folder, typed)
        else:  # a fold each
            hashes = _hashes_of(folder, f"{typed} seed={seed}")
            data |= {(folder / name).as_posix(): value for name, value in hashes.items()}
    return data


def _splits_of(experiment: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Whether its runs are seeds or folds, and how many rows each split has; of folds, of each."""
    config = compose([f"experiment={experiment}"])
    folders = _folders_of(config, seeds)
    rows: list[dict[str, int]] = []
    for folder in folders:
        files = read_manifest(folder, "type: dvc repro")["files"]
        fields = [(Path(name).parent.name, known.get("rows")) for name, known in files.items()]
        rows.append({split: number for split, number in fields if number})
    is_fold = len(folders) > 1 and "fold" in (config.data.prepare.get("split") or {})
    return {"repeats": "folds" if is_fold else "seeds", "rows": rows}


def _folders_of(config: Any, seeds: Sequence[int]) -> dict[Path, int]:
    """The prepared data of each seed, and the first seed that has them: they may be a fold each.

    Raises:
        StudyError: they are, and no seeds are given.
    """
    folders: dict[Path, int] = {}
    for seed in seeds or (config.seed, config.seed + 1):
        config.seed = seed
        folders.setdefault(Path(config.data.folder), seed)
    if not seeds and len(folders) > 1:
        hint = "give `study compose experiments` ${repeated} too"
        raise StudyError(f"dvc.yaml: data.folder depends on the seed; {hint}")
    return folders


def _hashes_of(folder: Path, typed: str) -> dict[str, str]:
    """The hash of each prepared file."""
    files = read_manifest(folder, f"type: python stages/prepare.py {typed}")["files"]
    return {name: known["sha256"] for name, known in files.items()}


def _inputs_of_prepare(data: str) -> dict[str, Any]:
    if not (CONF / "data" / f"{data}.yaml").is_file():
        raise StudyError(f"dvc.yaml: data set {data}: there is no conf/data/{data}.yaml")
    parameters = to_record(compose([f"data={data}"]).data.prepare)
    return {"parameters": parameters, "code": code_of_prepare(ROOT, parameters)}

"""The card of an exported model: what it answers, how well, and how to run it."""

import contextlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..configuration.building import read_fixture
from ..files import write_atomically
from ..study import ROOT
from ..training.spec import Field
from .instances import raw_fields
from .loading import LoadedRun

CARD = "README.md"
Shapes = Mapping[str, Sequence[int | str]]  # of each input; a word for an axis of any size


def write_card(run: LoadedRun, path: Path, shapes: Shapes, apart: Mapping[str, float]) -> None:
    """Writes the card.

    Args:
        run: The run.
        path: Of the card.
        shapes: Of the inputs of the program.
        apart: By file, how far its outputs are from the run's.
    """
    known = (_head(run), _data(run), _metrics(run))
    parts = (*known, _tensors(run, shapes), _usage(run), _origin(run, apart))
    write_atomically(path, "\n".join(line for part in parts for line in part).encode())


def _project() -> dict[str, Any]:
    """What pyproject.toml says of the study."""
    with contextlib.suppress(OSError, ValueError):
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        project: dict[str, Any] = tomllib.loads(text)["project"]
        return project
    return {}


def _head(run: LoadedRun) -> Iterator[str]:
    project, network = _project(), run.config["model"]["network"]["_target_"].rpartition(".")[2]
    count = sum(each.numel() for each in run.model.parameters())
    yield f"# {project.get('name', 'A study')}: {run.folder.resolve().name}"
    yield ""
    yield f"{run.record.get('description') or project.get('description', '')}"
    yield ""
    yield f"A {network} of {count:,} parameters, for {run.spec.task}."


def _data(run: LoadedRun) -> Iterator[str]:
    data = run.config["data"]
    raw = (run.record.get("prepared_from") or {}).get("raw") or {}
    yield from ("", "## Data", "")
    yield f"`{Path(data['folder']).name}`, read by `{data['prepare']['read']['_target_']}`:"
    yield ""
    for name, known in raw.items():
        yield f"- `{name}`, SHA-256 `{known}`"


def _metrics(run: LoadedRun) -> Iterator[str]:
    yield from ("", "## Metrics", "", "| split | metric | value |", "|---|---|---|")
    for split, numbers in run.record["metrics"].items():
        for name, value in numbers.items():
            yield f"| {split} | {name} | {value:.6g} |"
    yield ""
    yield f"Of one run, with seed {run.config['seed']}, and weights chosen by validation."
    if "test" not in run.record["metrics"]:
        yield "The test split was not evaluated."


def _tensors(run: LoadedRun, shapes: Shapes) -> Iterator[str]:
    for title, fields in (("Inputs", run.spec.inputs), ("Outputs", run.spec.outputs)):
        yield from ("", f"## {title}", "", "| name | shape | kind | range |", "|---|---|---|---|")
        for name, item in fields.items():
            shape = ", ".join(map(str, shapes.get(name, ["batch", *item.shape])))
            yield f"| `{name}` | [{shape}] | {item.kind} | {_range(item)} |"


def _range(item: Field) -> str:
    if item.kind == "mask":
        return "true where a value counts"
    low, high = item.bounds
    masked = f", {item.padding:g} where `{item.mask}` is false" if item.mask else ""
    return f"{low:g} to {high:g}{masked}".replace("-inf to inf", "any")


def _usage(run: LoadedRun) -> Iterator[str]:
    yield from ("", "## Use", "", "```python")
    if run.encoder is None:
        yield "import torch"
        yield ""
        arguments = ", ".join(_zeros(run))
    else:
        yield from ("import json", "import numpy as np, torch")
        node = run.config["data"]["prepare"]["encode"]
        module, _, name = node["_target_"].rpartition(".")
        values = ", ".join(f"{key}={value!r}" for key, value in node.items() if key != "_target_")
        yield f"from {module} import {name}  # the study is installed"
        yield ""
        yield f"encoder = {name}({values})"
        yield 'encoder.load_state_dict(json.load(open("encoder.json")))'
        yield f"fields = encoder.encode({_example(run)})"
        arguments = "**{name: torch.from_numpy(values) for name, values in fields.items()}"
    yield 'model = torch.export.load("model.pt2").module()'
    yield f'print(model({arguments})["{run.spec.prediction}"])'
    yield "```"


def _zeros(run: LoadedRun) -> Iterator[str]:
    for name, item in raw_fields(run.config).items():
        kind = {"f": "", "b": ", dtype=torch.bool"}.get(item.dtype.kind, ", dtype=torch.int64")
        yield f"{name}=torch.zeros({', '.join(map(str, (1, *item.shape)))}{kind})"


def _example(run: LoadedRun) -> str:
    """The first row of the fixture, as code."""
    with contextlib.chdir(ROOT):
        found, _, _ = read_fixture(run.config)
    fields = found if isinstance(found, Mapping) else next(found)
    known = raw_fields(run.config)
    rows = {name: fields[name][:1].tolist() for name in known}
    return "{" + ", ".join(f'"{name}": np.array({row!r})' for name, row in rows.items()) + "}"


def _origin(run: LoadedRun, apart: Mapping[str, float]) -> Iterator[str]:
    record, project = run.record, _project()
    git = record.get("git") or {}
    clean = "" if git.get("clean", True) else ", with uncommitted changes"
    yield from ("", "## Origin", "")
    yield f"- fingerprint `{record['fingerprint']}`"
    yield f"- commit `{git.get('commit')}`{clean}" if git else "- of no commit"
    yield f"- licence: {project.get('license', 'none is stated')}"
    yield f"- torch {record.get('torch')}, Python {record.get('python')}"
    for name, share in apart.items():
        yield f"- `{name}`: its outputs are those of the run within {share:.1e} of the largest"
    yield ""

"""Runs that compute nothing: what they are known by, found or done in the current folder."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from my_study.harness.runs.fingerprint import identify
from my_study.harness.runs.folder import claim, read_finished
from my_study.harness.runs.record import RESULTS, Record
from my_study.harness.runs.run import Run
from my_study.harness.study import ROOT

DATA = {"train/image.npy": "0" * 64}


def identity_of(values: Mapping[str, Any], root: Path = ROOT) -> dict[str, Any]:
    """What a run with this configuration is known by."""
    return identify(root, values, DATA, "cpu")


@contextmanager
def begin(
    values: Mapping[str, Any],
    *,
    identity: Mapping[str, Any] | None = None,
    root: Path = ROOT,
    resume: Path | None = None,
) -> Iterator[Record]:
    """A run that has begun, in its folder; where nothing ends it, it leaves empty results."""
    identity = identity_of(values, root) if identity is None else identity
    with claim(root, identity, values, ["seed=1"], resume=resume) as folder:
        with Record(Run(root, folder, identity, values, ["seed=1"])) as record:
            yield record
            for name in RESULTS:
                (folder / name).touch()


def do(values: Mapping[str, Any], *, end: str = "finished") -> Path:
    """The folder of a run: of a finished one, or of one that is done now and ends like this."""
    identity = identity_of(values)
    with claim(ROOT, identity, values, ["seed=1"]) as folder:
        if read_finished(folder):
            return folder
        try:
            with Record(Run(ROOT, folder, identity, values, ["seed=1"])) as record:
                for name in RESULTS:
                    (folder / name).write_text("{}")
                record["metrics"] = {"validation": {"loss": 1.0}}
                if end != "finished":
                    raise {"failed": ValueError, "interrupted": KeyboardInterrupt}[end]
        except (ValueError, KeyboardInterrupt):
            pass
    return folder

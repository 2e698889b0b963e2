"""Which study this is: its folder, its package, its settings in pyproject.toml."""

import functools
import importlib.util
import tomllib
from pathlib import Path

PACKAGE = __package__.rpartition(".")[0]  # my_study, of which this is my_study.harness
ROOT = Path(__file__).resolve().parents[3]  # the study's folder


@functools.cache
def allowed_targets() -> tuple[str, ...]:
    """What a `_target_` may name: prefixes, each ending in a dot.

    This study, torch.nn, torch.optim, and what `[tool.study] allow` in pyproject.toml adds.
    """
    path = ROOT / "pyproject.toml"
    settings = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    added = settings.get("tool", {}).get("study", {}).get("allow", [])
    return (f"{PACKAGE}.", "torch.nn.", "torch.optim.", *(f"{name.rstrip('.')}." for name in added))


def conf_of(package: str) -> Path:
    """The configurations of a study that is installed in this environment.

    Raises:
        LookupError: there is no such package, or it carries none.
    """
    spec = None if "." in package else importlib.util.find_spec(package)
    if spec is not None and spec.origin:
        folder = Path(spec.origin).parent
        # installed by its path, or built
        for conf in (folder.parents[1] / "conf", folder / "conf"):
            if (conf / "config.yaml").is_file():
                return conf
    raise LookupError(f"{package}: is no study that is installed here; type: uv pip install PATH")

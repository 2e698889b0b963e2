"""Which study this is: its folder, its package, and what its pyproject.toml says to the harness."""

import functools
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

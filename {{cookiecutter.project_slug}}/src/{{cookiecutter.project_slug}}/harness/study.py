"""Which study this is: its folder, its package, its settings in pyproject.toml."""

import functools
import importlib.util
import tomllib
from pathlib import Path

from .errors import StudyError

PACKAGE = __package__.rpartition(".")[0]  # my_study, of which this is my_study.harness
ROOT = Path(__file__).resolve().parents[3]  # the study's folder


def allowed_targets(*, added: bool = False) -> tuple[str, ...]:
    """What a `_target_` may name: prefixes, each ending in a dot.

    This study, torch.nn, torch.optim, and what `[tool.study] allow` in pyproject.toml adds; with
    `added`, the last alone.

    Raises:
        StudyError: pyproject.toml cannot be read, or what it allows is no list of names.
    """
    names = tuple(f"{name.rstrip('.')}." for name in allow_list())
    return names if added else (f"{PACKAGE}.", "torch.nn.", "torch.optim.", *names)


@functools.cache
def allow_list() -> list[str]:
    """What `[tool.study] allow` in pyproject.toml names, as it stands there.

    Raises:
        StudyError: the file cannot be read, or names something else than packages.
    """
    path = ROOT / "pyproject.toml"
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise StudyError(f"pyproject.toml: cannot be read ({error})") from error
    names = settings.get("tool", {}).get("study", {}).get("allow", [])
    if not isinstance(names, list) or not all(isinstance(item, str) and item for item in names):
        wrong = f"pyproject.toml: allow={names!r} under [tool.study]: must be a list of names"
        raise StudyError(f'{wrong}, such as ["torchvision.models."]')
    return names


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

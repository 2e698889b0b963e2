"""Parameters by the patterns of their names."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from ..errors import StudyError

MAX_SHOWN = 12


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern such as `blocks.*` means a name; that of a module means all that is in it.

    >>> matches("blocks.0.weight", "blocks.0")
    True
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def find(pattern: str, names: Iterable[str], key: str) -> list[str]:
    """The names that a pattern means.

    Args:
        pattern: See `matches`.
        names: Those that there are.
        key: Of the configuration, for the message.

    Raises:
        StudyError: it means none.
    """
    known = list(dict.fromkeys(names))
    found = [name for name in known if matches(name, pattern)]
    if not found:
        shown = ", ".join(known[:MAX_SHOWN]) + (", ..." if len(known) > MAX_SHOWN else "")
        raise StudyError(f"{key}: {pattern}: there is no such parameter; there are: {shown}")
    return found

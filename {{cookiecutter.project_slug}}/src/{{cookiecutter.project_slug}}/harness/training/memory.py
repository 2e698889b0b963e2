"""Arrays that lie in files, which may be larger than memory."""

import mmap
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

CGROUPS = Path("/sys/fs/cgroup")


def open_array(path: Path) -> np.ndarray:
    """An array by memory map; what is written to it never reaches the file.

    Rows are read in a random order. Of a file that does not fit into memory the system must
    therefore read no more than is asked for: else it fetches megabytes for each row, and drops
    them before they are used.
    """
    # mode c: torch takes no array that is read-only
    values: np.ndarray = np.load(path, mmap_mode="c")
    is_large = path.stat().st_size > usable_memory() / 2
    if is_large and isinstance(values.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        advise(values.base, mmap.MADV_RANDOM)
    return values


def advise(mapped: mmap.mmap, advice: int) -> None:
    """Tells the system how a file will be read."""
    mapped.madvise(advice)


def usable_memory() -> int:
    """Bytes that this process may use: those of the machine, or fewer if a cgroup says so."""
    limit = sys.maxsize
    with suppress(AttributeError, ValueError):  # elsewhere than on Unix
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):  # elsewhere than on Linux
        limit = min(limit, smallest_limit(Path("/proc/self/cgroup").read_text(encoding="utf-8")))
    return limit


def smallest_limit(text: str) -> int:
    """The smallest limit of the groups in /proc/self/cgroup, and of those above them, in bytes."""
    limits = [sys.maxsize]
    for line in text.splitlines():
        _, kinds, name = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top = CGROUPS / "memory" if kinds else CGROUPS
        group = top / name.lstrip("/")
        for folder in (group, *group.parents):
            file = folder / ("memory.limit_in_bytes" if kinds else "memory.max")
            if folder.is_relative_to(top):
                with suppress(OSError, ValueError):  # no such file, or `max`
                    limits.append(int(file.read_text(encoding="utf-8")))
    return min(limits)

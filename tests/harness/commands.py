"""Commands of a study as a user types them, without the seconds that torch takes to import."""

import importlib
import os
import runpy
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from warm import exit_code


def call(folder: Path, *words: str, here: Path | None = None) -> tuple[int, str, str]:
    """Types `python WORDS`, or `study ...`, on a study's own code; in a child of this process.

    Args:
        folder: The study's.
        words: A script and its arguments; or `study`, and those of the command.
        here: The current folder; None is the study's.

    Returns:
        Exit code, standard output and standard error.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads that a child has not
            child = os.fork()
        if not child:
            os._exit(_run(folder, words, here or folder, (output, errors)))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (output, errors):
            file.seek(0)
        return code, output.read().decode(), errors.read().decode()


def _run(folder: Path, words: Sequence[str], here: Path, files: tuple[IO[bytes], ...]) -> int:
    for number, file in enumerate(files, start=1):
        os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
    for name in [name for name in sys.modules if name.split(".")[0] in ("my_study", "hydra")]:
        del sys.modules[name]
    sys.path[:0] = [str(folder / "src")]
    os.chdir(here)

    def program() -> None:
        if words[0] == "study":
            sys.argv = list(words)
            importlib.import_module("my_study.harness.commands").main()
        else:
            sys.argv = [str(folder / words[0]), *words[1:]]
            runpy.run_path(sys.argv[0], run_name="__main__")

    return exit_code(program)

"""The console command `study`: every verb but running, one file a command."""

import argparse
import functools
import importlib
import os
import signal
import sys
import tomllib
from pathlib import Path

from ..configuration.messages import MISTAKES, describe_error
from ..study import PACKAGE, ROOT
from ..terminal import settle_streams
from . import (
    check,
    compare,
    completion,
    compose,
    diff,
    evaluate,
    export,
    journal,
    pipeline,
    predict,
    reproduce,
    show,
    update,
)

COMMANDS = {
    "check": check,
    "compare": compare,
    "show": show,
    "journal": journal,
    "predict": predict,
    "evaluate": evaluate,
    "export": export,
    "reproduce": reproduce,
    "diff": diff,
    "pipeline": pipeline,
    "update": update,
    "compose": compose,
    "completion": completion,
}


def main() -> None:
    """Reads the command line, and exits with the code of the command.

    The study is that of the current folder: several may be installed in one environment.
    """
    settle_streams()
    folder = _study_here()
    if folder is not None and folder != ROOT:
        if _package_of(folder) == PACKAGE:
            sys.exit(f"error: {folder}: `study` is installed from {ROOT}; type: make env")
        _call_other(folder)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # temporary folders are removed
    chosen = make_parser().parse_args(_join_sort(sys.argv[1:]))
    try:
        code = COMMANDS[chosen.command].run(chosen)
        sys.stdout.flush()
        sys.exit(code)
    except MISTAKES as error:
        overrides = getattr(chosen, "overrides", ())
        sys.exit(f"error: {describe_error(error, overrides)}")
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.exit(1)
    except OSError as error:
        sys.exit(f"error: {error.filename or 'standard output'}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)


def make_parser() -> argparse.ArgumentParser:
    """The command line of `study`."""
    parser = argparse.ArgumentParser(
        prog="study",
        description="Checks models; compares, shows, uses and reproduces the runs of this study.",
        formatter_class=functools.partial(argparse.HelpFormatter, max_help_position=15),
    )
    parser.set_defaults(parser=parser)  # completion describes it
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        first, _, rest = (module.__doc__ or "").partition("\n")
        command = commands.add_parser(
            name,
            help=first[:1].lower() + first[1:].rstrip("."),
            description=f"{first}\n{rest}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


def _join_sort(words: list[str]) -> list[str]:
    """The command line with `--sort -accuracy` as one word: argparse takes it for two options."""
    text = "\0".join(words)
    return text.replace("\0--sort\0-", "\0--sort=-").split("\0") if words else []


def _study_here() -> Path | None:
    """The folder of the study in which this command was typed, or None outside of any."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "run.py").is_file() and _package_of(folder):
            return folder.resolve()
    return None


def _package_of(folder: Path) -> str:
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
        name = str(tomllib.loads(text)["project"]["name"])
    except (OSError, KeyError, ValueError):
        return ""
    return name if (folder / "src" / name / "harness" / "commands").is_dir() else ""


def _call_other(folder: Path) -> None:
    """Calls the same command of another study, on its own code."""
    library = str(folder / "src")
    sys.path.insert(0, library)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [library, os.environ.get("PYTHONPATH", "")])
    )
    importlib.import_module(f"{_package_of(folder)}.harness.commands").main()

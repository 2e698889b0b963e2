"""Print what bash or zsh needs to complete this command.

eval "$(study completion bash)"
"""

import argparse

from ..errors import StudyError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("shell", choices=["bash", "zsh"])


def run(arguments: argparse.Namespace) -> int:
    """Prints the script."""
    try:
        import shtab
    except ImportError as error:
        raise StudyError("shtab is not installed; type: make env") from error
    print(shtab.complete(arguments.parser, arguments.shell))
    return 0

"""What jinja lacks: answers that are checked when they are given, and shown as they were typed."""

import re
import sys
from pathlib import Path
from runpy import run_path

from jinja2 import Environment
from jinja2.ext import Extension

# cookiecutter puts this folder on the path, but `hooks` there could be anybody's
HOOK = run_path(str(Path(__file__).parent / "hooks" / "pre_gen_project.py"))


def checked(answers: dict[str, str], key: str) -> str:
    """Returns an answer that will do: at a terminal it is asked for again until it does.

    Raises:
        SystemExit: The answer will not do, and nobody is there to give another.
    """
    while complaint := HOOK["complaint"]({key: answers[key]}):
        print(complaint, file=sys.stderr)
        if "--no-input" in sys.argv or not sys.stdin.isatty():
            sys.exit(1)
        better = HOOK["valid"](key, answers[key])
        try:
            answers[key] = input(f"  {key} ({better}): ") or better
        except EOFError:
            sys.exit(1)
    return answers[key]


def markdown(line: str) -> str:
    """Returns the Markdown of a line that shows every character of it, on GitHub too."""
    line = re.sub(r"[][\\`*_<>&~#]", r"\\\g<0>", line.strip())
    # at the start, a list or a rule; then an emoji or a formula; a link would show the backslashes
    line = re.sub(r"^(\d*)([-+.)])(?=[-\s]|$)", r"\1\\\2", line)
    line = re.sub(r":(?=[\w\\+-]+:)|\$(?=.*\$)", r"<span>\g<0></span>", line)
    return re.sub(r"(?i)(www|https?|ftp)(?=[.:])", r"\1\\", line)


class Answers(Extension):  # pylint: disable=abstract-method
    """Makes filters of the functions above, for cookiecutter.json and the study's files."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters |= {
            "checked": checked,
            "markdown": markdown,
            "valid_slug": HOOK["valid_slug"],
        }

"""Predict new instances with a finished run.

Reads JSON lines, from FILE or standard input: an object a line, with the raw fields of an instance.
Writes an answer a line, in the same order: the outputs, or what is wrong with the line.
    echo '{"FIELD": VALUE}' | study predict runs/NAME
    study predict runs/NAME new.csv --csv > predictions.csv
A picture is a list of values; in a CSV it has the columns NAME_0, NAME_1 and so on. A number that
may be missing is left out, null, or an empty cell.
Exit code: 0; 1 if a line could not be answered, or a mistake; 2 wrong usage.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import StudyError
from .loaded import add_run, open_run, positive

if TYPE_CHECKING:  # torch takes seconds to import
    from ..inference import LoadedRun

Answers = Sequence[Mapping[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_run(parser)
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="else standard input")
    parser.add_argument("--csv", action="store_true", help="CSV in and out, each with a header")
    parser.add_argument(
        "--batch-size", metavar="N", type=positive, default=256, help="instances at a time (256)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the answers, batch by batch; exit code 1 if there was no answer to a line."""
    if arguments.file is None and sys.stdin.isatty():
        hint = "name a FILE, or type: echo '{\"FIELD\": VALUE}' | study predict RUN"
        raise StudyError(f"nothing to predict on standard input; {hint}")
    with ExitStack() as stack:
        stream: IO[bytes] = sys.stdin.buffer
        if arguments.file is not None:
            stream = stack.enter_context(open_file(arguments.file))
        loaded = open_run(arguments)
        return answer(loaded, stream, as_csv=arguments.csv, batch_size=arguments.batch_size)


def open_file(path: Path) -> IO[bytes]:
    """A file to read.

    Raises:
        StudyError: it cannot be read.
    """
    try:
        return open(path, "rb")
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from error


def answer(loaded: "LoadedRun", stream: IO[bytes], *, as_csv: bool, batch_size: int) -> int:
    """Reads, predicts and prints.

    Raises:
        StudyError: there is no line.
    """
    from ..inference.answering import answer_all, columns_of
    from ..inference.instances import raw_fields, read_csv, read_json

    columns = columns_of(loaded.spec) if as_csv else {}
    read = read_csv if as_csv else read_json
    instances = read(stream, raw_fields(loaded.config))
    num_lines, num_wrong, first = 0, 0, ""
    for answers in answer_all(loaded, instances, batch_size=batch_size):
        lines = to_csv(answers, columns, header=not num_lines) if as_csv else to_json(answers)
        print(lines, end="", flush=True)
        wrong = [each for each in answers if "error" in each]
        num_lines, num_wrong = num_lines + len(answers), num_wrong + len(wrong)
        first = first or "".join(f"line {each['line']}: {each['error']}" for each in wrong[:1])
    if not num_lines:
        raise StudyError("nothing to predict: the input has no line")
    if num_wrong:
        print(f"error: {num_wrong} of {num_lines} not answered, first {first}", file=sys.stderr)
    return 1 if num_wrong else 0


def to_json(answers: Answers) -> str:
    """An object a line."""
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in answers)


def to_csv(answers: Answers, columns: Mapping[str, Sequence[str]], *, header: bool) -> str:
    """A row an answer: the columns of the outputs, and `error`, which is empty or says why."""
    names = [name for each in columns.values() for name in each]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*names, "error"], restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    for each in answers:
        cells = {"error": f"line {each['line']}: {each['error']}"} if "error" in each else {}
        for name in columns if not cells else ():
            cells |= zip(columns[name], flatten(each[name]), strict=True)
        writer.writerow(cells)
    return text.getvalue()


def flatten(value: Any) -> Iterator[Any]:
    """The values of nested lists, in their order."""
    if isinstance(value, list):
        for item in value:
            yield from flatten(item)
    else:
        yield value

"""Standard input, output and error: a run outlives whoever reads them, in any locale."""

import atexit
import functools
import io
import logging
import os
import sys


@functools.cache
def settle_streams() -> None:
    """Makes a program independent of its streams: closed, full, or without a reader.

    What cannot be printed is dropped. A stream that was closed becomes an empty one: the next file
    to be opened would get its number, and with it what other programs print.
    """
    _speak_utf8()
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no notebook's
            stream.reconfigure(errors="backslashreplace")
    logging.raiseExceptions = False  # no traceback for each line that is not read
    atexit.register(_flush_streams)


def _speak_utf8() -> None:
    """Starts this program again where Python would take every name and word for ASCII."""
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _flush_streams() -> None:
    """Python would end with a traceback and exit code 120 if this failed later."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

"""Programs of a study without the seconds that torch and dvc take to import.

One process imports them and waits. For each program it forks: the child starts as a new process
would, but for what is imported already. Nothing of a study is imported before the fork.
"""

import contextlib
import ctypes
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# not hydra, which is a plugin of pytest too: pytest warns of one that is imported already
MODULES = ("dvc.cli", "dvc.commands.repro", "pytest", "torch._dynamo")
PR_SET_PTRACER = 0x59616D61  # of Linux: any process may attach


class Warm:
    """The process that waits; a context manager ends it.

    Args:
        python: Of the study's environment.
        environment: Its variables.
        modules: What it imports.
    """

    def __init__(
        self, python: Path, environment: Mapping[str, str], modules: Sequence[str] = MODULES
    ) -> None:
        kept = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [python, __file__, *modules],
            env=kept,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Warm":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # closes its stdin: it ends

    def call(
        self, folder: Path, *words: str, code: int = 0, env: Mapping[str, str] | None = None
    ) -> str:
        """What `python WORDS` prints in a study's folder, on that study's code; errors included.

        Args:
            folder: The study's.
            words: A script and its arguments, or `-m`, a module and its arguments.
            code: The exit code that it must have.
            env: Variables of the environment, besides.
        """
        ended, output = self.attempt(folder, *words, env=env)
        assert ended == code, output[-20000:]
        return output

    def attempt(
        self,
        folder: Path,
        *words: str,
        env: Mapping[str, str] | None = None,
        strace: Sequence[str] = (),
    ) -> tuple[int, str]:
        """The exit code of a program, negative for a signal, and what it prints.

        Args:
            folder: The study's.
            words: As for `call`.
            env: Variables of the environment, besides.
            strace: Options of strace, which then watches the main thread.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        request = {"folder": str(folder), "words": words, "env": dict(env or {})}
        self.process.stdin.write(json.dumps(request | {"strace": list(strace)}) + "\n")
        self.process.stdin.flush()
        done = json.loads(self.process.stdout.readline())
        return int(done["code"]), str(done["output"])


def serve() -> None:
    """Answers requests, a line each, until there are no more."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)


def answer(folder: str, words: list[str], env: dict[str, str], strace: list[str]) -> dict[str, Any]:
    """Runs a program in a child; returns its exit code and what it printed."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        child = os.fork()
        if not child:
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            if strace:
                ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
                signal.raise_signal(signal.SIGSTOP)
            os._exit(run(Path(folder), words, env))
        if strace:
            attach(child, strace)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return {"code": code, "output": output.read()}


def attach(child: int, strace: list[str]) -> None:
    """Lets strace watch a child that has stopped itself, and the child go on."""
    os.waitpid(child, os.WUNTRACED)
    words = ["strace", "--quiet=all", "--attach", str(child), *strace]
    tracer = subprocess.Popen(words)  # pylint: disable=consider-using-with
    while "TracerPid:\t0\n" in Path(f"/proc/{child}/status").read_text(encoding="utf-8"):
        if tracer.poll() is not None:
            break  # it may not: the caller sees that nothing was killed
        time.sleep(0.001)
    os.kill(child, signal.SIGCONT)


def run(folder: Path, words: list[str], env: dict[str, str]) -> int:
    """Runs a program as `python WORDS` would; returns its exit code."""
    os.chdir(folder)
    os.environ |= {**env, "PYTHONPATH": str(folder / "src")}
    # `python` puts the script's folder there, or for -m the current one: here both are the study's
    sys.path[:1] = [str(folder), str(folder / "src")]

    def program() -> None:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")

    return exit_code(program)


def exit_code(program: Callable[[], None]) -> int:
    """The exit code with which a process would end that calls this and nothing else."""
    try:
        program()
        return 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # pylint: disable=broad-exception-caught
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


if __name__ == "__main__":
    serve()

"""CPU seconds of the commands that a user waits for: the median of five. make bench."""

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TEMPLATE = Path(__file__).parent.parent
STUDY = TEMPLATE / "build" / "my_study"
BIN = (STUDY / ".venv" / "bin").resolve()


def cpu_seconds(*command: str | Path) -> float:
    """User and system time of a command and its children, the median of five."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=STUDY, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds)


def main() -> None:
    """Prints a line a command."""
    with tempfile.TemporaryDirectory() as folder:
        cookiecutter = Path(sys.executable).parent / "cookiecutter"
        bake = (cookiecutter, "--no-input", "--overwrite-if-exists", "-o", folder, TEMPLATE)
        print(f"{cpu_seconds(*bake):6.2f} s  cookiecutter --no-input")
    for command in (
        ["python", "run.py", "--help"],
        ["python", "run.py", "--cfg", "job"],
        ["study", "--help"],
        ["study", "compose", "experiments", "--experiments", "linear", "mlp", "cnn"],
        ["dvc", "repro"],
        ["python", "run.py", "model=linear", "run_dir=runs/timed", "force=true"],
    ):
        print(f"{cpu_seconds(BIN / command[0], *command[1:]):6.2f} s  {' '.join(command)}")


if __name__ == "__main__":
    main()

"""What is done with a finished run: load it, predict, evaluate, export.

In a notebook or a script:

    run = load_run("runs/NAME")
    outputs = run.predict({"image": images})  # raw fields, an instance a row
"""

from .loading import LoadedRun, load_run

__all__ = ["LoadedRun", "load_run"]

"""Trackers: each shows runs elsewhere, besides their record. A file here and one in conf/tracker/.

A tracker is a class that takes, besides what conf/tracker/ says:
    name          of the run's folder
    folder        of the run
    parameters    each value of the configuration that can change a number, by its key with dots
and has two methods:
    log(row)                  a row of the history; after a run is resumed, from the first one again
    close(status, metrics)    finished, interrupted or failed; the final numbers, if there are any

Whatever it raises becomes one warning: the run goes on without it. It has neither model nor data.
"""

import importlib.util

from ..errors import StudyError, install


def need(package: str, *, tracker: str) -> None:
    """Looks for the package of a tracker, without importing it.

    Raises:
        StudyError: it is not installed; the message says what to type.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:  # a folder of this name is no package
        raise StudyError(f"tracker={tracker}: is not installed; type: {install(tracker)}")

"""The library of the study: plain PyTorch, usable from a script, a test or a notebook.

`configuration` is the one module that knows Hydra; nothing else here imports it.
"""


class StudyError(Exception):
    """A mistake that a person can mend: shown as one line, without a traceback."""

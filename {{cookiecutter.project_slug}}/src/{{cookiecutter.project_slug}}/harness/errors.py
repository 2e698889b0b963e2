"""The one kind of error that is a person's to correct."""


class StudyError(Exception):
    """A mistake that a person can correct: shown as one line, without a traceback."""

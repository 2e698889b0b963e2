"""What `python run.py` does instead of a run, by one word: none of it leaves a run behind.

None writes a record or into runs/, so none can be taken for a result.
    debug=overfit    memorises one batch of the training split, or says why not
    debug=brief      a few steps of everything that a run does
    debug=profile    what takes time
    task=find_lr     which learning rate to try
"""

from collections.abc import Callable
from typing import Any

from .brief import brief
from .find_lr import find_lr
from .overfit import overfit
from .profile import profile

INSTEAD: dict[str, Callable[[Any], float]] = {
    "overfit": overfit,
    "brief": brief,
    "profile": profile,
    "find_lr": find_lr,
}

"""`python run.py debug=overfit`: can the model memorise one batch? If not, why?

The model, its loss, its optimizer and its `train_step` are those of a run; what keeps a model from
memorising is left out: dropout, augmentation and the schedule (the rate is model.lr throughout).
"""

import logging
from typing import TYPE_CHECKING, Any

from ..configuration import build_trainer, open_split, to_values
from ..errors import StudyError
from ..files import write_atomically
from .aside import folder_aside, set_up_aside
from .find_lr import CONSTANT

if TYPE_CHECKING:  # torch takes seconds to import
    from ..training.trainer import Trainer
    from .memorising import Attempt

log = logging.getLogger(__name__)


def overfit(config: Any) -> float:
    """Trains on one batch until it is memorised; logs the loss, and writes it to debug/NAME.

    Args:
        config: Resolved and checked, as of a run.

    Returns:
        The last loss.

    Raises:
        StudyError: it is not memorised; the message says why, as far as can be told.
    """
    # torch takes seconds to import: --help, --cfg and most mistakes do without it
    from .memorising import first_batch, make_case, memorise
    from .reasons import describe_idle, explain

    device = set_up_aside(config)
    train = open_split(config, "train")
    case = make_case(to_values(config), first_batch(config, train), device)

    def attempt(rate: float) -> "Attempt":
        return memorise(case, _trainer_at(config, train, device, rate))

    log.info(
        "one batch of %d different rows, again and again, at model.lr=%g",
        case.num_rows,
        config.model.lr,
    )
    log.info("without dropout, augmentation and schedule; all else as in a run")
    found = attempt(config.model.lr)
    _show(found)
    folder = folder_aside("debug")
    rows = "".join(f"{step},{loss!r}\n" for step, loss in enumerate(found.losses, start=1))
    write_atomically(folder / "overfit.csv", f"step,train_loss\n{rows}".encode())
    log.info("%s: the loss at each step", folder / "overfit.csv")
    if not found.memorised:
        raise StudyError(f"not memorised: {explain(case, found, attempt)}")
    if found.idle:
        log.warning("memorised, although %s", describe_idle(found))
    log.info("memorised after %d steps: %s", len(found.losses), found.reached)
    return found.losses[-1]


def _trainer_at(config: Any, train: Any, device: Any, rate: float) -> "Trainer":
    """A new trainer with a constant learning rate, and without augmentation."""
    from ..training.determinism import seed_everything

    constant = config.copy()
    constant.model.lr, constant.training.schedule = rate, CONSTANT
    constant.data.augmentation = None
    seed_everything(config.seed)
    return build_trainer(constant, train, device)


def _show(found: "Attempt") -> None:
    """Logs the loss at steps 1, 2, 5, 10 and so on, and at the last one."""
    last = len(found.losses)
    steps = [base * 10**power for power in range(4) for base in (1, 2, 5)]
    for step in [*(step for step in steps if step < last), last]:
        log.info("step %4d  loss %.4g", step, found.losses[step - 1])

"""`python run.py task=find_lr model=cnn`: which learning rate to try. It leaves no run behind."""

import logging
from typing import Any

from ..configuration import build_trainer, open_split
from ..errors import StudyError
from ..files import write_atomically
from .aside import folder_aside, set_up_aside

log = logging.getLogger(__name__)
FOLDER = "lr_range"  # a folder in it for each command line
CONSTANT = {"_target_": "torch.optim.lr_scheduler.ConstantLR", "factor": 1.0, "total_iters": 1}


def find_lr(config: Any) -> float:
    """Tests a range of rates on a new model; logs the one to try, and writes and draws the curve.

    Args:
        config: Resolved and checked, as of a run.

    Raises:
        StudyError: the data are not prepared, or the model does not learn at any rate.
    """
    # torch takes seconds to import: --help, --cfg and most mistakes do without it
    from ..training import range_test

    device = set_up_aside(config)
    growing = config.copy()
    growing.model.lr, growing.training.schedule = range_test.LOWEST, CONSTANT
    train = open_split(config, "train")
    curve = range_test.run_range_test(build_trainer(growing, train, device), train)
    rate = range_test.suggest_rate(curve)
    if rate is None:
        raise StudyError("the loss falls at no learning rate: check the model, with study check")
    folder = folder_aside(FOLDER)
    rows = "".join(f"{lr!r},{loss!r}\n" for lr, loss in curve)
    write_atomically(folder / "curve.csv", f"lr,train_loss\n{rows}".encode())
    write_atomically(folder / "curve.svg", draw(range_test.smooth(curve), rate))
    log.info("%s: the loss at %d rates", folder / "curve.svg", len(curve))
    log.info("try model.lr=%.1e, which is %.1e now", rate, config.model.lr)
    return rate


def draw(curve: list[tuple[float, float]], rate: float) -> bytes:
    """The smoothed loss over the rate, and where the suggested rate is. SVG, the same each time."""
    from ..reporting.figures import figure_as_svg

    before = [loss for lr, loss in curve if lr <= rate]
    with figure_as_svg() as (axes, content):
        axes.plot(*zip(*curve, strict=True), color="#0072b2")
        axes.axvline(rate, linestyle=":", color="#d55e00", label=f"model.lr={rate:.1e}")
        lowest, highest = min(loss for _, loss in curve), max(before)
        margin = 0.1 * (highest - lowest)  # what comes after the rise would squeeze the rest
        axes.set(xlabel="model.lr", ylabel="train loss", xscale="log")
        axes.set_ylim(lowest - margin, highest + margin)
        axes.legend(frameon=False, loc="best")
    return content.getvalue()

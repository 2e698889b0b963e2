"""Why a batch was not memorised."""

from collections.abc import Callable, Mapping

from torch import Tensor

from ..checks import fitting
from ..checks.case import Case
from ..training.step import to_device
from .memorising import Attempt, describe, error_of_guessing


def explain(case: Case, failed: Attempt, again: Callable[[float], Attempt]) -> str:
    """Why a batch was not memorised: what was seen, and what to do.

    First what can be seen at once; then whether another rate does it, and whether plain Adam does,
    which tells the settings of training from the model.

    Args:
        case: The batch.
        failed: The attempt.
        again: Tries another learning rate.
    """
    rate, last = failed.rate, failed.losses[-1]
    if not failed.finite and len(failed.losses) == 1:
        return f"the loss is {last} at the first step, before any learning: check data and loss"
    if len(failed.idle) == len(failed.weights):
        return "the gradient is zero at every parameter: nothing of the model reaches the loss"
    for other in (rate / 10, rate * 10):
        if again(other).memorised:
            word = "large" if other < rate else "small"
            return f"model.lr={rate:g} is too {word}: at model.lr={other:g} it is memorised"
    seen = failed.reached if failed.finite else f"the loss is {last}"
    seen = f"{seen} after {len(failed.losses)} steps"
    if case.spec.task == "unsupervised":
        return f"{seen}, and no more at {rate / 10:g} and {10 * rate:g}; {describe_idle(failed)}"
    batch = to_device(case.batch, case.device)
    able, outputs, best = fitting.memorise(case, batch)
    if able:
        hint = "look at training.optimizer, training.freeze and model.lr (task=find_lr)"
        return f"{seen}; the model can do it: plain Adam does, at {best:g}; {hint}"
    tried = f"{seen}, and with plain Adam {describe(case, outputs, batch)}"
    return f"{tried}; {_suspect(case, failed, outputs)}"


def describe_idle(failed: Attempt) -> str:
    """The parameters without a gradient, if there are any."""
    if not failed.idle:
        return "to find why, type study check"
    names = sorted(failed.idle)
    return f"the gradient is zero at {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _suspect(case: Case, failed: Attempt, outputs: Mapping[str, Tensor]) -> str:
    """What most likely keeps a model from memorising, whatever trains it."""
    batch = to_device(case.batch, case.device)
    if failed.idle:
        return describe_idle(failed)
    if fitting.error(case, outputs, batch) > 0.9 * error_of_guessing(case, batch):
        return "that is guessing: the inputs do not reach the output; to find where: study check"
    if case.spec.task == "classification" and fitting.share_right(case, outputs, batch) == 1:
        return "but the loss stays large: a softmax before a cross-entropy? Type study check"
    size = sum(failed.weights.values())
    return f"too few weights ({size:,}) for {case.num_rows} rows? If not, type study check"

"""Checks of learning: memorising, descent, the true gradient, generalisation."""

import math

import torch
from torch import Tensor, nn

from ..training.determinism import mix, seed_everything
from ..training.prepared import Batch
from .case import Case
from .data import split_rows
from .failures import Failed, NotApplicable
from .fitting import RATES, counted_targets, distinct_rows, error, memorise, share_right
from .running import check

STEPS = (1e-8, 1e-6, 1e-4, 1e-3)  # of finite differences; small ones avoid kinks (of a ReLU)
NUM_DIRECTIONS = 3


@check(
    "a softmax before a cross-entropy, which applies its own; a bounded output; weights that are "
    "set in `forward`; targets that are shifted or permuted; very large or very small inputs"
)
def three_instances_are_fitted_perfectly(case: Case) -> None:
    """Three instances can be memorised: in evaluation mode every class is right, and likely.

    Dropout is off, batch norm takes its statistics from the instances, three rates are tried.
    Catches: any mistake that keeps a model from fitting data at all.
    False alarms: 0 of 270 runs on correct models.
    Source: "A Recipe for Training Neural Networks" (Karpathy, 2019): overfit one batch.
    """
    batch = distinct_rows(case, 3)
    memorised, outputs, rate = memorise(case, batch)
    if memorised:
        return
    rates = ", ".join(f"{rate:g}" for rate in RATES)
    tried = f"Adam at {rate:g}, the best of {rates}"
    loss = float(outputs["loss"])
    if case.spec.task == "regression":
        reached = f"an error of {error(case, outputs, batch):.3g}"
        expected = "an error below 2 % of their variance, in evaluation mode"
    else:
        reached = f"{share_right(case, outputs, batch):.0%} right"
        expected = "every class right, and a small loss, in evaluation mode"
    seen = f"three instances end at {reached} and a loss of {loss:.3g} ({tried})"
    cause = None
    if loss < 0.02:
        cause = "a loss that is not computed from the prediction and the targets of the batch"
    elif case.spec.task == "classification" and share_right(case, outputs, batch) == 1:
        cause = "a softmax before a cross-entropy, which applies its own: the loss stays large"
    raise Failed(f"output `{case.spec.prediction}`", seen, expected, cause)


@check(
    "a loss with the wrong sign, a gradient that is reversed or cut, noise in evaluation mode, an "
    "argmax or a rounding before the loss"
)
def the_loss_falls_at_every_small_step(case: Case) -> None:
    """Five steps of gradient descent, each sized to lower the loss by 1 %, all lower it.

    Without dropout. Smaller steps (a tenth, a hundredth) are tried next, in case of a kink.
    Catches: a gradient that does not point uphill.
    False alarms: 0 of 270 runs on correct models.
    Source: AllenNLP; calculus.
    """
    losses: list[float] = []
    for fraction in (1e-2, 1e-3, 1e-4):
        model, batch, _ = case.precise(case.fresh())
        losses = [_descend(case, model, batch, fraction) for _ in range(6)]
        if all(after < before for before, after in zip(losses, losses[1:], strict=False)):
            return
    shown = ", ".join(f"{loss:.6g}" for loss in losses)
    seen = f"is {shown} after small steps of gradient descent"
    raise Failed("output `loss`", seen, "a smaller loss after each step")


def _descend(case: Case, model: nn.Module, batch: Batch, fraction: float) -> float:
    """One step that lowers the loss by this fraction to first order; returns the loss before it."""
    loss, gradients = _gradients(case, model, batch)
    slope = math.fsum(float(gradient.abs().square().sum()) for gradient in gradients)
    if not slope:
        raise Failed("output `loss`", "has a gradient of zero", "a gradient that is not zero")
    rate = fraction * abs(float(loss)) / slope
    with torch.no_grad():
        for parameter, gradient in zip(_trainable(model), gradients, strict=True):
            parameter.sub_(rate * gradient)
    return float(loss)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters; raises NotApplicable if there are none."""
    parameters = [item for item in model.parameters() if item.requires_grad]
    if not parameters:
        raise NotApplicable("the model has no trainable parameter")
    return parameters


def _gradients(case: Case, model: nn.Module, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """The loss and its gradient for each trainable parameter."""
    seed_everything(mix(case.seed, 2))  # as in `Case.outputs`
    with torch.backends.cudnn.flags(enabled=False):
        loss = case.forward(model, batch)["loss"]
        found = torch.autograd.grad(loss, _trainable(model), allow_unused=True)
    pairs = zip(found, _trainable(model), strict=True)
    return loss.detach(), [torch.zeros_like(p) if g is None else g for g, p in pairs]


@check(
    "a `.detach()` or `torch.no_grad` on one of two paths, an edit in place, a wrong custom "
    "backward, a padding_idx that is a real token; if intended (a straight-through estimator, a "
    "reversed gradient), opt out"
)
def gradients_equal_finite_differences(case: Case) -> None:
    """Along a random direction autograd agrees with finite differences, for each parameter.

    In float64 where the model allows it; one of 4 step sizes and 3 directions must agree.
    Catches: one of two paths is cut, so that the gradient is not zero, but wrong.
    False alarms: 0 of 270 runs on correct models.
    Source: Griewank and Walther, Evaluating Derivatives (2008); torch.autograd.gradcheck.
    """
    model, batch, tolerance = case.precise(case.trained())
    _, gradients = _gradients(case, model, batch)
    names = [name for name, item in model.named_parameters() if item.requires_grad]
    noise = 1e-14 if tolerance == 1e-5 and _is_smooth(case, model, batch) else 3e-7
    for name, parameter, gradient in zip(names, _trainable(model), gradients, strict=True):
        tried = []
        for number in range(NUM_DIRECTIONS):
            seed_everything(mix(case.seed, 4, number))
            direction = torch.randn(parameter.shape).to(parameter)
            direction /= direction.norm()
            slope = float((direction.conj() * gradient).real.sum())
            agrees, nearest = _agrees(case, model, batch, parameter, direction, slope, noise)
            tried.append((slope, nearest))
            if agrees:
                break
        else:
            slope, nearest = tried[0]
            seen = f"the slope is {slope:.4g} by autograd, and {nearest:.4g} by finite differences"
            raise Failed(f"parameter `{name}`", seen, "the same slope")


def _agrees(
    case: Case,
    model: nn.Module,
    batch: Batch,
    parameter: nn.Parameter,
    direction: Tensor,
    slope: float,
    noise: float,
) -> tuple[bool, float]:
    """Whether a finite difference agrees with the slope, and the one that is nearest."""
    nearest, start = math.inf, parameter.detach().clone()
    for step in STEPS:
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.copy_(start + sign * step * direction)
            losses.append(float(case.outputs(model, batch)["loss"]))
        with torch.no_grad():
            parameter.copy_(start)
        difference = (losses[0] - losses[1]) / (2 * step)
        if abs(difference - slope) < abs(nearest - slope):
            nearest = difference
        rounding = noise * max(abs(losses[0]), 1) / step
        if rounding > 0.1 * abs(slope) + 1e-3 and step != STEPS[-1]:
            continue  # rounding dominates at this step
        if abs(difference - slope) <= 0.01 * max(abs(slope), abs(difference)) + 2 * rounding + 1e-7:
            return True, nearest
    return False, nearest


def _is_smooth(case: Case, model: nn.Module, batch: Batch) -> bool:
    """Whether the loss responds to a change too small for float32."""
    parameter = _trainable(model)[-1]
    before = float(case.outputs(model, batch)["loss"])
    with torch.no_grad():
        start = parameter.clone()
        parameter.add_(1e-10 * torch.randn(parameter.shape).to(parameter))
        after = float(case.outputs(model, batch)["loss"])
        parameter.copy_(start)
    return before != after


@check(
    "labels that were matched to the wrong rows when the data were prepared, a loss that does not "
    "use the target; if there are too few rows to learn from, opt out",
    slow=True,
)
def real_labels_generalise_and_shuffled_ones_do_not(case: Case) -> None:
    """On held-out rows a model beats guessing if it learned real labels, and not shuffled ones.

    The lowest error during training on held-out rows, compared with that of guessing: the squared
    error, or the negative log-likelihood. Shuffling gives the rows of each class labels of all
    classes. Up to 3 seeds are tried, because few rows can mislead.
    Catches: labels of other rows, inputs without information, a loss that ignores the labels.
    False alarms: 0 of 270 runs on correct models.
    Source: Zhang et al., "Understanding deep learning requires rethinking generalization" (2017);
    Ojala and Garriga, "Permutation Tests for Studying Classifier Performance" (2010).
    """
    case.target()
    train, held_out = split_rows(case)
    guess = _error_of_guessing(case, train, held_out)
    real, shuffled = math.inf, 0.0
    for attempt in range(3):
        real = min(real, _best_held_out(case, train, held_out, attempt))
        wrong = {**train, "target": _shuffle(case, train, attempt)}
        shuffled = max(shuffled, _best_held_out(case, wrong, held_out, attempt))
        if real < 0.95 * guess and shuffled > guess - 0.5 * (guess - real):
            return
    seen = f"is {real:.3g} with real labels and {shuffled:.3g} with shuffled labels"
    expected = f"the first well below that of guessing, {guess:.3g}, and the second close to it"
    raise Failed("error on held-out rows", seen, expected)


def _best_held_out(case: Case, train: Batch, held_out: Batch, number: int) -> float:
    """The lowest error on held-out rows in 120 steps of training."""
    model, best = case.fresh(number), math.inf
    for step, _ in enumerate(case.train(model, train, lr=0.005, num_steps=120), 1):
        if step % 4 == 0:
            outputs = case.predictions(model.eval(), held_out)
            best = min(best, error(case, outputs, held_out))
    return best


def _error_of_guessing(case: Case, train: Batch, held_out: Batch) -> float:
    """The error on held-out rows if only the frequencies (or the mean) of the targets are known."""
    seen = train["target"][counted_targets(case, train)]
    target = held_out["target"][counted_targets(case, held_out)]
    if case.spec.task == "regression":
        return float((target - seen.mean()).square().mean())
    low = case.spec.labels.start
    counts = torch.bincount(seen - low, minlength=case.spec.num_classes).float() + 1
    return float(-(counts / counts.sum()).log()[target - low].mean())


def _shuffle(case: Case, train: Batch, number: int) -> Tensor:
    """Targets that do not depend on the inputs, with about the same frequencies."""
    target, counted = train["target"].clone(), counted_targets(case, train)
    seed_everything(mix(case.seed, 5, number))
    if case.spec.task == "classification" and target.dim() == 1:
        low, num_classes = case.spec.labels.start, case.spec.num_classes
        for label in case.spec.labels:
            rows = torch.nonzero(train["target"] == label).flatten()
            order = (torch.randperm(len(rows)) + 1 + label - low).to(target)
            target[rows] = low + order % num_classes
        return target
    values = target[counted]
    target[counted] = values[torch.randperm(len(values)).to(values.device)]
    return target

"""Whether a model can learn: by heart, downhill, by its true gradient, and what generalises."""

import math

import torch
from torch import Tensor, nn

from ..training.prepared import Batch
from ..training.determinism import mix, seed_everything
from .case import Case, Failed, NotApplicable, check, without_target
from .data import split_rows
from .fitting import RATES, counted_targets, distinct_rows, error, fit, share_right

STEPS = (1e-8, 1e-6, 1e-4, 1e-3)  # of differences; in float64 the first steps over no kink
NUM_DIRECTIONS = 3


@check(
    "a softmax before a cross-entropy that has its own, an output that is bounded, weights set in "
    "`forward`, targets that are shifted or permuted, inputs that are very large or very small"
)
def three_instances_are_fitted_perfectly(case: Case) -> None:
    """Three instances are learnt by heart: every class right in evaluation mode, and likely.

    Dropout is off, batch norm takes its statistics from the instances, three rates are tried.
    Catches: what keeps a model from fitting anything at all.
    False alarms: 0 of 270 runs on models that are right.
    Source: "A Recipe for Training Neural Networks" (Karpathy, 2019): overfit one batch.
    """
    batch = distinct_rows(case, 3)
    fitted, outputs = fit(case, batch)
    if fitted:
        return
    rates = ", ".join(f"{rate:g}" for rate in RATES)
    loss = float(outputs["loss"])
    if case.spec.task == "regression":
        reached = f"an error of {error(case, outputs, batch):.3g}"
        wanted = "an error of 2 % of their variance, in evaluation mode"
    else:
        reached = f"{share_right(case, outputs, batch):.0%} right"
        wanted = "every class right, and a small loss, in evaluation mode"
    seen = f"three instances end at {reached} and a loss of {loss:.3g} (Adam at {rates})"
    cause = None
    if loss < 0.02:
        cause = "a loss that is computed from something else than the prediction, or other targets"
    elif case.spec.task == "classification" and share_right(case, outputs, batch) == 1:
        cause = "a softmax before a cross-entropy that has its own: the loss cannot become small"
    raise Failed(f"output `{case.spec.prediction}`", seen, wanted, cause)


@check(
    "a loss with the wrong sign, a gradient that was reversed or cut, noise in evaluation mode, an "
    "argmax or rounding on the way"
)
def the_loss_falls_at_every_small_step(case: Case) -> None:
    """Plain gradient descent with a step that should lower the loss by 1 % does lower it, 5 times.

    Without dropout. If a kink is in the way, a tenth and a hundredth of the step are tried.
    Catches: a gradient that does not point uphill.
    False alarms: 0 of 270 runs on models that are right.
    Source: AllenNLP; calculus.
    """
    losses: list[float] = []
    for fraction in (1e-2, 1e-3, 1e-4):
        model, batch, _ = case.precise(case.fresh())
        losses = [_descend(case, model, batch, fraction) for _ in range(6)]
        if all(after < before for before, after in zip(losses, losses[1:], strict=False)):
            return
    told = ", ".join(f"{loss:.6g}" for loss in losses)
    raise Failed("output `loss`", f"is {told} at small steps downhill", "a smaller one each time")


def _descend(case: Case, model: nn.Module, batch: Batch, fraction: float) -> float:
    """One step that lowers the loss by a fraction of itself, if its gradient is true."""
    loss, gradients = _gradients(case, model, batch)
    slope = math.fsum(float(gradient.abs().square().sum()) for gradient in gradients)
    if not slope:
        raise Failed("output `loss`", "has a gradient of zero", "one that leads downhill")
    rate = fraction * abs(float(loss)) / slope
    with torch.no_grad():
        for parameter, gradient in zip(_trainable(model), gradients, strict=True):
            parameter.sub_(rate * gradient)
    return float(loss)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    parameters = [item for item in model.parameters() if item.requires_grad]
    if not parameters:
        raise NotApplicable("the model has no trainable parameter")
    return parameters


def _gradients(case: Case, model: nn.Module, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    seed_everything(mix(case.seed, 2))  # as `Case.outputs` does
    with torch.backends.cudnn.flags(enabled=False):
        loss = case.forward(model, batch)["loss"]
        found = torch.autograd.grad(loss, _trainable(model), allow_unused=True)
    pairs = zip(found, _trainable(model), strict=True)
    return loss.detach(), [torch.zeros_like(p) if g is None else g for g, p in pairs]


@check(
    "a `.detach()` or `torch.no_grad` on one of two paths, an edit in place, a custom backward "
    "that is wrong, a padding_idx that is a real token; if meant (a straight-through estimator, a "
    "reversed gradient), opt out"
)
def gradients_equal_finite_differences(case: Case) -> None:
    """The derivative along a random direction is the difference of two losses, for each parameter.

    In float64 where the model allows it, the best of 4 steps and 3 directions.
    Catches: a path that is cut while another remains, so that a gradient is there and wrong.
    False alarms: 0 of 270 runs on models that are right.
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
            seen = f"autograd's slope is {slope:.4g}, and by finite differences {nearest:.4g}"
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
    """Whether any finite difference is the slope, and the nearest one."""
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
            continue  # in float32 this step is too small to say anything
        if abs(difference - slope) <= 0.01 * max(abs(slope), abs(difference)) + 2 * rounding + 1e-7:
            return True, nearest
    return False, nearest


def _is_smooth(case: Case, model: nn.Module, batch: Batch) -> bool:
    """Whether the loss follows a change that float32 would round away."""
    parameter = _trainable(model)[-1]
    before = float(case.outputs(model, batch)["loss"])
    with torch.no_grad():
        start = parameter.clone()
        parameter.add_(1e-10 * torch.randn(parameter.shape).to(parameter))
        after = float(case.outputs(model, batch)["loss"])
        parameter.copy_(start)
    return before != after


@check(
    "labels that stand beside the wrong rows since the data were prepared, a loss that does not "
    "use its target; too few rows to learn from are a reason to opt out",
    slow=True,
)
def real_labels_generalise_and_shuffled_ones_do_not(case: Case) -> None:
    """Trained on real labels the model is better than guessing on held-out rows; on shuffled, not.

    The prediction's error on held-out rows, best over training, against that of guessing: squared
    error, or the likelihood of the right class. Labels are shuffled so that each class gets all
    others. Up to 3 seeds are tried, for few rows can mislead.
    Catches: labels that have lost their rows, inputs that say nothing, a loss that does not look
    at its labels.
    False alarms: 0 of 270 runs on models that are right.
    Source: Zhang et al., "Understanding deep learning requires rethinking generalization" (2017);
    Ojala and Garriga, "Permutation Tests for Studying Classifier Performance" (2010).
    """
    train, held_out = split_rows(case)
    guess = _error_of_guessing(case, train, held_out)
    real, shuffled = math.inf, 0.0
    for attempt in range(3):
        real = min(real, _best_held_out(case, train, held_out, attempt))
        wrong = {**train, "target": _shuffle(case, train, attempt)}
        shuffled = max(shuffled, _best_held_out(case, wrong, held_out, attempt))
        if real < 0.95 * guess and shuffled > guess - 0.5 * (guess - real):
            return
    told = f"is {real:.3g} after real labels and {shuffled:.3g} after shuffled ones"
    wanted = f"the first well below that of guessing, {guess:.3g}, and the second near it"
    raise Failed("error on held-out rows", told, wanted)


def _best_held_out(case: Case, train: Batch, held_out: Batch, number: int) -> float:
    model, best = case.fresh(number), math.inf
    for step, _ in enumerate(case.train(model, train, lr=0.005, num_steps=120), 1):
        if step % 4 == 0:
            outputs = case.outputs(model.eval(), without_target(held_out))
            best = min(best, error(case, outputs, held_out))
    return best


def _error_of_guessing(case: Case, train: Batch, held_out: Batch) -> float:
    """On held-out rows, of a model that has only seen how often each target occurs."""
    seen = train["target"][counted_targets(case, train)]
    asked = held_out["target"][counted_targets(case, held_out)]
    if case.spec.task == "regression":
        return float((asked - seen.mean()).square().mean())
    low, num_classes = int(case.spec.target.low or 0), case.spec.num_classes
    counts = torch.bincount(seen - low, minlength=num_classes).float() + 1
    return float(-(counts / counts.sum()).log()[asked - low].mean())


def _shuffle(case: Case, train: Batch, number: int) -> Tensor:
    """The same targets at other rows."""
    target, counted = train["target"].clone(), counted_targets(case, train)
    seed_everything(mix(case.seed, 5, number))
    if case.spec.task == "classification" and target.dim() == 1:
        low, num_classes = int(case.spec.target.low or 0), case.spec.num_classes
        for label in range(low, low + num_classes):
            rows = torch.nonzero(train["target"] == label).flatten()
            order = (torch.randperm(len(rows)) + 1 + label - low).to(target)
            target[rows] = low + order % num_classes
        return target
    values = target[counted]
    target[counted] = values[torch.randperm(len(values)).to(values.device)]
    return target

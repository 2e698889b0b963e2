"""Common mistakes, each planted into correct code, and the check that must find it."""

import importlib
import inspect
import linecache
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Bug:
    """A line of code, a wrong replacement, and the check that must find it.

    Args:
        name: The mistake.
        model: The model of the zoo to run the check on.
        old: Code that occurs once in the module.
        new: The wrong code.
        check: The name of the check that must fail.
        module: The module that contains the code.
        knobs: Other values in the configuration, by dotted name, if only they show the mistake.
    """

    name: str
    model: str
    old: str
    new: str
    check: str
    module: str = "zoo"
    knobs: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """Plants a bug in its module, and removes it at the end."""
    module = importlib.import_module(bug.module)
    source = inspect.getsource(module)
    assert (
        source.count(bug.old) == 1
    ), f"{bug.name}: {bug.old!r} occurs {source.count(bug.old)} times"
    text = source.replace(bug.old, bug.new)
    name = f"<{bug.name}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    wrong = dict(functions_of(compile(text, name, "exec")))
    before = []
    for function in functions_in(module):
        code = wrong.get(function.__code__.co_qualname, function.__code__)
        if essence(code) != essence(function.__code__):
            before.append((function, function.__code__))
            function.__code__ = code
    assert before, f"{bug.name}: no function has changed"
    try:
        yield
    finally:
        for function, right in before:
            function.__code__ = right


def codes(module: str) -> list[types.CodeType]:
    """The code of every function of a module, in order."""
    functions = functions_in(importlib.import_module(module))
    return [function.__code__ for function in functions]


def essence(code: types.CodeType) -> tuple[Any, ...]:
    """A function's code without its line numbers."""
    return code.co_code, code.co_consts, code.co_names


def functions_of(code: types.CodeType) -> Iterator[tuple[str, types.CodeType]]:
    """Yields the name and the code of each function of a module, methods included."""
    for item in code.co_consts:
        if isinstance(item, types.CodeType):
            yield item.co_qualname, item
            yield from functions_of(item)


def functions_in(module: types.ModuleType) -> Iterator[types.FunctionType]:
    """Yields the functions and methods that a module defines."""
    for value in vars(module).values():
        for item in [value, *(vars(value).values() if isinstance(value, type) else ())]:
            item = inspect.unwrap(getattr(item, "__func__", item))
            item = getattr(item, "fget", item)
            if isinstance(item, types.FunctionType) and item.__module__ == module.__name__:
                yield item


def of(module: str) -> dict[str, Any]:
    """The module of a bug in the harness."""
    return {"module": f"my_study.harness.{module}"}


END = "\n        return outputs\n\n\nclass "  # of a model, and the beginning of the next
TABLE_OUTPUT = 'outputs = {"logits": self.output(hidden)}'
CONV_OUTPUT = 'outputs = {"logits": self.output(self.dropout(flat))}'
TAG_OUTPUT = 'outputs = {"logits": self.output(states)}'
NUMBER_OUTPUT = 'outputs = {"prediction": prediction}'
TWO_OPTIMIZERS = {"training.trainer": {"_target_": "zoo.TwoOptimizers", "vector_lr": 0.05}}
TEXT_OUTPUT = 'outputs = {"logits": self.last(hidden) @ self.tokens.weight.T}'
BUGS = [
    # shapes and ranges
    Bug(
        "view with a fixed batch size",
        "ConvNet",
        "F.max_pool2d(hidden, 2).flatten(start_dim=1)",
        "F.max_pool2d(hidden, 2).reshape(48, -1)",
        "outputs_have_their_fields_and_shapes",
    ),
    Bug(
        "loss of each instance",
        "Regression",
        "F.mse_loss(prediction, target)",
        'F.mse_loss(prediction, target, reduction="none")',
        "outputs_have_their_fields_and_shapes",
    ),
    Bug(
        "broadcast of the target against a column",
        "Regression",
        "self.output(self.dropout(hidden)).squeeze(-1)",
        "self.output(self.dropout(hidden))",
        "outputs_have_their_fields_and_shapes",
    ),
    Bug(
        "no loss in evaluation",
        "Regression",
        'if target is not None:\n            outputs["loss"] = F.mse_loss',
        'if target is not None and self.training:\n            outputs["loss"] = F.mse_loss',
        "outputs_have_their_fields_and_shapes",
    ),
    Bug(
        "softmax over the batch",
        "Pair",
        "F.softmax(logits, dim=-1)",
        "F.softmax(logits, dim=0)",
        "outputs_are_finite_and_in_range",
    ),
    Bug(
        "softmax before the cross-entropy",
        "ConvNet",
        CONV_OUTPUT,
        'outputs = {"logits": self.output(self.dropout(flat)).softmax(-1)}',
        "three_instances_are_fitted_perfectly",
    ),
    Bug(
        "softmax called logits",
        "ConvNet",
        CONV_OUTPUT,
        'outputs = {"logits": self.output(self.dropout(flat)).softmax(-1)}',
        "outputs_are_finite_and_in_range",
    ),
    Bug(
        "ReLU on the logits",
        "ConvNet",
        CONV_OUTPUT,
        'outputs = {"logits": F.relu(self.output(self.dropout(flat)))}',
        "outputs_are_finite_and_in_range",
    ),
    Bug(
        "weights drawn too large",
        "LanguageModel",
        "nn.init.normal_(self.tokens.weight, std=0.1)",
        "nn.init.normal_(self.tokens.weight, std=2.0)",
        "the_first_loss_is_that_of_guessing",
    ),
    Bug(
        "summed loss",
        "Regression",
        "F.mse_loss(prediction, target)",
        'F.mse_loss(prediction, target, reduction="sum")',
        "the_loss_is_a_mean",
    ),
    Bug(
        "loss with the wrong sign",
        "Regression",
        "F.mse_loss(prediction, target)",
        "-F.mse_loss(prediction, target)",
        "the_first_loss_is_that_of_guessing",
    ),
    # gradients and registration
    Bug(
        "layer cut off by detach",
        "ConvNet",
        "F.relu(self.norm(self.first(image)))",
        "F.relu(self.norm(self.first(image))).detach()",
        "every_parameter_gets_a_gradient",
    ),
    Bug(
        "one of two paths cut off by detach",
        "LanguageModel",
        "weights @ value",
        "weights.detach() @ value",
        "gradients_equal_finite_differences",
    ),
    Bug(
        "residual path cut off by no_grad",
        "ConvNet",
        "hidden = hidden + F.relu(self.second(hidden))",
        "hidden = hidden.detach() + F.relu(self.second(hidden))",
        "gradients_equal_finite_differences",
    ),
    Bug(
        "layer that is never used",
        "Table",
        "F.gelu(self.hidden(self.dropout(joined)))",
        "F.gelu(self.dropout(joined).repeat(1, 2)[:, :32])",
        "every_parameter_gets_a_gradient",
    ),
    Bug(
        "rounding on the way",
        "Regression",
        "torch.tanh(self.hidden(features * self.scale))",
        "torch.tanh(self.hidden(features * self.scale)).round()",
        "every_parameter_gets_a_gradient",
    ),
    Bug(
        "layers in a plain list",
        "Table",
        "self.hidden = nn.Linear(3 * width, 32)",
        "object.__setattr__(self, 'hidden', nn.Linear(3 * width, 32))",
        "everything_is_registered",
    ),
    Bug(
        "table of numbers as a plain attribute",
        "Regression",
        'self.register_buffer("scale", torch.full((5,), 0.5))',
        "self.scale = torch.rand(5)",
        "everything_is_registered",
    ),
    Bug(
        "one layer at two places",
        "Table",
        "self.shape = nn.Embedding(num_shapes, width)",
        "self.shape = self.color",
        "everything_is_registered",
    ),
    Bug(
        "units that begin as copies",
        "Regression",
        "self.hidden = nn.Linear(5, width)",
        "self.hidden = nn.Linear(5, width)\n        nn.init.ones_(self.hidden.weight)",
        "everything_is_registered",
    ),
    Bug(
        "key taken for query",
        "LanguageModel",
        "query, key, value = self.joint(self.before(hidden)).chunk(3, dim=-1)",
        "query, _, value = self.joint(self.before(hidden)).chunk(3, dim=-1)\n        key = query",
        "every_parameter_gets_a_gradient",
    ),
    Bug(
        "one kind for both inputs",
        "Pair",
        "what = torch.full_like(place, kind)",
        "what = torch.zeros_like(place)",
        "every_parameter_gets_a_gradient",
    ),
    Bug(
        "activation forgotten",
        "Regression",
        "torch.tanh(self.hidden(features * self.scale))",
        "self.hidden(features * self.scale)",
        "layers_are_more_than_one_linear_map",
    ),
    Bug(
        "frozen batch norm that moves",
        "ConvNet",
        "self.norm = nn.BatchNorm2d(num_channels)",
        "self.norm = nn.BatchNorm2d(num_channels).requires_grad_(False)",
        "a_step_moves_what_is_trainable_and_nothing_else",
    ),
    # flow of information
    Bug(
        "sign lost",
        "Regression",
        "features * self.scale",
        "(features * self.scale).abs()",
        "each_input_influences_the_output",
    ),
    Bug(
        "input ignored",
        "Table",
        "parts = [self.color(color), self.shape(shape), self.numbers(numbers)]",
        "parts = [self.color(color), self.shape(shape), self.numbers(numbers) * 0]",
        "each_input_influences_the_output",
    ),
    Bug(
        "one encoder for two inputs drops one",
        "Pair",
        "enumerate((question, answer))",
        "enumerate((question, question))",
        "each_input_alone_can_be_fitted",
    ),
    Bug(
        "last column cut off",
        "Table",
        "self.numbers(numbers)]",
        "self.numbers(F.pad(numbers[:, :-1], (0, 1)))]",
        "each_input_influences_the_output",
    ),
    Bug(
        "mask of the second input taken for the first",
        "Pair",
        "torch.cat([question_mask, answer_mask], dim=1)",
        "torch.cat([question_mask, question_mask], dim=1)",
        "padding_changes_nothing",
    ),
    Bug(
        "prediction made of the target",
        "Regression",
        NUMBER_OUTPUT,
        "prediction = prediction if target is None else prediction + 0.1 * target\n"
        f"        {NUMBER_OUTPUT}",
        "predictions_do_not_see_the_target",
    ),
    Bug(
        "target seen in training only",
        "Table",
        TABLE_OUTPUT,
        "if self.training and target is not None:\n"
        "            hidden = hidden + F.one_hot(target, 32)\n"
        f"        {TABLE_OUTPUT}",
        "predictions_do_not_see_the_target",
    ),
    Bug(
        "number of the row as a feature",
        "Table",
        TABLE_OUTPUT,
        "hidden = hidden + torch.arange(len(hidden), device=hidden.device)[:, None] / 9\n"
        f"        {TABLE_OUTPUT}",
        "contradictions_are_not_fitted",
    ),
    Bug(
        "mean over the batch taken off",
        "Table",
        TABLE_OUTPUT,
        f"hidden = hidden - hidden.mean(dim=0)\n        {TABLE_OUTPUT}",
        "nothing_leaks_across_the_batch",
    ),
    Bug(
        "attention over the batch",
        "LanguageModel",
        TEXT_OUTPUT,
        f"hidden = hidden + hidden.cumsum(dim=0) / 9\n        {TEXT_OUTPUT}",
        "nothing_leaks_across_the_batch",
    ),
    Bug(
        "view across the batch",
        "ConvNet",
        "F.max_pool2d(hidden, 2).flatten(start_dim=1)",
        "F.max_pool2d(hidden, 2).transpose(0, 1).reshape(len(image), -1)",
        "nothing_leaks_across_the_batch",
    ),
    Bug(
        "squeeze without an axis",
        "Regression",
        "self.output(self.dropout(hidden)).squeeze(-1)",
        "self.output(self.dropout(hidden)).squeeze()",
        "a_batch_of_one_equals_its_row",
    ),
    Bug(
        "batch statistics in evaluation",
        "ConvNet",
        "self.norm = nn.BatchNorm2d(num_channels)",
        "self.norm = nn.BatchNorm2d(num_channels, track_running_stats=False)",
        "a_batch_of_one_equals_its_row",
    ),
    Bug(
        "targets matched to other rows",
        "Regression",
        "F.mse_loss(prediction, target)",
        "F.mse_loss(prediction, target.roll(1))",
        "permuting_the_batch_permutes_the_output",
    ),
    Bug(
        "padding read by the LSTM",
        "Tagger",
        "lengths = mask.sum(dim=1).cpu()",
        "lengths = torch.full_like(mask.sum(dim=1), mask.shape[1]).cpu()",
        "padding_changes_nothing",
    ),
    Bug(
        "loss over the padding",
        "Tagger",
        f"target.flatten()){END}Pair",
        f"target.clamp(0).flatten()){END}Pair",
        "padding_changes_nothing",
    ),
    Bug(
        "mean over all positions",
        "Pair",
        "weights = mask.unsqueeze(-1).to(hidden.dtype)",
        "weights = torch.ones_like(mask).unsqueeze(-1).to(hidden.dtype)",
        "padding_changes_nothing",
    ),
    Bug(
        "attention without its mask",
        "Pair",
        "src_key_padding_mask=~mask",
        "src_key_padding_mask=None",
        "padding_changes_nothing",
    ),
    Bug(
        "mask the wrong way round",
        "Pair",
        "src_key_padding_mask=~mask",
        "src_key_padding_mask=mask & (mask.sum(1, keepdim=True) < mask.shape[1])",
        "padding_changes_nothing",
    ),
    Bug(
        "a look at the future",
        "LanguageModel",
        ".triu(1)\n",
        ".triu(2)\n",
        "no_position_sees_a_later_one",
    ),
    Bug(
        "no causal mask",
        "LanguageModel",
        'scores.masked_fill(later, float("-inf")).softmax(dim=-1)',
        "scores.softmax(dim=-1)",
        "no_position_sees_a_later_one",
    ),
    Bug(
        "softmax over the wrong axis of an attention",
        "LanguageModel",
        'scores.masked_fill(later, float("-inf")).softmax(dim=-1)',
        "scores.softmax(dim=1).masked_fill(later, 0)",
        "no_position_sees_a_later_one",
    ),
    Bug(
        "loss divided by a constant",
        "Regression",
        "F.mse_loss(prediction, target)",
        "(prediction - target).square().sum() / 36",
        "the_loss_is_a_mean",
    ),
    # learning
    Bug(
        "last layer bounded",
        "Regression",
        "self.output(self.dropout(hidden)).squeeze(-1)",
        "0.1 * torch.tanh(self.output(self.dropout(hidden))).squeeze(-1)",
        "three_instances_are_fitted_perfectly",
    ),
    Bug(
        "every position given the mean of all",
        "Tagger",
        TAG_OUTPUT,
        f"states = states.mean(dim=1, keepdim=True).expand_as(states)\n        {TAG_OUTPUT}",
        "three_instances_are_fitted_perfectly",
    ),
    Bug(
        "gradient reversed",
        "Regression",
        "torch.tanh(self.hidden(features * self.scale))",
        "(lambda h: 2 * h.detach() - h)(torch.tanh(self.hidden(features * self.scale)))",
        "gradients_equal_finite_differences",
    ),
    Bug(
        "noise in evaluation",
        "Regression",
        "torch.tanh(self.hidden(features * self.scale))",
        "torch.tanh(self.hidden(features * self.scale)) + 0.1 * torch.randn(1).to(features)",
        "evaluation_is_pure_and_dropout_acts_in_training",
    ),
    # state
    Bug(
        "buffer missing from the checkpoint",
        "Regression",
        'self.register_buffer("scale", torch.full((5,), 0.5))',
        'self.register_buffer("scale", torch.rand(5), persistent=False)',
        "saved_weights_restore_the_model",
    ),
    Bug(
        "seed set in the model",
        "Regression",
        "self.hidden = nn.Linear(5, width)",
        "torch.manual_seed(0)\n        self.hidden = nn.Linear(5, width)",
        "the_same_seed_gives_the_same_bits",
    ),
    Bug(
        "seed set in forward",
        "Regression",
        "prediction = self.output(self.dropout(hidden)).squeeze(-1)",
        "torch.manual_seed(0)\n        prediction = self.output(self.dropout(hidden)).squeeze(-1)",
        "the_same_seed_gives_the_same_bits",
    ),
    Bug(
        "randomness that no seed reaches",
        "Regression",
        "torch.tanh(self.hidden(features * self.scale))",
        "torch.tanh(self.hidden(features * self.scale)) + 0.001 * __import__('os').urandom(1)[0]",
        "the_same_seed_gives_the_same_bits",
    ),
    Bug(
        "dropout in evaluation too",
        "ConvNet",
        CONV_OUTPUT,
        'outputs = {"logits": self.output(F.dropout(flat, self.dropout.p))}',
        "evaluation_is_pure_and_dropout_acts_in_training",
    ),
    Bug(
        "dropout never used",
        "Table",
        "self.hidden(self.dropout(joined))",
        "self.hidden(joined)",
        "evaluation_is_pure_and_dropout_acts_in_training",
    ),
    Bug(
        "running mean moved in evaluation",
        "Regression",
        NUMBER_OUTPUT,
        f"self.scale.data.add_(0.01)\n        {NUMBER_OUTPUT}",
        "evaluation_is_pure_and_dropout_acts_in_training",
    ),
    Bug(
        "input edited in place",
        "Regression",
        "torch.tanh(self.hidden(features * self.scale))",
        "torch.tanh(self.hidden(features.mul_(self.scale)))",
        "the_batch_is_left_as_it_was",
    ),
    Bug(
        "naive logarithm",
        "ConvNet",
        f'F.cross_entropy(outputs["logits"], target){END}Tagger',
        f'F.nll_loss(outputs["logits"].softmax(-1).log(), target){END}Tagger',
        "extreme_values_stay_finite",
    ),
    Bug(
        "division by a norm",
        "Regression",
        "features * self.scale",
        "features / features.norm(dim=-1, keepdim=True)",
        "extreme_values_stay_finite",
    ),
    Bug(
        "embedding with a row too few",
        "Table",
        "self.color = nn.Embedding(num_colors, width)",
        "self.color = nn.Embedding(num_colors - 1, width)",
        "extreme_values_stay_finite",
    ),
    Bug(
        "device written down",
        "Pair",
        "torch.arange(tokens.shape[1], device=tokens.device)",
        'torch.arange(tokens.shape[1], device="cpu")',
        "no_device_is_hard_coded",
    ),
    Bug(
        "mask on the CPU",
        "LanguageModel",
        "torch.ones(length, length, dtype=torch.bool, device=tokens.device)",
        "torch.ones(length, length, dtype=torch.bool)",
        "no_device_is_hard_coded",
    ),
    Bug(
        "mask on the CPU, in training only",
        "LanguageModel",
        "self.dropout(self.tokens(tokens) + self.positions[:length])",
        "self.dropout(self.tokens(tokens) + self.positions[:length]) "
        "+ (torch.zeros(length, 1) if self.training else 0)",
        "no_device_is_hard_coded",
    ),
    Bug(
        "dropout on the logits",
        "Table",
        TABLE_OUTPUT,
        'outputs = {"logits": self.dropout(self.output(hidden))}',
        "evaluation_is_pure_and_dropout_acts_in_training",
    ),
    # knobs
    Bug(
        "dropout rate that is not used",
        "Regression",
        "self.dropout = nn.Dropout(dropout)\n        self.output = nn.Linear(width, 1)",
        "self.dropout = nn.Dropout(0.1 + 0 * dropout)\n        self.output = nn.Linear(width, 1)",
        "every_knob_acts",
    ),
    Bug(
        "width written down",
        "Regression",
        "super().__init__()\n        self.register_buffer",
        "super().__init__()\n        width = 24\n        self.register_buffer",
        "every_knob_acts",
    ),
    # training
    Bug(
        "gradients not set to zero",
        "Table",
        "self.optimizer.zero_grad()",
        "pass",
        "the_trainer_equals_a_reference_loop",
        **of("training.trainer"),
    ),
    Bug(
        "schedule stepped twice",
        "Table",
        "        self.scheduler.step()\n        return loss",
        "        self.scheduler.step()\n        self.scheduler.step()\n        return loss",
        "the_trainer_equals_a_reference_loop",
        **of("training.trainer"),
    ),
    Bug(
        "evaluation in training mode",
        "Table",
        "    model.eval()\n",
        "    model.train()\n",
        "the_trainer_equals_a_reference_loop",
        **of("training.step"),
    ),
    Bug(
        "training in evaluation mode",
        "Table",
        "                self.model.train()\n",
        "                self.model.eval()\n",
        "the_trainer_equals_a_reference_loop",
        **of("training.trainer"),
    ),
    Bug(
        "worst epoch kept",
        "Regression",
        "return max(self.history, key=key)",
        "return min(self.history, key=key)",
        "the_trainer_equals_a_reference_loop",
        **of("training.trainer"),
    ),
    Bug(
        "training loss doubled in the history",
        "Table",
        '"train_loss": self.epoch_loss / num_steps',
        '"train_loss": 2 * self.epoch_loss / num_steps',
        "the_trainer_equals_a_reference_loop",
        **of("training.trainer"),
    ),
    Bug(
        "optimizer of a part of the model",
        "Table",
        "params=params, lr=",
        'params=params[0]["params"][:-2], lr=',
        "a_step_moves_what_is_trainable_and_nothing_else",
        **of("configuration.building"),
    ),
    Bug(
        "step never taken",
        "Table",
        "        self.optimizer.step()\n",
        "",
        "a_step_moves_what_is_trainable_and_nothing_else",
        **of("training.trainer"),
    ),
    Bug(
        "rate written down",
        "Table",
        '"max_lr": config.model.lr',
        '"max_lr": 0.01',
        "every_knob_acts",
        **of("configuration.building"),
    ),
    Bug(
        "precision switch that does nothing",
        "Table",
        '    if precision == "float32":\n',
        "    if precision:\n",
        "every_knob_acts",
        **of("training.step"),
    ),
    Bug(
        "accumulation that does not divide",
        "Table",
        "            loss = loss * share\n",
        "            pass\n",
        "the_trainer_equals_a_reference_loop",
        **of("training.step"),
        knobs={"training.num_accumulation_steps": 2},
    ),
    Bug(
        "gradients never clipped",
        "Table",
        "nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_gradient_norm)",
        "pass",
        "every_knob_acts",
        **of("training.trainer"),
    ),
    Bug(
        "patience that never ends",
        "Table",
        ">= self.settings.patience",
        "> 10 * self.settings.patience",
        "every_knob_acts",
        **of("training.trainer"),
    ),
    # a trainer of the researcher's own
    Bug(
        "state of a second optimizer not resumed",
        "Table",
        'self.vectors.load_state_dict(state["vectors"])',
        "pass",
        "a_resumed_run_equals_an_uninterrupted_one",
        knobs=TWO_OPTIMIZERS,
    ),
    Bug(
        "step of a second optimizer never taken",
        "Table",
        "        self.vectors.step()\n",
        "",
        "a_step_moves_what_is_trainable_and_nothing_else",
        knobs=TWO_OPTIMIZERS,
    ),
    Bug(
        "loss returned with its graph",
        "Table",
        "        self.vectors.step()\n        return loss\n",
        "        self.vectors.step()\n        return loss.requires_grad_()\n",
        "the_trainer_equals_a_reference_loop",
        knobs=TWO_OPTIMIZERS,
    ),
    Bug(
        "rate of a second optimizer written down",
        "Table",
        "lr=vector_lr",
        "lr=0.05",
        "every_knob_acts",
        knobs=TWO_OPTIMIZERS,
    ),
    Bug(
        "evaluation in training mode, with a train_step of one's own",
        "Table",
        "    model.eval()\n",
        "    model.train()\n",
        "the_trainer_equals_a_reference_loop",
        **of("training.step"),
        knobs=TWO_OPTIMIZERS,
    ),
    Bug(
        "training loss doubled in the history, with a train_step of one's own",
        "Table",
        '"train_loss": self.epoch_loss / num_steps',
        '"train_loss": 2 * self.epoch_loss / num_steps',
        "the_trainer_equals_a_reference_loop",
        **of("training.trainer"),
        knobs=TWO_OPTIMIZERS,
    ),
    Bug(
        "worst epoch kept, with a train_step of one's own",
        "Regression",
        "return max(self.history, key=key)",
        "return min(self.history, key=key)",
        "the_trainer_equals_a_reference_loop",
        **of("training.trainer"),
        knobs=TWO_OPTIMIZERS,
    ),
    # checkpoints
    Bug(
        "optimizer not resumed",
        "Table",
        'self.optimizer.load_state_dict(state["optimizer"])',
        "pass",
        "a_resumed_run_equals_an_uninterrupted_one",
        **of("training.trainer"),
    ),
    Bug(
        "schedule not resumed",
        "Table",
        'self.scheduler.load_state_dict(state["scheduler"])',
        "pass",
        "a_resumed_run_equals_an_uninterrupted_one",
        **of("training.trainer"),
    ),
    Bug(
        "sum of the epoch not resumed",
        "Table",
        'self.step, self.epoch_loss = state["step"], state["epoch_loss"]',
        'self.step, self.epoch_loss = state["step"], 0.0',
        "a_resumed_run_equals_an_uninterrupted_one",
        **of("training.trainer"),
    ),
    Bug(
        "random numbers that depend on history",
        "Table",
        "        seed_step(self.seed, self.step, self.device, ",
        "        # ",
        "a_resumed_run_equals_an_uninterrupted_one",
        **of("training.trainer"),
    ),
    # data
    Bug(
        "workers' batches in another order",
        "Table",
        "DataLoader(split, sampler=chunks, ",
        "DataLoader(split, sampler=chunks[::-1], ",
        "the_data_are_sane",
        **of("training.prepared"),
    ),
    Bug(
        "rows of a batch in another order",
        "Table",
        "            yield split[chunk]\n",
        "            yield split[np.sort(chunk)]\n",
        "the_data_are_sane",
        **of("training.prepared"),
    ),
]

"""Checks that hold for every correct model: they find a wrong one before the run.

In a test or a notebook, on any `nn.Module` and any batch:

    case = checks.Case(make=MyModel, batch=batch, spec=spec)
    checks.each_input_influences_the_output(case)  # one check: raises checks.Failed
    print(checks.table(checks.run(case)))  # all checks but the slow ones

docs/checks.md lists them, and says how to add one and how to opt out.
"""

from ..training.spec import Field, Spec
from .case import Case, call_by_name, call_plain
from .failures import Failed, NotApplicable, OptedOut
from .running import CHECKS, SLOW, Outcome, check, run, run_one, table
from .data import the_batch_is_as_specified, the_data_are_sane
from .static import (
    a_step_moves_what_is_trainable_and_nothing_else,
    every_parameter_gets_a_gradient,
    everything_is_registered,
    layers_are_more_than_one_linear_map,
    outputs_are_finite_and_in_range,
    outputs_have_their_fields_and_shapes,
    the_first_loss_is_that_of_guessing,
)
from .state import (
    evaluation_is_pure_and_dropout_acts_in_training,
    extreme_values_stay_finite,
    no_device_is_hard_coded,
    saved_weights_restore_the_model,
    the_batch_is_left_as_it_was,
    the_same_seed_gives_the_same_bits,
)
from .statistics import running_statistics_are_those_of_the_data
from .flow import (
    a_batch_of_one_equals_its_row,
    contradictions_are_not_fitted,
    each_input_alone_can_be_fitted,
    each_input_influences_the_output,
    no_position_sees_a_later_one,
    nothing_leaks_across_the_batch,
    padding_changes_nothing,
    permuting_the_batch_permutes_the_output,
    predictions_do_not_see_the_target,
    the_order_of_positions_counts,
)
from .loss import the_loss_is_a_mean, the_loss_is_the_declared_one
from .learning import (
    gradients_equal_finite_differences,
    real_labels_generalise_and_shuffled_ones_do_not,
    the_loss_falls_at_every_small_step,
    three_instances_are_fitted_perfectly,
)
from .trainer import (
    a_resumed_run_equals_an_uninterrupted_one,
    the_trainer_equals_a_reference_loop,
)
from .metrics import metrics_are_best_for_right_predictions
from .knobs import every_knob_acts, misspelt_keys_are_refused

__all__ = [
    "CHECKS",
    "SLOW",
    "Case",
    "Failed",
    "Field",
    "NotApplicable",
    "OptedOut",
    "Outcome",
    "Spec",
    "a_batch_of_one_equals_its_row",
    "a_resumed_run_equals_an_uninterrupted_one",
    "a_step_moves_what_is_trainable_and_nothing_else",
    "call_by_name",
    "call_plain",
    "check",
    "contradictions_are_not_fitted",
    "each_input_alone_can_be_fitted",
    "each_input_influences_the_output",
    "evaluation_is_pure_and_dropout_acts_in_training",
    "every_knob_acts",
    "every_parameter_gets_a_gradient",
    "everything_is_registered",
    "extreme_values_stay_finite",
    "gradients_equal_finite_differences",
    "layers_are_more_than_one_linear_map",
    "metrics_are_best_for_right_predictions",
    "misspelt_keys_are_refused",
    "no_device_is_hard_coded",
    "no_position_sees_a_later_one",
    "nothing_leaks_across_the_batch",
    "outputs_are_finite_and_in_range",
    "outputs_have_their_fields_and_shapes",
    "padding_changes_nothing",
    "permuting_the_batch_permutes_the_output",
    "predictions_do_not_see_the_target",
    "real_labels_generalise_and_shuffled_ones_do_not",
    "run",
    "run_one",
    "running_statistics_are_those_of_the_data",
    "saved_weights_restore_the_model",
    "table",
    "the_batch_is_as_specified",
    "the_batch_is_left_as_it_was",
    "the_data_are_sane",
    "the_first_loss_is_that_of_guessing",
    "the_loss_falls_at_every_small_step",
    "the_loss_is_a_mean",
    "the_loss_is_the_declared_one",
    "the_order_of_positions_counts",
    "the_same_seed_gives_the_same_bits",
    "the_trainer_equals_a_reference_loop",
    "three_instances_are_fitted_perfectly",
]

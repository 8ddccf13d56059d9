"""The hypotheses: the causes that Trimtab knows, one file each. This tuple is the whole catalogue."""

from __future__ import annotations

from trimtab.hypotheses import (
    backward_fault_in_one_module,
    curriculum_step_too_hard,
    data_has_no_signal,
    data_pipeline_changed,
    data_sorted_by_label,
    evaluated_in_training_mode,
    frozen_by_mistake,
    graph_cut_by_detach,
    graph_kept_across_steps,
    initial_weights_too_large,
    inputs_not_scaled,
    learning_rate_schedule_ended,
    learning_rate_too_high,
    loader_repeats_one_batch,
    loss_reduction_wrong,
    missing_zero_grad,
    non_finite_input,
    numerical_fault_in_loss,
    only_the_logged_loss_is_broken,
    optimizer_does_not_hold_parameters,
    pretrained_weights_not_loaded,
    softmax_before_cross_entropy,
    trained_in_evaluation_mode,
    training_too_short,
    wrong_loss_for_targets,
)
from trimtab.hypotheses._hypothesis import CONVINCING, NONFINITE, Condition, Gate, Hypothesis, Weight
from trimtab.hypotheses._weigh import NONE_OF_THESE, rank, weigh

HYPOTHESES: tuple[Hypothesis, ...] = (
    only_the_logged_loss_is_broken.HYPOTHESIS,
    softmax_before_cross_entropy.HYPOTHESIS,
    loss_reduction_wrong.HYPOTHESIS,
    non_finite_input.HYPOTHESIS,
    loader_repeats_one_batch.HYPOTHESIS,
    data_has_no_signal.HYPOTHESIS,
    missing_zero_grad.HYPOTHESIS,
    optimizer_does_not_hold_parameters.HYPOTHESIS,
    graph_cut_by_detach.HYPOTHESIS,
    frozen_by_mistake.HYPOTHESIS,
    learning_rate_too_high.HYPOTHESIS,
    initial_weights_too_large.HYPOTHESIS,
    learning_rate_schedule_ended.HYPOTHESIS,
    training_too_short.HYPOTHESIS,
    numerical_fault_in_loss.HYPOTHESIS,
    backward_fault_in_one_module.HYPOTHESIS,
    data_sorted_by_label.HYPOTHESIS,
    data_pipeline_changed.HYPOTHESIS,
    curriculum_step_too_hard.HYPOTHESIS,
    inputs_not_scaled.HYPOTHESIS,
    wrong_loss_for_targets.HYPOTHESIS,
    trained_in_evaluation_mode.HYPOTHESIS,
    evaluated_in_training_mode.HYPOTHESIS,
    pretrained_weights_not_loaded.HYPOTHESIS,
    graph_kept_across_steps.HYPOTHESIS,
)

__all__ = [
    "CONVINCING",
    "HYPOTHESES",
    "NONE_OF_THESE",
    "NONFINITE",
    "Condition",
    "Gate",
    "Hypothesis",
    "Weight",
    "rank",
    "weigh",
]

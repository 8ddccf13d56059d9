"""The hypotheses: the causes that Trimtab knows, one file each. This tuple is the whole catalogue."""

from __future__ import annotations

from trimtab.hypotheses import (
    backward_fault_in_one_module,
    data_has_no_signal,
    frozen_by_mistake,
    graph_cut_by_detach,
    initial_weights_too_large,
    learning_rate_schedule_ended,
    learning_rate_too_high,
    loader_repeats_one_batch,
    loss_reduction_wrong,
    missing_zero_grad,
    non_finite_input,
    numerical_fault_in_loss,
    only_the_logged_loss_is_broken,
    optimizer_does_not_hold_parameters,
    softmax_before_cross_entropy,
    training_too_short,
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

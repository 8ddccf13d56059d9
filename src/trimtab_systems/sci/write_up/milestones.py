"""The write-up's debug checkpoints (section 5.2), as milestones that `milestone-missed` judges while it trains.

Three of them cannot stand as written. Its checks read `content_avg_score` and `structure_avg_score`, which it nowhere
records: they are `content_word_avg_score` and `structure_word_avg_score`. "Every parameter with 'sci' in its name has a
gradient" finds no such name: `Monitor` counts by the part that a parameter belongs to. And the loss is compared as the
task loss, for the weights of the other terms rise meanwhile, and the sum with them.

A milestone that is missed is a finding and stops nothing. To stop there, as the write-up's assertions do:
`trimtab train sci --preset write-up --respond milestone-missed=stop`.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.milestone import Comparison, Milestone
from trimtab_systems.sci.write_up.config import WriteUpConfig

FIRST_LOOK = 100
"""Updates after which the write-up looks for the first time; within the warm-up of the rates, so it asks for little."""
FINITE = 1e6
"""A contrast of B pairs at temperature 0.1 is at most 20 + ln 2B, so that all finite values lie below this."""

_BY_EPOCH: tuple[tuple[int, str, Comparison, float], ...] = (
    (1, "score_separation_ratio", ">", 1.2),
    (1, "slot_utilization", ">", 0.5),
    (1, "scl_loss", "<", FINITE),
    (5, "structure_word_avg_score", ">", 0.7),
    (5, "content_word_avg_score", "<", 0.3),
    (5, "content_structure_cosine", "<", 0.2),
    (10, "same_structure_similarity", ">", 0.9),
)
"""Of the structure stream: epochs that are over, metric, comparison, value."""
_IN_DISTRIBUTION: tuple[tuple[int, str, Comparison, float], ...] = (
    (5, "validation/exact_match", ">", 0.80),
    (10, "validation/exact_match", ">", 0.95),
    (10, "validation/eos_accuracy", ">", 0.90),
)
"""Of the whole, on validation examples of the lengths that it was trained on."""


def milestones(config: WriteUpConfig, epoch_ends: Sequence[int]) -> tuple[Milestone, ...]:
    """Return the checkpoints that fall into a training.

    Those of the structure stream say what must hold at that moment; exact match and EOS may have been better before.
    For validation on longer outputs than were trained on ("proxy") the write-up's numbers are not meant; there, half of
    the lengths must be right in the end.

    Args:
        config: of the training.
        epoch_ends: updates that are done at the end of each epoch.
    """
    found = []
    if epoch_ends and epoch_ends[-1] >= FIRST_LOOK:
        found.append(_holds("task_loss_over_first", "<", 1.0, FIRST_LOOK))
        if config.sci:
            found.append(_holds("score_std", ">", 0.01, FIRST_LOOK))
            found.append(_holds("sci_parameters_without_gradient", "<=", 0.0, FIRST_LOOK))
    due = dict(enumerate(epoch_ends, start=1))
    if config.sci:
        for epoch, metric, comparison, value in _BY_EPOCH:
            measured = metric not in ("scl_loss", "same_structure_similarity") or config.scl_weight > 0
            if epoch in due and measured:
                found.append(_holds(metric, comparison, value, due[epoch]))
    if config.validation == "carved":
        for epoch, metric, comparison, value in _IN_DISTRIBUTION:
            if epoch in due:
                found.append(Milestone(metric=metric, comparison=comparison, value=value, by_step=due[epoch]))
    elif epoch_ends:
        step = epoch_ends[-1]
        found.append(Milestone(metric="validation/length_accuracy", comparison=">", value=0.5, by_step=step))
    return tuple(found)


def _holds(metric: str, comparison: Comparison, value: float, step: int) -> Milestone:
    return Milestone(metric=metric, comparison=comparison, value=value, by_step=step, counts="last")

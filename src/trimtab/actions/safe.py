"""What `respond="safe"` does: a table of findings that have one right answer, and nothing else.

A finding is in it when three things hold: its rule gave no false alarm in the healthy runs of
`benchmarks/results/false_alarms.json`, the answer cannot make a healthy training worse than to lose some updates, and
no person has to decide what was meant. Wiring, data and settings that are wrong stay wrong after any answer, so they
are told and left to you.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab.actions._action import Action
from trimtab.actions.lower_learning_rate import LowerLearningRate
from trimtab.actions.notify import Notify
from trimtab.actions.roll_back import RollBack
from trimtab.actions.skip_step import SkipStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Safe:
    """One row: what answers a finding, how often, and when.

    Attributes:
        code: the finding.
        actions: done in this order, each with a budget of its own (`at_most`).
        confirm: so many judgements in a row open the finding, in a run that answers it; None leaves the rule's own.
        because: why this is the right answer, in one sentence.
    """

    code: str
    actions: tuple[Action, ...]
    confirm: int | None = None
    because: str


_SKIP = (SkipStep(at_most=50), RollBack(when="skipping in vain"))
_BACK_AND_SLOWER = (RollBack(), LowerLearningRate(factor=0.3, steps=25, ramp=25))

SAFE: tuple[Safe, ...] = (
    Safe(
        code="loss-not-finite",
        actions=_SKIP,
        because="an update that is left out costs nothing and one that is taken costs all weights; where they are lost "
        "already, or skipping does not help, an earlier state does",
    ),
    Safe(
        code="gradient-not-finite",
        actions=_SKIP,
        because="the same, for a loss that is finite and a backward pass that is not",
    ),
    Safe(
        code="gradient-exploding",
        actions=_BACK_AND_SLOWER,
        because="what was learned is lost within a few updates, and the same rate would lose it again",
    ),
    Safe(
        code="update-too-large",
        actions=_BACK_AND_SLOWER,
        confirm=3,
        because="each update washes away what the ones before have taught; a rate that was raised by mistake goes back",
    ),
    Safe(
        code="loss-diverging",
        actions=_BACK_AND_SLOWER,
        confirm=2,
        because="the training goes backwards and seldom turns by itself",
    ),
    Safe(
        code="loss-spike",
        actions=_SKIP,
        because="a loss a hundred times beyond all before comes from a broken batch, which is left out, or from broken "
        "weights, for which an earlier state is needed",
    ),
    Safe(
        code="moments-poisoned",
        actions=(RollBack(),),
        because="the optimizer would need a thousand updates to forget; the state before the jump is some updates old",
    ),
    Safe(
        code="metric-dropped",
        actions=(RollBack(),),
        because="what was learned is lost though the loss may not show it; the state of the best evaluation is known",
    ),
    Safe(
        code="scaler-skips-too-often",
        actions=(RollBack(),),
        because="a loss scale that overflows for so long does not come down by itself, and an earlier one was right",
    ),
    Safe(
        code="logged-loss-not-finite",
        actions=(Notify(),),
        because="the training goes well and only the number is broken, so nothing may touch it",
    ),
)


def policy() -> dict[str, tuple[Action, ...]]:
    """Return the table as a mapping for `respond`, to be changed and added to: `{**policy(), "loss-spike": Stop()}`."""
    return {row.code: row.actions for row in SAFE}


def confirmations(respond: Mapping[str, object]) -> dict[str, int]:
    """Return code -> `confirm` for the findings that a policy answers as this table does."""
    return {row.code: row.confirm for row in SAFE if row.confirm is not None and respond.get(row.code) == row.actions}

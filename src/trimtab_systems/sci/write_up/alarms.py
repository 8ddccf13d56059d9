"""Rules and causes of the write-up's own parts: slots, the contrast and its pairs, the end of an answer.

The catalogue looks at losses, gradients and weights, and all of these look sound while slots are one, pairs are
missing or wrong, or no answer can end. What a `Monitor` records says so; these rules read it. Their numbers are from
trainings of the preset "write-up-small".

Source: the write-up, section 5.2 and appendix, and the specification's list of faults.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab import Detector
from trimtab.hypotheses import Condition, Gate, Hypothesis, Weight
from trimtab.records import Finding, Remedy, Severity, Unknown, Value
from trimtab.trace import Trace

_GRAVE = (Condition("severity", ">=", Severity.WARNING),)


def _mean(values: Sequence[Value]) -> float:
    numbers = [value for value in values if not isinstance(value, tuple)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


@dataclass(frozen=True, kw_only=True)
class SlotsCollapsed(Detector):
    """The slots of a command have become one: each says what the others say.

    What it sees.
    The mean cosine of two slots of a command is above `limit`, though the task loss has fallen to `learned` times the
    first one.

    Why it matters.
    Slots that begin alike get the same gradient, and nothing can part them: eight slots hold what one holds. The even
    use of the slots, which the write-up watches, is then perfect.

    False alarms.
    Slots that begin as small as the write-up's (`slot_scale` 0.02) are alike at first and part slowly: a cosine of
    0.995 after 60 updates. So the rule waits until the rest has learned something, and asks for more than that.
    """

    reads: tuple[str, ...] = ("slot_cosine",)
    confirm: int = 2
    release: int = 3
    limit: float = 0.998
    """Slots that begin equal had 0.999 when the task loss had halved; those that begin apart 0.5."""
    learned: float = 0.5
    """Share of the first task loss from which on slots should have parted."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        """Judge the latest recorded cosine."""
        cosine, left = trace.scalar("slot_cosine"), trace.scalar("task_loss_over_first")
        if cosine is None or left is None or left > self.learned:
            return self.unknown(trace, f"no cosine of two slots, or a task loss above {self.learned:g} times the first")
        if cosine <= self.limit:
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=f"two slots of a command have a mean cosine of {cosine:.4f} at step {trace.step}: they are one",
            measured=cosine,
            threshold=self.limit,
        )


@dataclass(frozen=True, kw_only=True)
class ContrastWithoutPairs(Detector):
    """Most batches hold no two commands of one template, so that the contrast has nothing to pull together.

    What it sees.
    Of all looks at a batch, in more than `share` nothing of one template could be compared.

    Why it matters.
    The term is then 0, which looks like success; structure is learned from nothing.
    """

    reads: tuple[str, ...] = ("scl_loss",)
    confirm: int = 2
    release: int = 5
    looks: int = 3
    """Looks before it is judged."""
    share: float = 0.5
    """Share of the looks without a pair. With a partner for each example hardly any look is without."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        """Compare how often there was a contrast with how often there was a pair."""
        looks, pairs = trace.count("scl_loss"), trace.count("same_structure_similarity")
        if looks < self.looks:
            return self.unknown(trace, f"the contrast was recorded fewer than {self.looks} times")
        missing = 1 - pairs / looks
        if missing <= self.share:
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=f"in {looks - pairs} of {looks} batches that were looked at no two commands had one template",
            measured=missing,
            threshold=self.share,
        )


@dataclass(frozen=True, kw_only=True)
class EndNotLearned(Detector):
    """The network learns which action comes next, and does not learn when there is none.

    What it sees.
    EOS is less expected than in the first record, while the loss that is minimised has fallen.

    Why it matters.
    An answer that does not end is wrong, however right its beginning is.

    False alarms.
    EOS is one of many symbols and comes to be expected late; it may well be forgotten for some updates, so several
    records in a row are asked for.
    """

    reads: tuple[str, ...] = ("eos_loss",)
    confirm: int = 2
    release: int = 2
    looks: int = 3
    """Records before it is judged."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        """Compare the loss of EOS, and that of everything, with their first records."""
        if trace.count("eos_loss") < self.looks or trace.count("total_loss") < self.looks:
            return self.unknown(trace, f"the loss of EOS was recorded fewer than {self.looks} times")
        first, now = _mean(trace.first("eos_loss", 1)[1]), _mean(trace.last("eos_loss", 1)[1])
        began, total = _mean(trace.first("total_loss", 1)[1]), _mean(trace.last("total_loss", 1)[1])
        if not (now > first and total < began):
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=f"EOS costs {now:.3g} nats at step {trace.step}, {first:.3g} in the first updates, while "
            f"the loss fell from {began:.3g} to {total:.3g}",
            measured=now,
            threshold=first,
        )


@dataclass(frozen=True, kw_only=True)
class ContrastAtChance(Detector):
    """Commands of one template are no more alike than others, though the contrast has been asking for it.

    What it sees.
    Structures of one template have a cosine that is above that of different templates by less than `apart`, `looks`
    records after the first.

    Why it matters.
    Either the pairs do not share their structure, or the term is too weak to matter.
    """

    reads: tuple[str, ...] = ("same_structure_similarity",)
    confirm: int = 2
    release: int = 2
    looks: int = 5
    """Records before it is judged: the weight of the contrast has to rise first."""
    apart: float = 0.05
    """Difference of the two mean cosines that is no success yet: wrong pairs had 0.00 after 120 updates, right ones
    0.84 after 10."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        """Compare the two mean cosines of the latest records."""
        same, other = (trace.last(f"{kind}_structure_similarity", 3)[1] for kind in ("same", "different"))
        if trace.count("same_structure_similarity") < self.looks or not other:
            return self.unknown(trace, f"pairs of one template were compared fewer than {self.looks} times")
        difference = _mean(same) - _mean(other)
        if not difference < self.apart:
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=f"structures of one template have a cosine of {_mean(same):.3f} at step {trace.step}, those of "
            f"different ones {_mean(other):.3f}",
            measured=self.apart - difference,
            threshold=0.0,
        )


@dataclass(frozen=True, kw_only=True)
class TaskLossAtRest(Detector):
    """The task loss is where it was at the first update.

    What it sees.
    The mean task loss of the latest updates is above `fallen` times the first one, after `after` updates.

    Why it matters.
    Nothing is learned. `loss-not-moving` of the catalogue reads the sum of all terms, which rises with the weight of
    the contrast, and so cannot tell; here the task alone counts.

    False alarms.
    A long warm-up of the rates; the write-up's own, of a tenth of the updates, is none.
    """

    reads: tuple[str, ...] = ("task_loss_over_first",)
    confirm: int = 2
    release: int = 2
    fallen: float = 0.9
    """Sound trainings have 0.5 and less by then."""
    after: int = 25
    """Updates before it is judged."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        """Judge the latest mean."""
        share = trace.scalar("task_loss_over_first")
        if share is None or trace.step < self.after:
            return self.unknown(trace, f"no task loss was recorded after update {self.after}")
        if not share > self.fallen:
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=f"the task loss is {share:.3f} times that of the first update at step {trace.step}",
            measured=share,
            threshold=self.fallen,
        )


@dataclass(frozen=True, kw_only=True)
class RateLeaps(Detector):
    """From one update to the next a learning rate has become many times what it was.

    What it sees.
    The rate of some group is more than `times` the one measured before.

    Why it matters.
    A schedule that starts anew with each epoch undoes what was learned at its end. The loss that follows is as high as
    at the start and stays there, so it is no spike; clipping hides it in the gradient.
    """

    reads: tuple[str, ...] = ("learning_rate",)
    release: int = 50
    times: float = 5.0
    """A warm-up from a tenth of the peak rises by less in a single update, unless it has fewer than two."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        """Compare the latest two measurements."""
        steps, rows = trace.last("learning_rate", 2)
        if len(steps) < 2:
            return self.unknown(trace, "the learning rate was measured fewer than twice")
        before, now = (row if isinstance(row, tuple) else (row,) for row in rows)
        leaps = [new / old for old, new in zip(before, now, strict=False) if old > 0]
        if not leaps or max(leaps) <= self.times:
            return None
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=f"a learning rate is {max(leaps):.3g} times what it was at step {steps[0]}, at step {steps[1]}",
            measured=max(leaps),
            threshold=self.times,
        )


def _setting(text: str, **change: str) -> Remedy:
    return Remedy(kind="config", text=text, change=change)


SLOTS_BEGIN_ALIKE = Hypothesis(
    cause="slots-begin-alike",
    summary="The slot queries start as one vector, or have become one, and get the same gradient ever after.",
    gate=Gate.INTEGRITY,
    prior=-12.0,
    evidence=(
        Weight("slots-collapsed", 24.0, when=_GRAVE, why="two slots of a command say the same"),
    ),
    probe="slots-differ-at-the-start",
    remedies=(
        _setting("draw each slot query of its own", slot_init="xavier_uniform"),
        _setting("ask for slots that differ", slot_diversity_weight="0.1"),
    ),
    settings=("*slot_init", "*slot_scale", "*slot_diversity_weight"),
)  # fmt: skip

CONTRAST_HAS_NO_PAIRS = Hypothesis(
    cause="contrast-has-no-pairs",
    summary="Batches hold no two commands of one template, so that the contrast never pulls anything together.",
    gate=Gate.DATA,
    prior=-12.0,
    evidence=(
        Weight("contrast-without-pairs", 24.0, when=_GRAVE, why="most batches have no pair of one template"),
    ),
    probe="every-batch-has-a-pair",
    remedies=(
        _setting("give each example a partner of its template", partner_views="true"),
        _setting("larger batches", batch="x 8"),
        _setting("fewer templates", direction_is_content="true"),
    ),
    settings=("*partner_views", "*batch", "*direction_is_content", "*pairs"),
)  # fmt: skip

PAIRS_DO_NOT_SHARE = Hypothesis(
    cause="pairs-do-not-share-their-structure",
    summary="Commands that the contrast pulls together are not of one template.",
    gate=Gate.DATA,
    prior=-12.0,
    evidence=(
        Weight(
            "contrast-at-chance", 28.0, when=_GRAVE,
            why="commands of one template are no more alike than others, however long the contrast asks for it",
        ),
        Weight("contrast-without-pairs", -15.0, when=_GRAVE, why="there are no pairs to be wrong"),
        Weight(
            "loss-not-moving", -12.0, when=_GRAVE, family="nothing is learned",
            why="the network as a whole does not learn",
        ),
        Weight("task-loss-at-rest", -15.0, when=_GRAVE, family="nothing is learned", why="nor is the task learned"),
        Weight("update-too-small", -12.0, when=_GRAVE, why="the weights hardly move"),
    ),
    probe="write-up-pairs-share-their-structure",
    remedies=(
        _setting("pair commands of one template", pairs="template"),
        Remedy(kind="text", text="look at some pairs: `Pool.partner` of sci.pairs returns the other one"),
        _setting("a stronger contrast", scl_weight="x 3"),
    ),
    settings=("*pairs", "*turn_is_content", "*direction_is_content", "*scl_*"),
)  # fmt: skip

END_IS_NOT_TRAINED = Hypothesis(
    cause="end-is-not-trained",
    summary="EOS has no weight in the loss, so that nothing teaches an answer to end.",
    gate=Gate.DATA,
    prior=-12.0,
    evidence=(
        Weight("end-not-learned", 24.0, when=_GRAVE, why="actions are learned, and their end is unlearned"),
        Weight("loss-diverging", -12.0, when=_GRAVE, why="everything gets worse, not the end alone"),
    ),
    probe="the-end-is-learned",
    remedies=(
        _setting("give EOS its weight", eos_weight="2.0"),
        Remedy(kind="text", text="check that every target ends with EOS (`targets` of sci.data puts it there)"),
    ),
    settings=("*eos_*",),
)  # fmt: skip

RATE_LEAPS = Hypothesis(
    cause="rate-leaps-between-epochs",
    summary="The learning rate leaps where an epoch begins, and the updates there undo the epoch before.",
    gate=Gate.SETTINGS,
    prior=-12.0,
    evidence=(
        Weight("rate-leaps", 24.0, when=_GRAVE, why="a learning rate is many times what it was an update before"),
    ),
    probe="the-schedule-is-smooth",
    remedies=(
        _setting("let the schedule run through all epochs", boundary_rate="1.0"),
        Remedy(kind="text", text="make the schedule once, before the first epoch, and count updates"),
    ),
    settings=("*boundary_rate", "*scheduler", "*warmup_ratio"),
)  # fmt: skip

DETECTORS: tuple[Detector, ...] = (
    SlotsCollapsed(),
    ContrastWithoutPairs(),
    ContrastAtChance(),
    EndNotLearned(),
    TaskLossAtRest(),
    RateLeaps(),
)
"""For `System.detectors`, beside those of `monitor`."""
HYPOTHESES: tuple[Hypothesis, ...] = (
    SLOTS_BEGIN_ALIKE,
    CONTRAST_HAS_NO_PAIRS,
    PAIRS_DO_NOT_SHARE,
    END_IS_NOT_TRAINED,
    RATE_LEAPS,
)
"""For `System.hypotheses`, beside those of `hypotheses`."""

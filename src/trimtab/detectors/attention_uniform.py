"""Attentions that could tell keys apart look at all of them alike."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, listed, number
from trimtab.detectors._looks import examined, first, lasting, middle, values
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import HEAD, Trace


@dataclass(frozen=True, kw_only=True)
class AttentionUniform(Detector):
    """Attentions that could tell keys apart look at all of them alike.

    What it sees.
    The entropy of most attentions is that of a mean over all keys at every look of a long window, and does not move.
    It is a warning where the same attentions had been sharper after the beginning of the training; where they never
    were, it is info.

    Why it matters.
    An attention that looks at everything alike is a mean: what was learned about where to look is lost, and the
    layer mixes positions blindly. Queries and keys then get almost no gradient.

    Evidence it shows.
    How many attentions there are, how many are uniform and their names, the entropy now and the lowest before.

    False alarms.
    Every attention begins uniform, and some stay so for a long time in a healthy training: that is info. Attentions
    over fewer than four keys are not judged.

    What to try.
    Look at the weight decay and the learning rate of the query and key projections, and at whether their input still
    differs between positions (a norm layer, a position embedding that is not added).

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("attention_entropy", "update_ratio")
    release: int = 2

    entropy: float = 0.995
    """Of ln(keys): an untrained attention has 0.98 to 0.999, and a trained one below 0.95 soon."""
    moves: float = 0.003
    """Within the window: an attention that begins to learn moves further."""
    sharper: float = 0.9
    """Once, after the first steps: this attention could tell keys apart."""
    beginning: int = 32
    """Before this step an attention may be sharp by chance and then forget it."""
    share: float = 0.5
    """Of all attentions: single ones may well be a mean for good."""
    window: int = 128
    """In steps; in healthy small transformers attentions that look uniform move within 64."""
    looks: int = 5
    """Fewer say nothing about how it moves."""
    patience: int = 256
    """In steps, before attentions that never moved are mentioned."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        sources = (*(("attention_entropy",) if trace.has("attention_entropy") else ()), *examined(trace, "entropy"))
        if not sources:
            return self.unknown(trace, "no attention was found in the graph, and none was examined by name")
        late = lasting(trace, sources, self.looks, self.window)
        if not late:
            return self.unknown(
                trace, f"every attention begins uniform: {self.looks} looks over {self.window} steps are needed"
            )
        begin = min(course[0][0] for course in late.values())
        uniform = []
        for label, course in late.items():
            entropies = values(course)
            if min(entropies) >= self.entropy and max(entropies) - min(entropies) <= self.moves:
                uniform.append(label)
        if not uniform:
            return None
        past = {label: course for label, course in first(trace, sources, HEAD).items() if label in uniform}
        lowest = {
            label: min((entropy for step, entropy in course if self.beginning <= step < begin), default=1.0)
            for label, course in past.items()
        }
        lost = [label for label in uniform if lowest.get(label, 1.0) <= self.sharper]
        many = len(uniform) >= self.share * len(late)
        if not lost and not (many and trace.step >= self.patience):
            return None
        named = lost or uniform
        before = min(lowest.get(label, 1.0) for label in named)
        latest = middle([late[label][-1][1] for label in named])
        text = (
            f"the entropy of {len(named)} of {len(late)} attentions is {number(latest)} of at most 1 since step {begin}"
        )
        text += f", {number(before)} before" if lost else ", and was never much lower"
        return self.finding(
            trace,
            severity=Severity.WARNING if len(lost) >= self.share * len(late) else Severity.INFO,
            summary=f"{text}: {listed(named)}",
            measured=latest,
            threshold=self.entropy,
            evidence={
                "attentions": float(len(late)),
                "uniform": float(len(uniform)),
                "once_sharper": float(len(lost)),
                "names": tuple(named),
                "entropy": latest,
                "entropy_lowest_before": before,
            },
            since_step=begin,
        )

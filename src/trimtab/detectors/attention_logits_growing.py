"""The largest logit of an attention grows steadily, beyond what a softmax can use."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, listed, number
from trimtab.detectors._looks import first, last, middle, since, values
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class AttentionLogitsGrowing(Detector):
    """The largest logit of an attention grows steadily, beyond what a softmax can use.

    What it sees.
    The largest distance of a logit from the mean of its row, median of three looks, is beyond 50, several times what
    it was at the beginning, and has grown again over the second half of the run.

    Why it matters.
    Beyond that the softmax is as good as one-hot, gradients of queries and keys vanish, and in half precision the
    products lose their digits. Large models that diverge late have shown this first.

    Evidence it shows.
    The largest logit now, at the first looks and half the run ago, for the worst attention, and the names of all.

    False alarms.
    Healthy small transformers stay below 20 (measured). Logits that were large from the start and stay so do not
    grow: `attention-saturated` judges these.

    What to try.
    Normalise queries and keys, cap the logits, or lower the learning rate of the two projections; weight decay on
    them helps slowly.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("attention_logit",)
    release: int = 2

    logit: float = 50.0
    """Healthy runs stay below 20; large models that diverged had passed 50 to 100 before."""
    growth: float = 4.0
    """Times the median of the first three looks; they have 1 to 2 at the usual initialisation."""
    lately: float = 1.3
    """Times the value at half the steps: what has levelled off grows no more."""
    looks: int = 9
    """Fewer looks are no course: three for each of then, half way and now."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        names = ("attention_logit",)
        if not trace.has("attention_logit"):
            return self.unknown(trace, "no attention with known logits was found in the graph")
        if trace.count("attention_logit") < self.looks:
            return self.unknown(trace, f"too few looks so far for a course: {self.looks} are needed")
        late = last(trace, names, 3)
        large = {label: now for label, course in late.items() if (now := middle(values(course))) >= self.logit}
        if not large:
            return None
        early, half = first(trace, names, 3), since(trace, names, trace.step // 2)
        growing: dict[str, tuple[float, float, float]] = {}
        for label, now in large.items():
            began, before = middle(values(early.get(label, []))), middle(values(half[label][:3]))
            if now >= self.growth * began and now >= self.lately * before:
                growing[label] = (now, before, began)
        if not growing:
            return None
        worst = max(growing, key=lambda label: growing[label][0])
        now, before, began = growing[worst]
        return self.finding(
            trace,
            severity=Severity.WARNING,
            summary=f"the largest logit of {listed([worst])} is {number(now)} at step {trace.step}: "
            f"it was {number(began)} at the beginning and {number(before)} half way; "
            f"{len(growing)} of {len(late)} attentions grow so",
            measured=now,
            threshold=self.logit,
            evidence={
                "logit": now,
                "logit_half_way": before,
                "logit_first": began,
                "growth": now / began if began > 0 else 0.0,
                "names": tuple(growing),
                "attentions": float(len(late)),
            },
            since_step=late[worst][0][0],
        )

"""Attentions look at one key each, with logits so large that no gradient can change it."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, listed, number
from trimtab.detectors._looks import examined, first, last, middle, values
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class AttentionSaturated(Detector):
    """Attentions look at one key each, with logits so large that no gradient can change it.

    What it sees.
    At each of the latest looks the entropy of an attention is near 0 and its largest logit is huge. That is judged
    most strictly where it was so from the first look on: nothing can have been learned by then. Most attentions of
    the model must be affected; a single sharp one is info.

    Why it matters.
    A softmax at one key passes no gradient on to queries and keys. The attention keeps looking where chance put it,
    and the model learns around it, worse and more slowly.

    Evidence it shows.
    How many attentions there are and how many are saturated, their names, entropy and largest logit, both also at
    the first look, and whether it was so from the start.

    False alarms.
    A head that copies may rightly look at one key: its logits are 10 to 30 then, and hundreds here. An attention that
    was named with `examine` has no logits; it is judged only if it was saturated from the start.

    What to try.
    Scale the logits by 1 / sqrt(width of a head), normalise queries and keys, or cap the logits; check the initial
    scale of the two projections. If it came later, lower the learning rate.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("attention_entropy", "update_ratio")
    release: int = 2

    entropy: float = 0.05
    """Of ln(keys): healthy small transformers stay above 0.4; with products 400 times too large they are below 0.04."""
    logit: float = 50.0
    """From the first look on: ordinary initialisations have 1 to 2, trained attentions up to 20."""
    logit_later: float = 100.0
    """Later: a head that has learned to copy may grow sharp, and goes on growing slowly."""
    share: float = 0.5
    """Of all attentions: fewer are a peculiarity of a few heads."""
    looks: int = 4
    """So many latest looks must agree."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        sources = (*(("attention_entropy",) if trace.has("attention_entropy") else ()), *examined(trace, "entropy"))
        if not sources:
            return self.unknown(trace, "no attention was found in the graph, and none was examined by name")
        entropies = last(trace, sources, self.looks)
        late = {label: course for label, course in entropies.items() if max(values(course)) <= self.entropy}
        if not late:
            return None
        # one that was first met, or first finite, after the rows that are kept for ever begins with what is known of it
        early = entropies | first(trace, sources, self.looks)
        logits = last(trace, ("attention_logit",), self.looks)
        saturated: dict[str, bool] = {}
        for label, course in late.items():
            at_start = max(values(early[label])) <= self.entropy
            least = min(values(logits[label])) if label in logits else None
            huge = at_start if least is None else least >= (self.logit if at_start else self.logit_later)
            if len(course) == self.looks and huge:
                saturated[label] = at_start
        if not saturated:
            return None
        from_start, total = any(saturated.values()), len(entropies)
        known = [label for label in saturated if label in logits]
        logits_first = logits | first(trace, ("attention_logit",), 1)
        entropy = middle([entropies[label][-1][1] for label in saturated])
        logit = middle([logits[label][-1][1] for label in known]) if known else 0.0
        many = len(saturated) >= self.share * total
        text = f"at step {trace.step} {len(saturated)} of {total} attentions look at one key: entropy {number(entropy)}"
        text += f" of at most 1, largest logit {number(logit)}" if known else " of at most 1"
        text += ", from the start" if from_start else ""
        return self.finding(
            trace,
            severity=Severity.INFO if not many else Severity.ERROR if from_start and known else Severity.WARNING,
            summary=f"{text}: {listed(tuple(saturated))}",
            measured=entropy,
            threshold=self.entropy,
            evidence={
                "attentions": float(total),
                "saturated": float(len(saturated)),
                "names": tuple(saturated),
                "entropy": entropy,
                "entropy_first": middle([early[label][0][1] for label in saturated]),
                "logit": logit,
                "logit_first": middle([logits_first[label][0][1] for label in known]) if known else 0.0,
                "at_start": float(from_start),
            },
            since_step=0 if from_start else min(course[0][0] for course in late.values()),
        )

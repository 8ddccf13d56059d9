"""The sum: what the findings of a run say about each hypothesis, and the order in which causes stand."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from trimtab.hypotheses._hypothesis import CONVINCING, Gate, Hypothesis, Weight
from trimtab.records import Diagnosis, Finding, Term

NONE_OF_THESE = "none-of-these"
"""The cause that stands for all that no hypothesis describes: prior 0, no evidence."""

SETTINGS_DECIBANS = 6.0
"""A setting of the right kind differs from the last good run: four times as likely under the cause that it belongs to,
for people do change the learning rate of healthy runs as well. Several differing keys count once."""


def weigh(
    hypothesis: Hypothesis,
    findings: Sequence[Finding],
    judged: Collection[str],
    unknown: Collection[str] = (),
    settings_changed: Mapping[str, tuple[Any, Any]] | None = None,
) -> Diagnosis:
    """Add up what is for and against one cause.

    Args:
        hypothesis: the cause and its weights.
        findings: each finding that counts, as it was opened: how trouble began tells causes apart, what follows is
            common to many.
        judged: codes of the rules that judged at least once.
        unknown: codes of the rules that never could.
        settings_changed: dotted key -> (value in the last good run, value in this one).

    Returns:
        A Diagnosis whose score is the plain sum of its terms, prior first.
    """
    counted = _strongest([w for w in hypothesis.evidence if w.applies(findings, w.code in judged)])
    terms = [Term(what="prior", decibans=hypothesis.prior, why="how common the cause is among faulty runs")]
    terms += [Term(what=str(weight), decibans=weight.decibans, why=weight.why) for weight in counted]
    changed = [key for key in settings_changed or {} if any(fnmatchcase(key, p) for p in hypothesis.settings)]
    if changed:
        terms.append(_settings_term(changed, settings_changed or {}))
    return Diagnosis(
        cause=hypothesis.cause,
        summary=hypothesis.summary,
        score=sum(term.decibans for term in terms),
        gate=int(hypothesis.gate),
        terms=tuple(terms),
        unknown=tuple(sorted(hypothesis.codes.intersection(unknown))),
        explains=tuple(dict.fromkeys(w.code for w in counted if w.decibans > 0 and not w.absent)),
        probe=hypothesis.probe,
        remedies=hypothesis.remedies,
    )


def rank(
    hypotheses: Iterable[Hypothesis],
    findings: Sequence[Finding],
    judged: Collection[str],
    unknown: Collection[str] = (),
    settings_changed: Mapping[str, tuple[Any, Any]] | None = None,
    *,
    convincing: float = CONVINCING,
) -> tuple[Diagnosis, ...]:
    """Return the causes that some finding speaks for, and `none-of-these`, the likeliest first.

    Causes that score `convincing` or more stand first, those of an earlier gate before those of a later one; the rest
    follow by score. Equal scores keep the order of `hypotheses`.
    """
    weighed = [weigh(one, findings, judged, unknown, settings_changed) for one in hypotheses]
    supported = [diagnosis for diagnosis in weighed if diagnosis.explains]
    nothing = Diagnosis(
        cause=NONE_OF_THESE,
        summary="The cause is one that Trimtab does not know.",
        score=0.0,
        gate=int(Gate.REST),
        terms=(Term(what="prior", decibans=0.0, why="a cause that scores below 0 is less likely than an unknown one"),),
    )

    def place(diagnosis: Diagnosis) -> tuple[int, float]:
        return (diagnosis.gate if diagnosis.score >= convincing else max(Gate) + 1, -diagnosis.score)

    return tuple(sorted([*supported, nothing], key=place))


def _strongest(weights: Iterable[Weight]) -> list[Weight]:
    """Keep of each family the strongest weight for the cause and the strongest against it, in their order."""
    kept: list[Weight] = []
    for weight in weights:
        rivals = (i for i, one in enumerate(kept) if weight.family and _side(one) == _side(weight))
        place = next(rivals, None)
        if place is None:
            kept.append(weight)
        elif abs(weight.decibans) > abs(kept[place].decibans):
            kept[place] = weight
    return kept


def _side(weight: Weight) -> tuple[str, bool]:
    return weight.family, weight.decibans > 0


def _settings_term(keys: Sequence[str], changed: Mapping[str, tuple[Any, Any]]) -> Term:
    good, this = changed[keys[0]]
    more = f" and {len(keys) - 1} more settings differ" if len(keys) > 1 else " differs"
    return Term(
        what=f"setting {keys[0]}{more} from the last good run",
        decibans=SETTINGS_DECIBANS,
        why=f"{good!r} there, {this!r} here",
    )

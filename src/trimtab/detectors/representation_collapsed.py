"""What the model makes of different inputs has become the same."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, number
from trimtab.detectors._looks import examined, first, lasting, middle, values
from trimtab.records import Evidence, Finding, Severity, Unknown
from trimtab.trace import Trace

_SUPERVISED = ("chance_level", "loss_terms", "target_fingerprint")
"""Signals that say that the loss compares with targets."""


@dataclass(frozen=True, kw_only=True)
class RepresentationCollapsed(Detector):
    """What the model makes of different inputs has become the same.

    What it sees.
    One of these, at each of the latest looks. A representation that was named with `examine` has lost nearly all of
    its spread over the batch, or, without targets, all but one of its directions. A loss without targets lies near -1,
    as a similarity does that is nearly reached, while the representation is left with few of its directions. Or the
    input of a last layer hardly differs between examples, and the loss has not fallen.

    Why it matters.
    Two views of one input are easiest to make alike by making everything alike: the loss is perfect and nothing was
    learned. In a classifier no later layer can bring back the difference that an earlier one lost.

    Evidence it shows.
    Spread and rank now and at the beginning, the loss, whether there are targets, and whether the loss looks like a
    similarity.

    False alarms.
    A good classifier of C classes ends with about C - 1 directions, and a regression with few: with targets the rank
    is never judged, only the spread. Before the first updates outputs may all be alike, so what counts is that it
    stays so. With a stop-gradient the rank falls too, to a half or third; but then the similarity is not yet reached.

    What to try.
    Stop the gradient at one of the two views, or add a term that keeps variances up. In a classifier look for dead or
    saturated layers, and for inputs that are not scaled.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("representation_spread", "update_ratio")
    release: int = 2
    excused_by: tuple[str, ...] = ("curriculum",)

    spread: float = 0.02
    """Of a named representation; healthy ones have 0.2 to 1."""
    spread_fallen: float = 0.2
    """Times its largest early value: what never differed much has not collapsed."""
    similar: float = 0.95
    """A similarity of which so much is reached while the spread has fallen: two views with a stop-gradient had reached
    0.88 at most with 0.9 of their spread, without it 0.99 with 0.3 to 0.5."""
    spread_lost: float = 0.65
    """Times the largest early spread, together with `similar`."""
    rank_lost: float = 0.5
    """Times the largest early rank, together with `similar`."""
    similar_normalised: float = 0.9
    """Where a normalisation keeps the spread up the rank must tell: 0.93 to 0.96 was reached without the
    stop-gradient."""
    rank: float = 3.0
    """Directions left then: with the stop-gradient 4 to 7 of 9, without it 2.3 to 2.9 ..."""
    rank_fallen: float = 0.33
    """... and times the largest early rank: a narrow representation has few from the start."""
    directions: float = 1.5
    """Left of a named representation without targets, of ten times as many."""
    alike: float = 0.005
    """Spread before a last layer with a loss that has not fallen: healthy runs have at least 0.07, fourteen sigmoid
    layers 0.001 and less."""
    fallen: float = 0.9
    """Times the first loss: below it something has been learned."""
    looks: int = 4
    """So many latest looks must agree ..."""
    steps: int = 32
    """... over so many steps at least."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        named = examined(trace, "spread")
        if not named and not trace.has("representation_spread"):
            return self.unknown(
                trace, "no layer could be read from the graph, and no representation was examined by name"
            )
        supervised = any(trace.has(name) for name in _SUPERVISED)
        for spread in named:
            found = self._named(trace, spread.removesuffix("/spread"), supervised)
            if found is not None:
                return found
        return self._of_layers(trace, supervised) if trace.has("representation_spread") else None

    def _now_and_first(self, trace: Trace, name: str) -> tuple[list[float], float]:
        """Return the latest values over the steps that they must span, nothing while too few, and the largest early."""
        late = lasting(trace, (name,), self.looks, self.steps).get(name, [])
        return values(late), max(values(first(trace, (name,), self.looks).get(name, [])), default=0.0)

    def _named(self, trace: Trace, name: str, supervised: bool) -> Finding | None:
        spreads, first_spread = self._now_and_first(trace, f"{name}/spread")
        ranks, first_rank = self._now_and_first(trace, f"{name}/rank")
        flat = bool(spreads) and max(spreads) <= min(self.spread, self.spread_fallen * first_spread)
        line = not supervised and bool(ranks) and max(ranks) <= min(self.directions, 0.1 * first_rank)
        if not flat and not line:
            return None
        spread, rank = spreads[-1], ranks[-1] if ranks else 0.0
        text = f"{name} differs by {number(spread)} of its size between examples at step {trace.step}, "
        text += f"{number(first_spread)} at the beginning"
        if not flat:
            text = f"{name} has {number(rank)} directions at step {trace.step}, {number(first_rank)} at the beginning"
        return self.finding(
            trace,
            severity=Severity.ERROR,
            subject=name,
            summary=text,
            measured=spread if flat else rank,
            threshold=self.spread if flat else self.directions,
            evidence=_evidence(trace, spread, first_spread, rank, first_rank, supervised, similarity=False),
            since_step=max(trace.step - self.steps, 0),
        )

    def _of_layers(self, trace: Trace, supervised: bool) -> Finding | Unknown | None:
        spreads, first_spread = self._now_and_first(trace, "representation_spread")
        ranks, first_rank = self._now_and_first(trace, "representation_rank")
        if not spreads or not ranks:
            return self.unknown(trace, f"too few looks so far: {self.looks} over {self.steps} steps are needed")
        spread, rank = middle(spreads), middle(ranks)
        evidence = _evidence(trace, spread, first_spread, rank, first_rank, supervised, similarity=False)
        if max(spreads) <= self.alike and not _has_fallen(trace, self.fallen):
            return self.finding(
                trace,
                severity=Severity.WARNING,
                summary=f"the input of a last layer differs by {number(spread)} of its size between examples "
                f"at step {trace.step}, and the loss has not fallen",
                measured=spread,
                threshold=self.alike,
                evidence=evidence,
                since_step=max(trace.step - self.steps, 0),
            )
        if supervised or max(ranks) > self.rank_lost * first_rank:
            return None
        reached = _similarity(trace)
        flatter = reached >= self.similar and max(spreads) <= self.spread_lost * first_spread
        narrow = reached >= self.similar_normalised and rank <= min(self.rank, self.rank_fallen * first_rank)
        if not flatter and not narrow:
            return None
        return self.finding(
            trace,
            severity=Severity.ERROR,
            summary=f"the loss looks like a similarity, {number(100 * reached)} % of it reached at step {trace.step}, "
            f"and the representation has {number(rank)} directions left of {number(first_rank)} and "
            f"a spread of {number(spread)} left of {number(first_spread)}",
            measured=rank,
            threshold=self.rank_lost * first_rank if flatter else self.rank,
            evidence={**evidence, "similarity": 1.0},
            since_step=max(trace.step - self.steps, 0),
        )


def _evidence(
    trace: Trace, spread: float, first_spread: float, rank: float, first_rank: float, supervised: bool, *,
    similarity: bool,
) -> Evidence:  # fmt: skip
    losses = _losses(trace, 1)
    return {
        "spread": spread,
        "spread_first": first_spread,
        "rank": rank,
        "rank_first": first_rank,
        "supervised": float(supervised),
        "similarity": float(similarity),
    } | ({"loss": losses[0]} if losses else {})


def _losses(trace: Trace, count: int, *, early: bool = False) -> list[float]:
    losses = (trace.first if early else trace.last)("loss", count)[1]
    return [loss for loss in losses if not isinstance(loss, tuple) and loss == loss]


def _has_fallen(trace: Trace, share: float) -> bool:
    """Say whether the loss is clearly below its first values; one that is not positive says nothing and counts so."""
    before, now = middle(_losses(trace, 8, early=True)), middle(_losses(trace, 16))
    return not before > 0 or not now > share * before


def _similarity(trace: Trace) -> float:
    """Return how much of -1 (or of -2, for two views added up) the loss has reached; 0 if it is not of that kind."""
    early, late = _losses(trace, 256, early=True), _losses(trace, 256)
    if not early or not late:
        return 0.0
    lowest, highest = min(*early, *late), max(*early, *late)
    bound = 1.0 if lowest >= -1.0001 else 2.0
    if lowest < -1.0001 * bound or highest > 1.0001 * bound:
        return 0.0
    return -middle(late[-32:]) / bound

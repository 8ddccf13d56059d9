"""The latent code of an autoencoder carries nothing: it is the same for every input."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._course import HARDLY, travelled
from trimtab.detectors._detector import Detector, number
from trimtab.detectors._looks import examined, first, lasting, middle, since, values
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import HEAD, Trace

_DIVERGENCES = ("kl", "kld", "kl_loss", "kl_divergence", "latent_kl", "kl_latent")
"""Last part of the name of a metric that is the divergence of a latent code from its prior."""
NEEDED = "nats_needed"
"""Name of a metric beside the divergence: the logarithm of how many items the code is to tell apart."""
_OF_POLICIES = ("reward", "return", "approx_kl", "clip_fraction", "policy")
"""Parts of names of metrics that go with a divergence between two policies, which shall be small."""


@dataclass(frozen=True, kw_only=True)
class LatentUnused(Detector):
    """The latent code of an autoencoder carries nothing: it is the same for every input.

    What it sees.
    No unit of a latent that was named with `examine(kind="latent")` is active, at every look of a long window. Or a
    recorded divergence (`kl`, `kl_loss`, `train/kl`, ...) stays near 0 nats, is a vanishing share of the loss, was
    never more than that after the first steps and does not rise. Or it stays below what the code must carry to tell
    the items apart, the logarithm of their number, where that is recorded beside it as `nats_needed`.

    Why it matters.
    The decoder has learned to do without the code. Samples and reconstructions are the mean of the data whatever the
    input; the loss looks like that of a model that learns slowly.

    Evidence it shows.
    The number of active units and the largest ever, or the divergence, its largest value after the beginning, and its
    share of the loss.

    False alarms.
    A weight of the divergence that is raised from 0 makes the recorded product rise, which is no fault; say
    `note("escalation")` where it rises very slowly. Divergences between policies or to a teacher shall be small:
    they are not judged where rewards are recorded, nor once they were large.

    What to try.
    Lower the weight of the divergence or raise it over the first thousands of updates, leave each unit some free
    nats, or weaken the decoder.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio",)
    version: int = 2
    release: int = 2
    excused_by: tuple[str, ...] = ("escalation", "curriculum")

    window: int = 80
    """In steps; a healthy small autoencoder has its first active units after 32, and all of them after 96."""
    looks: int = 4
    """Fewer say too little."""
    beginning: int = 32
    """What the code carries before this step is chance: its weights are not trained yet."""
    nats: float = 0.02
    """Of the whole code: with ten times the usual weight 0.001 to 0.002 remain; a healthy code has at least 0.3."""
    share: float = 1e-3
    """Of the loss: healthy codes have 0.01 and more, unused ones 0.0001, however both were averaged."""
    once: float = 0.5
    """In nats: a divergence that was larger than this after the beginning belonged to a code that was used."""
    rises: float = 1.5
    """Times the beginning of the window: a weight that is being raised."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        units = examined(trace, "active_units")
        names = trace.names()
        divergences = [name for name in names if name.rpartition("/")[2].lower() in _DIVERGENCES]
        if any(part in name.lower() for part in _OF_POLICIES for name in names):
            divergences = []
        if not units and not divergences:
            return self.unknown(trace, "no latent was examined by name and no divergence (kl) was recorded")
        late = lasting(trace, (*units, *divergences), self.looks, self.window)
        way = travelled(trace) if late else None
        if way is not None and way < HARDLY:
            return self.unknown(trace, "the weights have hardly moved yet, so that no code can be there")
        for name, course in late.items():
            found = (self._units if name in units else self._divergence)(trace, name, values(course), course[0][0])
            if found is not None:
                return found
        few = f"too few looks at the latent so far: {self.looks} over {self.window} steps are needed"
        return None if late else self.unknown(trace, few)

    def _units(self, trace: Trace, name: str, late: list[float], begin: int) -> Finding | None:
        if max(late) > 0:
            return None
        ever = max(values(first(trace, (name,), HEAD)[name]))
        return self.finding(
            trace,
            severity=Severity.ERROR,
            summary=f"{name} is 0 from step {begin} to step {trace.step}; it was {number(ever)} at most",
            measured=0.0,
            threshold=1.0,
            evidence={"active_units": 0.0, "active_units_ever": ever},
            since_step=begin,
        )

    def _divergence(self, trace: Trace, name: str, late: list[float], begin: int) -> Finding | None:
        needed = trace.scalar(f"{name.rpartition('/')[0]}/{NEEDED}".lstrip("/"))
        if needed is not None and 0 < max(late) < needed and late[-1] < self.rises * late[0]:
            return self.finding(
                trace,
                severity=Severity.ERROR,
                summary=f"{name} is {number(late[-1])} nats at step {trace.step} and was at most {number(max(late))} "
                f"since step {begin}; a code that tells all items apart carries {number(needed)}",
                measured=max(late),
                threshold=needed,
                evidence={"divergence": late[-1], "nats_needed": needed},
                since_step=begin,
            )
        if max(late) > self.nats or max(late) <= 0:  # exactly 0: a weight that has not been switched on
            return None
        losses = [abs(loss) for loss in values(since(trace, ("loss",), begin).get("loss", []))]
        past = [value for step, value in first(trace, (name,), HEAD)[name] if step >= self.beginning]
        part = len(late) // 3 or 1
        rising = middle(late[-part:]) > self.rises * middle(late[:part])
        share = middle(late) / max(middle(losses), 1e-30) if losses else 1.0
        largest = max(past, default=0.0)
        if rising or share > self.share or largest > self.once:
            return None
        return self.finding(
            trace,
            severity=Severity.ERROR,
            summary=f"{name} is {number(middle(late))} nats at step {trace.step}, {number(100 * share)} % of the loss, "
            f"and was at most {number(largest)} after the first steps",
            measured=middle(late),
            threshold=self.nats,
            evidence={"divergence": middle(late), "divergence_largest": largest, "share_of_loss": share},
            since_step=begin,
        )

"""From one update to the next the loss is back where it began, and stays there, although the weights did not jump."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import Detector, number
from trimtab.records import Finding, Severity, Unknown, Value
from trimtab.trace import Rolling, Trace


@dataclass(frozen=True, kw_only=True)
class LabelsUnrelated(Detector):
    """From one update to the next the loss is back where it began, and stays there, although the weights did not jump.

    What it sees.
    The loss had clearly fallen. Then it rises within a step or two to where a guess is, or above, and nearly all of
    the following updates stay there; the learning rate was not raised, no weights were loaded and no measured update
    was long. A rise to at least twice the loss before, but not so far, is a warning: harder or other data.

    Why it matters.
    The same weights that were right are suddenly wrong: what the targets have to do with the inputs has changed. Rows
    joined with a shift, labels shuffled without their inputs, a new file with another coding, a curriculum that jumps.
    What was learned is being unlearned.

    Evidence it shows.
    The loss at the beginning, before and after the jump, the gradient norm before and after, the longest update.

    False alarms.
    A bad batch is gone after a step. Too high a rate needs several steps and long updates. Restarts raise the rate.
    Only losses are judged whose targets are known, so policies and free games are not. Harder data on purpose: say
    `note("data-change")` or `note("curriculum")`.

    What to try.
    Print twenty inputs with their targets from before and after that step. Look at what the loader began to read
    there.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_ratio",)
    release: int = 16
    """So many clear judgements in a row: the loss has come down again."""
    excused_by: tuple[str, ...] = ("data-change", "curriculum", "restart")

    after: int = 20
    """So many updates at the new level: single batches and spikes are gone after a few."""
    before: int = 24
    """So many updates that tell the level before."""
    window: int = 96
    """The jump is looked for among the latest so many updates; full rows come every 8 to 64 steps."""
    fallen: float = 0.25
    """The loss must have fallen by so much of its first value, or there is nothing to lose."""
    back: float = 0.7
    """It rises by so much of what it had fallen: shuffled labels reach 1.0 and more, as a network that is sure of
    itself is worse than one that knows nothing; harder data of a curriculum 0.2 to 0.5."""
    stepped_up: float = 2.0
    """A loss that only returns a part of the way has at least doubled, which none of 99 recorded healthy runs shows
    unless it was announced ..."""
    clear: float = 1.25
    """... and it lies so many times above the highest of the losses before."""
    least: float = 0.1
    """... and by so much of its first value at least: language models begin far above a guess by frequencies."""
    above: float = 1.4
    """A loss that stays so many times above the first one has another unit: sums over four batches stay at 1.8 to 2.5,
    while a network that is sure of itself comes down to 1.2 within twenty updates."""
    few: float = 0.1
    """At most so many of the losses lie on the wrong side of the middle between the two levels."""
    at_once: float = 0.3
    """The three losses before the jump and the three after it lie within so much of the rise of their levels."""
    raised: float = 1.5
    """A learning rate that was raised by this factor explains a rise by itself."""
    long: float = 0.1
    """An update of a tenth of the weights explains it too."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        if not trace.has("target_fingerprint"):
            return self.unknown(trace, "no targets were recognised in the loss")
        begin = _numbers(trace.first("loss", 8)[1])
        if len(begin) < 8 or not Rolling.median(begin) > 0.0:
            return self.unknown(trace, "the loss was not measured, or is not positive at the beginning")
        steps, values = trace.last("loss", self.window)
        if len(steps) < self.before + self.after:
            return None
        start, latest = Rolling.median(begin), Rolling.median(_numbers(values[-8:]))
        older = min(
            Rolling.median(_numbers(values[:8])), Rolling.median(_numbers(values[self.before - 8 : self.before]))
        )
        most = min(self.back * self._ignorant(trace, start), 0.65 * self.stepped_up * older)
        if not latest - older >= self.least * start or latest < most:
            return None
        losses = _numbers(values)
        return self._jump(trace, start, steps, losses) if len(losses) == len(values) else None

    def _jump(self, trace: Trace, start: float, steps: Sequence[int], losses: tuple[float, ...]) -> Finding | None:
        places = range(self.before, len(losses) - self.after + 1)
        place = max(places, key=lambda i: losses[i] - losses[i - 1], default=0)
        if place == 0:
            return None
        earlier, later = losses[place - self.before : place], losses[place:]
        low, high = Rolling.median(earlier), Rolling.median(later)
        middle = 0.5 * (low + high)
        wrong = sum(loss >= middle for loss in earlier) > self.few * len(earlier) or sum(
            loss <= middle for loss in later
        ) > self.few * len(later)
        ignorant = self._ignorant(trace, start)
        rise = high - low
        wrong |= Rolling.median(earlier[-3:]) > low + self.at_once * rise
        wrong |= Rolling.median(later[:3]) < high - self.at_once * rise
        partly = rise < self.back * (ignorant - low)
        if wrong or start - low < self.fallen * start:
            return None
        if partly and high < max(self.stepped_up * low, self.clear * max(earlier)):
            return None
        falling = Rolling.median(later[-8:]) < 0.8 * Rolling.median(later[:8])
        if rise < self.least * start or Rolling.median(later[-8:]) > self.above * start:
            return None
        step = steps[place]
        longest = max(map(_largest, trace.window("update_ratio", trace.step - step + 17)[1]), default=0.0)
        if longest > self.long or self._explained(trace, step):
            return None
        norms = _numbers(trace.window("gradient_norm", trace.step - step + 1)[1])
        norms_before = _numbers(trace.window("gradient_norm", trace.step - step + 1 + self.before)[1])[
            : -len(norms) or None
        ]
        return self.finding(
            trace,
            severity=Severity.WARNING if partly else Severity.ERROR,
            summary=(
                f"at step {step} the loss rose at once from {number(low)} to {number(high)}, where the training began "
                f"at {number(start)}, and has stayed there for {len(later)} updates; no update was long"
            ),
            measured=rise / max(ignorant - low, 1e-9 * start),
            threshold=self.back,
            evidence={
                "loss_first": start, "loss_before": low, "loss_after": high, "update_ratio": longest,
                "gradient_before": Rolling.median(norms_before), "gradient_after": Rolling.median(norms),
                "falling": float(falling),
            },
            since_step=step,
        )  # fmt: skip

    def _ignorant(self, trace: Trace, start: float) -> float:
        """Return the loss of a guess: that of the first weights, or by frequencies of the labels where it is lower."""
        chance, entropy = trace.scalar("chance_level"), trace.scalar("label_entropy")
        if entropy is None or chance is None or not 0.5 * start < chance < 2.0 * start:
            return start
        return min(start, entropy) if entropy > 0.25 * start else start

    def _explained(self, trace: Trace, step: int) -> bool:
        """Say whether the learning rate was raised there, or weights were loaded."""
        rates = dict(zip(*trace.window("learning_rate", trace.step - step + 9), strict=True))
        before = [_largest(rate) for at, rate in rates.items() if at < step]
        since = [_largest(rate) for at, rate in rates.items() if at >= step]
        if before and since and max(since) > self.raised * max(min(before), 1e-30):
            return True
        return any(note.kind == "weights-loaded" and abs(note.step - step) <= 2 for note in trace.notes)


def _numbers(values: Sequence[Value]) -> tuple[float, ...]:
    """Return the finite ones."""
    return tuple(value for value in values if isinstance(value, float) and abs(value) < 1e300)


def _largest(row: Value) -> float:
    """Return the largest entry of a vector, 0 for an empty one."""
    return max(row, default=0.0) if isinstance(row, tuple) else row

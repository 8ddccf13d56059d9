"""The loss scaler leaves out so many updates that the training stands still."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.detectors._detector import Detector, now, number
from trimtab.records import Finding, Severity, Unknown
from trimtab.trace import Trace


@dataclass(frozen=True, kw_only=True)
class ScalerSkipsTooOften(Detector):
    """The loss scaler leaves out so many updates that the training stands still.

    What it sees.
    The share of attempted updates that the loss scaler left out because a gradient was not finite, after its search for
    a scale at the beginning.

    Why it matters.
    A skipped update is a batch for nothing. A scale that grows too fast, is never lowered, or has a gradient behind it
    that is not finite whatever the scale, leaves out most of them, and nothing raises an error.

    Evidence it shows.
    How many of the last attempts were left out, how many in a row, and the loss scale where it is known.

    False alarms.
    A scaler begins far too high and halves the scale at each of the first updates; these do not count. Later it tries a
    higher scale now and then and skips one update for it: one in 2,000 with the usual settings, one in 100 with lively
    ones.

    What to try.
    Use the scaler's defaults (`growth_interval=2000`, `backoff_factor=0.5`) and call `update()` once for each step. If
    gradients are not finite at any scale, look for the layer that overflows, or use bfloat16.

    Since.
    0.2.0
    """

    reads: tuple[str, ...] = ("update_skipped",)

    search: int = 50
    """The first so many attempts look for a scale: 2^16 down to 1 takes 16 updates, 2^24 takes 24."""
    attempts: int = 200
    """The share is over so many attempts, or over those since the search."""
    share: float = 0.15
    """So many of them skipped: healthy scalers skip at most one in 100."""
    most: float = 0.5
    """With more than half of the updates left out the run will not give the result."""
    least: int = 10
    """So many skips are needed for a share."""
    in_a_row: int = 32
    """So many skips in a row are too many at any time: halving 32 times takes any scale below 1."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        skipped = now(trace, "update_skipped")
        if skipped is None:
            return self.unknown(trace, "no loss scaler has left out an update")
        if not skipped:
            return None
        first = max(self.search, trace.step - self.attempts + 1)
        seen, values = trace.window("update_skipped", self.attempts)
        steps = [step for step, value in zip(seen, values, strict=True) if value]
        row = 0
        while row < len(steps) and steps[-1 - row] == trace.step - row:
            row += 1
        counted = sum(step >= first for step in steps)
        among = trace.step - first + 1
        share = counted / among if among > 0 else 0.0
        often = counted >= self.least and share >= self.share
        if not often and row < self.in_a_row:
            return None
        scale = trace.scalar("loss_scale") if trace.has("loss_scale") else None
        text = f"the loss scaler left out {counted} of the last {max(among, 0)} updates up to step {trace.step}"
        if row >= self.least:
            text += f", the last {row} in a row"
        text += f"; the loss scale is {number(scale)}" if scale is not None else ""
        return self.finding(
            trace,
            severity=Severity.ERROR if share >= self.most or row >= self.in_a_row else Severity.WARNING,
            summary=text,
            measured=share,
            threshold=self.share,
            since_step=next((step for step in steps if step >= first), trace.step),
            evidence={
                "share": share,
                "skipped": float(counted),
                "in_a_row": float(row),
                "loss_scale": scale if scale is not None else float("nan"),
            },
        )

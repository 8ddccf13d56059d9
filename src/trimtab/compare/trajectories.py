"""Where the training losses of two runs stop being the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from trimtab.trial import TrialResult

LossesOf = Callable[[TrialResult], Sequence[float]]
"""Returns the training loss of every update of a run, exactly, in order; empty where it cannot be read."""

READ_AT_MOST = 200
"""Runs whose losses are read: one of 2,000 updates takes 0.07 s, and a report shall not take a minute."""


class Trajectories:
    """Compares runs by their losses, which are read when they are needed and kept.

    Args:
        losses_of: reads them; without it only whether two runs are the same is known, from their hashes.
    """

    def __init__(self, losses_of: LossesOf | None = None):
        self._losses_of = losses_of
        self._read: dict[str, Sequence[float]] = {}

    def same(self, a: TrialResult, b: TrialResult) -> bool | None:
        """Say whether every loss of both is the same; None where a hash is missing."""
        if not a.losses_hash or not b.losses_hash:
            return None
        return a.losses_hash == b.losses_hash

    def parts_at(self, a: TrialResult, b: TrialResult) -> int | None:
        """Return how many updates had the same loss before the first that had not.

        Where one run is the beginning of the other this is its length. None where they are the same or it is unknown.
        """
        if self.same(a, b) is not False:
            return None
        one, other = self.losses(a), self.losses(b)
        if not one or not other:
            return None
        for update, (mine, its) in enumerate(zip(one, other, strict=False)):
            if mine != its and not (math.isnan(mine) and math.isnan(its)):
                return update
        return min(len(one), len(other))

    def same_weights_at(self, a: TrialResult, b: TrialResult, step: int) -> bool | None:
        """Say whether both had the same weights after `step` updates; None where it is unknown.

        The loss of the next update is computed with them, so equal losses up to and including it say yes. At the very
        update where they part, equal metrics decide: the losses may differ because the loss itself does.
        """
        if self.same(a, b):
            return True
        parted = self.parts_at(a, b)
        if parted is None:
            return None
        if step < parted:
            return True
        mine, its = (dict(one.points).get(step, math.nan) for one in (a, b))
        return step == parted and mine == its

    def losses(self, result: TrialResult) -> Sequence[float]:
        """Return the training loss of every update; empty where it is unknown, or too many were read already."""
        key = result.trial.key
        if key not in self._read:
            if self._losses_of is None or len(self._read) >= READ_AT_MOST:
                return ()
            self._read[key] = tuple(self._losses_of(result))
        return self._read[key]

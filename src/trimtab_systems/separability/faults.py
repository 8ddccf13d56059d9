"""How this system is known to break. Budgets count updates of the preset "tiny"."""

from __future__ import annotations

from trimtab.system import Fault

RANDOM_SEQUENCES = Fault(
    name="random-sequences",
    summary="every token is drawn afresh, so no place says anything about the next one",
    change={"structure": "random"},
    expect=("milestone-missed",),
    causes=("data-has-no-signal",),
    budget=100,
)

FAULTS = (RANDOM_SEQUENCES,)

"""Go back to the newest good snapshot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from trimtab.actions._action import Action
from trimtab.actions.skip_step import has_passed
from trimtab.checkpoint.state import DATA_GOES_ON, is_position, plain_name, unwrapped
from trimtab.checkpoint.tree import place
from trimtab.errors import UserError
from trimtab.handed_over import MAIN
from trimtab.levers import lost
from trimtab.live import Live
from trimtab.records import Finding, Outcome

IN_VAIN = 8
"""After so many updates in a row that were left out, the cause is not the batches."""


@dataclass(frozen=True, kw_only=True)
class RollBack(Action):
    """Put the training back, in place of the update that is about to be taken, to the newest good snapshot.

    Weights, buffers, the state and the settings of every optimizer, schedulers, a GradScaler, and every part that was
    handed over with `Guard(state=...)` are again what they were just after that update; the loop goes on from there.
    A snapshot is good when a number of further updates went by without trouble and all its numbers are finite.

    With `data="onward"` the position in the data and the random numbers stay, so that the training meets other batches
    than those that led there. With `data="again"` they go back too, and the training is bit for bit the one that it
    would have been if what went wrong does not happen again. That needs the position in the data to be a part, such as
    `Guard(state={"batches": batches})`; what could not be put back is named in the outcome.

    As a second answer, after one that leaves updates out, it waits until that cannot help: with `when="weights lost"`
    until a weight or a buffer is not finite, with `when="skipping in vain"` also until 8 updates in a row were left out
    and the finding still holds: `(SkipStep(), RollBack(when="skipping in vain"))`.

    While updates are being left out for another finding the weights do not move, so it waits: until updates are taken
    again, or until the eighth that is not. Declined while there is no good snapshot. When the same snapshot did not
    help twice, an older one is taken. A metric that has fallen is noticed evaluations later: for `metric-dropped` and
    `past-its-peak` it goes back to the best evaluation, where all good snapshots are from after it.
    """

    name: ClassVar[str] = "roll-back"
    changes: ClassVar[Literal["nothing", "schedule", "weights"]] = "weights"
    each_update: ClassVar[bool] = True
    goes_back: ClassVar[bool] = True
    data: Literal["onward", "again"] = "onward"
    when: Literal["always", "weights lost", "skipping in vain"] = "always"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data not in ("onward", "again"):
            raise UserError(f"roll-back: data={self.data!r}; expected 'onward' or 'again'")
        if self.when not in ("always", "weights lost", "skipping in vain"):
            raise UserError(f"roll-back: when={self.when!r}; expected 'always', 'weights lost' or 'skipping in vain'")

    def needed(self, live: Live | None, finding: Finding) -> bool:
        """Say whether it is time; where it waits for lost weights this reads all of them."""
        levers = live.levers if live is not None else None
        if live is None or levers is None:
            return finding.event != "judged"
        in_a_row = levers.left_out_in_a_row(live.optimizer)
        if self.when == "always":
            if 0 < in_a_row < IN_VAIN:
                levers.postponed.add(finding.id)
                return False
            return finding.event != "judged" or finding.id in levers.postponed
        if self.when == "skipping in vain":
            if has_passed(finding):
                return False
            if in_a_row >= IN_VAIN:
                return True
        return lost(live.parameters) or lost(live.model_parameters) or _buffer_lost(live)

    def apply(self, live: Live | None, finding: Finding) -> Outcome:
        """Put everything back, or decline."""
        if live is None or live.levers is None:
            return self.outcome(finding, "declined", "no further update came, so there is no place to go back from")
        levers = live.levers
        levers.postponed.discard(finding.id)
        if levers.snapshots is None:
            return self.outcome(finding, "declined", f"there is no snapshot: {levers.no_snapshots}")
        snapshot = levers.snapshots.newest_good(finding.stream, finding.since_step, finding.subject)
        if snapshot is None:
            return self.outcome(finding, "declined", "there is no good snapshot yet")
        restored = levers.go_back(live, snapshot, data=self.data == "again")
        stream = finding.stream if finding.stream in snapshot.steps else live.stream
        to_step = snapshot.steps.get(stream, -1)
        to_steps = dict(snapshot.steps)
        if levers.past(MAIN) is not None:  # metrics are recorded there, also where no optimizer is called so
            to_steps.setdefault(MAIN, max(snapshot.steps.values(), default=-1))
        text = f"went back from update {live.step} of {live.stream!r} to the state after update {to_step} of {stream!r}"
        if snapshot.best_of:
            text += f", the first after the best evaluation of {snapshot.best_of}"
        parts = levers.state.parts
        has_position = any(is_position(parts[name]) for name in restored.restored if name in parts)
        left = {name: why for name, why in restored.left.items() if why != DATA_GOES_ON}
        if self.data == "onward":
            text += "; the data goes on where it is"
        elif not has_position:
            left["the position in the data"] = "hand it over, such as Guard(state={'batches': batches})"
        if left:
            text += "; left as it is: " + ", ".join(f"{name} ({why})" for name, why in left.items())
        return replace(self.outcome(finding, "done", text), to_step=to_step, to_steps=to_steps)


def _buffer_lost(live: Live) -> bool:
    """Say whether a buffer is not finite that was so in the newest good snapshot, such as a running mean."""
    levers = live.levers
    good = levers.snapshots.newest_good() if levers is not None and levers.snapshots is not None else None
    if levers is None or good is None:
        return False
    kept = good.captured.tensors
    buffers = {
        place("model", name, plain_name(called)): buffer
        for name, model in levers.state.models.items()
        for called, buffer in unwrapped(model).named_buffers()
    }
    broken = (
        [key for key, buffer in buffers.items() if key in kept and lost([buffer])]
        if lost(list(buffers.values()))
        else []
    )
    return any(not lost([kept[key]]) for key in broken)

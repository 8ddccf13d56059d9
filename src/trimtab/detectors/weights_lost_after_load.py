"""Weights were loaded, and what had been learned is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.detectors._detector import NEVER, Detector, number
from trimtab.records import Finding, Note, Severity, Unknown, Value
from trimtab.trace import Rolling, Trace


@dataclass(frozen=True, kw_only=True)
class WeightsLostAfterLoad(Detector):
    """Weights were loaded, and what had been learned is not there.

    What it sees.
    `load_state_dict` found none of its names, or so few that hardly a tensor changed; or some were missing while what
    was loaded has their neighbours, the same names with another number or another beginning; or after a load in the
    middle of a training the loss is back where the training began.

    Why it matters.
    With `strict=False` names that do not match are passed over in silence: the model keeps its random weights, and the
    fine-tuning is a training from nothing. A prefix such as `module.` that a wrapper added does this. A Dropout that
    was added or taken away moves the numbers in a `Sequential`: then the layers after it stay random, unnoticed, and
    the result depends on the draw.

    Evidence it shows.
    The tensors of the model, how many were missing, unexpected and changed; which names have moved; the loss before and
    after, its first value and the level of chance.

    False alarms.
    A backbone loaded into a larger model leaves names missing, yet tensors change and the rest fits; a new head has
    another name, not another number. The same weights
    loaded again change nothing, and miss nothing. An average of weights swapped in moves the loss a little.

    What to try.
    Print `missing_keys` and `unexpected_keys` of the result. Take the prefix off the names, load with `strict=True`,
    and compare the loss before saving with the loss after loading.

    Since.
    0.2.0
    """

    version: int = 2
    reads: tuple[str, ...] = ("update_ratio", "parameter_reached")
    release: int = NEVER
    """Later steps do not undo it."""
    excused_by: tuple[str, ...] = ("restart",)

    missing: float = 0.5
    """Share of the model's tensors that were not found: heads and adapters that are new on purpose are fewer, or the
    rest of the tensors changes."""
    changed: float = 0.05
    """At most so many of the tensors changed: buffers and a bias may fit by chance."""
    chance: float = 0.7
    """A first loss of so much of the chance level says that nothing is known: fine-tuned from the right weights it is
    below 0.5 on the task they were trained for."""
    fallen: float = 0.25
    """The loss must have fallen by so much before a load in the middle, or there is nothing to lose."""
    back: float = 0.7
    """... and rises by so much of it afterwards, within two steps."""
    few: int = 8
    """So many losses before and after tell the levels."""
    notes: int = 64
    """So many of the latest announcements are looked through."""

    def detect(self, trace: Trace) -> Finding | Unknown | None:
        loads = [note for note in trace.notes[-self.notes :] if note.kind == "weights-loaded"]
        if not loads:
            return self.unknown(trace, "no weights were loaded")
        if not trace.has("loss"):
            return self.unknown(trace, "the loss was not measured")
        return next((found for note in loads if (found := self._judge(trace, note)) is not None), None)

    def _judge(self, trace: Trace, note: Note) -> Finding | None:
        facts = {name: value for name, value in note.facts.items() if isinstance(value, float)}
        tensors, missing = facts.get("tensors", 0.0), facts.get("missing", 0.0)
        unexpected, changed = facts.get("unexpected", 0.0), facts.get("changed")
        text = f"of {number(tensors)} tensors {number(missing)} were missing and {number(unexpected)} unexpected"
        if changed is not None:
            text += f", {number(changed)} changed"
        evidence: dict[str, float | str] = {**facts, "module": str(note.facts.get("module", ""))}
        levels = self._levels(trace, note.step)
        evidence |= levels
        kept = changed <= self.changed * tensors if changed is not None else unexpected >= self.missing * tensors
        if tensors > 0 and missing >= self.missing * tensors and kept:
            chance = levels.get("chance_level", 0.0)
            lost = 0.0 < self.chance * chance <= levels.get("loss_after", 0.0)
            return self.finding(
                trace,
                severity=Severity.ERROR if lost else Severity.WARNING,
                summary=f"weights were loaded at step {note.step}, and hardly a name fitted: {text}",
                measured=missing / tensors,
                threshold=self.missing,
                evidence=evidence,
                since_step=max(note.step, 0),
            )
        moved = facts.get("moved", 0.0)
        if tensors > 0 and moved > 0:
            names = str(note.facts.get("moved_names", ""))
            return self.finding(
                trace,
                severity=Severity.WARNING,
                summary=(
                    f"weights were loaded at step {note.step}, and {number(moved)} tensors kept their random values, "
                    f"for they have other numbers or prefixes in what was loaded: {names}; {text}"
                ),
                measured=moved,
                threshold=0.0,
                evidence=evidence | {"moved_names": names},
                since_step=max(note.step, 0),
            )
        first, before, after = (levels.get(name) for name in ("loss_first", "loss_before", "loss_after"))
        if first is None or before is None or after is None or not first > 0.0:
            return None
        if first - before < self.fallen * first or after - before < self.back * (first - before):
            return None
        return self.finding(
            trace,
            severity=Severity.ERROR,
            summary=(
                f"weights were loaded at step {note.step}, and the loss went from {number(before)} to {number(after)}, "
                f"where the training began at {number(first)}; {text}"
            ),
            measured=(after - before) / (first - before),
            threshold=self.back,
            evidence=evidence,
            since_step=max(note.step, 0),
        )

    def _levels(self, trace: Trace, step: int) -> dict[str, float]:
        """Return the loss around a load: at the beginning, just before it and just after it, where there were some."""
        around = list(zip(*trace.window("loss", trace.step - step + self.few + 2), strict=True))
        before = _numbers([value for at, value in around if at < step])[-self.few :]
        after = _numbers([value for at, value in around if at > step or (at == step == 0)])[: self.few]
        levels: dict[str, float] = {}
        first = _numbers(trace.first("loss", self.few)[1])
        chance = trace.first("chance_level", 1)[1]
        if step > self.few and len(before) == self.few and len(first) == self.few and len(after) == self.few:
            levels |= {"loss_first": Rolling.median(first), "loss_before": Rolling.median(before)}
        if after:
            levels["loss_after"] = Rolling.median(after[: self.few])
        if chance and isinstance(chance[0], float) and not trace.has("prediction_rms"):
            levels["chance_level"] = chance[0] * (trace.scalar("loss_terms") or 1.0)
        return levels


def _numbers(values: Sequence[Value]) -> tuple[float, ...]:
    return tuple(value for value in values if isinstance(value, float) and abs(value) < 1e300)

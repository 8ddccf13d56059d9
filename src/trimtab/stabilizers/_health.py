"""Whether a training is healthy, asked by whatever makes it harder: three answers, and unknown is not healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from trimtab.errors import UserError, nearest
from trimtab.records import Finding, Severity, Unknown

State = Literal["healthy", "unhealthy", "unknown"]

ANNOUNCED = ("escalation", "curriculum")
"""Kinds of notes with which a schedule announces itself. What a rule finds under them still counts at the gate:
a schedule that excuses what it does to the training would never be held."""

OF_TRIMTAB = "trimtab-failed"
"""Code of the finding that says that a part of Trimtab failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a gate saw at one look, and why it says so."""

    state: State
    because: str = ""


class Gate(Protocol):
    """Says whether the training is healthy now."""

    def look(self) -> Look:
        """Look once."""
        ...


class Judging(Protocol):
    """What a gate reads of a judge: `trimtab.judge.Judge` has it."""

    @property
    def detectors(self) -> Sequence[Any]:
        """The rules, each with its `code`."""

    @property
    def disabled(self) -> Mapping[str, str]:
        """Rules that raised, with the error."""

    def coverage(self) -> Any:
        """Return which codes judged (`.judged`) and which did not (`.unknown`, code -> reason)."""


class Watched(Protocol):
    """What a gate reads of a training: a `Guard` has it."""

    @property
    def findings(self) -> Sequence[Finding]:
        """The findings that are open now."""

    @property
    def events(self) -> Sequence[Finding | Unknown]:
        """Everything that was opened, worsened, resolved or could not be judged, in order; it only grows."""

    @property
    def judge(self) -> Judging:
        """Who judges."""


class HealthGate:
    """Reads findings: healthy when the rules it depends on have judged and nothing that counts is open.

    Args:
        watched: a Guard, or anything else that has `findings`, `events` and `judge`.
        codes: the rules that it depends on, such as `("metric-dropped", "attention-uniform")`. One that has not judged
            yet, cannot judge now or was switched off makes the answer unknown.
        severity: from where on a finding of these rules counts.
        others: from where on a finding of any other rule counts; None: never.
        fresh: signal -> so many updates old it may be. A metric that is no longer recorded makes the answer unknown,
            for the rule that read it once has nothing new to say. Rows of a calm run are handed on together, so that
            may be seen 32 updates late.

    A finding of these rules that was lowered to info by an announced escalation or curriculum counts as well.
    It sees what has been judged: rows of a calm run under observation wait a little, those in trouble for nobody.

    Raises:
        UserError: no code, or one that no rule of this judge has.
    """

    def __init__(
        self,
        watched: Watched,
        codes: Sequence[str],
        *,
        severity: Severity = Severity.WARNING,
        others: Severity | None = Severity.ERROR,
        fresh: Mapping[str, int] | None = None,
    ):
        if isinstance(codes, str) or not codes:
            raise UserError(
                f"HealthGate: codes={codes!r}; expected the codes of the rules that say whether the training is "
                "healthy, such as ('metric-dropped', 'loss-diverging'). A gate without a rule would always be open"
            )
        known = [rule.code for rule in watched.judge.detectors]
        for code in codes:
            if code not in known:
                raise UserError(f"HealthGate: no detector has the code {code!r}.{nearest(code, known)}")
        if fresh and not hasattr(watched, "history"):
            raise UserError(f"HealthGate: fresh needs the history of a Guard; {type(watched).__name__} has none")
        self.watched = watched
        self.codes = tuple(codes)
        self.severity = severity
        self.others = others
        self.fresh = dict(fresh or {})
        self._read = 0
        self._judged: set[str] = set()
        self._unknown: dict[tuple[str, str], str] = {}

    def look(self) -> Look:
        """Look once."""
        self._take_in()
        against = [finding for finding in self.watched.findings if self._counts(finding)]
        if against:
            worst = max(against, key=lambda finding: finding.severity)
            more = f" and {len(against) - 1} more" if len(against) > 1 else ""
            return Look(state="unhealthy", because=f"{worst.code} since step {worst.since_step}: {worst.summary}{more}")
        because = self._not_known()
        return Look(state="unknown", because=because) if because else Look(state="healthy")

    def _counts(self, finding: Finding) -> bool:
        if finding.code in self.codes:
            return finding.severity >= self.severity or finding.excused_by in ANNOUNCED
        return self.others is not None and finding.severity >= self.others

    def _take_in(self) -> None:
        events = self.watched.events
        for event in events[self._read :]:
            if isinstance(event, Unknown) and event.code in self.codes:
                if event.reason:
                    self._unknown[event.code, event.stream] = event.reason
                else:
                    self._unknown.pop((event.code, event.stream), None)
        self._read = len(events)

    def _not_known(self) -> str:
        judge = self.watched.judge
        failed = [f for f in self.watched.findings if f.code == OF_TRIMTAB and f.subject == "trimtab"]
        if failed:
            return f"nobody judges any more: {failed[0].summary}"
        for code in self.codes:
            if code in judge.disabled:
                return f"{code} cannot judge: the rule itself failed"
        if not self._judged.issuperset(self.codes):  # asked only until all of them have judged once: it is not free
            coverage = judge.coverage()
            self._judged = set(coverage.judged)
            for code in self.codes:
                if code not in self._judged:
                    return f"{code} has not judged yet: {coverage.unknown.get(code, 'it was never asked')}"
        for (code, stream), reason in self._unknown.items():
            return f"{code} cannot judge now [{stream}]: {reason}"
        return self._stale()

    def _stale(self) -> str:
        if not self.fresh:
            return ""
        traces = list(getattr(self.watched, "history").traces.values())  # noqa: B009 - only a Guard has a history
        now = max((trace.step for trace in traces), default=-1)
        for signal, age in self.fresh.items():
            seen = max((trace.last_step(signal) for trace in traces if trace.has(signal)), default=-1)
            if seen < 0:
                return f"{signal} was never recorded"
            if now - seen > age:
                return f"{signal} was last recorded at step {seen}, {now - seen} updates ago; at most {age} are allowed"
        return ""

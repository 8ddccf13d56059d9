"""The one place that judges: detectors in, events out, the same for a live training and for a replay.

A detector says what it sees in one Trace at one moment. The Judge turns that into the life of findings: opened after
`confirm` judgements in a row, worsened when the severity rises, resolved after `release` clear ones.
"""

from __future__ import annotations

import fnmatch
import traceback
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from trimtab.records import Finding, Note, Outcome, Severity, Signal, Unknown
from trimtab.trace import Fold, Trace

Verdict = Finding | Unknown | None
Event = Finding | Unknown

FAILED_KIND = "trimtab-failed"
"""Kind of the Note that says a part of Trimtab failed; the detector of the same name reads it."""

IGNORE_KIND = "ignore"
"""Kind of the Note with which a user silences a finding from then on; its facts are a code and a subject pattern."""

NAMED = 2
"""A line about what was not judged names so many rules and counts the rest."""

MAIN = "main"
"""The stream of the only optimizer, and of everything that the user records about the whole run."""


class Detector(Protocol):
    """Trace -> Finding, Unknown or nothing; pure and stateless, its thresholds are its fields."""

    @property
    def code(self) -> str:
        """The file stem in kebab case; unique among the detectors of a Judge."""

    @property
    def version(self) -> int:
        """Raised when the rule judges differently than before."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Signals whose arrival makes the rule worth asking again; an empty tuple: every row."""

    @property
    def folds(self) -> tuple[Fold[Any], ...]:
        """Summaries that the rule reads, kept from the first row on."""

    @property
    def confirm(self) -> int:
        """So many judgements in a row open a finding."""

    @property
    def release(self) -> int:
        """So many clear judgements in a row resolve it."""

    @property
    def excused_by(self) -> tuple[str, ...]:
        """Kinds of Notes that lower its findings to info while they hold."""

    @property
    def per_stream(self) -> bool:
        """False for a rule about the whole run, which is judged in the stream "main" only."""

    def detect(self, trace: Trace) -> Verdict | Sequence[Finding]:
        """Judge the latest row in the light of the past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """A finding that the user does not want: a code, a subject pattern (`*` matches all), and why."""

    code: str
    subject: str = "*"
    because: str = ""

    def covers(self, code: str, subject: str) -> bool:
        """Say whether a finding with this code and subject is to be left out."""
        return code == self.code and fnmatch.fnmatchcase(subject, self.subject)

    def __str__(self) -> str:
        return self.code if self.subject == "*" else f"{self.code}@{self.subject}"

    @classmethod
    def parse(cls, text: str, because: str = "") -> Ignore:
        """Read 'CODE' or 'CODE@SUBJECT'."""
        code, _, subject = text.partition("@")
        return cls(code=code, subject=subject or "*", because=because)


@dataclass(slots=True)
class _Life:
    """What the Judge remembers of one (code, subject, stream)."""

    seen: int = 0
    clear: int = 0
    since: int = -1
    open: Finding | None = None
    ignored: bool = False


@dataclass(slots=True)
class Coverage:
    """Which rules judged at least once and which could not, with their reasons."""

    judged: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        total = len(self.judged) + len(self.unknown)
        text = f"judged {len(self.judged)} of {total}"
        if self.unknown:
            shown = [f"{code} ({reason})" for code, reason in sorted(self.unknown.items())]
            more = len(shown) - NAMED
            text += "; not judged: " + ", ".join(shown[:NAMED] if more > 1 else shown)
            text += f" and {more} more, which `trimtab diagnose` lists" if more > 1 else ""
        return text


class Judge:
    """Folds what detectors say into events.

    Args:
        detectors: the rules to ask, each with its thresholds.
        ignores: findings to leave out; `ignored` counts by rule how many would have been opened.

    A detector that raises is disabled; its error waits in `failures` for whoever owns the run to announce. When
    `going_on` is a list and not None, open findings that were seen again without an event are put there.
    """

    def __init__(self, detectors: Iterable[Detector], ignores: Iterable[Ignore] = ()):
        self.detectors: tuple[Detector, ...] = tuple(detectors)
        codes = [detector.code for detector in self.detectors]
        if len(set(codes)) != len(codes):
            twice = sorted({code for code in codes if codes.count(code) > 1})
            raise ValueError(f"two detectors share the code {', '.join(twice)}; give each its own")
        self.ignores = list(ignores)
        self.ignored: dict[str, int] = {}
        self.disabled: dict[str, str] = {}
        self.failures: list[Note] = []
        self.going_on: list[Finding] | None = None
        self._lives: dict[tuple[str, str, str], _Life] = {}
        self._subjects: dict[tuple[str, str], set[str]] = {}
        self._unknown: dict[tuple[str, str], str] = {}
        self._judged: set[str] = set()
        self._plans: dict[frozenset[str], tuple[Detector, ...]] = {}
        self._opened = 0

    def trace(self, stream: str, notes: list[Note], attempt: int = 0) -> Trace:
        """Return an empty Trace that keeps the folds which these detectors read."""
        folds = [fold for detector in self.detectors for fold in detector.folds]
        return Trace(stream, folds=dict.fromkeys(folds), notes=notes, attempt=attempt)

    def step(self, trace: Trace) -> list[Event]:
        """Judge the row that was appended last; return the events that it caused, in catalogue order."""
        row = trace.row
        if row is None:
            return []
        events: list[Event] = []
        names = frozenset(row.values)
        plan = self._plans.get(names)
        if plan is None:
            plan = tuple(d for d in self.detectors if not d.reads or not names.isdisjoint(d.reads))
            self._plans[names] = plan
        for detector in plan:
            code = detector.code
            if code in self.disabled or not (detector.per_stream or trace.stream == MAIN):
                continue
            try:
                verdict = detector.detect(trace)
                if not (verdict is None or isinstance(verdict, (Finding, Unknown))):
                    verdict = _findings(detector, verdict)
            except Exception as error:  # noqa: BLE001 - a broken rule must never reach the training
                self.disabled[code] = "".join(traceback.format_exception(error)).strip()
                self.failures.append(failed(f"detector {code}", error, row.step))
                continue
            if verdict is None:
                if (code, trace.stream) in self._subjects or (code, trace.stream) in self._unknown:
                    self._fold(detector, trace, (), events)
                self._judged.add(code)
            elif isinstance(verdict, Unknown):
                self._not_judged(verdict, trace, events)
            else:
                self._fold(detector, trace, (verdict,) if isinstance(verdict, Finding) else verdict, events)
                self._judged.add(code)
        return events

    def rewound(self, trace: Trace) -> None:
        """Forget the findings of a stream whose training went back; the next attempt begins with a clean record."""
        for key in [key for key in self._lives if key[2] == trace.stream]:
            del self._lives[key]
        for pair in [pair for pair in self._subjects if pair[1] == trace.stream]:
            del self._subjects[pair]

    def coverage(self) -> Coverage:
        """Return which rules judged and which never could; a rule that was never asked says so."""
        coverage = Coverage()
        reasons = {code: reason for (code, _), reason in self._unknown.items()}
        for detector in self.detectors:
            code = detector.code
            if code in self.disabled:
                coverage.unknown[code] = "the rule itself failed"
            elif code in self._judged:
                coverage.judged.append(code)
            else:
                coverage.unknown[code] = reasons.get(code) or _why_never_asked(detector)
        return coverage

    def open(self) -> list[Finding]:
        """Return the findings that are open now."""
        return [life.open for life in self._lives.values() if life.open is not None]

    def _not_judged(self, unknown: Unknown, trace: Trace, events: list[Event]) -> None:
        key = (unknown.code, trace.stream)
        if self._unknown.get(key) != unknown.reason:
            self._unknown[key] = unknown.reason
            events.append(replace(unknown, stream=trace.stream, attempt=trace.attempt, step=trace.step))

    def _fold(self, detector: Detector, trace: Trace, found: Sequence[Finding], events: list[Event]) -> None:
        code, stream = detector.code, trace.stream
        if self._unknown.pop((code, stream), None) is not None:
            events.append(Unknown(code=code, reason="", stream=stream, attempt=trace.attempt, step=trace.step))
        known = self._subjects.setdefault((code, stream), set())
        present = {finding.subject: finding for finding in found}
        for subject in [*present, *sorted(known - present.keys())]:
            life = self._lives.setdefault((code, subject, stream), _Life())
            finding = present.get(subject)
            if finding is None:
                self._clear(detector, trace, life, subject, known, events)
                continue
            known.add(subject)
            life.clear = 0
            life.seen += 1
            if life.seen == 1 and life.open is None:
                life.since = finding.since_step if finding.since_step >= 0 else trace.step
            finding = self._excuse(detector, trace, finding)
            if life.open is None:
                if life.seen >= detector.confirm and not self._ignores(code, subject, life):
                    self._opened += 1
                    life.open = self._event(
                        "opened", detector, trace, finding, since=life.since, id=f"F{self._opened:04d}"
                    )
                    events.append(life.open)
            elif finding.severity > life.open.severity:
                life.open = self._event("worsened", detector, trace, finding, since=life.since, id=life.open.id)
                events.append(life.open)
            elif self.going_on is not None:
                self.going_on.append(self._event("judged", detector, trace, finding, since=life.since, id=life.open.id))
        if not known:
            del self._subjects[code, stream]

    def _ignores(self, code: str, subject: str, life: _Life) -> bool:
        rule = next((ignore for ignore in self.ignores if ignore.covers(code, subject)), None)
        if rule is None:
            return False
        if not life.ignored:
            life.ignored = True
            self.ignored[str(rule)] = self.ignored.get(str(rule), 0) + 1
        return True

    @staticmethod
    def _clear(
        detector: Detector, trace: Trace, life: _Life, subject: str, known: set[str], events: list[Event]
    ) -> None:
        life.clear += 1
        life.seen = 0
        if life.clear < detector.release:
            return
        if life.open is not None:
            events.append(replace(life.open, event="resolved", step=trace.step))
        life.open, life.ignored = None, False
        known.discard(subject)

    @staticmethod
    def _excuse(detector: Detector, trace: Trace, finding: Finding) -> Finding:
        note = trace.noted(detector.excused_by) if detector.excused_by else None
        if note is None or finding.severity <= Severity.INFO:
            return finding
        return replace(finding, severity=Severity.INFO, excused_by=note.kind)

    @staticmethod
    def _event(event: Any, detector: Detector, trace: Trace, finding: Finding, *, since: int, id: str) -> Finding:
        return replace(
            finding,
            event=event,
            id=id,
            since_step=since,
            step=trace.step,
            stream=trace.stream,
            attempt=trace.attempt,
            version=detector.version,
        )


def _findings(detector: Detector, said: Any) -> tuple[Finding, ...]:
    found = tuple(said)
    for one in found:
        if not isinstance(one, Finding):
            raise TypeError(
                f"detector {detector.code} returned a sequence with a {type(one).__name__} in it; "
                "return a Finding, a sequence of Findings, an Unknown or None"
            )
    return found


def _why_never_asked(detector: Detector) -> str:
    """Return what a rule says about a trace in which nothing was measured."""
    try:
        verdict = detector.detect(Trace())
    except Exception:  # noqa: BLE001 - a rule that cannot even see an empty trace has not judged either
        verdict = None
    if isinstance(verdict, Unknown):
        return verdict.reason
    return f"{', '.join(detector.reads) or 'any signal'} was not measured"


def failed(part: str, error: BaseException, step: int) -> Note:
    """Return the Note that a part of Trimtab failed."""
    return Note(kind=FAILED_KIND, step=step, text=f"{type(error).__name__}: {error}"[:500], facts={"part": part})


class History:
    """The Traces of all streams of a run and the Judge that reads them: what live and replay have in common.

    `add` takes rows and `tell` what else happened, in the order in which it was written.
    """

    def __init__(self, judge: Judge):
        self.judge = judge
        self.notes: list[Note] = []
        self.traces: dict[str, Trace] = {}
        self.attempt = 0

    def add(self, row: Signal) -> list[Event]:
        """Append one row to its stream and judge it."""
        trace = self.traces.get(row.stream)
        if trace is None:
            trace = self.traces[row.stream] = self.judge.trace(row.stream, self.notes, self.attempt)
        trace.append(row)
        return self.judge.step(trace)

    def tell(self, record: Note | Outcome) -> None:
        """Announce a note to every stream, or follow an outcome that says that the training went back."""
        if isinstance(record, Note):
            self.notes.append(record)
            if record.kind == IGNORE_KIND:
                facts = record.facts
                rule = Ignore(code=str(facts["code"]), subject=str(facts["subject"]), because=record.text)
                self.judge.ignores.append(rule)
        elif record.to_step is not None and record.result == "done":
            self.attempt += 1
            for name, trace in self.traces.items():
                trace.rewind(record.to_steps.get(name, -1) if record.to_steps else record.to_step)
                self.judge.rewound(trace)

    def retell(
        self, rows: Iterable[Signal], notes: Iterable[Note] = (), outcomes: Iterable[Outcome] = ()
    ) -> list[Event]:
        """Take in a stored past in the order in which it happened; return its events."""
        records: list[Note | Outcome] = [*notes, *outcomes]
        happened = deque(sorted(records, key=lambda record: record.after_rows))
        events: list[Event] = []
        for count, row in enumerate(rows):
            while happened and happened[0].after_rows <= count:
                self.tell(happened.popleft())
            events += self.add(row)
        for record in happened:
            self.tell(record)
        return events


def replay(
    detectors: Iterable[Detector],
    rows: Iterable[Signal],
    notes: Iterable[Note] = (),
    outcomes: Iterable[Outcome] = (),
    ignores: Iterable[Ignore] = (),
) -> tuple[list[Event], Judge]:
    """Judge stored rows again and return every event with the Judge that made them.

    Rows come in the order in which they were written; notes and outcomes say after how many rows they happened.
    Whatever Trimtab noted about its own failures is replayed as it was.
    """
    history = History(Judge(detectors, ignores))
    return history.retell(rows, notes, outcomes), history.judge

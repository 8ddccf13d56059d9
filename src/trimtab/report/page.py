"""What stands on the page: the words and numbers of a run and its verdict, ready for the template to set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from trimtab.diagnose import NOTHING, Verdict
from trimtab.errors import TrimtabError
from trimtab.hypotheses import NONE_OF_THESE
from trimtab.records import Diagnosis, Finding, Outcome, Severity, Term
from trimtab.report.catalogue import explain
from trimtab.run import Run

LEADING = 3
"""So many causes stand open on the page; the others are one click away."""
LOG_LINES = 80
"""So many of the last lines of the log are shown."""
MOST_TEXT = 400
"""A setting longer than this is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """One finding with everything that the page says about it; `left` and `width` are shares of the run in percent."""

    label: str
    finding: Finding
    when: str
    left: float
    width: float
    open: bool
    earlier: bool
    evidence: tuple[tuple[str, str], ...]
    about: Mapping[str, str]

    @property
    def name(self) -> str:
        """Code and subject, as `--ignore` takes them."""
        return f"{self.finding.code}@{self.finding.subject}" if self.finding.subject else self.finding.code

    @property
    def compared(self) -> str:
        """The number that was measured and the one that it was held against."""
        return f"{show(self.finding.measured)} against a threshold of {show(self.finding.threshold)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """What an action did about a finding, at which step or steps."""

    steps: str
    action: str
    code: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TermRow:
    """One summand of a cause; `width` is its share of the largest one in percent."""

    what: str
    why: str
    decibans: str
    positive: bool
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseRow:
    """One possible cause with its sum."""

    rank: int
    diagnosis: Diagnosis
    score: str
    odds: str
    terms: tuple[TermRow, ...]
    explains: tuple[str, ...]
    unlikely: bool
    is_none: bool


def show(value: Any) -> str:
    """Write a value for a person: three to four digits, NaN as NaN, a list as a list."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "∞" if value > 0 else "\N{MINUS SIGN}∞"
        if value == int(value) and abs(value) < 1e6:
            return str(int(value))
        mantissa, _, exponent = f"{value:.4g}".partition("e")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    if isinstance(value, list | tuple):
        return ", ".join(show(item) for item in value)
    text = str(value)
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def decibans(values: Iterable[float]) -> list[str]:
    """Write decibans with as many decimals as it takes for the written numbers to add up."""
    numbers = list(values)
    places = next((p for p in range(4) if all(abs(v - round(v, p)) < 1e-9 for v in numbers)), 4)
    return [f"{value:+.{places}f}" if value else "0" for value in numbers]


def odds(score: float) -> str:
    """Say what a score in decibans means: 20 is '100 : 1 for it'."""
    ratio = 10 ** (abs(score) / 10)
    text = f"{ratio:.2g}" if ratio < 10 else f"{float(f'{ratio:.2g}'):,.0f}"
    return "even odds" if abs(score) < 0.05 else f"{text} : 1 {'for' if score > 0 else 'against'} it"


def labels(findings: Iterable[Finding]) -> dict[str, str]:
    """Return finding id -> what it is called in drawings: F1, F2 and so on."""
    return {finding.id: f"F{place}" for place, finding in enumerate(findings, 1)}


def finding_rows(verdict: Verdict, last: Mapping[str, int], system: str = "") -> list[FindingRow]:
    """Return the findings, the worst first.

    Args:
        verdict: what is said about the run.
        last: the last step of each stream.
        system: the name of the System that was trained, whose rules have documentation too.
    """
    names = labels(verdict.findings)
    left_at = {one.attempt: one for one in verdict.outcomes if one.result == "done" and one.to_step is not None}
    rows = []
    for finding in verdict.findings:
        begin = finding.since_step if finding.since_step >= 0 else verdict.opened_at[finding.id]
        earlier = finding.attempt < verdict.attempt
        resolved = finding.event == "resolved"
        length = max(last.get(finding.stream, 0), finding.step, 1)
        end = finding.step if resolved else length
        if earlier and not resolved:  # it ended with its attempt
            left = left_at.get(finding.attempt)
            end = max(finding.step, left.step) if left is not None and left.stream == finding.stream else finding.step
        closed = resolved or earlier
        when = f"since step {begin}" if not closed else f"step {begin}" if begin == end else f"steps {begin} to {end}"
        rows.append(
            FindingRow(
                label=names[finding.id],
                finding=finding,
                when=when,
                left=round(100 * min(begin, length) / length, 2),
                width=round(max(100 * (end - begin) / length, 0.8), 2),
                open=not closed,
                earlier=earlier,
                evidence=tuple((name.replace("_", " "), show(value)) for name, value in finding.evidence.items()),
                about=_about(finding.code, system),
            )
        )
    return sorted(rows, key=lambda row: (-row.finding.severity, not row.open))


def answer_rows(outcomes: Sequence[Outcome]) -> list[AnswerRow]:
    """Return what actions did in order; the same thing done several times in a row is one line, with the last why."""
    rows: list[AnswerRow] = []
    for same, several in groupby(outcomes, key=lambda one: (one.action, one.result, one.code, one.attempt)):
        ones = list(several)
        first, latest = ones[0], ones[-1]
        steps = str(first.step) if first.step == latest.step else f"{first.step} to {latest.step}"
        action = f"{same[0]} {same[1]}" + (f", {len(ones)} times" if len(ones) > 1 else "")
        rows.append(AnswerRow(steps=steps, action=action, code=first.code, because=latest.because))
    return rows


def cause_rows(verdict: Verdict) -> list[CauseRow]:
    """Return the causes in their order, each with the terms that add up to its score."""
    names = labels(verdict.findings)
    rows: list[CauseRow] = []
    for place, diagnosis in enumerate(verdict.diagnoses):
        texts = decibans([*(term.decibans for term in diagnosis.terms), diagnosis.score])
        rows.append(
            CauseRow(
                rank=place + 1,
                diagnosis=diagnosis,
                score=texts[-1],
                odds=odds(diagnosis.score),
                terms=tuple(_term_rows(diagnosis.terms, texts)),
                explains=tuple(names[f.id] for f in verdict.findings if f.code in diagnosis.explains),
                unlikely=any(row.is_none for row in rows),
                is_none=diagnosis.cause == NONE_OF_THESE,
            )
        )
    return rows


def headline(verdict: Verdict) -> tuple[str, str]:
    """Return the headline as a sentence in two parts, without the severity that stands beside it."""
    first, _, rest = sentence(verdict.headline.removeprefix(f"{verdict.severity}: ")).partition("; ")
    return first, sentence(rest)


def lead(verdict: Verdict) -> str:
    """Return what the likeliest cause says in a sentence; empty where no known cause is likely."""
    first = verdict.diagnoses[0] if verdict.diagnoses else None
    return first.summary if first is not None and first.cause != NONE_OF_THESE else ""


def next_action(verdict: Verdict) -> str:
    """Return what to do now as a sentence."""
    if verdict.next_action == NOTHING:
        return (
            "Nothing."
            if verdict.judged
            else "Nothing was measured: see below what was seen, and whether that is what you meant."
        )
    return sentence(verdict.next_action) + ("" if verdict.next_action.endswith(".") else ".")


def sentence(words: str) -> str:
    """Return words that begin like a sentence."""
    return words[:1].upper() + words[1:]


def key_facts(run: Run, verdict: Verdict, last: Mapping[str, int], rows: int) -> list[tuple[str, str]]:
    """Return what one wants to know of a run before anything else."""
    facts = run.facts
    updates = facts.updates or max((step + 1 for step in last.values()), default=0)
    found = [("Status", verdict.status), ("Updates", f"{updates:,}")]
    if len(last) > 1:
        found.append(("Streams", ", ".join(last)))
    if facts.ended is not None:
        found.append(("Took", duration((facts.ended - facts.started).total_seconds())))
    found.append(("Started", f"{facts.started.astimezone(UTC):%Y-%m-%d %H:%M} UTC"))
    found.append(("Judged", f"{len(verdict.judged)} of {len(verdict.judged) + len(verdict.unknown)} rules"))
    if "share" in facts.cost and rows:
        found.append(("Cost of watching", f"{100 * facts.cost['share']:.1f} %"))
    if facts.system:
        found.append(("System", facts.system))
    if facts.seed is not None:
        found.append(("Seed", str(facts.seed)))
    if facts.git is not None:
        found.append(("Commit", facts.git.commit[:9] + (" (changed)" if facts.git.dirty else "")))
    return found


def duration(seconds: float) -> str:
    """Write a time span: 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def how_it_ended(run: Run) -> list[tuple[str, str]]:
    """Return what is known of the end of a run that did not end by itself."""
    return [(key.replace("_", " "), show(value)) for key, value in (run.facts.how or {}).items() if key != "traceback"]


def flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Return a nested mapping as dotted key -> text."""
    if isinstance(value, Mapping) and value:
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        items = enumerate(value)
    else:
        return [(key, show(value) if value not in ({}, [], ()) else "none")] if key else []
    return [pair for name, item in items for pair in flat(item, f"{key}.{name}" if key else str(name))]


def log_tail(run: Run) -> str:
    """Return the last lines of the log."""
    try:
        lines = (run.path / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(_without_date(line) for line in lines[-LOG_LINES:])


def safely(call: Any, otherwise: Any, remarks: list[str]) -> Any:
    """Return what `call` gives; a damaged file of the run is remarked on and leaves the rest of the page alone."""
    try:
        return call()
    except TrimtabError as error:
        remarks.append(str(error))
        return otherwise


def _about(code: str, system: str) -> Mapping[str, str]:
    """Return the headings of a rule's documentation, also of the run's system; nothing for one of somebody else's."""
    try:
        return explain(code, (system,) if system else ()).headings
    except TrimtabError:
        return {}


def _term_rows(terms: Sequence[Term], texts: Sequence[str]) -> Iterable[TermRow]:
    most = max((abs(term.decibans) for term in terms), default=1.0) or 1.0
    for term, text in zip(terms, texts, strict=False):
        yield TermRow(
            what=term.what,
            why=term.why,
            decibans=text,
            positive=term.decibans >= 0,
            width=round(100 * abs(term.decibans) / most, 1),
        )


def _without_date(line: str) -> str:
    """Leave of the time in front of a log line only the time of day."""
    moment, _, rest = line.partition(" ")
    try:
        return f"{datetime.fromisoformat(moment):%H:%M:%S} {rest}"
    except ValueError:
        return line


def severity_word(severity: Severity | None, judged: Sequence[str]) -> str:
    """Return the word that colours the page: a severity, "clear", or "unjudged" where nothing was judged."""
    if severity is not None and severity >= Severity.WARNING:
        return str(severity)
    return "clear" if judged else "unjudged"

"""What a run's record says: what was found, what was judged, which causes the evidence supports, what to do now.

`diagnose` reads a run folder and returns a Verdict; it writes nothing and runs without torch. The causes are ranked by
sums that a person can redo from `Diagnosis.terms`; how, is the business of `trimtab.hypotheses`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from trimtab.detectors import DETECTORS, MilestoneMissed, PatienceSpent
from trimtab.errors import RunError
from trimtab.hypotheses import HYPOTHESES, NONE_OF_THESE, Hypothesis, rank
from trimtab.judge import IGNORE_KIND, Detector, Event, Ignore, replay
from trimtab.milestone import Milestone
from trimtab.patience import Patience
from trimtab.records import Diagnosis, Finding, Outcome, Severity, Unknown
from trimtab.run import Run, list_runs
from trimtab.system import System, find_system, system_names

CLOSE = 5.0
"""Two causes within so many decibans (a factor of 3) are not told apart by what was measured."""

ABOUT_TRIMTAB = frozenset({"trimtab-failed", "response-budget-spent"})
"""Findings about Trimtab and its responses: a person must see them, and they say nothing about the training's cause."""

NOTHING = "nothing"

Changed = Mapping[str, tuple[Any, Any]]
"""Dotted setting key -> (value in the good run, value in this one); None where one of them lacks it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """How today's rules differ from what is stored, for one (code, subject, stream, attempt).

    `stored` and `now` are the opening events; None on the side that has none.
    """

    code: str
    subject: str
    stored: Finding | None
    now: Finding | None

    def __str__(self) -> str:
        name = f"{self.code}@{self.subject}" if self.subject else self.code
        if self.stored is None or self.now is None:
            one = self.now or self.stored
            assert one is not None
            word = "only by today's rules" if self.stored is None else "only in the stored findings"
            return f"{name}: {word}, {one.severity} at step {one.step}"
        return (
            f"{name}: stored {self.stored.severity} at step {self.stored.step} (version {self.stored.version}), "
            f"today {self.now.severity} at step {self.now.step} (version {self.now.version})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """A rule about what to leave out: `code` or `code@subject`, why, and how many findings it left out."""

    rule: str
    because: str
    count: int

    def __str__(self) -> str:
        return f"{self.rule}: {self.how}" + (f", because {self.because}" if self.because else "")

    @property
    def how(self) -> str:
        """Say how often it matched; one that never did may be misspelt, or no longer needed."""
        if not self.count:
            return "never matched"
        return f"left out {self.count} finding{'s' if self.count > 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be said about a run.

    Attributes:
        run_id: the run's name among all runs.
        status: how the run stands: running, finished, stopped, failed, interrupted, killed or died.
        headline: the verdict in one sentence.
        next_action: what to do now, in one sentence; "nothing" when nothing is wrong.
        severity: the worst severity that a finding of the latest attempt ever had, None without findings.
        findings: the last event of each finding, in the order in which they were opened; those of earlier attempts
            stand with them, but count for nothing else here.
        opened_at: finding id -> the step at which it was opened.
        judged: codes of the rules that judged at least once.
        unknown: code -> why that rule never could judge.
        diagnoses: the causes that some finding speaks for, and `none-of-these`, the likeliest first; empty when no
            finding about the training is a warning or worse. Where nothing is wrong since the training went back, they
            are the causes of what it went back for.
        outcomes: what actions did, declined to do or failed to do, in order.
        attempt: which attempt is judged; 0 where the training never went back.
        good_run: id of the good run that this one was compared with, or empty.
        settings_changed: what differs from that run.
        rejudged: where today's rules say something else than what is stored; empty unless asked for.
        ignored: what was left out on request, those that never matched included.
        remarks: what a reader must know about the record itself.
    """

    run_id: str
    status: str
    headline: str
    next_action: str
    severity: Severity | None
    findings: tuple[Finding, ...]
    opened_at: Mapping[str, int]
    judged: tuple[str, ...]
    unknown: Mapping[str, str]
    diagnoses: tuple[Diagnosis, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    attempt: int = 0
    good_run: str = ""
    settings_changed: Changed = field(default_factory=dict)
    rejudged: tuple[Rejudged, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    remarks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, texts and numbers; `Run.write_diagnosis` and `safe_json` turn them into JSON.

        Numbers stay numbers, NaN included, for it is those two that write NaN as a word.
        """
        plain: dict[str, Any] = _plain(asdict(self))
        for finding in plain["findings"]:
            finding["opened_at"] = self.opened_at[finding["id"]]
        del plain["opened_at"]
        for row, rejudged in zip(plain["rejudged"], self.rejudged, strict=True):
            row["text"] = str(rejudged)
        return plain


def diagnose(
    run: Run,
    *,
    good: Run | None = None,
    rejudge: bool = False,
    hypotheses: Sequence[Hypothesis] | None = None,
    detectors: Sequence[Detector] = DETECTORS,
    ignore: Sequence[Ignore] = (),
) -> Verdict:
    """Say what is wrong with a run, why, and what to do.

    Args:
        run: the run, finished or not.
        good: a run to compare the settings with; else the newest run beside this one that has its name and project
            and the mark "good".
        rejudge: judge the stored rows again with `detectors`, rest on that, and list what differs from what is stored.
        hypotheses: the causes to weigh; those of the catalogue, and of the System that the run trained, when None.
        detectors: today's rules, to which those of the run's System are added; also asked which of them judged, when
            the run ended too early to have written that.
        ignore: findings to leave out, beside those that the run itself was told to leave out.

    Raises:
        RunError: the run folder is damaged; with `rejudge` also when its rows are.
    """
    remarks: list[str] = []
    stored = run.events()
    own = _Own(run, remarks)
    again = _replay(run, own.rules(detectors), ignore) if rejudge else None
    events, coverage = again or _without((stored, _coverage(run, stored, detectors, own, remarks)), ignore)
    lives = _lives(events)
    outcomes = run.outcomes()
    attempt = _latest_attempt(outcomes, events)
    if attempt:
        remarks.append(f"attempt {attempt + 1} of the training is judged; findings of earlier ones are only listed")
    latest = [life for life in lives.values() if life[0].attempt == attempt]
    healed = _gone_back_for(lives.values(), latest, attempt)
    about_training = [life for life in healed or latest if life[0].code not in ABOUT_TRIMTAB]
    good, changed = _compared(run, good, remarks)
    diagnoses: tuple[Diagnosis, ...] = ()
    if any(_worst(life).severity >= Severity.WARNING for life in about_training):
        diagnoses = rank(
            (*HYPOTHESES, *own.hypotheses) if hypotheses is None else hypotheses,
            [life[0] for life in about_training],
            set(coverage.judged) - coverage.left_out,
            {*coverage.unknown, *coverage.left_out},
            changed,
        )
    worst = [_worst(life) for life in latest]
    return Verdict(
        run_id=run.id,
        status=run.status,
        headline=_headline(run, worst, diagnoses, coverage, outcomes, [_worst(life) for life in healed]),
        next_action=_next_action(worst, diagnoses),
        severity=max((finding.severity for finding in worst), default=None),
        findings=tuple(life[-1] for life in lives.values()),
        opened_at={id: life[0].step for id, life in lives.items()},
        judged=coverage.judged,
        unknown=coverage.unknown,
        diagnoses=diagnoses,
        outcomes=tuple(outcomes),
        attempt=attempt,
        good_run=good.id if good is not None else "",
        settings_changed=changed,
        rejudged=_differences(stored, events) if rejudge else (),
        ignored=_ignored(run, coverage, ignore, remarks),
        remarks=tuple(dict.fromkeys([*run.remarks, *remarks])),
    )


def settings_changed(good: Run, this: Run) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (value in `good`, value in `this`) for each setting of the program that differs.

    Settings are the run's configuration, the program's arguments, its optimizers and models; what Trimtab itself was
    set to is left out.
    """
    before, now = _settings(good), _settings(this)
    if any(key.startswith("arguments.") for key in before) and any(key.startswith("arguments.") for key in now):
        before.pop("argv", None)  # the same once more, in the order of typing
        now.pop("argv", None)
    keys = dict.fromkeys([*before, *now])
    return {key: (before.get(key), now.get(key)) for key in keys if repr(before.get(key)) != repr(now.get(key))}


# -- reading the record ----------------------------------------------------------------------------------------------


class _Own:
    """What the System that a run trained adds to the catalogues; loaded when it is asked for, since it may need torch.

    A System that is not installed here adds nothing, and one that cannot be loaded is remarked on.
    """

    def __init__(self, run: Run, remarks: list[str]):
        self._run, self._remarks = run, remarks

    @cached_property
    def _system(self) -> System | None:
        name = self._run.facts.system
        if not name or name not in system_names():
            return None
        try:
            return find_system(name)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with somebody's system, the run can be read
            self._remarks.append(
                f"the system {name!r} cannot be loaded, so its own rules and causes are left out: "
                f"{type(error).__name__}: {error}"
            )
            return None

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """The causes that the System knows."""
        return () if self._system is None else tuple(self._system.hypotheses)

    def rules(self, detectors: Sequence[Detector]) -> tuple[Detector, ...]:
        """Return these rules and those of the System."""
        there = {rule.code for rule in detectors}
        own = () if self._system is None else self._system.detectors
        return (*detectors, *(rule for rule in own if rule.code not in there))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coverage:
    """What was judged, what could not be, and which codes the user asked to leave out although they fired."""

    judged: tuple[str, ...]
    unknown: Mapping[str, str]
    ignored: Mapping[str, int]

    @property
    def left_out(self) -> set[str]:
        """Codes with a finding that nobody wanted to see: that it is not there says nothing."""
        return {Ignore.parse(rule).code for rule in self.ignored}


def _replay(run: Run, detectors: Sequence[Detector], ignore: Sequence[Ignore] = ()) -> tuple[list[Event], _Coverage]:
    """Judge the stored rows with the run's own declarations and ignores; return the events and what was judged."""
    ours = run.config().get("trimtab") or {}
    declared = ours.get("detectors") or {}
    milestones = tuple(Milestone(**one) for one in (declared.get("milestone-missed") or {}).get("milestones") or ())
    waiting = (declared.get("patience-spent") or {}).get("patience")
    rules = [replace(d, milestones=milestones) if isinstance(d, MilestoneMissed) else d for d in detectors]
    if waiting is not None:
        rules = [replace(d, patience=Patience(**waiting)) if isinstance(d, PatienceSpent) else d for d in rules]
    notes = run.notes()
    events, judge = replay(rules, run.rows(), notes, run.outcomes(), [*_configured(run), *ignore])
    coverage = judge.coverage()
    return events, _Coverage(judged=tuple(coverage.judged), unknown=coverage.unknown, ignored=judge.ignored)


def _configured(run: Run) -> list[Ignore]:
    """Return the rules about what to leave out that the run began with."""
    rules = []
    for one in (run.config().get("trimtab") or {}).get("ignore") or ():
        given = one if isinstance(one, Mapping) else {"rule": one}
        rules.append(Ignore.parse(str(given.get("rule", "")), str(given.get("because", ""))))
    return rules


def _without(read: tuple[list[Event], _Coverage], ignore: Sequence[Ignore]) -> tuple[list[Event], _Coverage]:
    """Leave out stored findings that somebody does not want to see now, and count them."""
    events, coverage = read
    left_out: dict[str, str] = {}
    for event in events:
        if isinstance(event, Finding):
            rule = next((rule for rule in ignore if rule.covers(event.code, event.subject)), None)
            if rule is not None:
                left_out[event.id] = str(rule)
    if not left_out:
        return read
    counts = Counter(coverage.ignored)
    counts.update(left_out.values())
    kept = [event for event in events if not (isinstance(event, Finding) and event.id in left_out)]
    return kept, replace(coverage, ignored=dict(counts))


def _ignored(run: Run, coverage: _Coverage, ignore: Sequence[Ignore], remarks: list[str]) -> tuple[Ignored, ...]:
    """Return every rule about what to leave out, whether it matched or not."""
    wanted = dict.fromkeys(coverage.ignored, "")
    try:
        rules = _configured(run)
        for note in run.notes():
            if note.kind == IGNORE_KIND:
                code, subject = str(note.facts.get("code", "")), str(note.facts.get("subject", "*"))
                rules.append(Ignore(code=code, subject=subject, because=note.text))
    except RunError as error:
        rules = []
        remarks.append(f"why findings were left out cannot be read: {error}")
    for rule in (*rules, *ignore):
        wanted[str(rule)] = wanted.get(str(rule)) or rule.because
    return tuple(Ignored(rule=r, because=why, count=coverage.ignored.get(r, 0)) for r, why in wanted.items())


def _coverage(
    run: Run, events: Iterable[Event], detectors: Sequence[Detector], own: _Own, remarks: list[str]
) -> _Coverage:
    """Return what was judged: as it is stored, or by a replay where the run ended too early to have written it."""
    facts = run.facts
    if "judged" in facts.model_fields_set:
        return _Coverage(judged=facts.judged, unknown=facts.not_judged, ignored=facts.ignored)
    remarks.append("the run has not closed its record; which rules judged was found by judging its rows again")
    detectors = own.rules(detectors)
    try:
        again = _replay(run, detectors)[1]
    except RunError as error:
        remarks.append(f"the rows cannot be read, so only rules with a finding count as having judged: {error}")
        again = _Coverage(judged=(), unknown={d.code: "the rows cannot be read" for d in detectors}, ignored={})
    found = dict.fromkeys(event.code for event in events if isinstance(event, Finding))
    said = {event.code: event.reason for event in events if isinstance(event, Unknown)}
    return _Coverage(
        judged=tuple(dict.fromkeys([*again.judged, *found])),
        unknown={code: said.get(code) or reason for code, reason in again.unknown.items() if code not in found},
        ignored=again.ignored,
    )


def _lives(events: Iterable[Event]) -> dict[str, list[Finding]]:
    """Return finding id -> its events, in the order of their opening."""
    lives: dict[str, list[Finding]] = {}
    for event in events:
        if isinstance(event, Finding):
            lives.setdefault(event.id, []).append(event)
    return lives


def _latest_attempt(outcomes: Iterable[Outcome], events: Iterable[Event]) -> int:
    return max([sum(map(_went_back, outcomes)), *(event.attempt for event in events)])


def _went_back(outcome: Outcome) -> bool:
    return outcome.to_step is not None and outcome.result == "done"


def _gone_back_for(
    lives: Iterable[list[Finding]], latest: Iterable[list[Finding]], attempt: int
) -> list[list[Finding]]:
    """Return what was found in earlier attempts, where something grave was and nothing is in the latest."""
    before = [life for life in lives if life[0].attempt < attempt]
    grave = [any(_worst(life).severity >= Severity.WARNING for life in some) for some in (before, latest)]
    return before if grave == [True, False] else []


def _worst(life: Sequence[Finding]) -> Finding:
    """Return the first event that had the worst severity of this finding."""
    return max(life, key=lambda event: event.severity)


def _compared(run: Run, good: Run | None, remarks: list[str]) -> tuple[Run | None, Changed]:
    """Return the good run and what is set differently here; one that was found and cannot be read is passed over."""
    if good is not None:
        return good, settings_changed(good, run)
    found = _last_good(run)
    if found is None:
        return None, {}
    try:
        return found, settings_changed(found, run)
    except RunError as error:
        remarks.append(f"the last good run could not be compared with: {error}")
        return None, {}


def _last_good(run: Run) -> Run | None:
    same = (run.facts.name, run.facts.project)
    beside = list_runs(run.path.resolve().parent)
    return next(
        (r for r in beside if r.facts.mark == "good" and r.id != run.id and (r.facts.name, r.facts.project) == same),
        None,
    )


def _settings(run: Run) -> dict[str, Any]:
    config = run.config()
    settings = {**run.settings(), **{key: value for key, value in config.items() if key != "trimtab"}}
    argv = settings.pop("argv", None)
    flat = dict(_flat(settings, ""))
    if isinstance(argv, list):
        flat["argv"] = " ".join(map(str, argv[1:]))
    return flat


def _flat(value: Any, key: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = dict(enumerate(value)).items()
    else:
        yield key, value
        return
    for name, part in inner:
        yield from _flat(part, f"{key}.{name}" if key else str(name))


def _differences(stored: Iterable[Event], now: Iterable[Event]) -> tuple[Rejudged, ...]:
    """Pair the findings of both sides by what they are about, in their order, and keep the pairs that differ."""
    sides: list[dict[tuple[Any, ...], Finding]] = []
    for events in (stored, now):
        side: dict[tuple[Any, ...], Finding] = {}
        for life in _lives(events).values():
            about = (life[0].code, life[0].subject, life[0].stream, life[0].attempt)
            count = sum(1 for key in side if key[:4] == about)
            side[(*about, count)] = replace(life[0], severity=_worst(life).severity)
        sides.append(side)
    found = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        before, after = sides[0].get(key), sides[1].get(key)
        if before is None or after is None or (before.step, before.severity) != (after.step, after.severity):
            found.append(Rejudged(code=key[0], subject=key[1], stored=before, now=after))
    return tuple(found)


# -- saying it -------------------------------------------------------------------------------------------------------


def _headline(
    run: Run,
    worst: Sequence[Finding],
    diagnoses: Sequence[Diagnosis],
    coverage: _Coverage,
    outcomes: Sequence[Outcome],
    healed: Sequence[Finding],
) -> str:
    if any(finding.severity >= Severity.WARNING for finding in worst):
        text = _gravest(worst, diagnoses)
    elif healed:
        back = next((one for one in reversed(outcomes) if _went_back(one)), None)
        how = "was gone on with" if back is not None and back.action == "resume" else "went back"
        where = "" if back is None else f" {'from' if how != 'went back' else 'to'} step {max(back.to_step or 0, 0)}"
        text = f"nothing wrong since the training {how}{where}; until then {_gravest(healed, diagnoses)}"
    elif coverage.judged:
        text = f"nothing wrong found; judged {len(coverage.judged)} of {len(coverage.judged) + len(coverage.unknown)}"
    else:
        text = "nothing could be judged: no rule had what it reads"
    stop = next((one for one in reversed(outcomes) if one.stops and one.result == "done"), None)
    if run.status == "stopped" and stop is not None:
        return f"{text}; ended by {stop.action} at step {stop.step}"
    ending = {"failed": "the program failed", "killed": "the program was killed", "died": "its process is gone"}
    if run.status not in ending:
        return text
    reason = str((run.facts.how or {}).get("reason", ""))
    return f"{text}; {ending[run.status]}" + (f" ({reason})" if reason else "")


def _gravest(worst: Sequence[Finding], diagnoses: Sequence[Diagnosis]) -> str:
    """Name the finding that matters most, since when it held, and the likeliest cause."""
    grave = sorted((f for f in worst if f.severity >= Severity.WARNING), key=lambda f: (-f.severity, f.since_step))
    explained = diagnoses[0].explains if diagnoses else ()
    main = next((f for f in grave if f.code in explained and f.severity == grave[0].severity), grave[0])
    since = main.since_step if main.since_step >= 0 else main.step
    text = f"{main.severity}: {main.code.replace('-', ' ')} since step {since}"
    if diagnoses and diagnoses[0].cause == NONE_OF_THESE:
        text += "; no known cause explains it well"
    elif diagnoses:
        text += f"; most likely cause: {diagnoses[0].cause}"
    return text


def _next_action(worst: Sequence[Finding], diagnoses: Sequence[Diagnosis]) -> str:
    if not diagnoses:
        ours = [f for f in worst if f.code in ABOUT_TRIMTAB and f.severity >= Severity.WARNING]
        return f"read what {ours[0].code} says: {ours[0].summary}" if ours else NOTHING
    first, *rest = diagnoses
    if first.cause == NONE_OF_THESE:
        if not rest:
            return "look at the evidence of the findings; no known cause fits them"
        return f"test the claim {_claim(rest[0])}: it says whether {rest[0].cause} is the cause"
    first_try = first.remedies[0].text if first.remedies else f"look for the cause {first.cause}"
    if rest and abs(first.score - rest[0].score) <= CLOSE:
        if rest[0].cause == NONE_OF_THESE:
            return f"test the claim {_claim(first)}, which decides; if it fails, {first_try}"
        return (
            f"test the claim {_claim(first)}, which tells {first.cause} from {rest[0].cause}; "
            f"if it is the first, {first_try}"
        )
    return first_try


def _claim(diagnosis: Diagnosis) -> str:
    return f'"{diagnosis.probe.replace("-", " ")}"'


def _plain(value: Any) -> Any:
    if isinstance(value, Severity):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

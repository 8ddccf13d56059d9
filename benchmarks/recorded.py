"""Run folders of the benchmark's trainings, kept so that rules can be tried on them in seconds.

    python -m benchmarks.recorded record                     # seeds 100..104, healthy kinds and first injections
    python -m benchmarks.recorded record --seeds 100,101 --only gpt
    python -m benchmarks.recorded replay                     # every detector
    python -m benchmarks.recorded replay --only loss-spike   # one of them, each run in which it fires
    python -m benchmarks.recorded show weights-x12/gpt/100 loss gradient_norm

Only what may be tuned on is recorded: the tuning seeds and the first injections. A replay judges the stored rows with
the rules as they are now. A rule that reads a new signal needs records that hold it: remove the folder and record
again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.stored import commit
from benchmarks.watching import CACHE, LONG, Job, fault_jobs, forget, healthy_jobs, in_processes, long_jobs, watched
from trimtab import Milestone, Note, Run, Severity, Signal
from trimtab.detectors import DETECTORS, MilestoneMissed
from trimtab.judge import Coverage, Detector, Event, replay
from trimtab.records import Finding

FOLDER = CACHE / "recorded"
MARK = "recorded.json"
"""This file is written last: a folder without it was left half done."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A recorded run, opened for replay."""

    job: Job
    path: Path
    steps: int
    reached_target: bool
    milestones: tuple[Milestone, ...]
    commit: str

    @property
    def run(self) -> Run:
        """The run folder."""
        return Run(self.path / "run")

    def rows(self) -> list[Signal]:
        """Every row."""
        return list(self.run.rows())

    def notes(self) -> list[Note]:
        """Everything announced."""
        return self.run.notes()

    def judged_by(self, detectors: Sequence[Detector]) -> tuple[list[Event], Coverage]:
        """Judge the stored rows with these detectors."""
        rules = [replace(d, milestones=self.milestones) if isinstance(d, MilestoneMissed) else d for d in detectors]
        run = self.run
        events, judge = replay(rules, run.rows(), run.notes(), run.outcomes())
        return events, judge.coverage()


def record(job: Job, folder: Path) -> str:
    """Do one job and keep its run folder; return its name."""
    place = folder / job.key
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    training, steps = job.build()
    every_row = (
        {"overhead": None} if job.name in LONG else {}
    )  # they count in no figure, so the clock may not thin them
    done = watched(training, steps, place / "run", **every_row)
    (place / "run" / "environment.json").unlink(missing_ok=True)
    facts = {
        "name": job.name,
        "family": job.family,
        "seed": job.seed,
        "steps": len(done.ran.losses),
        "reached_target": done.ran.reached_target,
        "milestones": done.run.config()["trimtab"]["detectors"]["milestone-missed"].get("milestones") or [],
        "commit": commit(),
        "seconds": round(done.seconds, 2),
    }
    del training
    forget()
    (place / MARK).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return job.key


def records(folder: Path = FOLDER, only: str = "") -> Iterator[Record]:
    """Yield the recorded runs whose name/family/seed contains `only`, and whose case still exists."""
    for mark in sorted(folder.glob(f"*/*/*/{MARK}")):
        facts = json.loads(mark.read_text(encoding="utf-8"))
        job = Job(name=facts["name"], family=facts["family"], seed=facts["seed"])
        if only in job.key and job.known:
            yield Record(
                job=job,
                path=mark.parent,
                steps=facts["steps"],
                reached_target=facts["reached_target"],
                commit=facts.get("commit", ""),
                milestones=tuple(Milestone(**one) for one in facts["milestones"]),
            )


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What rules said about one record: events of findings at warning or above, and who could judge."""

    job: Job
    raised: tuple[Finding, ...]
    judged: tuple[str, ...]
    unknown: dict[str, str]


def judge(one: Record, detectors: Sequence[Detector] = DETECTORS) -> Judged:
    """Replay one record."""
    events, coverage = one.judged_by(detectors)
    return Judged(
        job=one.job,
        raised=tuple(
            e
            for e in events
            if isinstance(e, Finding) and e.event in ("opened", "worsened") and e.severity >= Severity.WARNING
        ),
        judged=tuple(coverage.judged),
        unknown=dict(coverage.unknown),
    )


def caught(judged: Judged, code: str, meaning: str = "") -> Finding | None:
    """Return the first event of `code` in time, None without one or where it is not right for the case.

    `meaning` is the code that the case is asked for, where a rule judges under another name.
    """
    case = judged.job.case
    if case is None or (meaning or code) not in case.right_codes:
        return None
    return next((e for e in judged.raised if e.code == code and case.onset <= e.step <= case.last_step), None)


def table(all_judged: Sequence[Judged], codes: Iterable[str]) -> str:
    """Return one line for each detector: alarms in healthy runs, catches, other faults in which it fired."""
    lines = [f"{'detector':32} {'alarms':>9} {'caught':>10} {'delay':>6} {'true':>5} {'wrong':>5} {'judged':>7}"]
    for code in codes:
        healthy = [j for j in all_judged if not j.job.family]
        faulty = [j for j in all_judged if j.job.case is not None]
        fired = [j for j in faulty if any(e.code == code for e in j.raised)]
        meant = [j for j in faulty if code in j.job.case.right_codes]  # type: ignore[union-attr]
        hits = [(j, e) for j in meant if (e := caught(j, code)) is not None]
        true = [j for j in fired if code in j.job.case.also_true]  # type: ignore[union-attr]
        wrong = [j for j in fired if j not in meant and j not in true]
        alarms = sum(any(e.code == code for e in j.raised) for j in healthy)
        delays = [e.step - j.job.case.onset for j, e in hits]  # type: ignore[union-attr]
        delay = f"{statistics.median(delays):g}" if delays else "-"
        share = sum(code in j.judged for j in all_judged) / max(len(all_judged), 1)
        lines.append(
            f"{code:32} {alarms:4}/{len(healthy):<4} {len(hits):5}/{len(meant):<4} {delay:>6} {len(true):5} "
            f"{len(wrong):5} {share:7.0%}"
        )
    return "\n".join(lines)


def listing(all_judged: Sequence[Judged], code: str) -> str:
    """Return every run in which `code` fired, or should have, and what it said."""
    lines = []
    for j in all_judged:
        event = next((e for e in j.raised if e.code == code), None)
        case = j.job.case
        if case is None:
            word = "ALARM" if event else ""
        elif code in case.right_codes:
            other = next((e.code for e in j.raised if e.code in case.right_codes and e.code != code), "")
            word = (
                "caught" if caught(j, code) else f"{'late' if event else 'missed'}{f' ({other} saw it)' * bool(other)}"
            )
        else:
            word = ("true" if code in case.also_true else "WRONG") if event else ""
        if word:
            said = f"step {event.step} {event.severity}: {event.summary}" if event else j.unknown.get(code, "")
            lines.append(f"{word:7} {j.job.key:44} {said}")
    reasons = Counter(j.unknown[code] for j in all_judged if code in j.unknown)
    lines += [f"not judged in {count} runs: {reason}" for reason, count in reasons.most_common()]
    return "\n".join(lines)


def alarms(all_judged: Sequence[Judged]) -> str:
    """Return every alarm in a healthy run, which runs of a fault nobody caught, and what was said wrongly there."""
    lines = []
    for j in all_judged:
        if j.job.family:
            continue
        lines += [f"ALARM {j.job.key:40} {e.code} step {e.step}: {e.summary}" for e in j.raised]
    faulty = [j for j in all_judged if j.job.case is not None]
    missed = [j.job for j in faulty if not any(caught(j, code) for code in j.job.case.right_codes)]  # type: ignore[union-attr]
    for (name, family), count in Counter((job.name, job.family) for job in missed).items():
        lines.append(f"missed {name}/{family} {count} times")
    wrong = [(j.job.name, j.job.family, e.code) for j in faulty for e in j.raised if e.code not in _allowed(j)]
    for (name, family, code), count in Counter(wrong).items():
        lines.append(f"wrong extra in {name}/{family}: {code}, {count} times")
    runs = [j for j in all_judged if not j.job.family]
    lines.append(f"{sum(bool(j.raised) for j in runs)} of {len(runs)} healthy runs with an alarm")
    lines.append(f"{len(faulty) - len(missed)} of {len(faulty)} fault runs caught, {len(wrong)} wrong extras")
    return "\n".join(lines)


def _allowed(judged: Judged) -> set[str]:
    case = judged.job.case
    return {*case.right_codes, *case.also_true} if case is not None else set()


def show(one: Record, names: Sequence[str]) -> str:
    """Return the steps and values of some signals of a record, or the names of all."""
    rows = one.rows()
    known = Counter(name for row in rows for name in row.values)
    if not names:
        return "\n".join(f"{name:28} {count} of {len(rows)} rows" for name, count in known.items())
    lines = []
    for row in rows:
        values = [_text(row.values[name]) if name in row.values else "-" for name in names]
        if any(value != "-" for value in values):
            lines.append(f"{row.stream:8} {row.step:5} " + " ".join(f"{value:>12}" for value in values))
    return "\n".join(lines)


def _text(value: Any) -> str:
    return "(" + " ".join(f"{v:.4g}" for v in value) + ")" if isinstance(value, tuple) else f"{value:.6g}"


def main() -> None:
    """Record, replay or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("record", "replay"):
        sub = verbs.add_parser(verb)
        sub.add_argument("--runs", default="", help="runs whose name/family/seed contains this")
        if verb == "record":
            sub.add_argument("--seeds", default="100,101,102,103,104")
            sub.add_argument("--processes", type=int, default=1, help="0: in this process")
            sub.add_argument("--again", action="store_true", help="also what is there already")
        else:
            sub.add_argument("--only", action="append", default=[], help="code of a detector; may be repeated")
    sub = verbs.add_parser("show")
    sub.add_argument("run", help="name/family/seed, 'healthy' as family of a healthy kind")
    sub.add_argument("signals", nargs="*")
    for sub in verbs.choices.values():
        sub.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    {"record": _do_record, "replay": _do_replay, "show": _do_show}[options.verb](options)


def record_missing(seeds: Sequence[int], folder: Path, processes: int, only: str = "", again: bool = False) -> None:
    """Record the runs that the folder does not hold, or all of them again."""
    wanted = (*healthy_jobs(seeds), *fault_jobs(seeds, first_only=True), *long_jobs(seeds[:1]))
    jobs = [job for job in wanted if only in job.key]
    if not again:
        jobs = [job for job in jobs if not (folder / job.key / MARK).exists()]
    print(f"{len(jobs)} runs to record in {folder}", flush=True)
    for _ in in_processes(partial(record, folder=folder), jobs, processes):
        pass


def _do_record(options: argparse.Namespace) -> None:
    seeds = [int(seed) for seed in options.seeds.split(",")]
    record_missing(seeds, options.folder, options.processes, options.runs, options.again)


def _do_replay(options: argparse.Namespace) -> None:
    known = [d.code for d in DETECTORS]
    unknown = sorted(set(options.only) - set(known))
    if unknown:
        raise SystemExit(f"no detector is called {', '.join(unknown)}; there are {', '.join(known)}")
    rules = [d for d in DETECTORS if d.code in (options.only or known)]
    all_judged = [judge(one, rules) for one in records(options.folder, options.runs)]
    if not all_judged:
        raise SystemExit(f"nothing is recorded in {options.folder}; run: python -m benchmarks.recorded record")
    for code in options.only:
        print(listing(all_judged, code))
    print(table(all_judged, [d.code for d in rules]))
    print(alarms(all_judged) if not options.only else "")


def _do_show(options: argparse.Namespace) -> None:
    (one, *_) = [*records(options.folder, options.run), None]
    if one is None:
        raise SystemExit(f"no run {options.run!r} is recorded in {options.folder}")
    print(show(one, options.signals))


if __name__ == "__main__":
    main()

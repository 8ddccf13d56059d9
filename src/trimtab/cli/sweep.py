"""`trimtab sweep`: train a System or a script over arms and seeds."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli._options import FailOn, Format, Level, Output, examples
from trimtab.errors import UserError

if TYPE_CHECKING:
    from trimtab.sweep.job import Engine
    from trimtab.sweep.plan import Plan
    from trimtab.sweep.sweep import Outline, Sweep

INTERRUPTED = 130
"""Exit code after SIGINT, as a shell has it."""


class EngineName(StrEnum):
    """What runs the trials."""

    LOCAL = "local"
    RAY = "ray"


class Better(StrEnum):
    """Which direction of the metric is good."""

    HIGHER = "higher"
    LOWER = "lower"


class ScoreName(StrEnum):
    """What stands for a trial."""

    BEST = "best"
    FINAL = "final"


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.command(
        "sweep",
        short_help="Train over arms and seeds, and say what differs.",
        epilog=examples(
            "trimtab sweep separability lr=1e-3,3e-3 width=32,40 --seeds 5",
            "trimtab sweep train.py lr=1e-3,1e-2 --metric validation/loss --better lower",
            "trimtab sweep separability 'lr=log(1e-4,1e-2)' --trials 20 --pruner median",
            "trimtab sweep --phases sweep.yaml --dry-run",
            "trimtab sweep --list",
        ),
    )(_sweep)


def _sweep(
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="A system, package.module:SYSTEM, or a script.py; --phases may name it."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUES", help="lr=1e-3,1e-2 makes arms; lr=log(1e-4,1e-2) is searched."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="N|LIST", help="How many (5 is 0 to 4), or which: 3,7 or 10-14; 6.")
    ] = None,
    phases: Annotated[
        Path | None, typer.Option("--phases", metavar="FILE", help="A YAML file of phases, each with its arms.")
    ] = None,
    jobs: Annotated[
        Path | None, typer.Option("--jobs", metavar="FILE", help="A text file, one arm a line: name: key=value ...")
    ] = None,
    tick: Annotated[bool, typer.Option("--tick", help="Write [x] before the finished lines of --jobs.")] = False,
    preset: Annotated[str | None, typer.Option("--preset", metavar="NAME", help="Of the system; tiny.")] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="What is judged; a system's first by default.")
    ] = None,
    better: Annotated[
        Better | None, typer.Option("--better", metavar="higher|lower", help="Which direction of it is good.")
    ] = None,
    score: Annotated[
        ScoreName, typer.Option("--score", metavar="best|final", help="Which evaluation stands for a trial.")
    ] = ScoreName.BEST,
    only_if: Annotated[
        str | None,
        typer.Option("--guard", metavar="CONDITION", help="Only where it holds may be the best: 'coverage > 0.99'."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="ARM", help="The arm to compare the others with.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", metavar="NAME", help="grid, random, tpe, gp, qmc, nsgaii, cmaes.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", min=1, help="How many arms a search tries.")
    ] = None,
    pruner: Annotated[
        str, typer.Option("--pruner", metavar="NAME", help="none, median, percentile, hyperband, wilcoxon.")
    ] = "none",
    store: Annotated[
        str, typer.Option("--store", metavar="URL", help="Where trials are kept: a file, or postgresql://...")
    ] = "",
    engine: Annotated[
        EngineName, typer.Option("--engine", metavar="local|ray", help="Processes here, or a Ray cluster.")
    ] = EngineName.LOCAL,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Trials at once; the usable cores by default.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the sweep; target and hash of the plan by default.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="DIR", help="The folder of sweeps: ./sweeps by default.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")] = False,
    list_them: Annotated[
        bool, typer.Option("--list", help="List sweeps, or the trials of the sweep that TARGET names.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Go on under --name with a plan that differs from the stored one.")
    ] = False,
    fail_on: FailOn = Level.ERROR,
    format: Format = Output.TEXT,
) -> int:
    """Train a system or a script once for every arm and seed, and say what differs; goes on where it ended."""
    from trimtab.cli._sweep_lists import list_sweeps, say_outline
    from trimtab.sweep.folder import ROOT

    folder = root or ROOT
    words = list(settings or ())
    if target is not None and "=" in target and (phases is not None or list_them):
        words.insert(0, target)
        target = None
    if list_them:
        return list_sweeps(target or name, folder, store, format)
    plan = _plan(
        target, words, phases=phases, jobs=jobs, sampler=sampler, arms=trials, pruner=pruner, score=score,
        baseline=baseline or "",
    )  # fmt: skip
    changes: dict[str, Any] = {"metric": metric, "better": better and better.value, "preset": preset, "guard": only_if}
    plan = replace(plan, **{key: value for key, value in changes.items() if value is not None})
    if seeds is not None:
        from trimtab.sweep.written import read_seeds

        plan = replace(plan, seeds=read_seeds(seeds, "--seeds"))
    if tick and jobs is None:
        raise UserError("--tick marks the finished lines of a jobs file; give one with --jobs FILE")
    from trimtab.sweep.sweep import Sweep

    sweep = Sweep(
        plan, root=folder, name=name, store=store, workers=workers, retry_failed=retry_failed, extend=extend,
        command=_command(),
    )  # fmt: skip
    outlines = sweep.outline()
    if dry_run:
        return say_outline(sweep, outlines, format)
    if not _run(sweep, outlines, engine, workers, quiet=format is Output.JSON):
        return INTERRUPTED
    if tick and jobs is not None:
        _tick(jobs, sweep, store)
    return _close(sweep, store, baseline, fail_on, format)


def _plan(
    target: str | None,
    words: list[str],
    *,
    phases: Path | None,
    jobs: Path | None,
    sampler: str | None,
    arms: int | None,
    pruner: str,
    score: str,
    baseline: str,
) -> Plan:
    """Return the plan that was given, in one of its three ways."""
    from trimtab.sweep import written
    from trimtab.sweep.plan import Phase, Plan

    if phases is not None:
        if jobs is not None or sampler is not None or arms is not None or pruner != "none":
            raise UserError("--phases says of each phase what it runs; leave out --jobs, --sampler, --trials, --pruner")
        plan = written.read_phases(phases)
        fixed = written.fixed_words(words)
        return replace(plan, target=target or plan.target, defaults={**plan.defaults, **fixed})
    if target is None:
        raise UserError("Missing argument 'TARGET': name a system or a script, or give --phases FILE")
    if jobs is not None:
        if sampler is not None or arms is not None or pruner != "none":
            raise UserError("--jobs lists the arms; leave out --sampler, --trials and --pruner")
        listed = tuple(job.arm for job in written.read_jobs(jobs))
        phase = Phase(arms=listed, base=written.fixed_words(words), score=score, baseline=baseline)  # type: ignore[arg-type]  # one of two words, by its enum
    else:
        phase = written.phase_of_words(words, sampler=sampler, arms=arms, pruner=pruner, baseline=baseline, score=score)
    return Plan(target=target, phases=(phase,))


def _run(sweep: Sweep, outlines: list[Outline], engine: EngineName, workers: int | None, *, quiet: bool) -> bool:
    """Run it under a live table; return False after an interruption."""
    from trimtab.cli import _sweeping

    total = sum(line.trials for line in outlines)
    before = [result for line in outlines for result in line.ended]
    failed = sum(result.status == "failed" for result in before)
    said = f"{sweep.name}: {total} trials"
    said += f", {len(before)} of them ended before" if before else ""
    said += f" ({failed} failed; --retry-failed runs those again)" if failed else ""
    print(f"{said}; in {_shown(sweep.path)}", file=sys.stderr)
    if sweep.script_changed:
        print("trimtab: the script has changed since this sweep began; trials that ended are not run again. "
              "Give another --name to run all of it", file=sys.stderr)  # fmt: skip
    using = _engine(engine, workers)
    try:
        with _sweeping.live(sweep.name, total, before=before, quiet=quiet) as show:
            sweep.progress = show
            sweep.use(using)
            sweep.run()
    except KeyboardInterrupt:
        print(
            "interrupted: what was running waits again, what has ended is kept; the same command goes on",
            file=sys.stderr,
        )
        return False
    finally:
        if using is not None:
            using.close()
    return True


def _engine(engine: EngineName, workers: int | None) -> Engine | None:
    """Return the engine that is meant; None for the sweep's own."""
    if engine is EngineName.LOCAL:
        return None
    from trimtab.integrations.ray import RayEngine

    return RayEngine(slots=workers)


def _close(sweep: Sweep, store: str, baseline: str | None, fail_on: Level, format: Output) -> int:
    """Write report and summary, say what was found, and return the exit code."""
    from trimtab.cli import _show
    from trimtab.cli._swept import about_of, severity_of, summary_of
    from trimtab.report import sweep as page
    from trimtab.report import sweep_text
    from trimtab.sweep.folder import read_sweep, write_json

    stored = read_sweep(sweep.path, store=store)
    summary, about = summary_of(stored, baseline), about_of(stored)
    report = page.write(summary, stored.results, about)
    document = page.as_json(summary, stored.results, about)
    write_json(sweep.path / "summary.json", document)
    if format is Output.JSON:
        _show.document({**document, "report": str(report)})
    else:
        for line in sweep_text.closing(summary):
            print(line)
        print(f"report: {_shown(report)}")
    return fail_on.code(severity_of(summary, stored))


def _tick(jobs: Path, sweep: Sweep, store: str) -> None:
    """Set the ticks of a jobs file: an arm is done when each of its trials has a result."""
    from trimtab.sweep.folder import read_sweep
    from trimtab.sweep.written import tick

    by_arm: dict[str, list[bool]] = {}
    for result in read_sweep(sweep.path, store=store).results:
        by_arm.setdefault(result.trial.arm, []).append(result.complete)
    tick(jobs, {arm for arm, complete in by_arm.items() if all(complete)})


def _shown(path: Path) -> str:
    """Return a path as it is shortest to type."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _command() -> str:
    """Return how this was started, with the password of no store in it."""
    from trimtab.run.redact import redact_text

    return redact_text(shlex.join(["trimtab", *sys.argv[1:]]))

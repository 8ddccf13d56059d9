"""What would run, and what is stored: the two lists of `trimtab sweep`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.cli._options import Output

if TYPE_CHECKING:
    from trimtab.sweep.sweep import Outline, Sweep


def say_outline(sweep: Sweep, outlines: list[Outline], format: Output) -> int:
    """Print what would run."""
    from trimtab.cli import _show

    if format is Output.JSON:
        phases = [
            {
                "phase": line.phase.name, "trials": line.trials, "skipped": line.skipped,
                "counts": dict(line.counts), "open": line.open,
            }
            for line in outlines
        ]  # fmt: skip
        _show.document({"name": sweep.name, "path": str(sweep.path), "plan": sweep.plan.as_dict(), "phases": phases})
        return 0
    plan = sweep.plan
    print(f"{sweep.name}: {plan.target}, judged by {plan.metric or 'its only metric'} ({plan.better or 'as recorded'})")
    rows = []
    for line in outlines:
        phase = line.phase
        needs = ", ".join(plan.needs(phase))
        for arm in phase.arms:
            settings = " ".join(f"{key}={value}" for key, value in {**phase.base, **arm.settings}.items())
            seeds = plan.seeds_of(phase, arm)
            rows.append((phase.name or "-", arm.name, str(len(seeds)), settings or "-", needs or "-"))
        if phase.search is not None:
            space = ", ".join(phase.search.space)
            count = f"{phase.search.arms} x {len(phase.seeds or plan.seeds)}"
            rows.append((phase.name or "-", f"search of {space}", count, phase.search.sampler, needs or "-"))
    headings = ["phase", "arm", "seeds", "settings", "after"]
    _show.console().print(_show.table(headings, rows, right=["seeds"], wrap="settings"))
    total, skipped = sum(line.trials for line in outlines), sum(line.skipped for line in outlines)
    most = "at most " if any(line.phase.search is not None for line in outlines) else ""
    print(f"{most}{total} trials; {skipped} have ended and are skipped; {total - skipped} would run")
    return 0


def list_sweeps(word: str | None, root: Path, store: str, format: Output) -> int:
    """List the sweeps below a folder, or the trials of one."""
    from trimtab.cli import _show
    from trimtab.sweep.folder import find_sweep, is_sweep, read_sweep

    if word is not None:
        stored = read_sweep(find_sweep(word, root), store=store)
        if format is Output.JSON:
            _show.document({"name": stored.name, "trials": [result.as_dict() for result in stored.results]})
            return 0
        phased = any(one.trial.phase for one in stored.results)
        trials: list[Sequence[str]] = [
            (
                one.trial.phase, one.trial.arm, str(one.trial.seed), one.status, f"{one.best:.5g}", f"{one.final:.5g}",
                one.run or one.error or "-",
            )
            for one in stored.results
        ]  # fmt: skip
        titles = ("phase" if phased else "", "arm", "seed", "status", "best", "final", "run")
        for line in columns([titles, *trials], right=(2, 4, 5)):
            print(line)
        if stored.others:
            print(f"and {stored.others} trials of earlier plans under this name")
        return 0
    found = [read_sweep(path) for path in sorted(root.iterdir()) if is_sweep(path)] if root.is_dir() else []
    counts = [[one.status for one in stored.results] for stored in found]
    if format is Output.JSON:
        sweeps = [
            {"name": stored.name, "path": str(stored.path), "target": stored.plan.target, "created": stored.created,
             "counts": {status: its.count(status) for status in sorted(set(its))}}
            for stored, its in zip(found, counts, strict=True)
        ]  # fmt: skip
        _show.document({"sweeps": sweeps})
        return 0
    if not found:
        print(f"no sweeps in {root}; `trimtab sweep` makes one")
        return 0
    rows = [
        (stored.name, stored.plan.target, str(len(its)), str(its.count("finished") + its.count("stopped")),
         str(its.count("failed")), stored.created[:19])
        for stored, its in zip(found, counts, strict=True)
    ]  # fmt: skip
    headings = ["sweep", "target", "trials", "done", "failed", "created (UTC)"]
    _show.console().print(_show.table(headings, rows, right=["trials", "done", "failed"]))
    return 0


def columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Iterator[str]:
    """Yield rows as lines with their cells below each other; a table of rich takes seconds for a thousand rows.

    Args:
        rows: the headings first; all of one length.
        right: places of the columns that are set to the right.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    shown = [place for place, width in enumerate(widths) if width]
    for row in rows:
        cells = (
            f"{row[place]:>{widths[place]}}" if place in right else f"{row[place]:<{widths[place]}}" for place in shown
        )
        yield "  ".join(cells).rstrip()

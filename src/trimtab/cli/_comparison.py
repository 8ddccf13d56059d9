"""A comparison on a terminal: what was set differently, where the signals part, what each run has alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.cli import _show
from trimtab.compare import Comparison, Difference, Moment
from trimtab.report.page import show

if TYPE_CHECKING:
    from rich.console import Console


def print_comparison(console: Console, found: Comparison) -> None:
    """Print what a person asks of two runs, the most telling first."""
    console.print(_show.table(["", "run", "status"], [("a", found.a, found.status_a), ("b", found.b, found.status_b)]))
    differences = [*found.facts, *found.settings, *found.config]
    _print_settings(console, "Settings that differ", differences, "No setting differs.")
    if found.environment:
        _print_settings(console, "The environment differs", list(found.environment), "")
    _print_signals(console, found)
    console.print(_show.text("\nFindings", "bold"))
    codes = (
        ("only in a", found.findings_only_a),
        ("only in b", found.findings_only_b),
        ("in both", found.findings_both),
    )
    console.print(_show.table(["", " "], [(where, ", ".join(names) or "none") for where, names in codes], wrap=" "))
    if found.answers_a or found.answers_b:
        console.print(_show.text("\nWhat Trimtab did", "bold"))
        answers = [("in a", found.answers_a), ("in b", found.answers_b)]
        console.print(
            _show.table(["", " "], [(where, "; ".join(did) or "nothing") for where, did in answers], wrap=" ")
        )
    values = [
        (_named(v.stream, v.signal), f"{show(v.a)} (step {v.step_a})", f"{show(v.b)} (step {v.step_b})")
        for v in found.last_values
        if show(v.a) != show(v.b)
    ]
    if values:
        console.print(_show.text("\nLast values that differ", "bold"))
        console.print(_show.table(["signal", "a", "b"], values))
    for remark in found.remarks:
        console.print(_show.text(f"note: {remark}", "dim"))


def _print_settings(console: Console, title: str, differences: list[Difference], otherwise: str) -> None:
    console.print(_show.text(f"\n{title if differences else otherwise}", "bold" if differences else ""))
    if differences:
        rows = [(one.key, show(one.a), show(one.b)) for one in differences]
        console.print(_show.table(["setting", "a", "b"], rows, wrap="b"))


def _print_signals(console: Console, found: Comparison) -> None:
    first, beyond = found.first, found.beyond
    if not any(parting.compared for parting in found.partings):
        words = "The runs have no step at which both measured the same signal."
    elif first is None:
        words = f"All {len(found.partings)} shared signals are the same, bit for bit, at every step that both have."
    else:
        words = f"The signals part at {_at(first.first)}: {_named(first.stream, first.signal)}."
        if beyond is None:
            words += f" None differs by more than {found.tolerance:g}."
        else:
            words += (
                f" By more than {found.tolerance:g}: {_named(beyond.stream, beyond.signal)} at {_at(beyond.beyond)}."
            )
    console.print(_show.text(f"\n{words}"))
    parted = [p for p in found.partings if p.first is not None]
    rows = [(_named(p.stream, p.signal), f"{p.compared:,}", _at(p.first), _at(p.beyond)) for p in parted]
    if rows:
        console.print(_show.table(["signal", "steps compared", "first bit", f"more than {found.tolerance:g}"], rows))


def _named(stream: str, signal: str) -> str:
    return signal if stream == "main" else f"{signal} [{stream}]"


def _at(moment: Moment | None) -> str:
    if moment is None:
        return "never"
    where = f"step {moment.step}" + (f" of attempt {moment.attempt + 1}" if moment.attempt else "")
    label = f" {moment.label}:" if moment.label else ""
    return f"{where} ({label.strip()}{' ' if label else ''}{show(moment.a)} / {show(moment.b)})"

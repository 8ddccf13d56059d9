"""Write the generated pages of docs/: the catalogue, from the docstrings, thresholds and weights of the plug-ins.

    python docs/build.py            write docs/catalogue/
    python docs/build.py --check    exit with 1 and name the pages that are not current

Nothing is imported that needs torch, but for the table of safe answers.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from trimtab.hypotheses import HYPOTHESES, Hypothesis, Weight
from trimtab.report.catalogue import Entry, entries

FOLDER = Path(__file__).parent / "catalogue"

KINDS = {
    "detector": ("detectors", "Detectors", "Ways in which a training goes wrong, and the rules that see them."),
    "hypothesis": ("hypotheses", "Hypotheses", "Causes, and what each finding says for or against them."),
    "sensor": ("sensors", "Sensors", "Quantities that are measured."),
    "action": ("actions", "Actions", "What can be done about a finding, when asked for."),
    "probe": ("probes", "Probes", "Claims about a training, tested on copies of it before it runs."),
    "stabilizer": ("stabilizers", "Stabilizers", "Parts for a model or a loop that keep it in range from the start."),
}
"""Kind -> (stem of its page, title, one line)."""

LIFE = ("confirm", "release")
"""Fields of every detector that say how findings open and resolve."""

GALLERY = "gallery.md"
"""Drawn by `python -m benchmarks.gallery` from recorded runs, and linked from here."""

MADE = "<!-- Written by docs/build.py from the sources. Do not edit: change the docstring and run `make docs`. -->"


def pages() -> dict[str, str]:
    """Return file name -> text of every page of the catalogue."""
    made = {"README.md": _index()}
    for kind, (stem, title, line) in KINDS.items():
        members = entries(kind)
        contents = _table(("", ""), ((_link(entry), entry.summary) for entry in members))
        body = [MADE, f"# {title}", line + _HOW_TO_READ[kind], contents]
        for entry in members:
            body += [f"## {entry.code}", entry.summary, *_DESCRIBE[kind](entry)]
        if kind == "action":
            body += _safe()
        made[f"{stem}.md"] = "\n\n".join(body) + "\n"
    return made


def stale() -> list[str]:
    """Return the names of pages whose file is missing, different, or no page any more."""
    wanted = pages()
    stored = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md") if path.name != GALLERY}
    return sorted(name for name in wanted.keys() | stored.keys() if wanted.get(name) != stored.get(name))


def write() -> list[str]:
    """Write the pages that are not current, remove the others, and return the names of both."""
    FOLDER.mkdir(exist_ok=True)
    changed, wanted = stale(), pages()
    for name in changed:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    return changed


_HOW_TO_READ = {
    "detector": (
        " `trimtab explain CODE` prints the same text. A threshold is a field of the detector: "
        "`replace(GradientsAccumulate(), updates=8)`."
    ),
    "hypothesis": (
        " Weights are in decibans: +10 means that the finding is seen ten times as often under this cause as under all "
        "the others together, -10 a tenth as often. They are judgements with a reason each, not frequencies that were "
        "counted. Of one family only the strongest weight for the cause and the strongest against it count."
    ),
    "sensor": " Each name in backticks is a signal: a column of the rows in a run folder.",
    "action": (
        ' An action is used only where `respond` names it; `respond="safe"` names those of [a table](#what-safe-does).'
    ),
    "probe": (
        " `trimtab check` runs them: [how to check a training before it runs](../how-to/check-before-training.md). A "
        "setting is a field of the probe: `StartIsGoodEnough(seeds=20)`."
    ),
    "stabilizer": (
        " They are put in by hand, and none of them knows of any model: [how to stabilize a model]"
        "(../how-to/stabilize-a-model.md)."
    ),
}


def _index() -> str:
    body = [
        MADE,
        "# Catalogue",
        "Everything that Trimtab measures, detects, blames, does and tests, as `trimtab rules` lists it.",
        f"The [gallery]({GALLERY}) shows each detector on a real run in which it fired and on one that only looks ill.",
    ]
    for kind, (stem, title, line) in KINDS.items():
        members = entries(kind)
        rows = ((_link(entry, f"{stem}.md"), entry.summary) for entry in members)
        body += [f"## [{title}]({stem}.md)", f"{line} There are {len(members)}.", _table(("", ""), rows)]
    return "\n\n".join(body) + "\n"


def _detector(entry: Entry) -> Iterable[str]:
    for heading, text in entry.headings.items():
        yield f"**{heading}.** {_text(text)}"
    thresholds = [one for one in entry.thresholds if one.name not in LIFE]
    if thresholds:
        rows = ((f"`{one.name}`", f"`{_value(one.value)}`", _text(one.text)) for one in thresholds)
        yield _table(("threshold", "default", "meaning"), rows)
    life = {one.name: _value(one.value) for one in entry.thresholds if one.name in LIFE}
    yield _facts({**entry.facts, "judgements in a row that open, that resolve": " and ".join(life.values())})
    weights = [(one.cause, weight) for one in HYPOTHESES for weight in one.evidence if weight.code == entry.code]
    if weights:
        weights.sort(key=lambda pair: -pair[1].decibans)
        rows = ((f"[{cause}](hypotheses.md#{cause})", f"{one.decibans:+g}", str(one)) for cause, one in weights)
        yield _table(("speaks for or against", "decibans", "when"), rows)


def _hypothesis(entry: Entry) -> Iterable[str]:
    (one,) = (hypothesis for hypothesis in HYPOTHESES if hypothesis.cause == entry.code)
    explained = _module_text(one)
    if explained:
        yield explained
    yield _table(
        ("decibans", "evidence", "because", "family"),
        [
            (f"{one.prior:+g}", "prior", "how common the cause is among faulty runs", ""),
            *((f"{weight.decibans:+g}", _finding(weight), weight.why, weight.family) for weight in one.evidence),
        ],
    )
    if one.settings:
        patterns = ", ".join(f"`{pattern}`" for pattern in one.settings)
        yield f"A setting that differs from the last good run counts for it where its key matches {patterns}."
    yield f"**Gate.** {one.gate}."
    there = any(probe.code == one.probe for probe in entries("probe"))
    link = f"[`{one.probe}`](probes.md#{one.probe})" if there else f"`{one.probe}`"
    yield f"**What would decide.** Whether {one.probe.replace('-', ' ')} ({link})."
    yield "**What to try.**\n\n" + "\n".join(f"- {remedy.text}{_change(remedy.change)}" for remedy in one.remedies)


def _sensor(entry: Entry) -> Iterable[str]:
    yield from map(_text, entry.headings.values())
    yield _facts({"measured": _MEASURED[entry.facts.get("measured", "step")]})


def _action(entry: Entry) -> Iterable[str]:
    yield from map(_text, entry.headings.values())
    yield _facts(entry.facts)


def _safe() -> Iterable[str]:
    """Yield the section about `respond="safe"`; its table holds actions, so that only this part needs torch."""
    from trimtab.actions import safe

    yield "# What safe does"
    yield inspect.cleandoc(safe.__doc__ or "")
    rows = [
        (
            f"[{row.code}](detectors.md#{row.code})",
            ", then ".join(f"[`{_given(action)}`](#{action.name})" for action in row.actions),
            ", ".join("any number" if action.at_most is None else str(action.at_most) for action in row.actions),
            "as the rule" if row.confirm is None else str(row.confirm),
            row.because,
        )
        for row in safe.SAFE
    ]
    yield _table(("finding", "answer", "at most", "confirm", "because"), rows)


def _given(action: Any) -> str:
    """Return an action as one would write it, with the settings that are not its defaults but for the budget."""
    own = {one.name: getattr(action, one.name) for one in fields(action) if one.name != "at_most"}
    usual = type(action)()
    changed = ", ".join(f"{name}={value!r}" for name, value in own.items() if value != getattr(usual, name))
    return f"{type(action).__name__}({changed})"


def _probe(entry: Entry) -> Iterable[str]:
    for heading, text in entry.headings.items():
        yield f"**{heading}.** {_text(text)}"
    rows = ((f"`{one.name}`", f"`{_value(one.value)}`", _text(one.text)) for one in entry.thresholds)
    yield _table(("setting", "default", "meaning"), rows)
    causes = [one.cause for one in HYPOTHESES if one.probe == entry.code]
    decides = {"decides": ", ".join(f"[{cause}](hypotheses.md#{cause})" for cause in causes)} if causes else {}
    yield _facts({"findings": entry.facts["findings"], **decides})


def _stabilizer(entry: Entry) -> Iterable[str]:
    for heading, text in entry.headings.items():
        text = _text(text)
        if not heading:
            yield text
        elif text.startswith(("- ", "    ")):
            yield f"**{heading}.**\n\n{text}"
        else:
            yield f"**{heading}.** {text}"
    yield _facts({name: f"`{text}`" for name, text in entry.facts.items()})


_DESCRIBE = {
    "detector": _detector, "hypothesis": _hypothesis, "sensor": _sensor, "action": _action, "probe": _probe,
    "stabilizer": _stabilizer,
}  # fmt: skip

_MEASURED = {
    "step": "at every update",
    "often": "at every update, less often where that would cost too much",
    "every few steps": "at each of the first updates, then at every k-th, and at each after something suspicious",
    "layers": "at the first 8 updates, every 4th of the first 32, then in every 4th full row",
    "pairs": "when the layers are, and at the update after",
    "census": "at the first backward passes, and when the end of the graph looks different",
    "trouble": "at updates whose loss or gradient is not finite",
}


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in facts.items())


def _text(text: str) -> str:
    """Return a text of a docstring whose powers (2**16) do not become bold."""
    return text.replace("**", "\\*\\*")


def _finding(weight: Weight) -> str:
    text = str(weight)
    return text.replace(weight.code, f"[{weight.code}](detectors.md#{weight.code})", 1)


def _change(change: Any) -> str:
    return f" (`{', '.join(f'{key}={value}' for key, value in change.items())}`)" if change else ""


def _module_text(hypothesis: Hypothesis) -> str:
    """Return the docstring of the file that the cause has, without its first sentence."""
    module = import_module(f"trimtab.hypotheses.{hypothesis.cause.replace('-', '_')}")
    _, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n\n")
    return re.sub(r"^([A-Z][\w ]{2,30}\.) ", r"**\1** ", rest, flags=re.MULTILINE)


def _link(entry: Entry, page: str = "") -> str:
    return f"[{entry.code}]({page}#{entry.code})"


def _value(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return "never" if value == 1_000_000_000 else str(value)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        names = stale()
        if names:
            sys.exit(f"docs/catalogue is not current ({', '.join(names)}); run: make docs")
    else:
        changed = write()
        print(f"docs/catalogue: {len(changed)} pages written or removed" if changed else "docs/catalogue is current")

"""The catalogues as texts: what each detector, sensor, hypothesis, action, probe and stabilizer says about itself.

Everything is read from the sources with `ast`, so that listing and explaining never imports torch; the values of
thresholds and weights come from the detectors and hypotheses themselves, which do not need it.
"""

from __future__ import annotations

import ast
import inspect
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import trimtab
from trimtab.detectors import DETECTORS
from trimtab.errors import UserError, nearest
from trimtab.hypotheses import HYPOTHESES
from trimtab.system import System, find_system, system_names

log = logging.getLogger("trimtab")

KINDS = ("detector", "sensor", "hypothesis", "action", "probe", "stabilizer")
"""The kinds of plug-ins that are listed."""

_PLURALS = {**{f"{kind}s": kind for kind in KINDS}, "hypotheses": "hypothesis"}
_TUPLES = {"sensor": ("sensors", "SENSORS"), "action": ("actions", "ACTIONS")}
_SECTIONS = {"Args": "Arguments", "Trap": "Traps", "Note": "Notes"}
"""Headings of Google's style -> what they are called here; others keep their word."""

_MACHINERY = ("code", "version", "reads", "folds", "excused_by", "per_stream")
"""Fields of a detector that are no thresholds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A number that a detector compares with: its field, the default, and why it is that."""

    name: str
    value: Any
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of a catalogue.

    Attributes:
        kind: one of `KINDS`.
        code: what it is called.
        summary: its first sentence.
        headings: heading -> text, in the order of the docstring; a docstring without headings has the heading "".
        thresholds: of a detector; the settings of a probe.
        causes: of a detector: (cause, decibans, when) for each weight that a hypothesis gives its findings.
        facts: what else there is to say, name -> text.
    """

    kind: str
    code: str
    summary: str
    headings: Mapping[str, str] = field(default_factory=dict)
    thresholds: tuple[Threshold, ...] = ()
    causes: tuple[tuple[str, float, str], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@cache
def entries(kind: str | None = None) -> tuple[Entry, ...]:
    """Return the members of one catalogue, or of all of them.

    Raises:
        UserError: there is no such kind.
    """
    if kind is None:
        return tuple(entry for one in KINDS for entry in entries(one))
    match kind_of(kind):
        case "detector":
            return tuple(_detector(rule) for rule in DETECTORS)
        case "hypothesis":
            return tuple(_hypothesis(one) for one in HYPOTHESES)
        case "sensor" | "action" as listed:
            return tuple(_from_source(listed))
        case "probe":
            return tuple(_probes())
        case _:
            return tuple(_stabilizers())


def kind_of(word: str | None) -> str | None:
    """Return the kind that a word means, also in the plural.

    Raises:
        UserError: there is no such kind.
    """
    kind = None if word is None else _PLURALS.get(word, word)
    if kind is not None and kind not in KINDS:
        raise UserError(f"rules: there is no kind {kind!r}.{nearest(kind, KINDS)} Known: {', '.join(KINDS)}")
    return kind


def own_entries(system: System, kind: str | None = None) -> tuple[Entry, ...]:
    """Return the detectors and hypotheses that a System adds to the catalogues, or those of one kind."""
    wanted, every = kind_of(kind), (*HYPOTHESES, *system.hypotheses)
    rules = (_detector(rule, every) for rule in system.detectors)
    found = (*rules, *map(_hypothesis, system.hypotheses))
    return tuple(entry for entry in found if wanted in (None, entry.kind))


def explain(code: str, systems: Iterable[str] | None = None) -> Entry:
    """Return the entry of a code: a detector's, a cause's, a sensor's, an action's, a probe's or a stabilizer's.

    The first one counts, in this order; the code of a finding that only a probe gives stands for the probe. What no
    catalogue has is looked for among the rules and causes of systems, which are loaded for that.

    Args:
        code: what is asked for.
        systems: names of installed systems; None for all.

    Raises:
        UserError: nothing is called that; the message names the nearest code.
    """
    known = {finding: entry for entry in reversed(entries("probe")) for finding in _codes_of(entry)}
    known |= {entry.code: entry for entry in reversed(entries())}
    for name in (system_names() if systems is None else systems) if code not in known else ():
        try:
            known = {entry.code: entry for entry in own_entries(find_system(name))} | known
        except Exception as error:  # noqa: BLE001 - a system that cannot be loaded explains nothing
            log.info("the system %r cannot be loaded (%s: %s)", name, type(error).__name__, error)
    if code not in known:
        raise UserError(f"explain: nothing is called {code!r}.{nearest(code, known)} `trimtab rules` lists every code")
    return known[code]


def headings(docstring: str) -> dict[str, str]:
    """Split a docstring into heading -> text, a blank line between paragraphs and none of the source's line ends.

    A heading is a short line that ends with a full stop and stands first in its paragraph; what comes before the first
    one is left out.
    """
    found: dict[str, str] = {}
    current = ""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        first, _, rest = paragraph.partition("\n")
        if rest and re.fullmatch(r"[A-Z][A-Za-z ]{2,30}\.", first):
            current = first[:-1]
            found[current] = _unbroken(rest)
        elif current:
            found[current] += f"\n\n{_unbroken(paragraph)}"
    return found


def _unbroken(paragraph: str) -> str:
    """Join the lines of a paragraph; those of a list stay apart."""
    return re.sub(r"\s*\n\s*(?!- |\s)", " ", paragraph)


def _detector(rule: Any, hypotheses: Sequence[Any] = HYPOTHESES) -> Entry:
    documentation = inspect.getdoc(type(rule)) or ""
    texts = _field_texts(type(rule))
    causes = [
        (hypothesis.cause, weight.decibans, str(weight))
        for hypothesis in hypotheses
        for weight in hypothesis.evidence
        if weight.code == rule.code
    ]
    return Entry(
        kind="detector",
        code=rule.code,
        summary=_first(documentation),
        headings=headings(documentation),
        thresholds=tuple(
            Threshold(name=one.name, value=getattr(rule, one.name), text=texts.get(one.name, ""))
            for one in fields(rule)
            if one.name not in _MACHINERY
        ),
        causes=tuple(sorted(causes, key=lambda item: -item[1])),
        facts={
            "reads": ", ".join(rule.reads) or "every row",
            "excused by a note of kind": ", ".join(rule.excused_by) or "none",
        },
    )


def _hypothesis(one: Any) -> Entry:
    evidence = "\n".join(f"{weight.decibans:+g} dB  {weight}: {weight.why}" for weight in one.evidence)
    remedies = "\n".join(f"- {remedy.text}" for remedy in one.remedies)
    return Entry(
        kind="hypothesis",
        code=one.cause,
        summary=one.summary,
        headings={"What speaks for and against it": evidence, "What to try": remedies},
        facts={"prior": f"{one.prior:+g} dB", "gate": str(one.gate), "probe that decides": one.probe},
    )


def _from_source(kind: str) -> list[Entry]:
    """Read a catalogue whose classes import torch: the order from its tuple, the texts from the docstrings."""
    package, tuple_name = _TUPLES[kind]
    found = []
    for definition, module in _members(package, tuple_name):
        assert isinstance(definition, ast.ClassDef)
        documentation = ast.get_docstring(definition) or ""
        constants = _constants(definition)
        summary = _first(ast.get_docstring(module) or documentation)
        facts = {"changes": str(constants["changes"])} if "changes" in constants else {}
        if "tier" in constants:
            facts["measured"] = {"norms": "every few steps"}.get(constants["tier"], str(constants["tier"]))
        found.append(
            Entry(
                kind=kind,
                code=str(constants["name"]),
                summary=summary,
                headings={"": "\n\n".join(map(_unbroken, documentation.split("\n\n")))},
                facts=facts,
            )
        )
    return found


def _probes() -> list[Entry]:
    """Read the probes: their claims, texts and settings from the sources, for they import torch."""
    found = []
    for definition, _ in _members("probes", "PROBES"):
        assert isinstance(definition, ast.ClassDef)
        documentation = ast.get_docstring(definition) or ""
        values = _literals(definition)
        found.append(
            Entry(
                kind="probe",
                code=values["claim"][0],
                summary=_first(documentation),
                headings=headings(documentation),
                thresholds=tuple(
                    Threshold(name=name, value=value, text=text)
                    for name, (value, text) in values.items()
                    if name not in ("claim", "codes")
                ),
                facts={"findings": ", ".join(values["codes"][0])},
            )
        )
    return found


def _codes_of(entry: Entry) -> list[str]:
    return entry.facts["findings"].split(", ")


def _literals(definition: ast.ClassDef) -> dict[str, tuple[Any, str]]:
    """Return name -> (default, the text below it) of the fields of a class whose defaults are plain values."""
    found = {}
    for node, below in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            text = ""
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                text = " ".join(str(below.value.value).split())
            found[node.target.id] = ast.literal_eval(node.value), text
    return found


def _stabilizers() -> list[Entry]:
    """Read the stabilizers: a function or a class each, with a docstring in Google's style."""
    found = []
    for definition, _ in _members("stabilizers", "STABILIZERS"):
        summary, texts = sections(ast.get_docstring(definition) or "")
        found.append(
            Entry(
                kind="stabilizer",
                code=re.sub(r"(?<=[a-z])(?=[A-Z])|_", "-", definition.name).lower(),
                summary=summary,
                headings=texts,
                facts={"import": f"from trimtab.stabilizers import {definition.name}"},
            )
        )
    return found


def sections(docstring: str) -> tuple[str, dict[str, str]]:
    """Return the first paragraph of a docstring in Google's style, and heading -> text for the rest.

    What stands before the first heading has the heading "". Entries of a list become lines with a dash; lines that are
    indented stay as they are, for they are code.
    """
    summary, *paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(docstring))
    found: dict[str, str] = {}
    current = ""
    for paragraph in paragraphs:
        head = re.match(r"([A-Z][a-z]+):(?:\n|[ ])", paragraph)
        if head:
            current = _SECTIONS.get(head[1], head[1])
            paragraph = paragraph[head.end() :]
        elif not paragraph.startswith(" "):
            current = ""
        if head and re.match(r" {4}[\w`*]+(?:, [\w`*]+)*: ", paragraph):
            items = re.split(r"\n {4}(?! )", paragraph.removeprefix("    "))
            text = "\n".join(re.sub(r"^([^:]+):", r"- `\1`:", " ".join(item.split())) for item in items)
        elif paragraph.startswith("    ") and (not head or ">>>" in paragraph):
            text = paragraph
        else:
            text = _unbroken(paragraph).strip()
        found[current] = f"{found[current]}\n\n{text}" if current in found else text
    return " ".join(summary.split()), found


def _members(package: str, tuple_name: str) -> list[tuple[ast.ClassDef | ast.FunctionDef, ast.Module]]:
    """Return what a catalogue's tuple names, in its order: each definition, and the module that it is in."""
    folder = Path(trimtab.__file__).parent / package
    catalogue = _parsed(folder / "__init__.py")
    homes = {
        alias.name: (node.module or "").rpartition(".")[2]
        for node in catalogue.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    members = next(
        node.value
        for node in catalogue.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == tuple_name
    )
    assert isinstance(members, ast.Tuple)
    found = []
    for member in members.elts:
        name = member.func if isinstance(member, ast.Call) else member
        assert isinstance(name, ast.Name)
        module = _parsed(folder / f"{homes[name.id]}.py")
        (definition,) = [
            node for node in module.body if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name.id
        ]
        found.append((definition, module))
    return found


def _constants(definition: ast.ClassDef) -> dict[str, Any]:
    return {
        node.target.id: node.value.value
        for node in definition.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(node.value, ast.Constant)
    }


def _field_texts(kind: type) -> dict[str, str]:
    """Return the texts that stand below the fields of a class and of the classes it is made from."""
    texts: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if one is object or not one.__module__.startswith("trimtab"):
            continue
        (definition,) = [n for n in ast.walk(ast.parse(inspect.cleandoc(inspect.getsource(one)))) if _named(n, one)]
        assert isinstance(definition, ast.ClassDef)
        attributes = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(one) or "", re.MULTILINE)
        texts |= {name: " ".join(text.split()) for name, text in attributes}
        for node, below in zip(definition.body, definition.body[1:], strict=False):
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            if (
                isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                texts[node.target.id] = " ".join(below.value.value.split())
    return texts


def _named(node: ast.AST, kind: type) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == kind.__name__


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _first(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())

"""Which stored tensor is likely which tensor of a model, when their names differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from trimtab.checkpoint.description import DescribedModel
from trimtab.errors import UserError

WRAPPERS = {
    "module": "was it saved from a parallel wrapper?",
    "_orig_mod": "was it saved from a compiled model?",
    "model": "was it saved inside another module?",
}
"""Names that wrappers put before all others."""

MOST_PAIRS = 4_000_000
"""So many pairs of missing and unexpected names are compared at most."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Rename:
    """A stored name, the name it likely has in the model, why, and the entry of `rename=` that says so."""

    stored: str
    present: str
    why: str
    pattern: tuple[str, str]


def suggest(missing: Shapes, unexpected: Shapes, stored: DescribedModel, present: DescribedModel) -> list[Rename]:
    """Return likely renames, from the surest kind to the least.

    Children of a container that keep their order and shapes while their numbers shift; whole parts of a model under
    another name; tensors of one module with other names.

    Args:
        missing: names that the model wants and the checkpoint lacks, with shapes.
        unexpected: names that the checkpoint has and the model does not know.
        stored, present: both models; other tensors of theirs count where numbers have shifted onto known names.
    """
    wanted, offered = dict(missing), dict(unexpected)
    found: list[Rename] = []
    for step in (_shifted, _moved, _leaves):
        more = step(wanted, offered, stored, present)
        found += more
        for rename in more:
            wanted.pop(rename.present, None)
            offered.pop(rename.stored, None)
    return found


def rename_all(names: Iterable[str], patterns: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return stored name -> name in the model, for all of them at once, and the patterns that matched none.

    Args:
        names: stored names.
        patterns: stored name -> new name; either both sides have one `*`, which stands for the same text, or none.

    Raises:
        UserError: a pattern is malformed, two patterns match one name, or two names become one.
    """
    for old, new in patterns.items():
        if old.count("*") != new.count("*") or old.count("*") > 1:
            raise UserError(f"rename: {old!r} -> {new!r}: one '*' on each side, or none")
    renamed: dict[str, str] = {}
    used: dict[str, str] = {}
    for name in names:
        hits = {old: new for old, new in ((old, _apply(old, new, name)) for old, new in patterns.items()) if new}
        if len(hits) > 1:
            raise UserError(f"rename: {name!r} matches {' and '.join(map(repr, hits))}; let only one of them match it")
        for old in hits:
            used[old] = name
        renamed[name] = next(iter(hits.values()), name)
    origin: dict[str, str] = {}
    for name, new in renamed.items():
        if new in origin:
            raise UserError(f"rename: {origin[new]!r} and {name!r} would both become {new!r}")
        origin[new] = name
    return renamed, [old for old in patterns if old not in used]


def _apply(old: str, new: str, name: str) -> str | None:
    before, star, after = old.partition("*")
    if not star:
        return new if name == old else None
    if len(name) < len(before) + len(after) or not (name.startswith(before) and name.endswith(after)):
        return None
    return new.replace("*", name[len(before) : len(name) - len(after)])


def _shifted(wanted: Shapes, offered: Shapes, stored: DescribedModel, present: DescribedModel) -> list[Rename]:
    """Find containers whose children have other numbers and the same order."""
    found: list[Rename] = []
    done: list[str] = []
    containers = {parent for name in wanted for parent in _containers(name)}
    containers &= {parent for name in offered for parent in _containers(name)}
    for parent in sorted(containers, key=lambda path: (path.count("."), path)):
        if any(parent == path or parent.startswith(f"{path}.") for path in done):
            continue
        before, after = _children(parent, stored), _children(parent, present)
        if [child for _, child in before] != [child for _, child in after]:
            # Only what is missing and unexpected, as far as it keeps its order.
            before = [one for one in before if any(name.startswith(f"{_join(parent, one[0])}.") for name in offered)]
            after = [one for one in after if any(name.startswith(f"{_join(parent, one[0])}.") for name in wanted)]
        blocks = SequenceMatcher(
            None, [child for _, child in before], [child for _, child in after], autojunk=False
        ).get_matching_blocks()
        pairs = [(before[i + k], after[j + k]) for i, j, size in blocks for k in range(size)]
        moved = [((old, child), new) for (old, child), (new, _) in pairs if old != new]
        if not moved:
            continue
        done.append(parent)
        why = _why_shifted(parent, stored, present, [(old, new) for (old, _), new in moved])
        for (old, child), new in moved:
            here, there = _join(parent, old), _join(parent, new)
            found += [
                Rename(stored=f"{here}.{rest}", present=f"{there}.{rest}", why=why, pattern=(f"{here}.*", f"{there}.*"))
                for rest, _ in child
            ]
    return found


def _why_shifted(parent: str, stored: DescribedModel, present: DescribedModel, moved: list[tuple[str, str]]) -> str:
    if stored.modules is not None and present.modules is not None:
        before, after = (
            [name.rpartition(":")[2] for _, name in _direct(parent, model.modules or {})] for model in (stored, present)
        )
        gone, come = [], []
        for tag, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if tag != "equal":
                gone += before[a:b]
                come += after[c:d]
        if gone and not come:
            return f"{_some(gone)} was removed?"
        if come and not gone:
            return f"{_some(come)} was added?"
        if gone and come:
            return f"{_some(gone)} became {_some(come)}?"
    step = int(moved[-1][1]) - int(moved[-1][0])
    return f"was a layer without parameters {'removed' if step < 0 else 'added'}?"


def _some(classes: list[str]) -> str:
    names = list(dict.fromkeys(classes))
    return " and ".join(f"{'an' if name[0] in 'AEIOU' else 'a'} {name}" for name in names)


def _moved(wanted: Shapes, offered: Shapes, stored: DescribedModel, present: DescribedModel) -> list[Rename]:
    """Find whole parts of the model under another name, wrappers included."""
    found: list[Rename] = []
    if len(wanted) * len(offered) > MOST_PAIRS:
        return found
    left, right = dict(offered), dict(wanted)
    everything = [name for name, one in stored.tensors.items() if one.persistent]
    while left and right:
        counts = _counts(left, right)
        below = {old: sum(1 for name in left if _under(name, old)) for old, _ in counts}
        whole = [pair for pair, count in counts.items() if count == below[pair[0]] and pair[0] != pair[1]]
        if not whole:
            break
        old, new = max(whole, key=lambda pair: (counts[pair], -len(pair[0]) - len(pair[1])))
        why = (WRAPPERS.get(old) if not new else None) or (
            f"is {old!r} called {new!r} now?" if old and new else "was one saved inside another module?"
        )
        moved = [(name, _join(new, name[len(old) :].lstrip("."))) for name in left if _under(name, old)]
        alone = len(moved) == sum(1 for name in everything if _under(name, old))
        for name, other in moved:
            pattern = (_join(old, "*"), _join(new, "*")) if alone else (name, other)
            found.append(Rename(stored=name, present=other, why=why, pattern=pattern))
            del left[name]
            right.pop(other, None)
    return found


def _counts(left: Shapes, right: Shapes) -> dict[tuple[str, str], int]:
    """Return (old prefix, new prefix) -> how many names agree in what follows, and in shape."""
    by_suffix: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in right:
        parts = tuple(name.split("."))
        for length in range(1, len(parts) + 1):
            by_suffix[parts[-length:]].append(name)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for name, shape in left.items():
        parts = tuple(name.split("."))
        for length in range(1, len(parts) + 1):
            for other in by_suffix.get(parts[-length:], ()):
                if right[other] == shape:
                    counts[".".join(parts[:-length]), ".".join(other.split(".")[:-length])] += 1
    return counts


def _leaves(wanted: Shapes, offered: Shapes, stored: DescribedModel, present: DescribedModel) -> list[Rename]:
    """Find tensors of one module that have other names there: same parent, same shapes, same order."""
    found: list[Rename] = []
    groups: dict[tuple[str, tuple[int, ...]], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((offered, wanted)):
        for name, shape in names.items():
            groups[name.rpartition(".")[0], shape][side].append(name)
    for (parent, _), (old, new) in groups.items():
        if old and len(old) == len(new):
            found += [
                Rename(
                    stored=one, present=other, pattern=(one, other),
                    why=f"same place and shape in {parent or 'the model'!r}, another name?",
                )
                for one, other in zip(old, new, strict=True)
            ]  # fmt: skip
    return found


def _containers(name: str) -> Iterable[str]:
    """Return the paths in a name that a number follows."""
    parts = name.split(".")
    return [".".join(parts[:index]) for index, part in enumerate(parts[:-1]) if part.isdecimal()]


Child = tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]


def _children(parent: str, model: DescribedModel) -> list[Child]:
    """Return the numbered children of a container that have tensors: number, and (name, shape) of each tensor."""
    children: dict[str, list[tuple[str, tuple[int, ...]]]] = defaultdict(list)
    for name, one in model.tensors.items():
        if not one.persistent or not _under(name, parent):
            continue
        number, _, rest = name[len(parent) :].lstrip(".").partition(".")
        if number.isdecimal() and rest:
            children[number].append((rest, one.shape))
    return [(number, tuple(sorted(children[number]))) for number in sorted(children, key=int)]


def _direct(parent: str, modules: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (name, class) of the modules directly below one."""
    return [
        (name, kind)
        for name, kind in modules.items()
        if name and _under(name, parent) and "." not in name[len(parent) :].lstrip(".")
    ]


def _under(name: str, parent: str) -> bool:
    return not parent or name.startswith(f"{parent}.")


def _join(parent: str, rest: str) -> str:
    return f"{parent}.{rest}" if parent else rest

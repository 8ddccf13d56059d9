"""Settings of a model that its tensors do not show: arguments, configuration, attributes and classes of its modules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from trimtab.checkpoint import generators
from trimtab.checkpoint.constructor import Constructor, settings_of
from trimtab.checkpoint.description import DescribedModel, describe
from trimtab.errors import UserError


class _Absent:
    def __repr__(self) -> str:
        return "(not there)"


ABSENT = _Absent()
"""Stands for the value of a setting on the side that does not have it."""

Where = Literal["constructor", "config", "module", "class", "tensor", "buffer", "hidden buffer"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting that differs.

    `effect` is "shapes" when it changes which tensors there are, "values" when a load would succeed and compute
    something else. `source` says where it was found.
    """

    key: str
    stored: Any
    present: Any
    source: Where
    effect: Literal["shapes", "values"] = "values"
    remark: str = ""

    @property
    def words(self) -> str:
        """`dropout: 0.1 stored, 0.0 here (constructor; changes values only)`."""
        effect = "changes shapes" if self.effect == "shapes" else "changes values only"
        remark = f"; {self.remark}" if self.remark else ""
        return f"{self.key}: {self.stored!r} stored, {self.present!r} here ({self.source}; {effect}{remark})"


def compare_settings(
    stored: DescribedModel,
    mine: DescribedModel,
    copies: Mapping[str, str],
    stored_config: Mapping[str, Any] | None,
    config: Mapping[str, Any] | None,
) -> tuple[list[Setting], list[str]]:
    """Return the settings that differ, and what could not be compared.

    Args:
        stored, mine: both models.
        copies: name of a tensor here -> stored name; says which module is which after renames.
        stored_config, config: of the whole checkpoint; None when there is none.
    """
    found: list[Setting] = []
    unknown: list[str] = []
    if stored.build is not None and mine.build is not None:
        found += _pairs(settings_of(stored.build), settings_of(mine.build), "constructor")
    elif stored.build is not None:
        unknown.append("the constructor's arguments: make the model with Constructor.of(...).build(), or pass build=")
    if stored_config and config is not None:
        known = {(one.key, repr(one.stored), repr(one.present)) for one in found}
        more = _pairs(_dotted(stored_config), _dotted(config), "config")
        found += [one for one in more if (one.key, repr(one.stored), repr(one.present)) not in known]
    elif stored_config:
        unknown.append("the configuration: pass config= to have it compared")
    elif config:
        unknown.append("the configuration: none was stored")
    if stored.modules is None or stored.attributes is None:
        unknown.append("classes and attributes of modules: only tensors were stored")
        return found, unknown
    assert mine.modules is not None
    assert mine.attributes is not None
    places, before, after = modules_here(stored, mine, copies), _by_owner(stored), _by_owner(mine)
    for old, kind in stored.modules.items():
        new = places.get(old)
        here = mine.modules.get(new) if new is not None else None
        if here is None:
            if not _below_lost(old, stored, places):
                found.append(Setting(key=_key("class", old), stored=_short(kind), present=ABSENT, source="class"))
        elif _short(here) != _short(kind):
            found.append(
                Setting(key=_key("class", new or ""), stored=_short(kind), present=_short(here), source="class")
            )
        else:
            own, mine_own = before.get(old, {}), after.get(new or "", {})
            found += _attributes(new or "", own, mine_own, foreign=kind.startswith("torch."))
    taken = set(places.values())
    for new, kind in mine.modules.items():
        if new not in taken and not any(_under(new, other) for other in mine.modules if other and other not in taken):
            found.append(Setting(key=_key("class", new), stored=ABSENT, present=_short(kind), source="class"))
    return found, unknown


def with_effects(
    settings: Sequence[Setting], stored: DescribedModel, mine: DescribedModel, odd: Sequence[str]
) -> list[Setting]:
    """Return the settings with their effect.

    Arguments of a constructor are tried out: the model is made without memory, with the stored value of that argument
    alone. Of the others, only those of a module whose own tensors differ, and whole numbers that stand in a shape
    that differs, change shapes.

    Args:
        settings, stored, mine: as above.
        odd: names of tensors that are missing, unexpected or of another shape.
    """
    found = []
    sizes = {
        size for name in odd for model in (stored, mine) if name in model.tensors for size in model.tensors[name].shape
    }
    parents = {name.rpartition(".")[0] for name in odd}
    for one in settings:
        shapes: bool | None = None
        if one.source == "constructor":
            shapes = _tried(one, mine)
        if shapes is None and odd:
            if one.source == "module":
                shapes = one.key.rpartition(".")[0] in parents
            elif one.source in ("config", "constructor"):
                numbers = {value for value in (one.stored, one.present) if type(value) is int}
                shapes = bool(numbers & sizes)
            elif one.source == "class":
                module = one.key.partition(".")[2]
                shapes = any(_under(name, module) or parent == module for name in odd for parent in parents)
        found.append(replace(one, effect="shapes" if shapes else "values"))
    return found


def same(one: Any, other: Any) -> bool:
    """Return whether two values of a setting are the same: NaN is NaN, 1 is 1.0, True is not 1, (1,) is [1]."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(type(one) is type(other) or isinstance(one, (int, float)) == isinstance(other, (int, float))) and bool(
        one == other
    )


def _pairs(stored: Mapping[str, Any], present: Mapping[str, Any], source: Where) -> list[Setting]:
    found = []
    for key in [*stored, *(key for key in present if key not in stored)]:
        old, new = stored.get(key, ABSENT), present.get(key, ABSENT)
        if not same(old, new):
            found.append(Setting(key=key, stored=old, present=new, source=source))
    return found


def _dotted(values: Mapping[str, Any], below: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found.update(_dotted(value, f"{below}{key}."))
        else:
            found[f"{below}{key}"] = value
    return found


def modules_here(stored: DescribedModel, mine: DescribedModel, copies: Mapping[str, str]) -> dict[str, str]:
    """Return stored module -> module here: by the tensors that were renamed, else by the same name."""
    assert stored.modules is not None
    assert mine.modules is not None
    moved: dict[str, str] = {}
    for new, old in copies.items():
        if new == old:
            continue
        above_old, above_new = old.rpartition(".")[0], new.rpartition(".")[0]
        # As far up as the parts below are alike: `a.3.inner.weight -> a.2.inner.weight` moves a.3 and a.3.inner.
        while above_old and above_new and above_old != above_new:
            moved.setdefault(above_old, above_new)
            if above_old.rpartition(".")[2] != above_new.rpartition(".")[2]:
                break
            above_old, above_new = above_old.rpartition(".")[0], above_new.rpartition(".")[0]
    places = {}
    claimed = set(moved.values())
    for old in stored.modules:
        new = _through(old, moved)
        if new in mine.modules and (old in moved or new not in claimed):
            places[old] = new
    return places


def _through(old: str, moved: Mapping[str, str]) -> str:
    """Return where a module is now when it, or one above it, moved."""
    parts = old.split(".")
    for length in range(len(parts), 0, -1):
        above = ".".join(parts[:length])
        if above in moved:
            return ".".join([moved[above], *parts[length:]])
    return old


def _below_lost(old: str, stored: DescribedModel, places: Mapping[str, str]) -> bool:
    """Return whether a module above one is gone already, which says it all."""
    assert stored.modules is not None
    return any(_under(old, other) for other in stored.modules if other and other not in places)


def _attributes(new: str, before: Mapping[str, Any], after: Mapping[str, Any], *, foreign: bool) -> list[Setting]:
    found = []
    for name in [*before, *(name for name in after if name not in before)]:
        one, other = before.get(name, ABSENT), after.get(name, ABSENT)
        if foreign and (one is ABSENT or other is ABSENT):
            continue  # a version of torch gave its modules another attribute
        if not same(one, other):
            found.append(Setting(key=f"{new}.{name}" if new else name, stored=one, present=other, source="module"))
    return found


def _by_owner(model: DescribedModel) -> dict[str, dict[str, Any]]:
    """Return module -> its own attributes."""
    assert model.attributes is not None
    assert model.modules is not None
    found: dict[str, dict[str, Any]] = {}
    for key, value in model.attributes.items():
        owner, _, name = key.rpartition(".")
        while owner and owner not in model.modules:  # `config.hidden`: the attribute is a dataclass
            owner, _, first = owner.rpartition(".")
            name = f"{first}.{name}"
        found.setdefault(owner, {})[name] = value
    return found


def _tried(one: Setting, mine: DescribedModel) -> bool | None:
    """Return whether the stored value of one argument gives other tensors; None when that cannot be tried."""
    made = mine.build
    if made is None or made.kind is None or one.key not in made.arguments or one.stored is ABSENT:
        return None
    before = generators.everywhere()
    try:
        with torch.device("meta"):
            tensors = describe(_with(made, one.key, one.stored).build()).tensors
    except Exception:  # noqa: BLE001 - the class of a user, made in a way it was not meant for
        return None
    finally:
        generators.put_back_everywhere(before)
    shapes = {name: held.shape for name, held in tensors.items() if held.persistent}
    return shapes != {name: held.shape for name, held in mine.tensors.items() if held.persistent}


def _with(made: Constructor, key: str, value: Any) -> Constructor:
    if isinstance(value, Constructor):
        raise UserError("not tried")
    return replace(made, arguments={**made.arguments, key: value})


def _key(kind: str, path: str) -> str:
    return f"{kind}.{path}" if path else kind


def _short(class_name: str) -> str:
    return class_name.rpartition(":")[2]


def _under(name: str, parent: str) -> bool:
    return bool(parent) and name.startswith(f"{parent}.")

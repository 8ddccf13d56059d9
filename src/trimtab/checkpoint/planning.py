"""What stands between a checkpoint and a model: every difference, before one weight is touched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from trimtab.checkpoint import renames
from trimtab.checkpoint.constructor import Constructor, constructor_of
from trimtab.checkpoint.description import DescribedModel, DescribedTensor, describe
from trimtab.checkpoint.renames import Rename
from trimtab.checkpoint.settings import ABSENT, Setting, compare_settings, same, with_effects
from trimtab.checkpoint.source import Source, open_source
from trimtab.checkpoint.state import model_tensors, unwrapped
from trimtab.errors import CheckpointError, UserError

STATISTICS = ("running_", "num_batches_tracked")
"""How buffers are called that training itself fills, in the normalising layers of torch."""


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """One tensor whose shape differs."""

    name: str
    stored: tuple[int, ...]
    present: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every difference between a checkpoint and a model, and what a load would do. Nothing was changed.

    Attributes:
        path: of the checkpoint; `model` is the class of the present model.
        copies: name in the model -> stored name, for all that would be loaded.
        renamed: those of `copies` whose names differ.
        missing, unexpected, misfits: tensors that differ, as far as they were not allowed.
        settings: settings that differ, as far as they were not overridden; `overridden` are the others.
        left_at_initialisation, left_out: what was allowed to be missing, and to be unexpected.
        frozen: those left at initialisation that no training will ever change: always an error.
        likely_renames: stored name -> name in the model, with the reason.
        unused: patterns that matched nothing, as they were given.
        random_share: share of the model's parameters that a load without these checks would leave random.
        code: the call that makes the stored model, when its constructor was stored.
        not_compared: what could not be compared, and why.
    """

    path: str
    model: str
    copies: Mapping[str, str]
    renamed: Mapping[str, str]
    missing: Mapping[str, tuple[int, ...]]
    unexpected: Mapping[str, tuple[int, ...]]
    misfits: tuple[Misfit, ...]
    settings: tuple[Setting, ...]
    overridden: tuple[Setting, ...]
    left_at_initialisation: tuple[str, ...]
    left_out: tuple[str, ...]
    frozen: tuple[str, ...]
    likely_renames: tuple[Rename, ...]
    unused: tuple[str, ...]
    random_share: float
    code: str | None
    not_compared: tuple[str, ...]
    source: Source = field(repr=False, compare=False)

    @property
    def clean(self) -> bool:
        """Whether a load is allowed."""
        return not (
            self.missing or self.unexpected or self.misfits or self.settings or self.frozen or self.unused
        )  # fmt: skip

    @property
    def message(self) -> str:
        """All of it in words, with what to do."""
        lines = [f"checkpoint {self.path}: "]
        if self.clean:
            lines[0] += f"fits this {self.model}: {len(self.copies)} tensors, {len(self.renamed)} of them renamed."
        else:
            lines[0] += f"does not fit this {self.model}; nothing was loaded."
        lines += _list(f"missing, {self.random_share:.1%} of the parameters would stay random", self.missing)
        lines += _list("unexpected", self.unexpected)
        lines += _section(
            "have another shape", [f"{one.name}: {one.stored} stored, {one.present} here" for one in self.misfits]
        )
        lines += _section("settings differ", [one.words for one in self.settings])
        lines += _section(
            "likely renames", [f"{one.stored} -> {one.present}: {one.why}" for one in self.likely_renames]
        )
        lines += _section(
            "would be left at initialisation and are frozen, so that no training repairs them; train them, or fill "
            "them yourself (a buffer that follows from the code may be persistent=False)", list(self.frozen),
        )  # fmt: skip
        lines += _section("patterns match nothing; take them out or mend them", list(self.unused))
        if not self.clean:
            lines += self._advice()
        lines += _section("not compared", list(self.not_compared))
        return "\n".join(lines)

    def _advice(self) -> list[str]:
        lines = []
        if self.code is not None and (self.settings or self.missing or self.unexpected or self.misfits):
            lines.append(f"  The stored model is made by: {self.code}")
        given = []
        if self.likely_renames:
            pairs = dict(one.pattern for one in self.likely_renames)
            given.append("rename={" + ", ".join(f"{old!r}: {new!r}" for old, new in pairs.items()) + "}")
        renamed = {one.present for one in self.likely_renames}, {one.stored for one in self.likely_renames}
        missing = [name for name in self.missing if name not in renamed[0]]
        unexpected = [name for name in self.unexpected if name not in renamed[1]]
        given += [f"allow_missing={missing!r}"] if missing else []
        given += [f"allow_unexpected={unexpected!r}"] if unexpected else []
        if self.settings:
            values = ", ".join(f"{one.key!r}: {_given(one.present)}" for one in self.settings)
            given.append("override={" + values + "}")
        if given and not self.misfits and not self.frozen:
            lines.append(f"  If all of this is meant so: load(..., {', '.join(given)})")
        return lines


def plan(
    path: Any,
    model: nn.Module,
    *,
    name: str | None = None,
    build: Constructor | None = None,
    config: Mapping[str, Any] | None = None,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    override: Mapping[str, Any] | None = None,
) -> Plan:
    """Compare a checkpoint with a model; read everything, check every hash, change nothing.

    Args:
        path: a checkpoint folder, a `.safetensors` file, or a `.pt` file that holds a plain state_dict.
        model: the model that shall be loaded.
        name: which of several stored models.
        build: how `model` was made; found by itself when `Constructor.build` made it.
        config: compared with the stored one, key by key.
        allow_missing: patterns (`fnmatch`) of names that may stay at initialisation.
        allow_unexpected: patterns of stored names that are not wanted.
        rename: stored name -> name in the model, with at most one `*` on each side.
        override: pattern of a setting -> the value that it shall have, as the model has it; `...` for whatever it has.
            For a buffer of one element it may be the stored value too, which is then loaded.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        UserError: a pattern is malformed.
    """
    return compare(
        path if isinstance(path, Source) else open_source(path), model, name=name, build=build, config=config,
        allow_missing=allow_missing, allow_unexpected=allow_unexpected, rename=rename, override=override,
    )  # fmt: skip


def compare(
    source: Source,
    model: nn.Module,
    *,
    name: str | None = None,
    build: Constructor | None = None,
    config: Mapping[str, Any] | None = None,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    override: Mapping[str, Any] | None = None,
    constants: bool = True,
) -> Plan:
    """Return the plan for a source that was read; `constants=False` takes buffers for state and not for settings."""
    for what, given in (("rename", rename), ("override", override)):
        if given is not None and not isinstance(given, Mapping):
            raise UserError(f"{what}: expected a mapping, got {given!r:.80}")
    stored, tensors = source.model(name)
    mine = describe(model, build or constructor_of(unwrapped(model)))
    names = [one for one, held in stored.tensors.items() if held.persistent]
    renamed, unused_renames = renames.rename_all(names, rename or {})
    named = {new: old for old, new in renamed.items()}
    wanted = {one: held for one, held in mine.tensors.items() if held.persistent}
    groups = _ties(wanted)
    missing = {
        one: held.shape for one, held in wanted.items()
        if one not in named and not any(other in named for other in groups[held.tied_to or one])
    }  # fmt: skip
    unexpected = {old: stored.tensors[old].shape for new, old in named.items() if new not in wanted}
    both = {new: old for new, old in named.items() if new in wanted}
    misfits = [
        Misfit(name=new, stored=stored.tensors[old].shape, present=wanted[new].shape)
        for new, old in both.items() if stored.tensors[old].shape != wanted[new].shape
    ]  # fmt: skip
    suggested = renames.suggest(missing, unexpected, stored, mine)
    misfit_names = {one.name for one in misfits}
    random = sum(
        wanted[one].elements for one in (*missing, *misfit_names)
        if wanted[one].kind == "parameter" and wanted[one].tied_to is None
    )  # fmt: skip
    allowed, unused_missing = _allowed(missing, allow_missing)
    not_wanted, unused_unexpected = _allowed(unexpected, allow_unexpected)
    fitting = {new: old for new, old in both.items() if new not in misfit_names}
    live = model_tensors(model, ties=True)
    empty = [one for one, tensor in live.items() if tensor.is_meta]
    if empty:
        raise UserError(
            f"{empty[0]!r} of this {type(unwrapped(model)).__name__} is on the meta device, where no values can be "
            f"loaded; give it memory first: model.to_empty(device=...)"
        )
    likely = {**fitting, **{one.present: one.stored for one in suggested}}
    settings, not_compared = compare_settings(stored, mine, likely, source.config, config)
    settings += _of_tensors(stored, mine, tensors, live, fitting, constants=constants)
    settings = with_effects(settings, stored, mine, [*missing, *unexpected, *misfit_names])
    open_settings, overridden, taken, unused_overrides = _overridden(settings, override or {})
    # A tie is loaded once, under the name that the model stores it by.
    copies = {
        new: old for new, old in fitting.items()
        if new not in {one.key for one in overridden if one.source == "buffer"} - taken
    }  # fmt: skip
    return Plan(
        path=str(source.path), model=type(unwrapped(model)).__name__, copies=copies,
        renamed={new: old for new, old in copies.items() if new != old},
        missing={one: shape for one, shape in missing.items() if one not in allowed},
        unexpected={one: shape for one, shape in unexpected.items() if one not in not_wanted},
        misfits=tuple(misfits), settings=tuple(open_settings), overridden=tuple(overridden),
        left_at_initialisation=tuple(allowed), left_out=tuple(not_wanted),
        frozen=tuple(one for one in allowed if _stays(one, mine.tensors)),
        likely_renames=tuple(suggested),
        unused=(
            *(f"rename: {one!r}" for one in unused_renames), *(f"allow_missing: {one!r}" for one in unused_missing),
            *(f"allow_unexpected: {one!r}" for one in unused_unexpected),
            *(f"override: {one}" for one in unused_overrides),
        ),
        random_share=random / mine.parameters if mine.parameters else 0.0,
        code=None if stored.build is None else stored.build.code,
        not_compared=tuple(not_compared), source=source,
    )  # fmt: skip


def check(plan: Plan) -> None:
    """Raise CheckpointError, with the whole message, unless a plan is clean."""
    if not plan.clean:
        raise CheckpointError(plan.message)


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern of `fnmatch` means a name; a name means itself, whatever brackets are in it."""
    return name == pattern or fnmatchcase(name, pattern)


def _ties(tensors: Mapping[str, DescribedTensor]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, one in tensors.items():
        groups.setdefault(one.tied_to or name, []).append(name)
    return groups


def _allowed(names: Mapping[str, Any], patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names that a pattern matches, and the patterns that match none."""
    if isinstance(patterns, str):
        raise UserError(f"expected a list of patterns, got the text {patterns!r}; put it into a list")
    found = [name for name in names if any(matches(name, pattern) for pattern in patterns)]
    return found, [pattern for pattern in patterns if not any(matches(name, pattern) for name in names)]


def _stays(name: str, tensors: Mapping[str, DescribedTensor]) -> bool:
    """Return whether no training changes a tensor that is left at its initialisation."""
    one = tensors[name]
    parent, _, leaf = name.rpartition(".")
    if one.kind == "buffer" and leaf.startswith(STATISTICS):
        siblings = [held for other, held in tensors.items() if other.rpartition(".")[0] == parent]
        return not any(held.trained and held.kind == "parameter" for held in siblings)
    return one.kind == "buffer" or not one.trained


def _of_tensors(
    stored: DescribedModel,
    mine: DescribedModel,
    tensors: Mapping[str, torch.Tensor],
    live: Mapping[str, torch.Tensor],
    fitting: Mapping[str, str],
    *,
    constants: bool,
) -> list[Setting]:
    """Return the settings that hide in tensors: dtypes, ties, and constants kept as buffers (a curvature)."""
    found: list[Setting] = []
    origin: dict[str, str] = {}
    for new, old in fitting.items():
        one, here = stored.tensors[old], mine.tensors[new]
        if one.dtype != here.dtype:
            found.append(Setting(key=f"dtype.{new}", stored=str(one.dtype), present=str(here.dtype), source="tensor"))
        kept, first = tensors[one.tied_to or old], origin.setdefault(here.tied_to or new, one.tied_to or old)
        if first != (one.tied_to or old) and not _equal(kept, tensors[first]):
            found.append(Setting(key=f"tie.{new}", stored="not tied", present=here.tied_to or new, source="tensor"))
        elif one.tied_to is not None and here.tied_to is None and not _has_ties(new, mine.tensors):
            found.append(Setting(key=f"tie.{new}", stored=one.tied_to, present="not tied", source="tensor"))
        constant = _is_constant(new, here) and (constants or here.kind == "parameter")
        constant = constant and not _in_frozen_layer(new, mine.tensors)
        if constant and one.elements == 1 and not _equal(kept, live[new].detach().cpu()):
            found.append(Setting(key=new, stored=kept.item(), present=live[new].item(), source="buffer"))
    for name, here in mine.tensors.items() if constants else ():
        held = stored.tensors.get(name)
        if held is None or here.persistent or held.persistent or held.shape != here.shape or held.dtype != here.dtype:
            continue
        if not _equal(tensors[held.tied_to or name], live[name].detach().cpu()):
            found.append(Setting(key=name, stored="other values", present="these values", source="hidden buffer"))
    return found


def _has_ties(name: str, tensors: Mapping[str, DescribedTensor]) -> bool:
    return any(one.tied_to == name for one in tensors.values())


def _is_constant(name: str, one: DescribedTensor) -> bool:
    """Return whether a tensor is a setting: one real number that no training changes."""
    leaf = name.rpartition(".")[2]
    return one.elements == 1 and one.dtype.is_floating_point and not one.trained and not leaf.startswith(STATISTICS)


def _in_frozen_layer(name: str, tensors: Mapping[str, DescribedTensor]) -> bool:
    """Return whether a parameter is frozen with the weights beside it: then it is one of them, and no setting."""
    if tensors[name].kind != "parameter":
        return False
    parent = name.rpartition(".")[0]
    beside = (one for other, one in tensors.items() if other != name and other.rpartition(".")[0] == parent)
    return any(one.kind == "parameter" and one.elements > 1 and not one.trained for one in beside)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors hold the same values, as far as the coarser of their dtypes can tell."""
    if one.shape != other.shape:
        return False
    if one.dtype != other.dtype:
        coarse = one.dtype if one.dtype.itemsize <= other.dtype.itemsize else other.dtype
        one, other = one.to(coarse), other.to(coarse)
    if one.dtype.is_floating_point and one.dtype.itemsize == 1:
        one, other = one.float(), other.float()
    same_or_both_nan = (one == other) | ((one != one) & (other != other))
    return bool(same_or_both_nan.all())


def _overridden(
    settings: Sequence[Setting], override: Mapping[str, Any]
) -> tuple[list[Setting], list[Setting], set[str], list[str]]:
    """Return settings still open, those overridden, buffers whose stored value is taken, and what matched nothing."""
    still, done, taken, used = [], [], set(), set()
    for one in settings:
        patterns = [pattern for pattern in override if matches(one.key, pattern)]
        if not patterns:
            still.append(one)
            continue
        used |= set(patterns)
        # Of several the one that says the key itself, or that says a value, decides.
        patterns.sort(key=lambda pattern: (pattern != one.key, override[pattern] is ...))
        value = override[patterns[0]]
        if value is ... or same(value, one.present):
            done.append(one)
        elif one.source == "buffer" and same(value, one.stored):
            done.append(one)
            taken.add(one.key)
        else:
            still.append(replace(one, remark=f"override says {value!r}, which the model does not have"))
    return still, done, taken, [repr(pattern) for pattern in override if pattern not in used]


def _given(value: Any) -> str:
    return "..." if value is ABSENT or (isinstance(value, float) and math.isnan(value)) else repr(value)


def _list(words: str, names: Mapping[str, tuple[int, ...]]) -> list[str]:
    return _section(words, [f"{name} {shape}" for name, shape in names.items()])


def _section(words: str, lines: Sequence[str]) -> list[str]:
    return [f"  {len(lines)} {words}:", *(f"    {line}" for line in lines)] if lines else []

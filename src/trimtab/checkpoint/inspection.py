"""Look at checkpoints: what one holds, whether it is whole, how two differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from trimtab.checkpoint.description import DescribedModel
from trimtab.checkpoint.reading import Listed, metrics_of, plain, read, read_header
from trimtab.checkpoint.settings import Setting, compare_settings
from trimtab.checkpoint.source import Source, open_source
from trimtab.checkpoint.tree import unflatten
from trimtab.checkpoint.writing import GOOD
from trimtab.errors import CheckpointError, UserError


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a checkpoint says of itself. The tensors were not read.

    Attributes:
        path, files: the folder and what its manifest lists.
        format, created, versions, seed: of the checkpoint.
        step: of the training; None when it was not said.
        good: it is marked good.
        finite: no weight was NaN or infinite when it was saved.
        models: by name, with tensors, classes, attributes and constructor.
        optimizers: stream -> class; `parts`: name -> class.
        config, metrics, facts: as they were given.
        size: bytes of all files.
    """

    path: Path
    files: tuple[Listed, ...]
    format: int
    created: str
    versions: Mapping[str, str]
    seed: Mapping[str, Any]
    step: int | None
    good: bool
    finite: bool
    models: Mapping[str, DescribedModel]
    optimizers: Mapping[str, str]
    parts: Mapping[str, str]
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def size(self) -> int:
        return sum(one.size for one in self.files)

    @property
    def parameters(self) -> int:
        return sum(model.parameters for model in self.models.values())


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Whether every byte of a checkpoint is what it was: `problem` is empty, or says what is wrong."""

    path: Path
    problem: str
    files: int
    tensors: int
    size: int

    @property
    def ok(self) -> bool:
        return not self.problem


@dataclass(frozen=True, kw_only=True)
class TensorChange:
    """One tensor that differs between two checkpoints.

    `kind` says how: it is only in the first or the second, has another shape or dtype, or other values.
    `relative` is |b - a| / |a|, over all elements; None where that has no meaning.
    """

    model: str
    name: str
    kind: Literal["only in the first", "only in the second", "shape", "dtype", "values"]
    first: str
    second: str
    relative: float | None = None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs between two checkpoints: settings, tensors, and how many tensors are the same.

    In `settings` the first checkpoint is "stored" and the second "present".
    """

    first: str
    second: str
    settings: tuple[Setting, ...]
    tensors: tuple[TensorChange, ...]
    same: int
    models_only_in_first: tuple[str, ...]
    models_only_in_second: tuple[str, ...]
    not_compared: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether weights and settings are the same."""
        return not (self.settings or self.tensors or self.models_only_in_first or self.models_only_in_second)


def inspect(path: Path | str) -> Inspection:
    """Return what a checkpoint says of itself, without reading its tensors.

    Raises:
        CheckpointError: there is none, or what it says is damaged.
    """
    header = read_header(path)
    state = header.state
    training = state["training"] or {}
    try:
        return Inspection(
            path=header.path, files=header.files, format=state["format"], created=str(state["created"]),
            versions=dict(state["versions"]), seed=dict(state["seed"]), step=_step(state["step"]), good=header.good,
            finite=state["finite"] is True, models=header.models,
            optimizers={name: str(one["class"]) for name, one in training.get("optimizers", {}).items()},
            parts={name: str(one["class"]) for name, one in training.get("parts", {}).items()},
            config=dict(plain(header, "config")), metrics=metrics_of(header),
            facts=dict(plain(header, "facts")),
        )  # fmt: skip
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{header.path}: what it says of itself is damaged: {why}; use another one") from None


def verify(path: Path | str) -> Verified:
    """Read a checkpoint whole and compute every hash again.

    Raises:
        CheckpointError: there is no such folder. What is wrong inside one is the result's `problem`.
    """
    where = Path(path)
    if not where.is_dir():
        read_header(where)
    try:
        contents = read(where)
        inspect(where)
        unflatten(contents.state["training"], contents.training)  # every tensor that it names is there
    except UserError as error:
        size = sum(file.stat().st_size for file in where.iterdir() if file.is_file())
        return Verified(path=where, problem=str(error), files=0, tensors=0, size=size)
    tensors = sum(map(len, contents.tensors.values())) + len(contents.training)
    return Verified(
        path=where, problem="", files=len(contents.files), tensors=tensors, size=sum(one.size for one in contents.files)
    )


def diff(first: Path | str, second: Path | str) -> Difference:
    """Return how two checkpoints, or plain files of tensors, differ in settings and tensors.

    Raises:
        CheckpointError: one of them is missing or damaged.
    """
    a, b = open_source(first), open_source(second)
    settings: list[Setting] = []
    changes: list[TensorChange] = []
    unknown: list[str] = []
    same = 0
    pairs = [(name, name) for name in a.models if name in b.models]
    if not pairs and len(a.models) == len(b.models) == 1:
        pairs = [(next(iter(a.models)), next(iter(b.models)))]
    for index, (one, other) in enumerate(pairs):
        (model_a, tensors_a), (model_b, tensors_b) = a.models[one], b.models[other]
        both = {name: name for name in model_a.tensors if name in model_b.tensors}
        config = (a.config, b.config) if not index else ({}, None)
        if model_b.modules is None and model_a.modules is not None:
            unknown.append("settings: one side is tensors alone")
        else:
            more, less = compare_settings(model_a, model_b, both, *config)
            settings += more
            unknown += less
        found = _tensors(one, model_a, model_b, tensors_a, tensors_b)
        changes += found
        same += len(both) - sum(1 for change in found if not change.kind.startswith("only"))
    return Difference(
        first=str(a.path), second=str(b.path), settings=tuple(settings), tensors=tuple(changes), same=same,
        models_only_in_first=_others(a, [pair[0] for pair in pairs]),
        models_only_in_second=_others(b, [pair[1] for pair in pairs]), not_compared=tuple(dict.fromkeys(unknown)),
    )  # fmt: skip


def is_good(path: Path | str) -> bool:
    """Return whether a checkpoint is marked good."""
    return (Path(path) / GOOD).is_file()


def _others(source: Source, names: list[str]) -> tuple[str, ...]:
    return tuple(name for name in source.models if name not in names)


def _step(value: Any) -> int | None:
    if value is None or type(value) is int:
        return value
    raise ValueError(f"the step is {value!r}")


def _tensors(
    model: str,
    one: DescribedModel,
    other: DescribedModel,
    tensors: Mapping[str, torch.Tensor],
    others: Mapping[str, torch.Tensor],
) -> list[TensorChange]:
    found = []
    for name in [*one.tensors, *(name for name in other.tensors if name not in one.tensors)]:
        a, b = one.tensors.get(name), other.tensors.get(name)
        first = "" if a is None else f"{_short(a.dtype)} {a.shape}"
        second = "" if b is None else f"{_short(b.dtype)} {b.shape}"
        if a is None or b is None:
            kind: Any = "only in the second" if a is None else "only in the first"
            found.append(TensorChange(model=model, name=name, kind=kind, first=first, second=second))
            continue
        here, there = tensors[a.tied_to or name], others[b.tied_to or name]
        if a.shape != b.shape:
            found.append(TensorChange(model=model, name=name, kind="shape", first=first, second=second))
            continue
        relative = relative_change(here, there)
        if a.dtype != b.dtype:
            found.append(
                TensorChange(model=model, name=name, kind="dtype", first=first, second=second, relative=relative)
            )
        elif not torch.equal(_bits(here), _bits(there)):
            found.append(
                TensorChange(model=model, name=name, kind="values", first=first, second=second, relative=relative)
            )
    return found


def relative_change(one: torch.Tensor, other: torch.Tensor) -> float | None:
    """Return |other - one| / |one| over all elements; None where nothing is finite about it, or one is all zeros."""
    if not one.numel():
        return None
    kind = torch.complex128 if one.is_complex() or other.is_complex() else torch.float64
    a, b = one.to(kind), other.to(kind)
    size, moved = torch.linalg.vector_norm(a).item(), torch.linalg.vector_norm(b - a).item()
    return moved / size if size > 0 and moved < float("inf") else (0.0 if moved == 0 else None)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor.reshape(-1)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

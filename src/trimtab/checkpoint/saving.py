"""Save a training, or a model alone, into a folder that is there whole or not at all."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from trimtab.checkpoint import generators, moments, strict_json, tensor_file
from trimtab.checkpoint.constructor import Constructor, constructor_of
from trimtab.checkpoint.description import DescribedModel, describe, describe_tensors, plain_of, with_hashes
from trimtab.checkpoint.state import Captured, TrainingState, unwrapped
from trimtab.checkpoint.tree import Plain, flatten, place, strided
from trimtab.checkpoint.writing import FORMAT, MODEL, STATE, TRAINING, new_folder
from trimtab.errors import CheckpointError, UserError

MODEL_NAME = "model"
"""What a model is called that was given without a name."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A metric as it was measured.

    Attributes:
        value: the number.
        noise: how far two measurements of the same weights may lie apart; 0 for an evaluation without chance.
        mode: how it was evaluated: "eval", "train", or words of your own.
    """

    value: float
    noise: float = 0.0
    mode: str = "eval"


def save(
    path: Path | str,
    model: nn.Module | Mapping[str, nn.Module] | TrainingState | Mapping[str, torch.Tensor],
    *,
    optimizers: Mapping[str, Optimizer] | Optimizer | None = None,
    parts: Mapping[str, Any] | None = None,
    build: Constructor | Mapping[str, Constructor] | None = None,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float | Measured] | None = None,
    step: int | None = None,
    seed: int | None = None,
    facts: Mapping[str, Any] | None = None,
    captured: Captured | None = None,
) -> Path:
    """Write a checkpoint: the folder `path`, whole or not at all.

    Args:
        path: the folder to make; it must not exist.
        model: one model, several by name, a TrainingState (with its optimizers and parts), or plain tensors by name.
        optimizers, parts: as in `TrainingState`, where `model` is none; one optimizer is called "main".
        build: how each model was made; found by itself for a model that `Constructor.build` made.
        config: settings to be compared when the checkpoint is loaded: any nest of plain values.
        metrics: what the weights were worth, with the noise of it where they are to be verified.
        step, seed: of the training.
        facts: whatever else is to be kept: any nest of plain values.
        captured: write this moment of the TrainingState and not the present one.

    Returns:
        The folder.

    Raises:
        CheckpointError: the folder exists, or the disk is full, read-only or gone. What was there is untouched.
        UserError: something cannot be stored without pickle, or a part has no state; the message says which.
    """
    if isinstance(model, Mapping) and model and all(isinstance(one, torch.Tensor) for one in model.values()):
        weights: Any = model
        return _save_tensors(path, weights, config, metrics, step, seed, facts)
    state = _training(model, optimizers, parts)
    moment = state.capture() if captured is None else captured
    if moment.left_out:
        name, why = next(iter(moment.left_out.items()))
        raise UserError(f"part {name!r} cannot be stored: {why}")
    models = {name: describe(one, _build_of(name, one, build, len(state.models))) for name, one in state.models.items()}
    alone = len(models) == 1
    return _write(
        Path(path), moment, models, {name: "" if alone else f"{name}/" for name in models},
        {"config": config, "metrics": _metrics(metrics), "facts": facts}, step=step, seed=seed,
    )  # fmt: skip


def _training(model: Any, optimizers: Any, parts: Mapping[str, Any] | None) -> TrainingState:
    if isinstance(model, TrainingState):
        if optimizers is not None or parts is not None:
            raise UserError("save: the TrainingState names optimizers and parts already; give them to it")
        if not model.models:
            raise UserError("save: the TrainingState has no model")
        return model
    models = {MODEL_NAME: model} if isinstance(model, nn.Module) else model
    if not isinstance(models, Mapping) or not models or not all(isinstance(one, nn.Module) for one in models.values()):
        raise UserError(f"save: expected a model, models by name or tensors by name, got {type(model).__name__}")
    if isinstance(optimizers, Optimizer):
        optimizers = {"main": optimizers}
    return TrainingState(models, optimizers, parts)


def _save_tensors(
    path: Path | str, tensors: Mapping[str, torch.Tensor], config: Any, metrics: Any, step: Any, seed: Any, facts: Any
) -> Path:
    for name, tensor in tensors.items():
        why = strided(tensor)
        if why is not None:
            raise UserError(f"{name!r} cannot be stored: it is {why}")
    moment = Captured(tensors={place("model", MODEL_NAME, name): tensor for name, tensor in tensors.items()})
    found = {"config": config, "metrics": _metrics(metrics), "facts": facts}
    return _write(
        Path(path), moment, {MODEL_NAME: describe_tensors(tensors)}, {MODEL_NAME: ""}, found, step=step, seed=seed
    )


def _build_of(name: str, model: nn.Module, build: Any, models: int) -> Constructor | None:
    given = build.get(name) if isinstance(build, Mapping) else build
    if given is None:
        return constructor_of(unwrapped(model))
    if not isinstance(given, Constructor) or (models > 1 and not isinstance(build, Mapping)):
        raise UserError("build: expected Constructor.of(Model, ...); with several models a mapping name -> Constructor")
    expected = moments.class_name(unwrapped(model))
    if given.class_name.replace(":", ".") != expected:
        raise UserError(f"build: model {name!r} is a {expected}, and the constructor is that of {given.class_name}")
    return given


def _metrics(metrics: Mapping[str, float | Measured] | None) -> dict[str, Any]:
    measured = {
        name: one if isinstance(one, Measured) else Measured(value=float(one)) for name, one in (metrics or {}).items()
    }
    return {
        name: {"value": float(one.value), "noise": float(one.noise), "mode": str(one.mode)}
        for name, one in measured.items()
    }


def _write(
    path: Path,
    moment: Captured,
    models: Mapping[str, DescribedModel],
    prefixes: Mapping[str, str],
    nests: Mapping[str, Any],
    *,
    step: int | None,
    seed: int | None,
) -> Path:
    plain = {key: _plain(key, value) for key, value in nests.items()}
    weights: dict[str, torch.Tensor] = {}
    training = {key: tensor for key, tensor in moment.tensors.items() if not key.startswith("model/")}
    kept_as: dict[tuple[str, str], str] = {}
    for name, model in models.items():
        for called, one in model.tensors.items():
            if one.tied_to is not None:
                continue
            key = place("model", name, called)
            if key not in moment.tensors:
                raise UserError(f"model {name!r} has a new tensor {called!r} that was not there when it was captured")
            if one.persistent:
                kept_as[name, called] = prefixes[name] + called
                weights[prefixes[name] + called] = moment.tensors[key]
            else:
                training[key] = moment.tensors[key]
    finite = all(map(is_finite, weights.values()))
    try:
        with new_folder(path) as folder:
            hashes = folder.file(MODEL, lambda put: tensor_file.write(weights, put))
            more = folder.file(TRAINING, lambda put: tensor_file.write(training, put))
            described = {}
            for name, model in models.items():
                mine = {
                    called: hashes[kept_as[name, called]] if one.persistent else more[place("model", name, called)]
                    for called, one in model.tensors.items()
                    if one.tied_to is None
                }
                extra = moment.plain.get("models", {}).get(name)
                described[name] = plain_of(with_hashes(model, mine, extra, prefixes[name]))
            state = {
                "format": FORMAT,
                "step": step,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": versions(),
                "seed": {"given": seed, **generators.seeds()},
                "models": described,
                **plain,
                "finite": finite,
                "training": {key: held for key, held in moment.plain.items() if key != "models"} or None,
            }
            folder.file(STATE, lambda put: put(strict_json.dumps(state)))
    except torch.OutOfMemoryError as error:
        raise CheckpointError(f"{path}: no memory to write from: {error}; nothing was stored") from error
    return path


def _plain(key: str, value: Any) -> Plain:
    tensors, plain = flatten({} if value is None else _as_dict(key, value), key)
    if tensors:
        raise UserError(f"{next(iter(tensors))!r} is a tensor; {key} may hold plain values only, make it a number")
    return plain


def _as_dict(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{key}: expected a mapping, got {type(value).__name__}")
    return dict(value)


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether no element is NaN or infinite; what cannot be either is finite."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return True
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
        tensor = tensor.to(torch.float32)
    # The extremes are NaN when one element is: no mask as large as the tensor.
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return all(math.isfinite(float(extreme)) for extreme in torch.aminmax(values))


def versions() -> dict[str, str]:
    """Return the versions of what was used."""
    return {
        "trimtab": version("trimtab"),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }

"""What a user hands to a Guard, checked: a wrong kind of thing is an error at once, and says what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from trimtab.checkpoint.snapshots import Ring
from trimtab.checkpoint.state import is_restorable
from trimtab.errors import UserError
from trimtab.patience import Patience
from trimtab.records import Value

MAIN = "main"
"""The stream of an only optimizer."""


def models_of(model: Any) -> list[nn.Module] | None:
    """Return the modules that were handed over, None for None; raise UserError for anything else."""
    if model is None:
        return None
    models = list(model) if isinstance(model, (list, tuple)) else [model]
    for one in models:
        if not isinstance(one, torch.nn.Module):
            raise UserError(f"Guard: model must be a torch.nn.Module (or a list of them), got {type(one).__name__}")
    return models


def optimizers_of(optimizer: Any) -> dict[str, torch.optim.Optimizer] | None:
    """Return stream name -> optimizer, the wrapped one of a wrapper; None for None; raise UserError otherwise."""
    if optimizer is None:
        return None
    named = dict(optimizer) if isinstance(optimizer, Mapping) else {MAIN: optimizer}
    for name, one in named.items():
        inner = getattr(one, "optimizer", one)  # Accelerate and others wrap the real one
        if not isinstance(inner, torch.optim.Optimizer):
            raise UserError(f"Guard: optimizer {name!r} must be a torch.optim.Optimizer, got {type(one).__name__}")
        named[name] = inner
    return named


def early_stop_of(early_stop: Any) -> Patience | None:
    """Return the patience that was handed over, None for None; raise UserError for anything else."""
    if early_stop is None or isinstance(early_stop, Patience):
        return early_stop
    raise UserError(
        f"Guard: early_stop={early_stop!r}; expected a Patience, such as "
        "Patience(metric='validation/loss', better='lower', patience=5)"
    )


def parts_of(state: Any) -> dict[str, Any]:
    """Return the parts of a training by name; raise UserError for one that no rollback could put back."""
    if state is None:
        return {}
    if not isinstance(state, Mapping):
        raise UserError(
            f"Guard: state must be a mapping from names to parts, such as {{'batches': batches}}, got "
            f"{type(state).__name__}"
        )
    for name, part in state.items():
        if not is_restorable(part):
            raise UserError(
                f"Guard: state[{name!r}] is a {type(part).__name__}, which has no state_dict and load_state_dict, so "
                "that no rollback could put it back; leave it out, or give its class both. For the position in the "
                "data there is trimtab.batches.Batches"
            )
    return dict(state)


def ring_of(snapshots: Any) -> Ring | None:
    """Return how snapshots are taken, None for not at all; raise UserError for anything else."""
    if snapshots is None or isinstance(snapshots, Ring):
        return snapshots
    raise UserError(
        f"Guard: snapshots={snapshots!r}; expected trimtab.checkpoint.snapshots.Ring(every=25, keep=3), or None"
    )


def value_of(name: str, value: Any) -> Value:
    """Return a recorded quantity as a float or a tuple of floats; raise UserError that names it otherwise."""
    try:
        if hasattr(value, "tolist"):
            value = value.tolist()
        return tuple(float(part) for part in value) if isinstance(value, (list, tuple)) else float(value)
    except (TypeError, ValueError):
        raise UserError(
            f"record: {name!r} must be a number or a flat sequence of numbers, got {type(value).__name__}"
        ) from None


def fields_of(thing: Any) -> dict[str, Any]:
    """Return the fields of a rule or an action, to be stored with the run; its folds follow from them."""
    if isinstance(thing, type) or not is_dataclass(thing):
        return {}
    return {field.name: getattr(thing, field.name) for field in fields(thing) if field.name != "folds"}

"""The checkpoint that the write-up started from: loaded as it should be, loaded as it was, or made here.

The original is not available. This one is made the same way: encoder and decoder learn to give every operation back,
the heads learn the radii on top, with a dropout that the models of the sweep do not have.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch

from trimtab.checkpoint import load, plan, read_plain, save
from trimtab.errors import CheckpointError, ConfigError
from trimtab.system import Training
from trimtab_systems.ternary.write_up.model import WriteUpModel

WEIGHTS = "model.safetensors"
"""The file with the weights in a checkpoint folder."""
SECOND = ("encoder_b.*", "projection_b.*")
"""What a model with a second encoder has more; it begins as a copy of the first one."""


def load_matched(model: WriteUpModel, path: str | Path) -> None:
    """Load all weights of a checkpoint; a dropout that was taken away is allowed for, name by name.

    Settings may differ from those of the checkpoint: the configuration of the training says what they are.

    Raises:
        CheckpointError: a weight of the model is not in the checkpoint, or has another shape.
    """
    missing = list(SECOND) if model.encoder_b is not None else []
    found = plan(path, model, allow_missing=missing)
    rename = dict(one.pattern for one in found.likely_renames)
    found = plan(path, model, allow_missing=missing, rename=rename)
    override = {setting.key: ... for setting in found.settings}
    load(found.source, model, allow_missing=missing, rename=rename, override=override)
    _copy_to_second(model)


def load_mismatched(model: WriteUpModel, path: str | Path) -> None:
    """Load by name and pass over what does not fit, as the write-up did.

    A checkpoint that was saved with a dropout in the heads leaves the last layers of a model without one random.

    Raises:
        ConfigError: a weight has another shape, which not even `strict=False` passes over.
    """
    weights = read_plain(Path(path) / WEIGHTS)
    try:
        model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ConfigError(f"checkpoint {path}: does not fit the model; {error}") from None
    _copy_to_second(model)


def _copy_to_second(model: WriteUpModel) -> None:
    if model.encoder_b is not None and model.projection_b is not None:
        model.encoder_b.load_state_dict(model.encoder.state_dict())
        model.projection_b.load_state_dict(model.projection.state_dict())


def train_plainly(training: Training) -> None:
    """Take every update of a training without a Guard; nothing is evaluated or recorded."""
    training.model.train()
    for step in range(training.steps):
        loss = training.loss(training.model, next(training.batches))
        loss.backward()
        if training.clip is not None:
            torch.nn.utils.clip_grad_norm_(training.model.parameters(), training.clip)
        for optimizer in training.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        if training.schedule is not None:
            training.schedule(step)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that lasts as long as this process."""
    return tempfile.TemporaryDirectory(prefix="trimtab-ternary-")


def keep(training: Training, name: str) -> Path:
    """Save the model of a training in a folder that lasts as long as this process, and return the checkpoint."""
    try:
        return save(Path(_folder().name) / name, training.model)
    except CheckpointError as error:
        raise ConfigError(f"the base checkpoint could not be kept: {error}; name one with checkpoint=") from error

"""The write-up's configuration file: what becomes of each of its keys, and the settings that it stands for.

    python -m trimtab_systems.sci.write_up.yaml_keys              the table, for the file that lies beside this one
    python -m trimtab_systems.sci.write_up.yaml_keys my.yaml      ... for a file of one's own

The keys of the blocks in sections 2 to 4 are known as well, below the name that each block begins with, such as
`structural_encoder.gnn.edge_dim`. A key is honoured (it is a setting here, with the same meaning), mapped (another
setting stands for what it was for), or without effect, each with the reason. One that is unknown is an error.

Source: the write-up, section 6 for the file, sections 2 to 4 for what the file leaves out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trimtab.config import of_dict
from trimtab.config.given import read_file
from trimtab.errors import ConfigError, nearest
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.settings import OPERATORS
from trimtab_systems.sci.write_up.yaml_key import GENERATION, PHASE, Fate, Key, mapped, nothing, same
from trimtab_systems.sci.write_up.yaml_sections import SECTION_KEYS

FILE = Path(__file__).with_name("as_written.yaml")

KEYS: Mapping[str, Key] = {
    "experiment.name": nothing("a run is named by system and preset; give trimtab train --name"),
    "experiment.description": nothing("kept in this file; it changes nothing"),
    "experiment.seeds": nothing("a seed is an argument of a training: trimtab train sci --seed 42, and so on"),
    "model.base_model": mapped(
        "no model is known by that name, T5-small has a width of 512 and not 768, and its positions cannot be made "
        "rotary: an encoder-decoder of its depth (6 + 6 layers) from random weights; base='t5' takes a T5",
        ("google/t5-small", "google-t5/t5-small", "t5-small"),
        base="own", encoder_layers=6, decoder_layers=6,
    ),
    "model.max_length": same("max_length"),
    "model.positional_encoding.type": same("positions"),
    "model.positional_encoding.base": same("rotary_base"),
    "sci.structural_encoder.num_slots": same("slots"),
    "sci.structural_encoder.num_gnn_layers": same("gnn_layers"),
    "sci.structural_encoder.hidden_dim": mapped("every stream has one width, so no projection is needed between them",
        width=lambda value: value),
    "sci.structural_encoder.dropout": mapped("one dropout for the whole network", dropout=lambda value: value),
    "sci.abstraction_layer.num_features": same("features"),
    "sci.abstraction_layer.temperature": same("temperature"),
    "sci.abstraction_layer.learned_temperature": same("learned_temperature"),
    "sci.content_encoder.num_layers": same("content_layers"),
    "sci.content_encoder.use_shared_embeddings": same("use_shared_embeddings"),
    "sci.cbm.num_heads": mapped("the same heads as everywhere, 8 of 96 dimensions (section 2.2)",
        binding_heads=lambda value: value, heads=lambda value: value),
    "sci.cbm.num_iterations": same("binding_iterations"),
    "sci.cbm.injection_scale": same("injection_scale"),
    "sci.injection_layers": mapped(
        "a decoder of 6 layers has no ninth; upstream's 3, 6, 9 are 25, 50 and 75 % of 12: those fractions",
        ([3, 6, 9],), injection_fractions=(0.25, 0.5, 0.75),
    ),
    "training.optimizer": nothing("AdamW is the only one", ("adamw",)),
    "training.base_lr": same("base_lr"),
    "training.sci_lr": same("sci_lr"),
    "training.weight_decay": same("weight_decay"),
    "training.scheduler": same("scheduler"),
    "training.warmup_ratio": same("warmup_ratio"),
    "training.min_lr_ratio": same("min_lr_ratio"),
    "training.batch_size": same("batch"),
    "training.gradient_accumulation_steps": same("accumulate"),
    "training.max_grad_norm": same("clip"),
    "training.num_epochs": same("epochs"),
    "training.loss_weights.task": same("task_weight"),
    "training.loss_weights.scl": same("scl_weight"),
    "training.loss_weights.scl_warmup_epochs": same("scl_warmup_epochs"),
    "training.loss_weights.orthogonality": mapped(
        "where content is projected the term is zero, so it is recorded and not minimised; orthogonality='penalty' "
        "minimises it", orthogonality_weight=lambda value: float(value),
    ),
    "training.loss_weights.eos": same("eos_weight"),
    "training.early_stopping.patience": same("patience"),
    "training.early_stopping.min_delta": same("min_delta"),
    "training.early_stopping.metric": mapped(
        "exact match on examples carved out of the training set, as SCAN has no validation set; counted from the last "
        "phase of the curriculum on", ("val_exact_match",), validation="carved",
    ),
    "training.checkpoint_steps": nothing("an argument of a training: checkpoint_every=1000"),
    "training.save_total_limit": nothing("an argument of a training: keep=3, which is its default as well"),
    "evaluation.max_new_tokens": same(GENERATION + "max_new_tokens"),
    "evaluation.do_sample": same(GENERATION + "do_sample"),
    "evaluation.temperature": same(GENERATION + "temperature"),
    "evaluation.num_beams": same(GENERATION + "num_beams"),
    "evaluation.repetition_penalty": same(GENERATION + "repetition_penalty"),
    "evaluation.length_penalty": same(GENERATION + "length_penalty"),
    "evaluation.metrics": nothing(
        "all three are always measured", (["exact_match", "token_accuracy", "length_accuracy"],)
    ),
    "logging.log_steps": nothing("rows of a run are kept, and the network's own quantities recorded every 10", (10,)),
    "logging.tensorboard": nothing("a run folder has the numbers; trimtab report draws them"),
    "logging.wandb.enabled": nothing("nothing is sent anywhere; a run folder has the numbers"),
    "logging.wandb.project": nothing("nothing is sent anywhere"),
}  # fmt: skip
"""Every key of the file."""

ALL_KEYS: Mapping[str, Key] = {**KEYS, **SECTION_KEYS}
"""Those of the file, and those that stand in sections 2 to 4 alone."""

SECTIONS: Mapping[str, Any] = {
    "profile": "as_written",
    "rotary_width": 64,
    "mlp_ratio": 4,
    "edge_dim": 64,
    "slot_attention": "plain",
    "temperature_form": "clamp",
    "gradient_checkpointing": True,
    "binding_entropy_form": "as_written",
    "binding_max_entropy": 3.0,
    "length_phases": ((0, 20), (3, 50), (8, 88)),
    "structure_phases": ((0, 2), (5, 4), (12, OPERATORS)),
}
"""What sections 2 to 4 ask for beside the file, where a training from scratch does otherwise."""


def load(path: Path | str = FILE, start: WriteUpConfig | None = None) -> WriteUpConfig:
    """Return the settings that a configuration file of the write-up's form stands for.

    Args:
        path: of the file.
        start: what the file is laid over; None for the write-up's own settings, those of `FILE` and of sections 2 to 4.

    Raises:
        ConfigError: the file cannot be read, a key is none of the write-up's, or a value has no meaning here.
    """
    values: dict[str, Any] = {}
    if start is None:
        if Path(path) != FILE:
            return load(path, load())
        start, values = WriteUpConfig(), dict(SECTIONS)
    for name, value in sorted(
        _given(Path(path)), key=lambda item: item[1] is False
    ):  # what is off is off, weight or not
        for setting, one in _settings(Path(path), name, value).items():
            inside, _, last = setting.rpartition(".")
            if PHASE in setting:
                curriculum, place, part = setting.split(PHASE)
                phases = values.setdefault(curriculum, [list(phase) for phase in getattr(start, curriculum)])
                phases[int(place)][int(part)] = one
            else:
                (values.setdefault(inside, {}) if inside else values)[last] = one
    return of_dict(start, values, str(path))  # type: ignore[no-any-return]  # the type of what it is given


def _settings(path: Path, name: str, value: Any) -> dict[str, Any]:
    """Return the settings that one key stands for."""
    try:
        return ALL_KEYS[name].settings(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{path}: {name}: expected a number, got {value!r}") from None


def fates(path: Path | str = FILE) -> list[tuple[str, Any, Fate, str]]:
    """Return, for each key of a file, its value, what becomes of it, and the settings or the reason.

    Raises:
        ConfigError: as `load`.
    """
    rows: list[tuple[str, Any, Fate, str]] = []
    for name, value in _given(Path(path)):
        key, given = ALL_KEYS[name], _settings(Path(path), name, value)
        settings = ", ".join(f"{setting}={one!r}" for setting, one in given.items())
        rows.append((name, value, key.fate, "; ".join(part for part in (settings, key.because) if part)))
    return rows


def _given(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a file and their values.

    Raises:
        ConfigError: an unknown key, or a value that has no meaning here.
    """
    for one in read_file(path):
        value = one.values[0]
        if one.key not in ALL_KEYS:
            raise ConfigError(
                f"{one.where}: the write-up's configuration has no key {one.key!r}.{nearest(one.key, ALL_KEYS)}"
            )
        key = ALL_KEYS[one.key]
        if key.allowed is not None and value not in key.allowed:
            known = " or ".join(repr(each) for each in key.allowed)
            raise ConfigError(f"{one.where}: {one.key}: only {known} has a meaning here ({key.because}), got {value!r}")
        yield one.key, value


def main(arguments: list[str]) -> int:
    """Print what becomes of each key of a file; return 0, or 2 when it cannot be used."""
    path = Path(arguments[0]) if arguments else FILE
    try:
        rows = fates(path)
        load(path)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    wide = max(len(name) for name, *_ in rows)
    for name, value, fate, text in rows:
        sys.stdout.write(f"{name:{wide}}  {value!s:.24}  {fate}: {text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

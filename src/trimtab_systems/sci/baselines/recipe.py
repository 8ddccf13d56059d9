"""How the baselines are trained: the settings, the presets, and a training made of them.

Both learn from commands and answers alone, symbol by symbol after the true beginning, and stop at a symbol of their
own. They are measured as the write-up's network is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from trimtab.batches import Batches
from trimtab.checkpoint import Constructor
from trimtab.errors import ConfigError, nearest
from trimtab.system import Training
from trimtab_systems.sci.baselines.lstm import LstmNetwork
from trimtab_systems.sci.data import (
    ACTIONS,
    PAD,
    SPLITS,
    Example,
    carve,
    encode,
    proxy_of,
    targets,
    train_of,
)
from trimtab_systems.sci.scores import rates
from trimtab_systems.sci.write_up.config import Positions, WriteUpConfig
from trimtab_systems.sci.write_up.generate import Generation, generate
from trimtab_systems.sci.write_up.model import SCITransformer
from trimtab_systems.sci.write_up.schedule import Course, Rates, groups

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Commands (B, N), inputs and labels (B, T) as of `data.targets`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineConfig:
    """The settings of a training that both baselines have."""

    split: str = "length"
    """One of the splits of `sci.data`; only its training half is read."""
    validation: str = "carved"
    """"carved": a share of the training examples. "proxy": trained on up to 15 actions, validated on longer ones."""
    validation_share: float = 0.1
    """Share of the distinct training commands that "carved" sets aside."""
    split_seed: int = 0
    """Of the draws of the validation set, so that trainings of all seeds are measured on the same."""
    examples: int = 0
    """Train on the first so many of a draw from the training examples; 0 for all."""

    width: int = 128
    """Of all vectors."""
    dropout: float = 0.1
    """Share of numbers that are left out while it trains."""
    steps: int = 1500
    """Updates."""
    batch: int = 64
    """Examples in a batch."""
    lr: float = 1e-3
    """Peak rate of AdamW."""
    weight_decay: float = 0.01
    """Of AdamW; none on biases and norms."""
    warmup_ratio: float = 0.1
    """Share of the updates in which the rate rises; a half cosine to a hundredth follows."""
    clip: float = 1.0
    """Largest global gradient norm; larger ones are scaled down to it."""
    evaluate_every: int = 250
    """Updates between two evaluations."""
    evaluate_examples: int = 500
    """Validation examples of an evaluation, the same each time; 0 for all."""
    generation: Generation = field(default_factory=lambda: Generation(eos_threshold=None))
    """How answers are written when it is evaluated; greedy."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(
                f"split: expected one of {', '.join(SPLITS)}, got {self.split!r}.{nearest(self.split, SPLITS)}"
            )
        if self.validation not in ("carved", "proxy"):
            raise ConfigError(
                f"validation: expected one of carved, proxy, got {self.validation!r}; the test commands are for the "
                "last measurement of a finished model alone"
            )
        for name, least in _LEAST.items():
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name}: expected at least {least:g}, got {getattr(self, name)!r}")
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected a number above 0, got {getattr(self, name)!r}")
        if not (0 <= self.dropout < 1 and 0 <= self.warmup_ratio <= 1):
            raise ConfigError(
                f"dropout, warmup_ratio: expected shares from 0 to 1, got {self.dropout!r} and {self.warmup_ratio!r}"
            )


_LEAST: Mapping[str, float] = {
    **dict.fromkeys(("steps", "batch", "evaluate_every"), 1),
    **dict.fromkeys(("weight_decay", "examples", "evaluate_examples", "split_seed"), 0),
    "width": 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatConfig(BaselineConfig):
    """The settings of the flat Transformer: the base of the write-up's network, without its structure stream."""

    width: int = 64
    """Of all vectors; with 128 an update takes twice as long."""
    dropout: float = 0.05
    """Share of numbers that are left out while it trains."""
    lr: float = 2e-3
    """Peak rate of AdamW."""
    heads: int = 4
    """Attention heads."""
    encoder_layers: int = 2
    """Layers of the encoder."""
    decoder_layers: int = 3
    """Layers of the decoder."""
    positions: Positions = "rotary"
    """Of all self-attention."""

    def __post_init__(self) -> None:
        # Not super(): the decorator makes a new class because of the slots, and super() would look for the old one.
        BaselineConfig.__post_init__(self)
        self.network()

    def network(self) -> WriteUpConfig:
        """Return the settings of the network; ConfigError where they do not fit together."""
        return WriteUpConfig(
            sci=False,
            split=self.split,
            width=self.width,
            heads=self.heads,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            positions=self.positions,
            position_noise=0.0,
            dropout=self.dropout,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LstmConfig(BaselineConfig):
    """The settings of the LSTM with attention."""

    layers: int = 1
    """Layers of the encoder, and of the decoder."""
    lr: float = 3e-3
    """Peak rate of AdamW."""

    def __post_init__(self) -> None:
        BaselineConfig.__post_init__(self)
        if self.layers < 1 or self.width % 2:
            raise ConfigError(
                f"layers, width: expected at least one layer and an even width, half of it for each direction, got "
                f"{self.layers!r} and {self.width!r}"
            )


Config = FlatConfig | LstmConfig

BETTER: Mapping[str, Literal["higher", "lower"]] = {
    "exact_match": "higher",
    "token_accuracy": "higher",
    "length_accuracy": "higher",
}


def build(config: Config, seed: int) -> Training:
    """Return a training whose weights and batches are a function of `seed`."""
    train, validation = _examples(config)
    encoded = encode(train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(config, FlatConfig):
            model = Constructor.of(SCITransformer, config=config.network()).build()
        else:
            model = Constructor.of(LstmNetwork, config.width, config.layers, config.dropout).build()
    parameters = groups(model, (), (), {"base": config.lr}, config.weight_decay)
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.999), eps=1e-8, fused=True)
    course = Course(steps=config.steps, warmup_ratio=config.warmup_ratio)
    return Training(
        model=model,
        optimizers={"main": optimizer},
        batches=Batches((encoded.words_BN, *targets(encoded)), config.batch, seed, drop_last=True),
        loss=loss,
        evaluate=_evaluation(config, model, validation),
        better=BETTER,
        steps=config.steps,
        evaluate_every=config.evaluate_every,
        clip=config.clip,
        schedule=Rates(optimizer, course).after,
    )


def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy of the symbols of a batch, EOS among them."""
    words_BN, inputs_BT, labels_BT = batch
    words = int((words_BN != 0).any(0).sum())  # what is behind the longest of the batch is padding to all
    symbols = int((labels_BT != PAD).any(0).sum())
    _, decoded = model(words_BN[:, :words], inputs_BT[:, :symbols])
    return F.cross_entropy(decoded.logits_BTV.flatten(0, 1), labels_BT[:, :symbols].flatten(), ignore_index=PAD)


def _examples(config: BaselineConfig) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    everything = train_of(config.split, config.split_seed)
    if config.validation == "proxy":
        train, validation = proxy_of(everything)
    else:
        train, validation = carve(everything, config.validation_share, config.split_seed)
    return _drawn(train, config.examples, config), _drawn(validation, config.evaluate_examples, config)


def _drawn(some: tuple[Example, ...], count: int, config: BaselineConfig) -> tuple[Example, ...]:
    if not count:
        return some
    order = torch.randperm(len(some), generator=torch.Generator().manual_seed(config.split_seed))
    return tuple(some[place] for place in sorted(order[:count].tolist()))


def _evaluation(
    config: BaselineConfig, model: nn.Module, validation: tuple[Example, ...]
) -> Callable[[], Mapping[str, float]]:
    words_BN = encode(validation).words_BN
    number = {action: place for place, action in enumerate(ACTIONS)}
    answers = [tuple(number[action] for action in example.actions) for example in validation]

    def evaluate() -> Mapping[str, float]:
        found = rates(generate(model, words_BN, config.generation), answers)
        return {name: getattr(found, name) for name in BETTER}

    return evaluate


# --- presets --------------------------------------------------------------------------------------


def flat() -> FlatConfig:
    """Return the flat rotary Transformer."""
    return FlatConfig()


def lstm() -> LstmConfig:
    """Return the LSTM with attention."""
    return LstmConfig()


PRESETS: Mapping[str, Callable[[], Any]] = {"flat": flat, "lstm": lstm}

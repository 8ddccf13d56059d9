"""A System for `benchmarks.sweep_engine`, whose trials take a fraction of a second: numbers are moved towards 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from trimtab.system import System, Training


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings."""

    lr: float = 0.1
    steps: int = 200


class Numbers(nn.Module):
    """Eight numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.randn(8))


def build(config: Config, seed: int) -> Training:
    """Return a training on noisy targets."""
    model = Numbers()
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield 1 + 0.1 * torch.randn(8, generator=generator)

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        assert isinstance(model, Numbers)
        return (model.x - batch).square().mean()

    return Training(
        model=model,
        optimizers={"main": torch.optim.SGD(model.parameters(), lr=config.lr)},
        batches=batches(),
        loss=loss,
        evaluate=lambda: {"distance": (model.x - 1).square().mean().item()},
        better={"distance": "lower"},
        steps=config.steps,
        evaluate_every=20,
        evaluate_first=True,
    )


SYSTEM = System(
    name="numbers",
    summary="numbers that are moved towards 1",
    presets={"tiny": Config, "reference": Config},
    build=build,
)

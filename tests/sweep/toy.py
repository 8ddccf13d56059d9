"""A System so small that a trial of it takes milliseconds: a number that is moved towards 1."""

import dataclasses
import time

import torch
from torch import nn

from trimtab.system import System, Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    lr: float = 0.1
    steps: int = 4
    crash: bool = False
    """Raise in the middle of the training."""
    pause: float = 0.0
    """Seconds before each update."""
    checkpoint: str = ""
    kind: str = "plain"


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.randn(()))

    def forward(self, batch):
        return ((self.x - 1 + 0.01 * batch) ** 2).mean()


def build(config, seed):
    model = One()
    generator = torch.Generator().manual_seed(seed)

    def batches():
        for number in range(10**6):
            if config.crash and number == 2:
                raise RuntimeError("the disk is full")
            time.sleep(config.pause)
            yield torch.randn(4, generator=generator)

    return Training(
        model=model,
        optimizers={"main": torch.optim.SGD(model.parameters(), lr=config.lr)},
        batches=batches(),
        loss=lambda model, batch: model(batch),
        evaluate=lambda: {"distance": abs(model.x.item() - 1), "x": model.x.item()},
        better={"distance": "lower"},
        steps=config.steps,
        evaluate_every=2,
        evaluate_first=True,
    )


SYSTEM = System(
    name="toy",
    summary="a number that is moved towards 1",
    presets={"tiny": Config, "reference": lambda: Config(steps=8)},
    build=build,
)

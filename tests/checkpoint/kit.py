"""Small trainings to be saved, and ways to damage what was saved."""

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from trimtab.checkpoint import TrainingState


class Projection(nn.Module):
    """The two heads of the seed's model: dropouts shift the numbers of the layers behind them."""

    def __init__(self, size: int = 8, hidden: int = 16, dropout: float = 0.1, max_radius: float = 0.95):
        super().__init__()
        drop = [nn.Dropout(dropout)] if dropout > 0 else []
        self.direction_net = nn.Sequential(
            nn.Linear(size, hidden), nn.LayerNorm(hidden), nn.SiLU(), *drop, nn.Linear(hidden, size)
        )
        self.radius_net = nn.Sequential(nn.Linear(size, hidden), nn.SiLU(), *drop, nn.Linear(hidden, 1))
        self.max_radius = max_radius


class TwoProjections(nn.Module):
    def __init__(self, projection_dropout: float = 0.1, max_radius: float = 0.95, curvature: float = 1.0):
        super().__init__()
        self.a = Projection(dropout=projection_dropout, max_radius=max_radius)
        self.b = Projection(dropout=projection_dropout, max_radius=max_radius)
        self.register_buffer("curvature", torch.tensor(curvature))


class Small(nn.Module):
    """A ReLU network with a BatchNorm, a tied tensor, a buffer that is not persistent, and settings."""

    def __init__(self, size: int = 4, *, hidden: int = 6, eps: float = 1e-3, tied: bool = False, kind: str = "plain"):
        super().__init__()
        self.first = nn.Linear(size, hidden)
        self.norm = nn.BatchNorm1d(hidden, eps=eps)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(hidden, size)
        if tied:
            self.last.weight = nn.Parameter(self.first.weight.detach().t().contiguous())
            self.again = nn.Linear(size, hidden, bias=False)
            self.again.weight = self.first.weight
        self.kind = kind
        self.register_buffer("scale", torch.full((size,), 2.0), persistent=False)

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.norm(self.first(x))))) * self.scale


class Places:
    """A position in the data."""

    is_data = True

    def __init__(self):
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Training:
    """Two optimizers, two schedules, dropout, generators of three kinds."""

    def __init__(self, seed: int = 0):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        self.model = Small()
        self.critic = nn.Linear(4, 1)
        self.optimizers = {
            "main": torch.optim.AdamW(self.model.parameters(), lr=1e-2),
            "critic": torch.optim.SGD(self.critic.parameters(), lr=1e-2, momentum=0.9),
        }
        self.parts: dict[str, Any] = {
            "one-cycle": torch.optim.lr_scheduler.OneCycleLR(self.optimizers["main"], 1e-1, total_steps=500),
            "plateau": torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizers["critic"], patience=2),
            "generator": torch.Generator().manual_seed(seed),
            "numpy": np.random.default_rng(seed),
            "python": random.Random(seed),
            "places": Places(),
        }
        self.state = TrainingState({"model": self.model, "critic": self.critic}, self.optimizers, self.parts)

    def steps(self, count: int) -> "Training":
        for _ in range(count):
            x = torch.randn(8, 4, generator=self.parts["generator"]) + float(self.parts["numpy"].normal())
            x = x + torch.rand(4) + np.random.rand() + random.random() + self.parts["python"].random()
            x = x + self.parts["places"].position / 100
            self.parts["places"].position += 1
            loss = (self.model(x) - x).square().mean() + self.critic(x).square().mean()
            for optimizer in self.optimizers.values():
                optimizer.zero_grad()
            loss.backward()
            for optimizer in self.optimizers.values():
                optimizer.step()
            self.parts["one-cycle"].step()
            self.parts["plateau"].step(loss.item())
        return self

    def weights(self) -> dict[str, torch.Tensor]:
        return {key: value.clone() for key, value in self.state.capture().tensors.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def kept(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}


def seal(folder: Path) -> None:
    """Write a manifest that agrees with the files as they are now: a liar who knows the format."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, entry in manifest["files"].items():
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            entry.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    path.write_text(json.dumps(manifest))


class Runs:
    """Unpickling this would write a file."""

    def __reduce__(self):
        return os.mkdir, ("/tmp/trimtab-unpickled",)


def damaged(content: bytes, draw: Any) -> bytes:
    """Damage bytes in one of six ways, as hypothesis draws it."""
    kind = draw(st.sampled_from(["flip", "cut", "splice", "overwrite", "double", "swap"]))
    begin: int = draw(st.integers(0, len(content) - 1))
    length: int = draw(st.integers(1, 64))
    if kind == "flip":
        changed = bytearray(content)
        changed[begin] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    if kind == "cut":
        return content[:begin]
    if kind == "splice":
        return content[:begin] + content[begin + length :]
    if kind == "overwrite":
        new: bytes = draw(st.binary(min_size=1, max_size=16))
        return content[:begin] + new + content[begin + len(new) :]
    if kind == "double":
        return content[:begin] + content[begin : begin + length] + content[begin:]
    return content[begin:] + content[:begin]

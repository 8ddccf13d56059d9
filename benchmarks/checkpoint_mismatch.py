"""What a checkpoint is worth that is loaded into a model without its dropouts: the bug of seed file 003, rebuilt.

    python -m benchmarks.checkpoint_mismatch           # a minute; stores results/checkpoint_mismatch.json
    python -m benchmarks.checkpoint_mismatch --loads 5 # a few loads, nothing stored

An autoencoder of the 3^9 = 19,683 strings is trained, then frozen, and two projections learn to place each string at a
radius that falls with its 3-adic valuation. The hierarchy of a model is the rank correlation of valuation and radius;
ties in the valuation bound it by -0.832. The checkpoint was saved with a dropout in both heads of both projections; the
model that loads it has none. The numbers of the last layers shift, `load_state_dict(strict=False)` leaves them at
initialisation and says so only in a value that nobody reads: the hierarchy that a study then starts from is that of a
random layer, another one in each run.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.stored import store
from trimtab.checkpoint import Constructor, Measured, load, plan, rebuild, save
from trimtab.errors import CheckpointError

COMMAND = "python -m benchmarks.checkpoint_mismatch"
LOADS = 50
TRAINED = (0, 1, 2)
STEPS = 400
NOISE = 0.5
DIGITS = 9


class Projection(nn.Module):
    """From a latent to a direction and a radius inside the ball; shaped as the write-up describes it."""

    def __init__(self, latent: int, hidden: int, dropout: float, max_radius: float):
        super().__init__()
        drop = [nn.Dropout(dropout)] if dropout > 0 else []
        self.direction_net = nn.Sequential(
            nn.Linear(latent, hidden), nn.LayerNorm(hidden), nn.SiLU(), *drop, nn.Linear(hidden, latent)
        )
        self.radius_net = nn.Sequential(nn.Linear(latent, hidden // 2), nn.SiLU(), *drop, nn.Linear(hidden // 2, 1))
        self.max_radius = max_radius

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the point and its radius."""
        radius = self.max_radius * torch.sigmoid(self.radius_net(x)).squeeze(-1)
        return nn.functional.normalize(self.direction_net(x), dim=-1) * radius[:, None], radius


class Ternary(nn.Module):
    """An autoencoder of strings and two projections of its latent."""

    def __init__(self, latent: int = 16, hidden: int = 64, projection_dropout: float = 0.1, max_radius: float = 0.95):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3 * DIGITS, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, 3 * DIGITS))
        self.projection_a = Projection(latent, hidden, projection_dropout, max_radius)
        self.projection_b = Projection(latent, hidden, projection_dropout, max_radius)


def strings() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the digits of 0 .. 3^9 - 1, lowest first, (19683, 9), and how often 3 divides each number (9 for 0)."""
    numbers = torch.arange(3**DIGITS)
    digits = torch.stack([numbers // 3**place % 3 for place in range(DIGITS)], dim=1)
    valuation = (digits != 0).to(torch.int64).cumsum(1).eq(0).sum(1)
    return digits, valuation


def train(model: Ternary, digits: torch.Tensor, valuation: torch.Tensor, seed: int) -> None:
    """Train encoder and decoder to give every string back from a noisy latent, then the projections on that latent."""
    torch.manual_seed(seed)
    rare = torch.nonzero(valuation >= 5).squeeze(1)
    inputs = nn.functional.one_hot(digits, 3).flatten(1).float()
    target = 0.9 - 0.8 / DIGITS * valuation
    heads = [model.projection_a, model.projection_b]
    for first in (True, False):
        trained = [model.encoder, model.decoder] if first else heads
        optimizer = torch.optim.Adam([one for part in trained for one in part.parameters()], lr=5e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            chosen = torch.cat([torch.randint(len(digits), (512,)), rare])
            with torch.set_grad_enabled(first):
                latent = model.encoder(inputs[chosen])
            noisy = latent + NOISE * torch.randn_like(latent)
            if first:
                logits = model.decoder(noisy).reshape(-1, 3)
                loss = nn.functional.cross_entropy(logits, digits[chosen].flatten()) + 1e-3 * latent.square().mean()
            else:
                wrong = [head(noisy)[1] - target[chosen] for head in heads]
                loss = torch.stack(wrong).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def hierarchy(model: nn.Module) -> float:
    """Return the rank correlation of valuation and radius over all strings, with dropouts off."""
    digits, valuation = strings()
    mode = model.training
    model.eval()
    assert isinstance(model, Ternary)
    _, radius = model.projection_a(model.encoder(nn.functional.one_hot(digits, 3).flatten(1).float()))
    model.train(mode)
    return float(np.corrcoef(_ranks(valuation.numpy()), _ranks(radius.numpy()))[0, 1])


def _ranks(values: Any) -> Any:
    """Return ranks from 1, equal values with their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def plain(stored: dict[str, torch.Tensor], seed: int) -> tuple[float, int, int]:
    """Load as the write-up's programs did; return hierarchy, missing and unexpected names."""
    torch.manual_seed(seed)
    model = Ternary(projection_dropout=0.0)
    told = model.load_state_dict(stored, strict=False)
    return hierarchy(model), len(told.missing_keys), len(told.unexpected_keys)


def ours(path: Path, seeds: range) -> dict[str, Any]:
    """Load with a plan: refused, then with the renames that the refusal names."""
    renames: dict[str, str] = {}
    refused, named, states, values = 0, [], [], []
    for seed in seeds:
        torch.manual_seed(seed)
        model = Constructor.of(Ternary, projection_dropout=0.0).build()
        before = [parameter.clone() for parameter in model.parameters()]
        try:
            load(path, model)
        except CheckpointError as error:
            likely = plan(path, model).likely_renames
            named = [f"{one.stored} -> {one.present}" for one in likely if one.stored in str(error)]
            renames = dict(one.pattern for one in likely)
            refused += all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        accept = {"projection_dropout": 0.0, "class.*": ...}
        load(path, model, rename=renames, override=accept, verify=hierarchy)
        states.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        values.append(hierarchy(model))
    identical = all(torch.equal(states[0], state) for state in states)
    return {"refused": refused, "named": named, "identical": identical, "values": values}


def main() -> None:
    """Train, save, load both ways, store."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loads", type=int, default=LOADS, help="plain loads of each checkpoint")
    loads = parser.parse_args().loads
    torch.set_num_threads(1)
    digits, valuation = strings()
    rows = []
    for seed in TRAINED:
        torch.manual_seed(seed)
        model = Constructor.of(Ternary).build()
        assert isinstance(model, Ternary)
        train(model, digits, valuation, seed)
        value = hierarchy(model)
        with tempfile.TemporaryDirectory() as folder:
            path = save(
                Path(folder) / "trained", model, config={"projection_dropout": 0.1}, step=STEPS, seed=seed,
                metrics={"hierarchy": Measured(value=value, noise=1e-6)},
            )  # fmt: skip
            stored = dict(rebuild(path, verify=hierarchy).state_dict())
            found = [plain(stored, 1000 * seed + load) for load in range(loads)]
            mine = ours(path, range(5))
        values = [one for one, _, _ in found]
        row = {
            "seed": seed, "stored": value, "plain": values, "plain_mean": float(np.mean(values)),
            "plain_spread": float(np.std(values, ddof=1)), "missing": found[0][1], "unexpected": found[0][2], **mine,
        }  # fmt: skip
        rows.append(row)
        print(
            f"seed {seed}: stored {value:.4f}; plain {row['plain_mean']:.3f} +- {row['plain_spread']:.3f}; "
            f"ours refused {mine['refused']} of 5, named {len(mine['named'])}, then {mine['values'][0]:.4f}"
        )
    every = np.array([one for row in rows for one in row["plain"]])
    figures = {
        "plain_loads": len(every),
        "plain_spread": float(np.mean([row["plain_spread"] for row in rows])),
        "plain_mean": float(every.mean()),
        "plain_worst": float(every.max()),
        "stored_hierarchy": float(np.mean([row["stored"] for row in rows])),
        "refused": float(sum(row["refused"] for row in rows)),
        "refused_of": 5.0 * len(rows),
        "renames_named": float(min(len(row["named"]) for row in rows)),
        "bit_identical": float(all(row["identical"] for row in rows)),
        "spread_after_rename": float(max(np.std(row["values"]) for row in rows)),
    }
    print(figures)
    if loads == LOADS:
        store("checkpoint_mismatch", command=COMMAND, seeds=TRAINED, figures=figures, detail={"rows": rows})


if __name__ == "__main__":
    main()

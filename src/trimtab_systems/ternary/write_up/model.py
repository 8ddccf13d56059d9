"""The write-up's network, restated from its behaviour: two encoders, a decoder, and heads that place codes in a ball.

Letters in names: B rows of a batch, D digits, Z latent dimensions, C the 27 cells of a truth table.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from trimtab_systems.ternary.data import DIGITS, VALUES

Reads = Literal["code", "point"]
HiddenNorm = Literal["none", "guarded", "bare"]

LOG_VARIANCE = (-8.0, 2.0)
"""Log variances are held in this range, so that an untrained encoder has a finite spread."""
LEAST_HIDDEN = 32
"""The radius net has half the hidden units of the direction net, and at least so many."""


class Encoder(nn.Module):
    """From the values of an operation to the mean and the deviation of its code: 9 -> w -> w/2 -> w/4 -> Z.

    Args:
        latent: Z.
        width: w, of the first hidden layer; 256 in the write-up. The others have at least one unit.
        hidden_norm: "guarded" and "bare" standardise the last hidden vector over its units. Where a narrow network has
            one unit left, its deviation is zero, and a bare division by it gives NaN.
    """

    def __init__(self, latent: int, width: int, hidden_norm: HiddenNorm = "none"):
        super().__init__()
        self.hidden_norm = hidden_norm
        widths = (DIGITS, width, max(width // 2, 1), max(width // 4, 1))
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
        self.layers = nn.Sequential(*(part for pair in layers for part in pair))
        self.mean = nn.Linear(widths[-1], latent)
        self.log_variance = nn.Linear(widths[-1], latent)
        nn.init.zeros_(self.mean.bias)

    def forward(self, values_BD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of the codes, each (B, Z)."""
        hidden = self.layers(values_BD)
        if self.hidden_norm == "guarded":
            hidden = F.layer_norm(hidden, hidden.shape[-1:])
        elif self.hidden_norm == "bare":
            centred = hidden - hidden.mean(-1, keepdim=True)
            hidden = centred / centred.square().mean(-1, keepdim=True).sqrt()
        return self.mean(hidden), (0.5 * self.log_variance(hidden).clamp(*LOG_VARIANCE)).exp()


class Projection(nn.Module):
    """Place codes in the ball: one net for the direction, one for the radius. There is no exponential map.

    A dropout adds a module in the middle of both nets, and with it the last layers get other numbers in their names.
    That is how the write-up's checkpoints stopped fitting its models.

    Args:
        latent: Z.
        hidden: units of the direction net; the radius net has half of them, and at least 32.
        dropout: share of hidden units that are left out in training; 0 for no such module.
        limit: the largest radius.
    """

    def __init__(self, latent: int, hidden: int, dropout: float, limit: float):
        super().__init__()
        half = max(LEAST_HIDDEN, hidden // 2)
        self.direction_net = nn.Sequential(
            nn.Linear(latent, hidden), nn.LayerNorm(hidden), nn.SiLU(), *_drop(dropout), nn.Linear(hidden, latent)
        )
        self.radius_net = nn.Sequential(nn.Linear(latent, half), nn.SiLU(), *_drop(dropout), nn.Linear(half, 1))
        last = self.direction_net[-1], self.radius_net[-1]
        for one in last:
            assert isinstance(one, nn.Linear)
            nn.init.zeros_(one.bias)
        nn.init.zeros_(last[0].weight)  # type: ignore[arg-type]  # the loop above has seen that it is a Linear
        self.limit = limit

    def radius(self, code_BZ: torch.Tensor) -> torch.Tensor:
        """Return the Euclidean norms of the points, (B,), in (0, limit)."""
        radius_B: torch.Tensor = self.limit * torch.sigmoid(self.radius_net(code_BZ)).squeeze(-1)
        return radius_B

    def direction(self, code_BZ: torch.Tensor) -> torch.Tensor:
        """Return vectors of length 1, (B, Z)."""
        return F.normalize(code_BZ + self.direction_net(code_BZ), dim=-1)

    def forward(self, code_BZ: torch.Tensor) -> torch.Tensor:
        """Return the points, (B, Z)."""
        return self.direction(code_BZ) * self.radius(code_BZ)[:, None]


def _drop(dropout: float) -> list[nn.Module]:
    return [nn.Dropout(dropout)] if dropout > 0 else []


class WriteUpModel(nn.Module):
    """The write-up's "partial freeze" network.

    Args:
        latent: Z, 16.
        width: first hidden layer of an encoder, 256.
        hidden: of the projection heads, 64 or 256; it sizes nothing else.
        dropout: in the projection heads.
        curvature: c; the ball has radius 1 / sqrt(c).
        max_radius: the largest radius.
        ball_fraction: `max_radius` is a share of the ball. False, as in the write-up: it is a length, which for c = 2
            may lie outside the ball, and the curvature enters nothing.
        second_encoder: there is an encoder B with a head of its own; only A is decoded.
        reads: what the decoder reads: the "code" of encoder A, or log_0 of its "point" in the ball.
        hidden_norm: of the encoders.
    """

    def __init__(
        self,
        *,
        latent: int = 16,
        width: int = 256,
        hidden: int = 64,
        dropout: float = 0.0,
        curvature: float = 1.0,
        max_radius: float = 0.95,
        ball_fraction: bool = True,
        second_encoder: bool = False,
        reads: Reads = "code",
        hidden_norm: HiddenNorm = "none",
    ):
        super().__init__()
        self.curvature = curvature
        self.reads = reads
        self.unit = 1 / math.sqrt(curvature) if ball_fraction else 1.0
        limit = max_radius * self.unit
        self.encoder = Encoder(latent, width, hidden_norm)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, DIGITS * VALUES)
        )
        self.projection = Projection(latent, hidden, dropout, limit)
        self.encoder_b = Encoder(latent, width, hidden_norm) if second_encoder else None
        self.projection_b = Projection(latent, hidden, dropout, limit) if second_encoder else None

    def reach(self, code_BZ: torch.Tensor, projection: Projection | None = None) -> torch.Tensor:
        """Return the radii in units of the ball (or of length 1, without `ball_fraction`), (B,): what is supervised."""
        chosen = self.projection if projection is None else projection
        return chosen.radius(code_BZ) / self.unit

    def decode(self, code_BZ: torch.Tensor) -> torch.Tensor:
        """Return the logits of all digits, (B, D, 3)."""
        read_BZ = code_BZ if self.reads == "code" else self.tangent(code_BZ)
        logits_BC: torch.Tensor = self.decoder(read_BZ)
        return logits_BC.reshape(-1, DIGITS, VALUES)

    def tangent(self, code_BZ: torch.Tensor) -> torch.Tensor:
        """Return log_0 of the points of codes, (B, Z); a radius outside the ball gives NaN."""
        root = math.sqrt(self.curvature)
        far_B = torch.atanh(root * self.projection.radius(code_BZ)) / root
        return self.projection.direction(code_BZ) * far_B[:, None]

    def forward(self, values_BD: torch.Tensor) -> torch.Tensor:
        """Return the logits that the decoder gives for the mean codes, (B, D, 3)."""
        return self.decode(self.encoder(values_BD)[0])


class Controller(nn.Module):
    """Turn eight statistics of a batch into six weights of the loss: 8 -> 32 -> 32 -> 6.

    The statistics are the mean radii of A and B, the hierarchies of A and B (or zeros), the divergences of A and B, and
    two zeros. A loss that learns its own weights has an easy way out, which is to lower them; the write-up patched
    that with floors. It is here because the write-up's checkpoint had it, and off in its sweeps.
    """

    STATISTICS = 8
    WEIGHTS = ("rho", "geodesic", "radial", "beta_a", "beta_b", "tau")

    def __init__(self, hidden: int = 32):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(self.STATISTICS, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, len(self.WEIGHTS)),
        )  # fmt: skip

    def forward(self, statistics: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the weights by name: rho in (0, 0.5), geodesic > 0.1, radial > 0, both betas > 0.5, tau in (0, 1)."""
        rho, geodesic, radial, beta_a, beta_b, tau = self.net(statistics).unbind(-1)
        return {
            "rho": 0.5 * torch.sigmoid(rho),
            "geodesic": 0.1 + F.softplus(geodesic),
            "radial": F.softplus(radial),
            "beta_a": 0.5 + F.softplus(beta_a),
            "beta_b": 0.5 + F.softplus(beta_b),
            "tau": torch.sigmoid(tau),
        }

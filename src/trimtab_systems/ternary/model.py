"""An autoencoder whose code is a point of the Poincare ball: its direction says what, its radius how deep.

Letters in names: B rows, I inputs (27, or 9 for raw values), Z latent dimensions, D digits, V values of a digit.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import nn

from trimtab_systems.ternary.data import DIGITS, VALUES
from trimtab_systems.ternary.hyperbolic import distance_of_radius, exp_0, log_0, mobius_add

Posterior = Literal["origin", "wrapped"]
SIGMA_LOGS = (-6.0, 1.0)
"""Bounds of log sigma: below 0.0025 noise has no effect, above 2.7 no code survives it."""


class Code(NamedTuple):
    """The posterior of each row, in the tangent space at the origin.

    Attributes:
        mean: (B, Z), tangent vector of the mean; `exp_0` gives its point.
        log_sigma: (B, Z), logarithm of the deviation of each entry.
        share: (B,), sqrt(c) times the Euclidean radius of the mean, a share of the ball's, in (0, max_radius).
    """

    mean: torch.Tensor
    log_sigma: torch.Tensor
    share: torch.Tensor


class TernaryModel(nn.Module):
    """Encode digits as a point of the ball, and decode its tangent vector to digits.

    Encoder: I -> H -> H (SiLU), then one layer for the direction (Z, a unit vector), the radius (1, a sigmoid
    times `max_radius`) and log sigma (Z). Decoder: Z -> H -> H -> 27 (SiLU); it reads log_0 of the point.

    Args:
        hidden: H.
        latent: Z.
        curvature: c; the ball has the radius 1 / sqrt(c).
        max_radius: the largest share of the ball's radius that a mean may take, below 1.
        sigma: deviation of the code before training, in the tangent space.
        posterior: "origin": noise is added to the tangent vector, so that the divergence from the prior has a closed
            form. "wrapped": noise around the origin is translated to the mean.
        raw_input: read values -1, 0, 1 instead of one-hot digits.
    """

    def __init__(
        self,
        *,
        hidden: int = 96,
        latent: int = 16,
        curvature: float = 1.0,
        max_radius: float = 0.95,
        sigma: float = 0.1,
        posterior: Posterior = "origin",
        raw_input: bool = False,
    ):
        super().__init__()
        self.curvature, self.max_radius, self.posterior = curvature, max_radius, posterior
        inputs = DIGITS if raw_input else DIGITS * VALUES
        self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.latent = latent
        self.heads = nn.Linear(hidden, latent + 1 + latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, DIGITS * VALUES),
        )
        nn.init.zeros_(self.heads.weight[-latent:])
        nn.init.constant_(self.heads.bias[-latent:], math.log(sigma))

    def encode(self, input_BI: torch.Tensor) -> Code:
        """Return the posterior of each row."""
        heads_BH = self.heads(self.encoder(input_BI))
        direction_BZ, radius_B1, log_sigma_BZ = heads_BH.split((self.latent, 1, self.latent), dim=-1)
        share_B1 = self.max_radius * torch.sigmoid(radius_B1)
        length_B1 = torch.atanh(share_B1) / math.sqrt(self.curvature)
        mean_BZ = direction_BZ * (length_B1 / torch.linalg.vector_norm(direction_BZ, dim=-1, keepdim=True))
        return Code(mean_BZ, log_sigma_BZ.clamp(*SIGMA_LOGS), share_B1.squeeze(-1))

    def sample(self, code: Code, noise_BZ: torch.Tensor) -> torch.Tensor:
        """Return the tangent vector of a draw from each posterior; zero noise gives the mean.

        Args:
            code: the posteriors.
            noise_BZ: standard normal numbers.
        """
        away_BZ = code.log_sigma.exp() * noise_BZ
        if self.posterior == "origin":
            return code.mean + away_BZ
        c = self.curvature
        return log_0(mobius_add(exp_0(code.mean, c), exp_0(away_BZ, c), c), c)

    def decode(self, tangent_BZ: torch.Tensor) -> torch.Tensor:
        """Return the logits of the digits, (B, V, D), for tangent vectors at the origin."""
        logits_BVD: torch.Tensor = self.decoder(tangent_BZ).view(-1, VALUES, DIGITS)
        return logits_BVD

    def decode_point(self, point_BZ: torch.Tensor) -> torch.Tensor:
        """Return the logits of the digits, (B, V, D), for points of the ball."""
        return self.decode(log_0(point_BZ, self.curvature))

    def point(self, code: Code) -> torch.Tensor:
        """Return the points of the means, (B, Z)."""
        return exp_0(code.mean, self.curvature)

    def depth(self, code: Code) -> torch.Tensor:
        """Return how far from the origin the means lie, (B,), in the metric of the ball."""
        return distance_of_radius(code.share / math.sqrt(self.curvature), self.curvature)

    def forward(self, input_BI: torch.Tensor, noise_BZ: torch.Tensor | None = None) -> tuple[Code, torch.Tensor]:
        """Return the posteriors and the logits of a draw from each, of the means where no noise is given."""
        code = self.encode(input_BI)
        return code, self.decode(code.mean if noise_BZ is None else self.sample(code, noise_BZ))

"""Maps of the Poincare ball with curvature -c: the points with sqrt(c) |z| < 1, where lengths grow towards the edge.

Tangent vectors are those at the origin. There the metric is four times the Euclidean one, so that exp_0(u) lies at the
distance 2 |u|. Every function works over the last dimension, is differentiable at the origin too, and stays finite up
to the edge.

Source: Ganea and others, "Hyperbolic neural networks" (2018); Nagano and others, "A wrapped normal distribution on
hyperbolic space" (2019).
"""

from __future__ import annotations

import math

import torch

TINY = 1e-9
"""Norms below this count as this: the maps are linear there, so nothing is lost but a division by 0."""
EDGE = 1e-6
"""How near sqrt(c) |z| may come to 1; in float32 the last place below 1 is 6e-8, and artanh is 7.3 at this edge."""


def exp_0(u: torch.Tensor, c: float) -> torch.Tensor:
    """Return the point of the ball that the tangent vector u at the origin leads to."""
    a = math.sqrt(c) * _norm(u)
    return torch.tanh(a) / a * u


def log_0(z: torch.Tensor, c: float) -> torch.Tensor:
    """Return the tangent vector at the origin that leads to z: the inverse of `exp_0`."""
    a = math.sqrt(c) * _norm(z)
    return torch.atanh(a.clamp_max(1 - EDGE)) / a * z


def mobius_add(x: torch.Tensor, y: torch.Tensor, c: float) -> torch.Tensor:
    """Return x (+) y: the origin's translation to x, applied to y. It does not commute."""
    xy = (x * y).sum(-1, keepdim=True)
    x2, y2 = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    above = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    return above / (1 + 2 * c * xy + c * c * x2 * y2).clamp_min(TINY)


def distance(x: torch.Tensor, y: torch.Tensor, c: float) -> torch.Tensor:
    """Return the length of the shortest path from x to y, without the last dimension."""
    return distance_of_radius(_norm(mobius_add(-x, y, c)).squeeze(-1), c)


def distance_of_radius(radius: torch.Tensor, c: float) -> torch.Tensor:
    """Return how far from the origin points with this Euclidean norm lie: 2 artanh(sqrt(c) r) / sqrt(c)."""
    return 2 / math.sqrt(c) * torch.atanh((math.sqrt(c) * radius).clamp_max(1 - EDGE))


def project(z: torch.Tensor, c: float, margin: float = EDGE) -> torch.Tensor:
    """Return z, pulled back along its ray to sqrt(c) |z| = 1 - margin where it lies further out."""
    largest = (1 - margin) / math.sqrt(c)
    return z * (largest / _norm(z)).clamp_max(1.0)


def log_sinh_ratio(a: torch.Tensor) -> torch.Tensor:
    """Return log(sinh(a) / a) for a >= 0, without overflow; below 0.01 its series a**2 / 6, right to 1e-10."""
    safe = a.clamp_min(0.01)
    return torch.where(a < 0.01, a.square() / 6, safe + torch.log1p(-torch.exp(-2 * safe)) - torch.log(2 * safe))


def wrapped_normal_log_density(z: torch.Tensor, mean: torch.Tensor, log_sigma: torch.Tensor, c: float) -> torch.Tensor:
    """Return the log density at z of a normal distribution wrapped around `mean`, without the last dimension.

    A tangent vector v with independent normal entries of deviation exp(log_sigma) is drawn at the origin; its point
    exp_0(v) is translated to `mean`. The density is with respect to the volume of the ball.

    Args:
        z: points of the ball, (..., Z).
        mean: points of the ball, of a shape that broadcasts.
        log_sigma: (..., Z), of a shape that broadcasts.
        c: the curvature is -c.
    """
    v = log_0(mobius_add(-mean, z, c), c)
    return normal_log_density(v, log_sigma) - log_volume(v, c)


def normal_log_density(v: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
    """Return the log density at v of a normal distribution around 0 in flat space, without the last dimension."""
    each = -0.5 * (v * torch.exp(-log_sigma)).square() - log_sigma - 0.5 * math.log(2 * math.pi)
    return each.sum(-1)


def log_volume(v: torch.Tensor, c: float) -> torch.Tensor:
    """Return by how much exp_0 stretches volumes at v, as a logarithm: n log 2 + (n - 1) log(sinh(a) / a)."""
    a = 2 * math.sqrt(c) * _norm(v).squeeze(-1)
    return v.shape[-1] * math.log(2) + (v.shape[-1] - 1) * log_sinh_ratio(a)


def _norm(x: torch.Tensor) -> torch.Tensor:
    norm: torch.Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.clamp_min(TINY)

"""Bound values smoothly, and leave those alone that are small."""

from __future__ import annotations

from typing import Any, Literal

import torch

from trimtab.errors import UserError


def soft_clamp(
    x: torch.Tensor,
    knee: float,
    limit: float | None,
    *,
    profile: Literal["corrected", "as_written"] = "corrected",
) -> torch.Tensor:
    """Return `x` where |x| <= knee, and beyond it a curve that bends smoothly towards `limit` and never reaches it.

    f(x) = sign(x) * (knee + (limit - knee) * tanh((|x| - knee) / (limit - knee)))

    The guarantee: bit-identical up to the knee; slope 1 on both sides of it; odd; monotone; |f(x)| <= |x|;
    |f(x)| < limit. The slope is never quite zero while 4 * exp(-2 z) can be told from zero, z = (|x| - knee) /
    (limit - knee): up to z = 44 in float32 and bfloat16, which is 3 * limit for any knee up to 0.95 * limit, and up to
    z = 9 in float16. So a value that has run away can come back, which a hard clamp does not let it.

    `profile="as_written"` is the curve of the write-up, kept to show its defect: half the width in the tanh makes the
    slope 2 just above the knee, so that it expands what it should bound (knee 50, limit 100: 55 -> 59.9, 67 -> 79.6).

    What it is not for: bounding logits that should be large. Under a loss that wants them large, a tight limit is a
    floor of the loss. Measure after the clamp for the guarantee, and before it for health; an infinity becomes
    `limit`, NaN stays NaN.

    Args:
        x: of any shape and floating type.
        knee: where it begins to bend, 0 <= knee < limit; 0 is limit * tanh(x / limit).
        limit: the bound; None, zero or less turn the clamp off, and `x` itself is returned.
        profile: "corrected", or "as_written" for the curve with the defect.

    Raises:
        UserError: the knee is not in [0, limit), `x` is not floating, or the profile is unknown.

    Source: P0.3 of the write-up on stabilising a recursive solver, with the scale of its tanh corrected.

    Example:
        >>> soft_clamp(torch.tensor([10.0, 67.0, -1000.0]), knee=30, limit=50)
        tensor([ 10.0000,  49.0349, -50.0000])
    """
    if profile not in ("corrected", "as_written"):
        raise UserError(f"soft_clamp: profile={profile!r}; expected 'corrected' or 'as_written'")
    if not x.is_floating_point():
        raise UserError(f"soft_clamp: expected a tensor of floats, got {str(x.dtype).removeprefix('torch.')}")
    if limit is None or limit <= 0:
        return x
    if not 0 <= knee < limit:
        raise UserError(f"soft_clamp: knee must be at least 0 and below limit={limit}, got {knee}")
    steepness = 1.0 if profile == "corrected" else 2.0
    bent: torch.Tensor = _Bend.apply(x, float(knee), float(limit), steepness)  # type: ignore[no-untyped-call]  # torch says no types
    return bent


class _Bend(torch.autograd.Function):
    """The curve, with its slope as 1 / cosh^2: as 1 - tanh^2 it is zero as soon as tanh has been rounded to 1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, knee: float, limit: float, steepness: float) -> torch.Tensor:
        size = _wide(x).abs()
        room = limit - knee
        bent = knee + room * torch.tanh((size - knee) * (steepness / room))
        if steepness == 1:  # a bent value may be rounded to one above the value itself, or to the limit
            bent = torch.minimum(bent, size)
        bent = bent.clamp_max(limit * (1 - torch.finfo(x.dtype).eps))
        return torch.where(size <= knee, x, torch.copysign(bent, _wide(x)).to(x.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, ctx.knee, ctx.limit, ctx.steepness = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] * _slope(x, ctx.knee, ctx.limit, ctx.steepness), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        slope: torch.Tensor = tangents[0] * _slope(x, ctx.knee, ctx.limit, ctx.steepness)
        return slope


def _slope(x: torch.Tensor, knee: float, limit: float, steepness: float) -> torch.Tensor:
    """Return f'(x), of which torch can take the derivative again."""
    size = _wide(x).abs()
    beyond = ((size - knee) * (steepness / (limit - knee))).clamp_max(60)  # the slope is zero there in every type
    slope = steepness * beyond.cosh().reciprocal().square()
    return torch.where(size <= knee, 1.0, slope).to(x.dtype)


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()

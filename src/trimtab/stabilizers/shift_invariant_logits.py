"""Bound attention scores so that an offset common to all of them changes nothing."""

from __future__ import annotations

import math

import torch

from trimtab.errors import UserError


def shift_invariant_logits(
    scores: torch.Tensor, mask: torch.Tensor | None = None, limit: float | None = None, dim: int = -1
) -> torch.Tensor:
    """Return scores minus the largest valid one of their row, not lower than -limit; -inf where the mask hides them.

    A softmax does not change when all its logits grow by the same amount, and so no loss holds that amount in place. A
    clamp of the raw scores does change: once the offset has carried them to the bound, they are all alike, the
    attention is uniform and its gradient zero, for good. Here the offset is gone before the clamp.

    The guarantee: adding a constant to a row changes neither the attention nor the gradient, beyond the rounding of the
    sum that comes in (a float32 score near 200 is itself off by up to 8e-6). Valid logits lie in [-limit, 0], and the
    largest of a row is 0, so that a softmax of them cannot overflow. The subtracted maximum is a constant to autograd,
    which leaves the gradient of a softmax as it is.

    Rows without a valid cell: all their logits are 0, without a gradient, so that a softmax gives the uniform
    distribution and not NaN. Multiply by `mask.any(dim)` what must not come out of such a row. A row with a NaN or
    +inf among its valid scores is NaN.

    Args:
        scores: any shape, floating; before or after division by a temperature.
        mask: True where a cell is valid, of a shape that broadcasts to `scores`; None when all are. A score of -inf is
            invalid as well.
        limit: how far below the largest a logit may lie; None or <= 0 for any. A cell at the limit has no gradient and
            at most exp(-limit) of the weight of the best.
        dim: over which the softmax will be taken.

    Raises:
        UserError: the mask is not boolean, or limit is NaN.

    Source: P0.2b of the write-up on stabilising a recursive solver, whose clamp of the raw scores at 50 made a trained
    attention uniform at an offset of 45.

    Example:
        >>> shift_invariant_logits(torch.tensor([101.0, 100.0, 7.0]), torch.tensor([True, True, False]), limit=50)
        tensor([ 0., -1., -inf])
    """
    if mask is not None and mask.dtype != torch.bool:
        raise UserError(
            f"shift_invariant_logits: expected a boolean mask, True where a cell is valid, got "
            f"{str(mask.dtype).removeprefix('torch.')}; an additive mask m is m == 0 as a boolean one"
        )
    if limit is not None and math.isnan(limit):
        raise UserError("shift_invariant_logits: limit is NaN; give a number, or None for no limit")
    valid = ~scores.isneginf()
    if mask is not None:
        valid = valid & mask
    hidden = ~valid
    largest = scores.detach().masked_fill(hidden, -torch.inf).amax(dim, keepdim=True)
    logits = scores.masked_fill(hidden, 0.0) - largest
    if limit is not None and limit > 0:
        logits = logits.clamp_min(-limit)
    return logits.masked_fill(hidden, -torch.inf).masked_fill(~valid.any(dim, keepdim=True), 0.0)

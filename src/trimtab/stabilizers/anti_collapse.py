"""Loss terms that keep attention, slots, gates and latent codes from collapsing."""

from __future__ import annotations

from typing import Literal

import torch

from trimtab.errors import UserError

TINY = 1e-12
"""Probabilities, norms and variances below this count as zero."""
UNUSED = 1e-30
"""Products of usages that sum to less count as zero."""


def normalised_entropy(probabilities: torch.Tensor, mask: torch.Tensor | None = None, dim: int = -1) -> torch.Tensor:
    """Return the entropy along `dim` divided by ln(valid cells): 1 for uniform, 0 for one cell or for none to choose.

    Args:
        probabilities: not negative, summing to 1 over the valid cells of `dim`.
        mask: True where a cell is valid, of a shape that broadcasts; None when all are.
        dim: over which the distribution runs; it is missing from the result.

    Trap: In nats the same number means another thing on another size. Uniform over 36 cells has 3.58 nats, and no
    distribution over 148 cells or fewer reaches 5.
    """
    probabilities = _wide(probabilities)
    if mask is None:
        valid = torch.full_like(probabilities.sum(dim), probabilities.shape[dim])
    else:
        _must_be_boolean("normalised_entropy", mask)
        mask = mask.expand_as(probabilities)
        probabilities = torch.where(mask, probabilities, 0.0)
        valid = mask.sum(dim).to(probabilities.dtype)
    entropy = -(probabilities * probabilities.clamp_min(TINY).log()).sum(dim)
    return torch.where(valid > 1, entropy / valid.clamp_min(2).log(), 0.0)


def entropy_floor(
    probabilities: torch.Tensor, floor: float, mask: torch.Tensor | None = None, dim: int = -1
) -> torch.Tensor:
    """Return mean(relu(floor - normalised entropy)): what keeps a distribution from settling on one cell.

    Give it the mean usage of slots over a batch to keep slots in use, or each row of an attention to keep it from
    becoming one-hot. Rows with fewer than two valid cells have nothing to choose and are left out.

    Args:
        probabilities: (..., N), summing to 1 over the valid cells.
        floor: in [0, 1], a share of the largest entropy possible.
        mask: True where a cell is valid, of a shape that broadcasts; None when all are.
        dim: over which each distribution runs.

    Traps: A softmax that is one-hot to the last digit passes no gradient on, whatever the term says, so begin with it
    and not after the collapse. An attention collapsed to uniform has the highest entropy, and this term is content.

    Raises:
        UserError: the floor is not in [0, 1], or the mask is not boolean.

    Source: Slot diversity of the write-up on structural invariance (floor 1.0 nats of ln 8), normalised as in P0.2 of
    the write-up on stabilising a recursive solver.
    """
    if not 0 <= floor <= 1:
        raise UserError(
            f"entropy_floor: floor is a share of ln(valid cells), in [0, 1], got {floor}; divide nats by it"
        )
    missing = (floor - normalised_entropy(probabilities, mask, dim)).relu()
    if mask is None:
        return missing.mean() if probabilities.shape[dim] > 1 else missing.sum() * 0
    return _mean(missing, mask.expand_as(probabilities).sum(dim) > 1)


def usage_weighted_cosine(
    maps: torch.Tensor, usage: torch.Tensor | None = None, *, through_usage: bool = False
) -> torch.Tensor:
    """Return the mean cosine between the maps of an example, over pairs weighted by the usage of both.

    Identical maps give 1, be they sharp or uniform; disjoint ones 0; one map alone 0. A map that is not used changes
    nothing. The sum is divided by the sum of the weights, so that maps used little are kept apart as strongly.

    Args:
        maps: (B, K, ...), K maps for each example, not negative; what follows K is flattened.
        usage: (B, K) in [0, 1], how much each is used; None when all are.
        through_usage: let the gradient go through `usage` too. Then maps can be made less alike, on average, by
            switching some off.

    Trap: The plain overlap, sum(a * b), is 1 / cells for two uniform maps and so rewards diffuse attention.

    Raises:
        UserError: shapes do not fit.

    Source: P2.1 of the write-up on stabilising a recursive solver, corrected.
    """
    if maps.dim() < 3 or (usage is not None and usage.shape != maps.shape[:2]):
        given = "" if usage is None else f" and usage {tuple(usage.shape)}"
        raise UserError(
            f"usage_weighted_cosine: expected maps (B, K, ...) and usage (B, K), got maps {tuple(maps.shape)}{given}"
        )
    unit = _unit(maps.flatten(2))
    cosine = unit @ unit.mT
    used = unit.new_ones(maps.shape[:2]) if usage is None else _wide(usage)
    used = used if through_usage else used.detach()
    pairs = used.unsqueeze(2) * used.unsqueeze(1)
    pairs = pairs * (1 - torch.eye(maps.shape[1], dtype=pairs.dtype, device=pairs.device))
    weights = pairs.sum((1, 2))
    return _mean((pairs * cosine).sum((1, 2)) / weights.clamp_min(UNUSED), weights > UNUSED)


def sparsity_target(usage: torch.Tensor, low: float, high: float, dim: int = -1) -> torch.Tensor:
    """Return mean(relu(low - n)^2 + relu(n - high)^2), n the sum of `usage`: so many at least and at most are in use.

    Args:
        usage: (..., K) in [0, 1], how much each of K slots, clues or experts is used.
        low, high: the range of n in which the term is zero, 0 <= low <= high.
        dim: over which usage is summed.

    Trap: With low = high every example is driven to the same count, and then a count that "settled at 1.0" is what was
    asked for. A price on each unit besides a hinge at `low` has its minimum at `low` just the same.

    Raises:
        UserError: not 0 <= low <= high.

    Source: P1.1 of the write-up on stabilising a recursive solver, whose clue loss had its minimum at exactly one clue.
    """
    if not 0 <= low <= high:
        raise UserError(f"sparsity_target: expected 0 <= low <= high, got low={low}, high={high}")
    count = usage.sum(dim)
    return ((low - count).relu().square() + (count - high).relu().square()).mean()


def orthogonality_projection(content: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Return `content` without its parts along the slots: (I - U U^T) content, U an orthonormal basis of the slots.

    The result is orthogonal to every slot, whatever the order of the slots, dependent and empty ones included. It is
    not a loss, but a layer that makes the loss unnecessary. No gradient goes through U.

    Args:
        content: (..., N, D).
        slots: (..., K, D), with the same leading dimensions and K < D.

    Traps: A linear layer after it undoes it; put the layer before. With K near D hardly anything is left. Subtracting
    the projection on one slot after the other, where slots are not orthogonal to each other, gives something else.

    Raises:
        UserError: shapes do not fit, or K >= D, where nothing would be left.

    Source: The content encoder of the write-up on structural invariance.
    """
    _must_fit("orthogonality_projection", slots, content)
    if slots.shape[-2] >= slots.shape[-1]:
        raise UserError(
            f"orthogonality_projection: {slots.shape[-2]} slots of width {slots.shape[-1]} may span everything, and "
            f"nothing would be left of the content; use fewer slots or a wider model"
        )
    with torch.no_grad():
        wide = _wide(slots)
        sizes, basis = torch.linalg.svd(wide, full_matrices=False)[1:]
        noise = sizes[..., :1] * (torch.finfo(wide.dtype).eps * max(wide.shape[-2:]))
        basis = (basis * (sizes > noise).unsqueeze(-1)).to(content.dtype)
    left: torch.Tensor = content - (content @ basis.mT) @ basis
    return left


def orthogonality_penalty(
    slots: torch.Tensor,
    content: torch.Tensor,
    slot_mask: torch.Tensor | None = None,
    content_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean of cos^2 between every valid slot and every valid content vector: 0 orthogonal, 1 parallel.

    Args:
        slots: (..., K, D).
        content: (..., N, D), with the same leading dimensions.
        slot_mask: (..., K), True where valid; None when all are.
        content_mask: (..., N), likewise.

    Traps: |cos| of the two means is zero while slots and content agree pair by pair. Behind
    `orthogonality_projection` it is about zero: something to log, not to train on. Where slots and content are exactly
    orthogonal or exactly parallel its gradient is zero.

    Raises:
        UserError: shapes do not fit, or a mask is not boolean.

    Source: The orthogonality loss of the write-up on structural invariance, weight 0.1, corrected to all pairs.
    """
    _must_fit("orthogonality_penalty", slots, content)
    cosine = _unit(slots) @ _unit(content).mT
    valid = torch.ones_like(cosine, dtype=torch.bool)
    for mask, axis in ((slot_mask, -1), (content_mask, -2)):
        if mask is not None:
            _must_be_boolean("orthogonality_penalty", mask)
            valid = valid & mask.unsqueeze(axis)
    return _mean(cosine.square(), valid)


def saturation_hinge(logits: torch.Tensor, limit: float = 3.0, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return mean(relu(|logit| - limit)): what keeps gates from where their sigmoid or tanh passes no gradient on.

    Args:
        logits: any shape, what goes into the sigmoid or tanh.
        limit: sigmoid(3) = 0.953, where its slope is 18 % of the largest; for tanh 1.5 is the same place.
        mask: True where a logit counts, of a shape that broadcasts; None when all do.

    Trap: Behind a soft clamp of the logits the hinge loses its gradient with them; give it what comes before.

    Raises:
        UserError: the limit is negative or NaN, or the mask is not boolean.

    Source: P1.1 of the write-up on stabilising a recursive solver; a weight above 0.05 cost it accuracy.
    """
    if not limit >= 0:
        raise UserError(f"saturation_hinge: limit must be 0 or more, got {limit}")
    excess = (logits.abs() - limit).relu()
    if mask is None:
        return _mean(excess, torch.ones_like(excess, dtype=torch.bool))
    _must_be_boolean("saturation_hinge", mask)
    return _mean(excess, mask.expand_as(excess))


def spread_across_tasks(values: torch.Tensor, tasks: torch.Tensor | None = None, floor: float = 0.5) -> torch.Tensor:
    """Return relu(floor - s), s the standard deviation over tasks of the mean value of each task.

    For a quantity that should depend on the task, such as how many clues are used, and collapses to the same for all.

    Args:
        values: (B,), one number for each example.
        tasks: (B,) integers, the task of each example; None when each example is a task of its own.
        floor: how much spread is asked for, in the units of `values`; 0 turns the term off.

    Returns:
        A 0-D tensor; zero with fewer than two tasks in the batch, where nothing can be said. The deviation is that of a
        sample, divided by tasks - 1.

    Traps: A variance over examples and slots together can be large while no task differs from another. Where all tasks
    have exactly the same mean the gradient is zero, as none is the one to move. Forcing spread does not make a quantity
    depend on a task that does not need it: use a small weight (0.05), and begin after the model has learnt.

    Raises:
        UserError: shapes do not fit, or the floor is negative.

    Source: P1.1 of the write-up on stabilising a recursive solver.
    """
    if values.dim() != 1 or (tasks is not None and tasks.shape != values.shape):
        given = "" if tasks is None else f" and tasks {tuple(tasks.shape)}"
        raise UserError(
            f"spread_across_tasks: expected values (B,) and tasks (B,), got values {tuple(values.shape)}{given}"
        )
    if not floor >= 0:
        raise UserError(f"spread_across_tasks: floor must be 0 or more, got {floor}")
    if not len(values):
        return values.sum()
    numbers = torch.arange(len(values), device=values.device) if tasks is None else tasks
    same = (numbers.unsqueeze(0) == numbers.unsqueeze(1)).to(values.dtype)
    size = same.sum(1)
    count = (1 / size).sum()  # each task counts once, without asking the device which there are
    means = same @ values / size
    center = (means / size).sum() / count
    variance = ((means - center).square() / size).sum() / (count - 1).clamp_min(0.5)
    spread = torch.where(variance > TINY, variance, 1.0).sqrt()
    missing = (floor - torch.where(variance > TINY, spread, 0.0)).relu()
    return torch.where(count > 1.5, missing, 0.0)


def free_bits(kl: torch.Tensor, free: float, *, per: Literal["dimension", "total"] = "dimension") -> torch.Tensor:
    """Return the divergence beyond what is free, so that a latent code is not worth giving up.

    - per="dimension": sum over D of relu(mean over B of KL - free): each dimension may carry `free` nats unpunished;
    - per="total": mean over B of relu(sum over D of KL - free): a code may carry `free` nats in all, where it likes.

    It is zero where nothing is above; max(free, KL), as it is often written, differs by a constant and has the same
    gradient.

    Args:
        kl: (B, D), the divergence of each dimension of each example from the prior, in nats, not negative.
        free: nats, for each dimension or in total; 0 gives the plain divergence, summed over D and averaged over B.

    Traps: A divergence that is averaged over dimensions needs another weight than one that is summed, and a sum over
    the batch next to a mean changes the weight with the batch size. Per dimension, the
    mean over the batch is compared, so that a dimension may be used by few examples and still be above.

    Raises:
        UserError: shapes do not fit, `free` is negative, or `per` is unknown.

    Source: Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow" (2016), for "dimension";
    the write-up on ternary codes for "total", where 15 to 25 nats in total kept the code alive.
    """
    if kl.dim() != 2:
        raise UserError(f"free_bits: expected the divergence of each dimension, (B, D), got {tuple(kl.shape)}")
    if not free >= 0:
        raise UserError(f"free_bits: free must be 0 nats or more, got {free}")
    if per == "dimension":
        return (kl.mean(0) - free).relu().sum()
    if per == "total":
        return (kl.sum(1) - free).relu().mean()
    raise UserError(f"free_bits: per={per!r}; expected 'dimension' or 'total'")


def _mean(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return the mean of the values that count, zero when none does."""
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp_min(1)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors of length 1; one without a length stays zero and gets no gradient."""
    wide = _wide(vectors)
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return torch.where(length > TINY, wide / length.clamp_min(TINY), 0.0)


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _must_be_boolean(where: str, mask: torch.Tensor) -> None:
    if mask.dtype != torch.bool:
        kind = str(mask.dtype).removeprefix("torch.")
        raise UserError(f"{where}: expected a boolean mask, True where valid, got {kind}; pass mask != 0")


def _must_fit(where: str, slots: torch.Tensor, content: torch.Tensor) -> None:
    if slots.dim() < 2 or slots.shape[:-2] != content.shape[:-2] or slots.shape[-1] != content.shape[-1]:
        raise UserError(
            f"{where}: expected slots (..., K, D) and content (..., N, D), got slots {tuple(slots.shape)} and content "
            f"{tuple(content.shape)}"
        )

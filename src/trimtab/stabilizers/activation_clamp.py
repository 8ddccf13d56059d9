"""Hold what a module hands on at a stored baseline."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import nn

from trimtab.errors import UserError
from trimtab.stabilizers._intervention import Intervention
from trimtab.tap import tap

TINY = 1e-12
"""A norm or spread below this has no direction that could be scaled, and is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a module hands on when all is well: measured at one place, and valid at that place alone.

    Attributes:
        where: the name of the module; "" is the model itself.
        index: which part of an output that is a tuple, a list or a mapping.
        scope: "token" measures each vector along the last dimension by itself, "batch" all vectors of a batch together.
        norm: mean of the Euclidean norm of a token.
        spread: standard deviation around the mean. The mean is that of a token over its features ("token"), or the
            mean token ("batch"). Deviations are divided by their number, not by one less.
        width: features of a token.
        tokens: how many were measured.
    """

    where: str
    index: int | str | None = None
    scope: Literal["token", "batch"] = "token"
    norm: float
    spread: float
    width: int
    tokens: int

    @staticmethod
    def measure(
        model: nn.Module,
        where: str,
        batches: Iterable[Any],
        *,
        scope: Literal["token", "batch"] = "token",
        index: int | str | None = None,
        run: Callable[[Any], Any] | None = None,
        at_most: int = 50,
    ) -> Baseline:
        """Return the baseline of a trained model, in eval mode and without gradients; the modes come back after.

        Args:
            model, where, index: what is measured.
            batches: what the model is run on, at most `at_most` of them; one is at least needed.
            scope: as the clamp that will use it: see `ActivationClamp`.
            run: batch -> anything, runs the model; by default `model(*batch)` for a tuple or list, `model(**batch)` for
                a mapping, `model(batch)` else.
            at_most: how many batches are read.

        Raises:
            UserError: there was no batch, the module was never called, or a value is not finite.
        """
        _scope(scope)
        modes = {module: module.training for module in model.modules()}
        norms = spreads = 0.0
        tokens = width = 0
        try:
            model.eval()
            with torch.no_grad():
                for batch in islice(batches, at_most):
                    with tap(model, where, index=index, retain="all") as seen:
                        _run(model, batch) if run is None else run(batch)
                    for output in seen.outputs:
                        x = _tokens(output).double()
                        norms += x.norm(dim=-1).sum().item()
                        spreads += _spread(x, scope)[1].mean().item() * len(x)
                        tokens, width = tokens + len(x), x.shape[-1]
        finally:
            for module, training in modes.items():
                module.training = training
        if not tokens:
            raise UserError(f"Baseline of {where!r}: nothing was measured; no batch came, or the module was not called")
        norm, spread = norms / tokens, spreads / tokens
        if not (norm < float("inf") and spread < float("inf")):
            raise UserError(
                f"Baseline of {where!r}: norm {norm}, spread {spread} of {tokens} tokens; measure it healthy"
            )
        return Baseline(where=where, index=index, scope=scope, norm=norm, spread=spread, width=width, tokens=tokens)


class _Clamp(Intervention):
    """Scales what passes so that one quantity of it is that of the baseline."""

    def __init__(
        self, model: nn.Module, baseline: Baseline, *, upward: bool = True, on: bool = True, least: float = 1e-6
    ):
        super().__init__(model, baseline.where, index=baseline.index, on=on, least=least)
        _scope(baseline.scope)
        self.baseline = baseline
        self.upward = upward

    def edit(self, output: torch.Tensor) -> torch.Tensor:
        """Return the output, scaled."""
        if output.shape[-1] != self.baseline.width:
            raise UserError(
                f"{self}: the baseline was measured on {self.baseline.width} features, this output has "
                f"{output.shape[-1]}; measure it on this model"
            )
        return self._scaled(_tokens(output)).reshape(output.shape).to(output.dtype)

    @abstractmethod
    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        """Return the (tokens, width) matrix, scaled."""

    def _factor(self, target: float, measured: torch.Tensor) -> torch.Tensor:
        factor = torch.where(measured > TINY, target / measured.clamp_min(TINY), 1.0)
        return factor if self.upward else factor.clamp_max(1.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the baseline and the counts."""
        return {**super().state_dict(), "upward": self.upward, "baseline": asdict(self.baseline)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned: the stored baseline counts.

        Raises:
            UserError: it was measured at another place.
        """
        stored = Baseline(**state["baseline"])
        if (stored.where, stored.index) != (self.where, self.index):
            raise UserError(
                f"{self}: the stored baseline is that of {stored.where!r}; a baseline is valid at its place alone"
            )
        super().load_state_dict(state)
        self.baseline, self.upward = stored, state["upward"]


class ActivationClamp(_Clamp):
    """Scales the output of one module to the norm of a stored baseline, inside a `with` block.

        baseline = Baseline.measure(model, "blocks.3", validation)
        with ActivationClamp(model, baseline):
            train(model)

    With the scope "token" each token is scaled to the norm: y = x * norm / |x|, so that its spread and its mean are
    scaled as well. With "batch" one factor does for all tokens, norm / mean(|x|); it couples the examples of a batch,
    and in a causal model earlier places to later ones, and is there for fidelity. It works in training and in
    evaluation, is differentiable, and its target does not move. A token of zeros stays one.

    Args:
        model: the model.
        baseline: the target, and the place at which it was measured and is held.
        upward: False only ever scales down. On a fresh model, whose norms are small, scaling up slows training.
        on, least: as for every intervention.

    Traps: In front of a normalisation it does nothing, as that undoes the scale. In front of a linear head it changes
    the temperature and no choice, and in training the head learns it away. It bounds what a layer hands on, not what
    the layer does inside; that takes `rescale_norm` or clipping.

    Raises:
        UserError: the width does not fit; at the end of a block in which it was never applied.

    Source: The naive clamp of the write-up on separable heads; there it was measured before the last normalisation and
    applied after it, and once not applied at all.
    """

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        measured = norm if self.baseline.scope == "token" else norm.mean()
        return x * self._factor(self.baseline.norm, measured)


class VarianceClamp(_Clamp):
    """Scales the deviations from the mean to the spread of a stored baseline and lets the mean pass, in a `with` block.

    y = mean + (x - mean) * spread / std(x - mean). With the scope "token" the mean is that of each token over its
    features, with "batch" the mean token of the batch, with what that couples (see `ActivationClamp`). Its traps are
    those of `ActivationClamp`: the mean carries no information about which token it is, so that this clamp, too, limits
    all that does.

    Args:
        model, baseline, upward, on, least: as for `ActivationClamp`.

    Raises:
        UserError: the width does not fit; at the end of a block in which it was never applied.

    Source: The mean-preserving clamp of the write-up on separable heads.
    """

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        mean, spread = _spread(x, self.baseline.scope)
        return mean + (x - mean) * self._factor(self.baseline.spread, spread)


def _spread(x: torch.Tensor, scope: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the standard deviation around it, of shapes that broadcast to `x`; the root is never of 0."""
    mean = x.mean(-1, keepdim=True) if scope == "token" else x.mean(0, keepdim=True)
    squares = (x - mean).square()
    variance = squares.mean(-1, keepdim=True) if scope == "token" else squares.mean()
    safe = torch.where(variance > TINY**2, variance, 1.0).sqrt()
    return mean, torch.where(variance > TINY**2, safe, 0.0)


def _tokens(output: torch.Tensor) -> torch.Tensor:
    """Return the output as a matrix (tokens, width), in float32 or wider."""
    wide = output if output.dtype == torch.float64 else output.float()
    return wide.reshape(-1, output.shape[-1])


def _run(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def _scope(scope: str) -> None:
    if scope not in ("token", "batch"):
        raise UserError(f"Baseline: scope={scope!r}; expected 'token' or 'batch'")

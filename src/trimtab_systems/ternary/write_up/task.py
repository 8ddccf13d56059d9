"""What a training of the write-up's network minimises and measures.

Letters in names: N operations, B rows of a batch, Z latent dimensions, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from trimtab_systems.ternary import metrics
from trimtab_systems.ternary.data import COUNT, LEVELS, batches_in_epoch, operations
from trimtab_systems.ternary.losses import NEEDED_NATS
from trimtab_systems.ternary.write_up.homeostasis import Homeostasis
from trimtab_systems.ternary.write_up.losses import (
    Weights,
    band_loss,
    divergence,
    level_mean_loss,
    reconstruction_loss,
    variances,
)
from trimtab_systems.ternary.write_up.model import Controller, WriteUpModel

RadiusLoss = Literal["band", "level-mean", "none"]

PAIRS = 1000
"""The write-up's Q looks at the distances of so many random pairs."""


class Batch(NamedTuple):
    """Some operations, and the noise for their codes.

    Attributes:
        rows: (B,), numbers of the operations.
        level: (B, L), 1.0 at the valuation.
        noise: (B, Z), standard normal.
    """

    rows: torch.Tensor
    level: torch.Tensor
    noise: torch.Tensor


def batch_maker(*, size: int, always: torch.Tensor, latent: int, seed: int) -> Callable[[int], Batch]:
    """Return the function that makes batch number 0, 1, 2, ... of a training.

    The same number always gives the same batch. In each epoch every operation comes once, in an order of its own.

    Args:
        size: B without those of `always`; the last batch of an epoch is smaller.
        always: numbers of operations that join each batch.
        latent: Z.
        seed: of orders and noise.
    """
    length = batches_in_epoch(COUNT, size)
    level_NL = torch.nn.functional.one_hot(operations().level, LEVELS).float()

    @lru_cache(maxsize=1)
    def order(epoch: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(COUNT))

    def make(number: int) -> Batch:
        epoch, place = divmod(number, length)
        rows_B = order(epoch)[place * size : (place + 1) * size]
        if len(always):
            rows_B = torch.cat([rows_B, always])
        noise = torch.Generator().manual_seed((seed << 32) + number)
        return Batch(
            rows=rows_B,
            level=level_NL.index_select(0, rows_B),
            noise=torch.randn(len(rows_B), latent, generator=noise),
        )

    return make


@dataclass(kw_only=True)
class Task:
    """Loss and evaluation of one training.

    Codes of an encoder that is frozen for the whole training are computed once. Then, with a frozen decoder, the
    reconstruction is a constant without a gradient, and left out of the loss; the write-up added it.

    Attributes:
        model: as it was built and loaded.
        radius_loss, weights, radius_weight, beta: see the settings of the same names.
        reach_encoder: the loss of the radii has a gradient for an encoder that learns.
        frozen_encoder, frozen_decoder: for the whole training.
        sampled: radii are measured on sampled codes, drawn from torch's own generator.
        controller: weights the loss, or None.
        homeostasis: freezes and frees after each evaluation, or None.
        told: called with the hierarchy of each evaluation.
    """

    model: WriteUpModel
    radius_loss: RadiusLoss
    weights: Weights
    radius_weight: float
    beta: float
    reach_encoder: bool
    frozen_encoder: bool
    frozen_decoder: bool
    sampled: bool
    controller: Controller | None = None
    homeostasis: Homeostasis | None = None
    told: Callable[[float], None] = lambda value: None

    def __post_init__(self) -> None:
        self.level_N = operations().level.numpy()
        self.level_NL = torch.nn.functional.one_hot(operations().level, LEVELS).float()
        self.variance_L = torch.zeros(LEVELS)
        self._decoded: tuple[float, float] | None = None
        if self.radius_loss == "level-mean":
            self.variance_L = variances(self._reach(), self.level_NL)

    @cached_property
    def _frozen(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of all codes, (N, Z) each."""
        with torch.no_grad():
            mean_NZ, deviation_NZ = self.model.encoder(operations().values)
        return mean_NZ, deviation_NZ

    def _codes(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.frozen_encoder:
            return self._frozen
        mean_NZ, deviation_NZ = self.model.encoder(operations().values)
        return mean_NZ, deviation_NZ

    @torch.no_grad()
    def _reach(self) -> torch.Tensor:
        """Return the radii of the mean codes."""
        mode = self.model.training
        self.model.eval()
        reach_N = self.model.reach(self._codes()[0])
        self.model.train(mode)
        return reach_N

    # --- the loss ---------------------------------------------------------------------------------

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss of one batch; `model` is the one of the task."""
        net = self.model
        if self.frozen_encoder:
            mean_BZ, deviation_BZ = (one_NZ.index_select(0, batch.rows) for one_NZ in self._frozen)
        else:
            mean_BZ, deviation_BZ = net.encoder(operations().values.index_select(0, batch.rows))
        code_BZ = torch.addcmul(mean_BZ, deviation_BZ, batch.noise)
        reaches = []
        if self.radius_loss != "none":
            reaches.append(net.reach(code_BZ if self.reach_encoder else code_BZ.detach()))
            if net.encoder_b is not None:
                mean_b_BZ, deviation_b_BZ = net.encoder_b(operations().values.index_select(0, batch.rows))
                code_b_BZ = torch.addcmul(mean_b_BZ, deviation_b_BZ, batch.noise)
                reaches.append(net.reach(code_b_BZ, net.projection_b))
        weights = self._weights(reaches, divergence(mean_BZ, deviation_BZ)) if self.controller is not None else {}
        total = torch.zeros(())
        for reach_B in reaches:
            total = total + self._radial(reach_B, batch.level) * weights.get("radial", 1.0)
        if not (self.frozen_encoder and self.frozen_decoder):
            digits_BD = operations().digits.index_select(0, batch.rows)
            beta = self.beta * weights.get("beta_a", 1.0)
            total = total + reconstruction_loss(net.decode(code_BZ), digits_BD)
            total = total + beta * divergence(mean_BZ, deviation_BZ)
        return total

    def _radial(self, reach_B: torch.Tensor, level_BL: torch.Tensor) -> torch.Tensor:
        if self.radius_loss == "level-mean":
            return level_mean_loss(reach_B, level_BL, self.variance_L, self.weights)
        return self.radius_weight * band_loss(reach_B, level_BL)

    def _weights(self, reaches: list[torch.Tensor], kl: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the weights that the controller makes of this batch; hierarchies are zeros, as in the write-up."""
        assert self.controller is not None
        nought = torch.zeros(())
        radii = [*(reach_B.mean().detach() for reach_B in reaches), nought, nought][:2]
        weights: dict[str, torch.Tensor] = self.controller(
            torch.stack([*radii, nought, nought, kl.detach(), nought, nought, nought])
        )
        return weights

    # --- the evaluation ---------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """Return the measures of the present weights.

        `hierarchy` is that of encoder A, which is the one that is decoded; `richness` the write-up's, in squares of the
        radius as it is measured there; `kl` in nats per operation; `loss` that of all operations, at these codes.
        """
        model = self.model
        mode = model.training
        model.eval()
        mean_NZ, deviation_NZ = self._codes()
        code_NZ = mean_NZ
        if self.sampled:
            code_NZ = mean_NZ + deviation_NZ * torch.randn_like(mean_NZ)
        reach_N = model.reach(code_NZ)
        measured = {
            **self._order((reach_N * model.unit).numpy()),
            "coverage": self._coverage(mean_NZ),
            "kl": divergence(mean_NZ, deviation_NZ).item(),
            "nats_needed": NEEDED_NATS,
            "loss": self._loss_of_all(reach_N, mean_NZ, deviation_NZ),
        }
        model.train(mode)
        self.told(measured["hierarchy"])
        if self.homeostasis is not None:
            self._balance(measured, code_NZ)
        return measured

    def _order(self, radius_N: Any) -> dict[str, float]:
        """Return how the radii order the levels; NaN where a radius is not finite."""
        if not np.isfinite(radius_N).all():
            return dict.fromkeys(("hierarchy", "balanced_d", "richness"), math.nan)
        hierarchy, d_LL = metrics.hierarchy_and_separation(self.level_N, radius_N)
        return {
            "hierarchy": hierarchy,
            "balanced_d": float(d_LL[np.triu_indices(LEVELS, 1)].mean()),
            "richness": metrics.richness(self.level_N, radius_N),
        }

    def _coverage(self, mean_NZ: torch.Tensor) -> float:
        """Return the share of operations that come out of their mean codes; keep it and the cross-entropy."""
        if self._decoded is None or not self._still:
            logits_NDV = self.model.decode(mean_NZ)
            digits_ND = operations().digits
            right_N = (logits_NDV.argmax(-1) == digits_ND).all(-1)
            self._decoded = right_N.double().mean().item(), reconstruction_loss(logits_NDV, digits_ND).item()
        return self._decoded[0]

    @property
    def _still(self) -> bool:
        """Whether what is decoded never changes."""
        return self.frozen_encoder and self.frozen_decoder and self.model.reads == "code"

    def _loss_of_all(self, reach_N: torch.Tensor, mean_NZ: torch.Tensor, deviation_NZ: torch.Tensor) -> float:
        """Return the loss of all operations at once, decoded from their mean codes."""
        total = 0.0
        if self.radius_loss != "none":
            total += self._radial(reach_N, self.level_NL).item()
        if not (self.frozen_encoder and self.frozen_decoder):
            assert self._decoded is not None
            total += self._decoded[1] + self.beta * divergence(mean_NZ, deviation_NZ).item()
        return total

    def _balance(self, measured: Mapping[str, float], code_NZ: torch.Tensor) -> None:
        """Let the homeostasis see an epoch, and freeze and free what it says."""
        assert self.homeostasis is not None
        some = np.random.default_rng(0).integers(COUNT, size=(2, PAIRS))  # the same pairs each time
        point_NZ = self.model.projection(code_NZ).numpy()
        apart = np.linalg.norm(point_NZ[some[0]] - point_NZ[some[1]], axis=1)
        distances = metrics.spearman(np.abs(self.level_N[some[0]] - self.level_N[some[1]]), apart)
        quality = distances + 1.5 * abs(measured["hierarchy"])
        gradients = [one.grad for one in self.controller.parameters()] if self.controller is not None else []
        norms = [gradient.norm() for gradient in gradients if gradient is not None]
        self.homeostasis.after(
            coverage=measured["coverage"],
            hierarchy=measured["hierarchy"],
            quality=quality,
            gradient=float(torch.stack(norms).norm()) if norms else 0.0,
        )
        self.homeostasis.apply(
            {"encoder_a": self.model.encoder, "encoder_b": self.model.encoder_b, "controller": self.controller}
        )

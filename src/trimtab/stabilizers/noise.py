"""Noise on what a module hands on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trimtab.errors import UserError
from trimtab.stabilizers._intervention import Intervention


class Noise(Intervention):
    """Adds normal noise to the output of one module inside a `with` block, from a generator of its own.

        with Noise(model, "encoder", size=0.1, seed=0):
            train(model)

    No other random number of the training is moved by it. `state_dict` holds the generator too, so that a training that
    is resumed meets the noise that it would have met.

    Args:
        model, where, index, on, least: as for every intervention.
        size: standard deviation, in the units of the output; 0 is off. It may be set at any time.
        seed: of the generator.
        relative: `size` is a share of the root mean square of each output instead. No gradient goes through that.
        in_evaluation: while the module is in eval mode too.

    Traps: A part of the model that is checkpointed runs twice and would meet two noises; put the intervention outside
    of it. Directly before a normalisation, noise in fixed units is a share of something that training can make larger.

    Raises:
        UserError: the size is negative or not finite; at the end of a block in which it was never applied.

    Source: The write-up on separable heads, whose noise was added to a copy that nobody read.
    """

    def __init__(
        self,
        model: nn.Module,
        where: str,
        *,
        size: float,
        seed: int = 0,
        relative: bool = False,
        in_evaluation: bool = False,
        index: int | str | None = None,
        on: bool = True,
        least: float = 1e-6,
    ):
        if not 0 <= size < float("inf"):
            raise UserError(f"Noise at {where!r}: size must be 0 or more and finite, got {size}")
        super().__init__(model, where, index=index, on=on, least=least)
        self.size = size
        self.seed = seed
        self.relative = relative
        self.in_evaluation = in_evaluation
        self._generator: torch.Generator | None = None
        self._stored: tuple[str, torch.Tensor] | None = None

    def edit(self, output: torch.Tensor) -> torch.Tensor:
        """Return the output plus noise."""
        if self.size == 0 or not (self.in_evaluation or self.model.get_submodule(self.where).training):
            return output
        drawn = torch.randn(output.shape, generator=self._drawing(output.device), device=output.device)
        with torch.no_grad():
            scale = self.size * output.float().square().mean().sqrt() if self.relative else self.size
            drawn = (drawn * scale).to(output.dtype)
        return output + drawn

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, and the state of the generator and its kind of device."""
        kind, drawn = self._stored or ("", None)
        if self._generator is not None:
            kind, drawn = self._generator.device.type, self._generator.get_state()
        return {**super().state_dict(), "device": kind, "generator": drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, on the same kind of device."""
        super().load_state_dict(state)
        self._generator = None
        self._stored = None if state["generator"] is None else (state["device"], state["generator"].cpu())

    def _meant(self) -> bool:
        return super()._meant() and self.size > 0

    def _never(self) -> str:
        if not self.in_evaluation and not self.model.get_submodule(self.where).training:
            return f"{self.where!r} is in eval mode; pass in_evaluation=True if it is meant there too"
        return super()._never()

    def _drawing(self, device: torch.device) -> torch.Generator:
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(self.seed)
            if self._stored is not None:
                kind, drawn = self._stored
                if kind != device.type:
                    raise UserError(
                        f"{self}: the stored generator is one of {kind!r} and cannot go on on {device.type!r}; resume "
                        f"on the same kind of device"
                    )
                self._generator.set_state(drawn)
        return self._generator

"""Freeze chosen heads of an attention: they go on running, and their weights stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.optim import Optimizer

from trimtab.errors import UserError
from trimtab.stabilizers._heads import Layout, Slice, find_attention, slices_of


class FreezeHeads:
    """Holds chosen heads of attentions at their weights, inside a `with` block; the others train.

        with FreezeHeads(model, {"blocks.0.attention": [1, 2, 3]}, optimizer=optimizer):
            train(model)

    The heads go on running: they still look where their weights make them look, and what they read stays in the sum.
    So for the same input of the layer a frozen head gives, bit for bit, what it gave before. On their part of each
    parameter gradients are zero before anybody reads them; they flow through the heads to what comes before. After each
    step that part is put back, for a zero gradient alone does not hold it: weight decay and momentum move it all the
    same.

    `what` says which part of a head is held:

    - "qkvo": the whole head;
    - "qk": the routing. Where it looks is fixed as a function of the layer's input, and what it reads may be learnt;
    - any other choice of the four letters.

    `how="zero"` also takes the heads out of the sum for as long as the block lasts, by zeros in their part of the
    output layer; the weights come back at the end.

    Args:
        model: the model below which the attentions are looked up.
        heads: name of an attention -> which of its heads, counted from 0.
        optimizer: the optimizer, or all that hold one of the parameters.
        what: which of q, k, v and o is held.
        how: "keep" or "zero".
        layout: where the heads are. None knows `nn.MultiheadAttention`, linear layers called q_proj, k_proj, v_proj and
            out_proj or o_proj (or query, key, value and output) beside `num_heads`, and a list of heads called `heads`
            with such layers of their own.
        on: False does nothing.

    The bias of the output layer belongs to no head and trains. To freeze the whole layer set `requires_grad` instead.

    Traps: An attention called with the same weights from two places is frozen in both. Heads that share their keys and
    values can be frozen in those only together. Weights that are loaded inside the block are put back at the next step.

    Raises:
        UserError: a name or a number is unknown; a parameter is in none of the optimizers; held weights were changed by
            somebody else; at the end of a block in which no gradient was held back ("keep") or no attention ran
            ("zero").

    Source: The write-up on separable heads, where the packed weights had no flag for a head and the whole layer was
    frozen.
    """

    def __init__(
        self,
        model: nn.Module,
        heads: Mapping[str, Sequence[int]],
        *,
        optimizer: Optimizer | Sequence[Optimizer],
        what: str = "qkvo",
        how: Literal["keep", "zero"] = "keep",
        layout: Layout | None = None,
        on: bool = True,
    ):
        if how not in ("keep", "zero"):
            raise UserError(f"FreezeHeads: how={how!r}; expected 'keep' or 'zero'")
        if not what or set(what) - set("qkvo"):
            raise UserError(f"FreezeHeads: what={what!r}; expected letters of 'qkvo', such as 'qkvo' or 'qk'")
        self.optimizers = (optimizer,) if isinstance(optimizer, Optimizer) else tuple(optimizer)
        self.on = on
        self.how = how
        self.calls = 0
        """How many gradients were held back ("keep"), or how often an attention ran without its heads ("zero")."""
        self._attentions = {name: find_attention(model, name) for name in heads}
        self._zeroed: set[str] = set()
        self._slices: dict[str, Slice] = {}
        for name, chosen in heads.items():
            for letter, slot in slices_of(
                name, self._attentions[name], chosen, layout, set(what) | set("o" * (how == "zero"))
            ):
                key = f"{name}.{slot[0]}{_brackets(slot[2])}".removeprefix(".")
                self._slices[key] = (f"{name}.{slot[0]}".removeprefix("."), *slot[1:])
                if letter == "o" and how == "zero":
                    self._zeroed.add(key)
        held = {id(p) for one in self.optimizers for group in one.param_groups for p in group["params"]}
        for name, parameter, _ in self._slices.values():
            if parameter.requires_grad and id(parameter) not in held:
                raise UserError(f"FreezeHeads: {name!r} is in none of the optimizers given; it could not be put back")
        self._weights: dict[str, torch.Tensor] = {}
        self._masks: dict[str, torch.Tensor] = {}
        self._stack: ExitStack | None = None
        self._before = 0
        self._share: torch.Tensor | None = None
        self._largest: torch.Tensor | None = None

    @property
    def change(self) -> float:
        """Which share of the latest gradient was held back, |held back| / |gradient|."""
        return 0.0 if self._share is None else self._share.item()

    @property
    def largest_change(self) -> float:
        """The largest such share so far."""
        return 0.0 if self._largest is None else self._largest.item()

    def __enter__(self) -> Self:
        if self._stack is not None:
            raise UserError("FreezeHeads: it is at work already; one object stands for one block at a time")
        self._before, self._stack = self.calls, ExitStack()
        if not self.on:
            return self
        for key, (_, parameter, place) in self._slices.items():
            self._weights.setdefault(key, parameter.detach()[place].clone())
        self._put_back()
        for name, (parameter, mask) in self._masked().items():
            if parameter.grad is not None:
                parameter.grad.masked_fill_(mask, 0.0)
            if parameter.requires_grad:
                self._stack.callback(parameter.register_hook(self._holder(name, mask)).remove)
        for optimizer in self.optimizers:
            self._stack.callback(optimizer.register_step_post_hook(self._stepped).remove)
        if self.how == "zero":
            for attention in self._attentions.values():
                self._stack.callback(attention.register_forward_hook(self._ran).remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stack is not None
        stack, self._stack = self._stack, None
        stack.close()
        if not self.on:
            return
        try:
            if kind is None:
                self.verify()
        finally:
            weights, self._weights = self._weights, {}
            with torch.no_grad():
                for key in self._zeroed:
                    _, parameter, place = self._slices[key]
                    parameter[place] = weights[key].to(parameter)
        if kind is None and self.calls == self._before:
            never = (
                "no gradient reached their parameters" if self.how == "keep" else "none of the attentions was called"
            )
            raise UserError(
                f"FreezeHeads at {', '.join(self._attentions)}: it was never applied: {never} inside the block"
            )

    def verify(self) -> None:
        """Compare every held weight with what it should be, bit for bit.

        Raises:
            UserError: one differs; the message names all of them.
        """
        wrong = [
            key
            for key, (_, parameter, place) in self._slices.items()
            if key in self._weights and not torch.equal(parameter.detach()[place], self._target(key, parameter))
        ]
        if wrong:
            raise UserError(
                f"FreezeHeads: {', '.join(wrong)} no longer holds the frozen weights: something other than the "
                f"optimizers given has written to it since the last step"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the weights that are held (none outside a block) and the counts."""
        held = {key: weights.clone() for key, weights in self._weights.items()}
        return {"weights": held, "calls": self.calls, "largest_change": self.largest_change}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold the stored weights from now on, or from the next `with` on: so that a resumed training stays as it was.

        Raises:
            UserError: they are those of other heads.
        """
        stored = state["weights"]
        if stored and stored.keys() != self._slices.keys():
            raise UserError(
                f"FreezeHeads: the state holds {', '.join(stored)}; this one freezes {', '.join(self._slices)}; "
                f"use the same heads, what and how"
            )
        self._before += state["calls"] - self.calls
        self.calls = state["calls"]
        self._largest = torch.tensor(float(state["largest_change"]))
        if stored:
            self._weights = {key: weights.clone() for key, weights in stored.items()}
        if self._stack is not None and self.on:
            self._put_back()

    def _target(self, key: str, parameter: torch.Tensor) -> torch.Tensor:
        weights = self._weights[key].to(parameter)
        return torch.zeros_like(weights) if key in self._zeroed else weights

    def _stepped(self, *_: Any) -> None:
        self._put_back(moved_only=True)

    @torch.no_grad()
    def _put_back(self, *, moved_only: bool = False) -> None:
        """Write the held weights; after a step, those alone that an optimizer can have moved."""
        for key, (_, parameter, place) in self._slices.items():
            if not moved_only or parameter.requires_grad or parameter.grad is not None:
                parameter[place] = self._target(key, parameter)

    def _masked(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return each parameter once, with a mask of what is held of it."""
        masks: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name, parameter, place in self._slices.values():
            if name not in masks:
                masks[name] = parameter, torch.zeros_like(parameter, dtype=torch.bool)
            masks[name][1][place] = True
        return masks

    def _holder(self, name: str, mask: torch.Tensor) -> Any:
        def hold(gradient: torch.Tensor) -> torch.Tensor:
            kept = gradient.masked_fill(mask, 0.0)
            self.calls += self.how == "keep"
            with torch.no_grad():
                share = torch.linalg.vector_norm(gradient - kept) / torch.linalg.vector_norm(gradient).clamp_min(1e-30)
                self._share = share
                self._largest = share if self._largest is None else torch.maximum(self._largest.to(share), share)
            return kept

        return hold

    def _ran(self, *_: Any) -> None:
        self.calls += 1


def _brackets(place: tuple[slice, ...]) -> str:
    parts = ("" if one == slice(None) else f"{one.start}:{one.stop}" for one in place)
    return f"[{', '.join(part or ':' for part in parts)}]" if place else ""

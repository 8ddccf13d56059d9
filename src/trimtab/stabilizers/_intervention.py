"""What an intervention is: a change of what one module hands on, for as long as a `with` block lasts, and counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from trimtab.errors import UserError
from trimtab.tap import Taps, tap


class Intervention(ABC):
    """Changes the output of one module inside a `with` block, through `tap`; at the end the model is as it was.

    It counts how often it was applied and by how much it changed what passed. A block that ends without an error,
    while the intervention was on, and in which it was never applied or never changed anything by more than `least`,
    raises: two trainings of which one was meant to differ and did not are worse than none.

    Args:
        model: the model below which the module is looked up.
        where: the name of the module.
        index: which part of an output that is a tuple, a list or a mapping, such as 0 for `nn.MultiheadAttention`.
        on: False lets everything pass, bit for bit. It may be set at any time.
        least: relative change below which all applications of a block together count as none; 0 allows any.

    Inside a region compiled by `torch.compile` hooks do not run reliably, and `tap` refuses; put the intervention in
    before compiling.
    """

    def __init__(
        self,
        model: nn.Module,
        where: str,
        *,
        index: int | str | None = None,
        on: bool = True,
        least: float = 1e-6,
    ):
        self.model = model
        self.where = where
        self.index = index
        self.least = least
        self.calls = 0
        """How often it was applied, over all blocks."""
        self._on = on
        self._wanted = on
        self._stack: ExitStack | None = None
        self._seen: Taps | None = None
        self._calls_before = 0
        self._largest_before = 0.0

    @abstractmethod
    def edit(self, output: torch.Tensor) -> torch.Tensor:
        """Return what the module hands on instead, a new tensor; `output` itself when there is nothing to do."""

    @property
    def on(self) -> bool:
        """Whether it is applied at present."""
        return self._on

    @on.setter
    def on(self, value: bool) -> None:
        self._on = value
        self._wanted = self._wanted or value

    @property
    def change(self) -> float:
        """Relative change at the latest call of the module in this block, |after - before| / |before|."""
        return self._seen.change if self._seen is not None else 0.0

    @property
    def largest_change(self) -> float:
        """The largest relative change so far, over all blocks."""
        return max(self._largest_before, self._seen.largest_change if self._seen is not None else 0.0)

    def __enter__(self) -> Self:
        if self._stack is not None:
            raise UserError(f"{self}: it is at work already; one object stands for one block at a time")
        self._largest_before = self.largest_change
        self._wanted, self._calls_before = self._on, self.calls
        self._stack = ExitStack()
        try:
            self._seen = self._stack.enter_context(
                tap(self.model, {self.where: self._hook}, index=self.index, retain="none", required=False)
            )
        except BaseException:
            self._stack = None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stack is not None
        assert self._seen is not None
        stack, self._stack = self._stack, None
        stack.close()
        if kind is not None or not self._meant():
            return
        if self.calls == self._calls_before:
            raise UserError(f"{self}: it was never applied: {self._never()}")
        change = self._seen.largest_change
        if change < self.least:
            raise UserError(
                f"{self}: it was applied {self.calls - self._calls_before} times and changed nothing: at most "
                f"{change:.1e} of what passed, least={self.least:g}; what it should hold is as it should be already, "
                f"or it is too weak. Pass least=0 if so meant"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the counts and whether it is on."""
        return {"on": self._on, "calls": self.calls, "largest_change": self.largest_change}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; inside a block too."""
        self.on = state["on"]
        self._calls_before += state["calls"] - self.calls
        self.calls = state["calls"]
        self._largest_before = state["largest_change"]
        if self._stack is None:
            self._seen = None

    def __repr__(self) -> str:
        return f"{type(self).__name__} at {self.where!r}"

    def _hook(self, output: torch.Tensor) -> torch.Tensor:
        if not self._on:
            return output
        after = self.edit(output)
        if after is not output:
            self.calls += 1
        return after

    def _meant(self) -> bool:
        """Return whether the block that ends should have seen it at work."""
        return self._wanted

    def _never(self) -> str:
        return (
            f"{self.where!r} was not called inside the block (its parent may call one of its methods other than "
            f"forward, or a compiled copy of the model ran instead)"
        )

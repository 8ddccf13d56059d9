"""From measured numbers to rows: at once, together some steps later, or when they arrive from a device.

On a CPU a number is read where it arises. On an accelerator the numbers of a step are stacked and copied without
waiting, and the row is handed on one step later under its own step. Rows of a calm run are handed on together: between
two steps that have emptied the processor's caches each would cost several times as much alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from trimtab.cadence import Burst
from trimtab.records import Signal, Value
from trimtab.streams import Numbers

ARREARS = 32
"""At most so many rows of a calm run are handed on together, later."""
IMPATIENT = 64
"""The rows of the first so many updates are handed on at once: a person waits for the first word."""
PATIENCE = 0.5
"""No row waits longer than so many seconds for the next step."""


@dataclass(slots=True)
class _Waiting:
    """A row whose numbers are still on their way from the device."""

    row: Signal
    layout: list[tuple[str, int]]
    host: torch.Tensor
    event: Any
    sparse: tuple[str, ...]
    burst: Burst


class Delivery:
    """Hands rows on in the order of their steps.

    Args:
        on_row: takes each row when its turn has come.
    """

    def __init__(self, on_row: Callable[[Signal], None]):
        self._on_row = on_row
        self._arrears: list[tuple[float, Callable[[], Signal]]] = []
        self._waiting: list[_Waiting] = []

    def now(self, row: Signal) -> None:
        """Hand on a row at once, after those that wait."""
        self.settle()
        self._on_row(row)

    def later(self, time: float, make: Callable[[], Signal]) -> None:
        """Let a row of a calm step wait for others; `make` is called when its turn has come."""
        self._arrears.append((time, make))

    def settle(self) -> None:
        """Make and hand on the rows that were put off."""
        # One by one: whoever takes a row may write one of his own, before which all that wait have their turn.
        while self._arrears:
            _, make = self._arrears.pop(0)
            self._on_row(make())

    def settle_if_due(self, time: float) -> None:
        """Settle when enough rows wait, or the first has waited long enough; `time` as in `later`."""
        if self._arrears and (len(self._arrears) >= ARREARS or time - self._arrears[0][0] > PATIENCE):
            self.settle()

    def send(self, row: Signal, numbers: Numbers, device: torch.device, sparse: tuple[str, ...], burst: Burst) -> None:
        """Begin to copy the numbers of a row from a device; names in `sparse` are left out unless they show trouble."""
        tensors = [(name, value) for name, value in numbers.items() if isinstance(value, torch.Tensor)]
        ready = {name: value for name, value in numbers.items() if not isinstance(value, torch.Tensor)}
        row = replace(row, values=ready)
        flat = [v.detach().reshape(-1).to(device, torch.float64) for _, v in tensors]
        on_device = torch.cat(flat) if flat else torch.zeros(0, device=device, dtype=torch.float64)
        host, event = start_copy(on_device)
        layout = [(name, -1 if value.dim() == 0 else value.numel()) for name, value in tensors]
        self._waiting.append(_Waiting(row, layout, host, event, sparse, burst))

    def deliver(self, *, wait: bool) -> None:
        """Hand on the rows whose numbers have arrived; never leave more than one behind."""
        while self._waiting and (wait or len(self._waiting) > 1 or _arrived(self._waiting[0].event)):
            one = self._waiting.pop(0)
            if one.event is not None:
                one.event.synchronize()
            arrived, place = one.host.tolist(), 0
            values: dict[str, Value] = dict(one.row.values)
            for name, length in one.layout:
                values[name] = arrived[place] if length < 0 else tuple(arrived[place : place + length])
                place += abs(length)
            if not one.burst.saw(one.row.step, number(values, "loss"), number(values, "gradient_norm")):
                values = {name: value for name, value in values.items() if name not in one.sparse}
            self._on_row(replace(one.row, values=values))

    def flush(self) -> None:
        """Hand on every row that is not yet."""
        self.deliver(wait=True)
        self.settle()


def start_copy(on_device: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Begin to copy numbers to the host without waiting; return where they will be, and the event that says when."""
    if not on_device.is_cuda:
        return on_device, None
    host = torch.empty(on_device.shape, dtype=on_device.dtype, pin_memory=True)
    host.copy_(on_device, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event


def _arrived(event: Any) -> bool:
    return event is not None and bool(event.query())


def to_host(numbers: Mapping[str, Any]) -> dict[str, Value]:
    """Return measured numbers as floats and tuples of floats; this waits for a device."""
    values: dict[str, Value] = {}
    for name, value in numbers.items():
        if isinstance(value, torch.Tensor):
            values[name] = float(value.item()) if value.dim() == 0 else tuple(value.tolist())
        elif isinstance(value, tuple):
            values[name] = value
        elif isinstance(value, Sequence):
            values[name] = tuple(float(part) for part in value)
        else:
            values[name] = float(value)
    return values


def number(values: Mapping[str, Value], name: str) -> float:
    """Return a scalar of a row, 0 when it was not measured."""
    value = values.get(name)
    return value if isinstance(value, float) else 0.0

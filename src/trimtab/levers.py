"""The levers that an action may pull: leave an update out, change it, go back, hold an escalation.

A Guard that responds makes them and hands them on as `live.levers`. Whatever is changed for one update only is put back
after it, also when the training stops there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from trimtab.checkpoint import Captured, Restored, TrainingState
from trimtab.checkpoint.snapshots import Snapshot, Snapshots

_NAMES = (
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam", "RMSprop", "Rprop",
    "SGD", "SparseAdam",
)  # fmt: skip
LEAVES_OUT: tuple[type, ...] = tuple(getattr(torch.optim, name) for name in _NAMES if hasattr(torch.optim, name))
"""The optimizer classes for which it is tested that an update without gradients changes nothing at all."""


LONGEST = 64
"""A way back that passes over so many updates ends where it is."""


@dataclass(slots=True)
class _Return:
    """A way back that ends after an update of `stream`.

    It holds what was captured, and not the snapshot: new trouble on the way may drop that.
    """

    captured: Captured
    data: bool
    stream: str
    updates: int = 0


class Effect(Protocol):
    """A change that stands for some time: it is made just before each update of a stream, and undone just after."""

    @property
    def stream(self) -> str:
        """The stream whose updates it changes."""

    @property
    def over(self) -> bool:
        """True: it has done its work and is dropped."""

    def before(self, optimizer: torch.optim.Optimizer, live: Any) -> None:
        """Change the update that is about to be taken; Trimtab has read the gradients."""

    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Put back what was changed for this update only."""


class Levers:
    """What actions may pull.

    Args:
        state: all that is put back when the training goes back.
        snapshots: moments that it can go back to; None when no action asks for them.
        past: stream -> its Trace.

    Attributes:
        state, snapshots: as given.
        escalations: every part with `pause(because)` and `back_off(because)`.
        find_parts: called before the training goes back, to look for parts of it that are not known yet.
        on_failure: takes (part, error) of an effect that failed and is dropped.
        no_snapshots: why there are none.
        postponed: ids of findings for which the training goes back only if leaving updates out does not help.
    """

    def __init__(
        self, state: TrainingState, snapshots: Snapshots | None = None, past: Callable[[str], Any] = lambda stream: None
    ):
        self.state, self.snapshots = state, snapshots
        self.escalations: list[Any] = []
        self.find_parts: Callable[[], None] = lambda: None
        self.on_failure: Callable[[str, Exception], None] = lambda part, error: None
        self.no_snapshots = "" if snapshots is not None else "no snapshots are taken"
        self.postponed: set[str] = set()
        self._past = past
        self._effects: list[Effect] = []
        self._at_work: dict[int, list[Effect]] = {}
        self._gradients: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._return: _Return | None = None
        self._in_a_row: dict[int, int] = {}

    def past(self, stream: str = "main") -> Any:
        """Return the Trace of a stream, read-only: `past("main").window("gradient_norm", 256)`."""
        return self._past(stream)

    # -- one update ----------------------------------------------------------------------------------------------

    def leave_out(self, live: Any, because: str = "", *, trust: Collection[str] = ()) -> str | None:
        """Make the update that is about to be taken an exact no-op.

        Every gradient of this optimizer is taken away, and the same tensors are put back after the step: parameters,
        moments, step counters and weight decay stay bit for bit as they are.

        Args:
            live: the step.
            because: for the log.
            trust: names of further optimizer classes, 'module.Class', that do nothing without gradients.

        Returns:
            None when it will be left out, else why it cannot be.
        """
        if live.skipped:
            return None  # a GradScaler leaves it out already
        optimizer = live.optimizer
        if optimizer is None:
            return "there is no update to leave out"
        if live.closure:
            return "this update runs a closure, which makes new gradients inside it"
        kind = type(optimizer)
        if kind not in LEAVES_OUT and _called(kind) not in trust:
            return (
                f"it is not known whether an update of {_called(kind)} without gradients changes nothing; "
                f"name it in trust=({_called(kind)!r},) if you know that"
            )
        if id(optimizer) not in self._gradients:
            self._gradients[id(optimizer)] = _taken_away(optimizer)
        return None

    def is_left_out(self, optimizer: torch.optim.Optimizer | None) -> bool:
        """Say whether the update of this optimizer that is running now is left out."""
        return id(optimizer) in self._gradients

    def left_out_in_a_row(self, optimizer: torch.optim.Optimizer | None) -> int:
        """Return how many updates of this optimizer, up to the latest, were left out one after the other."""
        return self._in_a_row.get(id(optimizer), 0)

    def around(self, effect: Effect) -> None:
        """Let an effect change this update, when it has not begun, and those that follow until it is over."""
        self._effects.append(effect)

    # -- going back ----------------------------------------------------------------------------------------------

    def go_back(self, live: Any, snapshot: Snapshot, *, data: bool) -> Restored:
        """Put the training back to a snapshot, in place of the update that is about to be taken.

        The loop goes on after this update as it did after the one of the snapshot. Where that was an update of another
        stream, updates are left out until that one comes round, and everything is put back once more there.

        Raises:
            UserError: something does not fit; nothing was changed then.
        """
        self.find_parts()
        restored = self.state.restore(snapshot.captured, data=data)
        self._in_a_row.clear()
        if self.snapshots is not None:
            self.snapshots.went_back(snapshot)
        # Gradients of the abandoned way do not come back; the loop may look at those of this update after it.
        mine = self._gradients.pop(id(live.optimizer), []) + _taken_away(live.optimizer)
        for optimizer in self.state.optimizers.values():
            _taken_away(optimizer)
        at_once = live.stream == snapshot.stream or not snapshot.stream
        if live.skipped:
            _put_back(_zeroed(mine))
        else:
            self._gradients[id(live.optimizer)] = _zeroed(mine)
            at_once = at_once and not live.closure and type(live.optimizer) in LEAVES_OUT
        self._return = None if at_once else _Return(snapshot.captured, data, snapshot.stream or live.stream)
        return restored

    @property
    def is_on_the_way(self) -> bool:
        """Whether the training is on its way back, and not there yet."""
        return self._return is not None

    def passes_over(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave an update out on the way back."""
        self._gradients[id(optimizer)] = _zeroed(_taken_away(optimizer))

    def arrive(self, stream: str) -> None:
        """Take in the end of an update: where the snapshot was taken, or if that does not come, the way back ends."""
        way = self._return
        if way is None:
            return
        way.updates += 1
        if stream == way.stream or way.updates >= LONGEST:
            self._return = None
            self.state.restore(way.captured, data=way.data)
            for name, optimizer in self.state.optimizers.items():
                taken = _taken_away(optimizer)
                if name == stream:
                    _put_back(_zeroed(taken))

    # -- called by the Guard ---------------------------------------------------------------------------------------

    def settle(self, optimizer: torch.optim.Optimizer) -> None:
        """Undo what an update that raised has left behind: nobody heard its end."""
        self._undo(optimizer)
        self._gradients.pop(id(optimizer), None)

    def begin(self, optimizer: torch.optim.Optimizer, stream: str, live: Any) -> None:
        """Let the effects of this stream change the update that is about to be taken."""
        if self.is_left_out(optimizer):
            return
        at_work = self._at_work.setdefault(id(optimizer), [])
        for effect in list(self._effects):
            if effect.stream == stream and not effect.over:
                at_work.append(effect)  # first, so that one which fails half-way is undone
                try:
                    effect.before(optimizer, live)
                except Exception as error:  # noqa: BLE001 - fail open: the effect is dropped, the training goes on
                    self._drop(effect, error)

    def end(self, optimizer: torch.optim.Optimizer) -> bool:
        """Undo what was changed for this update only; say whether it was left out."""
        self._undo(optimizer)
        if any(effect.over for effect in self._effects):
            self._effects = [effect for effect in self._effects if not effect.over]
        gradients = self._gradients.pop(id(optimizer), None)
        self._in_a_row[id(optimizer)] = 0 if gradients is None else self.left_out_in_a_row(optimizer) + 1
        _put_back(gradients or ())
        return gradients is not None

    def _undo(self, optimizer: torch.optim.Optimizer) -> None:
        for effect in reversed(self._at_work.pop(id(optimizer), [])):
            try:
                effect.after(optimizer)
            except Exception as error:  # noqa: BLE001 - as above
                self._drop(effect, error)

    def _drop(self, effect: Effect, error: Exception) -> None:
        if effect in self._effects:
            self._effects.remove(effect)
            self.on_failure(f"effect {type(effect).__name__}", error)

    def release(self) -> None:
        """Undo everything at once: the training stops, or Trimtab leaves it alone."""
        for optimizer in list(self.state.optimizers.values()):
            if id(optimizer) in self._gradients or id(optimizer) in self._at_work:
                self.end(optimizer)
        self._effects, self._return = [], None


def lost(tensors: Sequence[torch.Tensor]) -> bool:
    """Say whether an element of one of these is not finite; this waits for the device."""
    floats = [t.detach() for t in tensors if t.is_floating_point() and t.numel() and t.layout == torch.strided]
    return bool(floats) and not all(
        bool(torch.stack([norm.float() for norm in norms]).isfinite().all())
        for norms in _by_device(torch._foreach_norm(floats, float("inf")))
    )


def _by_device(norms: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    found: dict[torch.device, list[torch.Tensor]] = {}
    for norm in norms:
        found.setdefault(norm.device, []).append(norm)
    return list(found.values())


def _taken_away(optimizer: torch.optim.Optimizer) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Set every gradient of an optimizer to None and return what was there."""
    taken = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                taken.append((parameter, parameter.grad))
                parameter.grad = None
    return taken


def _zeroed(taken: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    for _, gradient in taken:
        gradient.detach().zero_()
    return list(taken)


def _put_back(taken: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for parameter, gradient in taken:
        parameter.grad = gradient


def _called(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

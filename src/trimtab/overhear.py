"""What a program tells others about its training, overheard: logged scalars, and its loss function under no_grad.

    SummaryWriter.add_scalar   of torch.utils.tensorboard and tensorboardX, once the program has imported them
    Run.log, wandb.log         of wandb, likewise
    the loss functions         where torch.nn.functional hands them to its kernels: `evaluation/loss`

A loss of the training costs 0.3 microseconds more, an update 0.1. Everything is wrapped while somebody listens and
restored when the last one leaves. What goes wrong in here stays here: the program's own call has already returned its
own result.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from trimtab.records import Value

log = logging.getLogger("trimtab")

EVALUATION = "evaluation/loss"
"""Mean of the training loss function over its calls without gradients since the last row."""

APART = 8
"""A quantity that comes more often is taken once in so many updates; one that is not finite is always taken."""

SOON = 4
"""The first updates after which new modules are looked for; then at each power of two, and every `SELDOM`."""
SELDOM = 256

_LOSSES: tuple[tuple[Any, str, int], ...] = (
    (torch._C._nn, "cross_entropy_loss", 3),
    (torch._C._nn, "nll_loss_nd", 3),
    (torch._C._nn, "binary_cross_entropy", 3),
    (torch, "binary_cross_entropy_with_logits", 4),
    (torch._C._nn, "mse_loss", 2),
    (torch._C._nn, "l1_loss", 2),
    (torch._C._nn, "smooth_l1_loss", 2),
    (torch._C._nn, "huber_loss", 2),
)
"""Where the function stands, its name, and the place of the reduction among its arguments.

The kernels are wrapped and not `torch.nn.functional.cross_entropy` itself: a program keeps references to that one, and
pickles them with its model.
"""


@dataclass(eq=False)
class Overheard:
    """What was heard since the last row, for one Guard; `start` and `stop` begin and end the listening.

    A quantity keeps its tag as its name; a tag without a slash becomes `logged/<tag>`, for names without are Trimtab's.
    """

    _step: int = 0
    _look_at: int = 0
    _values: dict[str, Value] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)
    _sum: Any = 0.0
    _calls: int = 0

    def start(self) -> None:
        """Listen from now on."""
        if not _listeners:
            _wrap_losses()
        if self not in _listeners:
            _listeners.append(self)
        _wrap_loggers()

    def stop(self) -> None:
        """Listen no longer; the last one to leave restores what was wrapped."""
        if self in _listeners:
            _listeners.remove(self)
        if not _listeners:
            while _restore:
                _restore.pop()()
        self._sum = 0.0

    def take(self, step: int) -> dict[str, Value]:
        """Return what was heard since the last call; `step` is the step that comes next, or the number of steps."""
        self._step = step
        if step >= self._look_at:
            self._look_at = step + 1 if step < SOON else min(2 * step, step + SELDOM)
            _wrap_loggers()
        if not self._calls and not self._values:
            return {}
        if self._calls:
            calls, total = self._calls, self._sum
            self._calls, self._sum = 0, 0.0
            try:
                self.hear({EVALUATION: float(total) / calls})
            except Exception:
                log.debug("trimtab could not read a loss", exc_info=True)
        heard, self._values = self._values, {}
        for name in heard:
            self._last[name] = step
        return heard

    def hear(self, metrics: Mapping[str, Any]) -> None:
        """Keep those of these quantities that are numbers and did not come a moment ago."""
        for name, value in metrics.items():
            key = str(name) if "/" in str(name) else f"logged/{name}"
            if isinstance(value, bool) or not (isinstance(value, (int, float)) or hasattr(value, "item")):
                continue
            if getattr(value, "size", None) is not None and not _single(value):
                continue
            number, last = float(value), self._last.get(key)
            if last is None or self._step - last >= APART or not math.isfinite(number):
                self._values[key] = number

    def evaluated(self, result: torch.Tensor) -> None:
        """Note a loss that was computed without gradients."""
        last = self._last.get(EVALUATION)
        if last is None or self._step - last >= APART:
            # In 16 bits a sum soon grows too large for the next value to count.
            self._sum = self._sum + (result if result.dim() == 0 else result.mean()).float()
            self._calls += 1


@contextmanager
def unheard() -> Iterator[None]:
    """Compute a loss function without being overheard: a sensor that does so evaluates nothing."""
    _deaf.append(None)
    try:
        yield
    finally:
        _deaf.pop()


def _single(value: Any) -> bool:
    count = value.numel() if isinstance(value, torch.Tensor) else value.size
    return bool(count == 1)


_listeners: list[Overheard] = []
_deaf: list[None] = []
_trained_on: list[Callable[[], Any]] = [lambda: None]
"""The targets of the latest loss that was computed with gradients: one without, on the same, is no evaluation."""
_restore: list[Callable[[], None]] = []
os.register_at_fork(after_in_child=_listeners.clear)


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    original = getattr(owner, name, None)
    if original is None or hasattr(original, "_trimtab"):
        return
    replacement = make(original)
    setattr(owner, name, replacement)

    def undo() -> None:
        if getattr(owner, name, None) is replacement:
            setattr(owner, name, original)
        _known_to_script(replacement, None)

    _restore.append(undo)


def _wrap_losses() -> None:
    for owner, name, place in _LOSSES:
        _replace(owner, name, functools.partial(_wrap_loss, name=name, place=place))


def _wrap_loss(original: Any, *, name: str, place: int) -> Any:
    enabled, reference = torch.is_grad_enabled, weakref.ref
    trained: set[Any] = set()

    def loss(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        try:
            if _deaf:
                return result
            if enabled():
                _trained_on[0] = reference(args[1])
                if args[place] not in trained and result.requires_grad:
                    trained.add(args[place])
            elif args[place] in trained and _trained_on[0]() is not args[1] and type(result) is torch.Tensor:
                for one in _listeners:
                    one.evaluated(result)
        except Exception:
            log.debug("trimtab could not listen to %s", name, exc_info=True)
        return result

    setattr(loss, "_trimtab", True)  # noqa: B010 - a function has no such attribute by itself
    _known_to_script(loss, f"aten::{name}")
    return loss


def _known_to_script(function: Any, operator: str | None) -> None:
    """Enter a function in torch.jit.script's table of kernels, by its identity; None takes it out again.

    The table does not keep the function alive: an entry that stayed would be that of whatever comes to its place.
    """
    try:
        from torch.jit import _builtins

        if operator is not None:
            _builtins._register_builtin(function, operator)
        else:
            _builtins._get_builtin_table().pop(id(function), None)
    except (ImportError, AttributeError):
        pass


def _wrap_loggers() -> None:
    """Wrap what the program has imported; nothing is imported for it."""
    for module in ("torch.utils.tensorboard.writer", "tensorboardX.writer"):
        writer = getattr(sys.modules.get(module), "SummaryWriter", None)
        if writer is not None:
            _replace(writer, "add_scalar", _wrap_add_scalar)
    wandb = sys.modules.get("wandb")
    if wandb is not None:
        run = getattr(sys.modules.get("wandb.sdk.wandb_run"), "Run", None)
        if run is not None:
            _replace(run, "log", _wrap_log_method)
        if not hasattr(getattr(getattr(wandb, "log", None), "__func__", None), "_trimtab"):
            _replace(wandb, "log", _wrap_log)


def _wrap_add_scalar(original: Any) -> Any:
    @functools.wraps(original)
    def add_scalar(self: Any, tag: Any, scalar_value: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, tag, scalar_value, *args, **kwargs)
        _tell({str(tag): scalar_value})
        return result

    setattr(add_scalar, "_trimtab", True)  # noqa: B010 - as above
    return add_scalar


def _wrap_log_method(original: Any) -> Any:
    @functools.wraps(original)
    def log(self: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, data, *args, **kwargs)
        _tell(data)
        return result

    setattr(log, "_trimtab", True)  # noqa: B010 - as above
    return log


def _wrap_log(original: Any) -> Any:
    @functools.wraps(original)
    def log(data: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(data, *args, **kwargs)
        _tell(data)
        return result

    setattr(log, "_trimtab", True)  # noqa: B010 - as above
    return log


def _tell(metrics: Any) -> None:
    if not isinstance(metrics, Mapping):
        return
    for one in _listeners:
        try:
            one.hear(metrics)
        except Exception:
            log.debug("trimtab could not listen to what was logged", exc_info=True)

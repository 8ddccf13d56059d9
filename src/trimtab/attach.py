"""The four points at which Trimtab looks at a training, whoever attaches it.

    root of backward    torch.autograd.backward (and GradScaler.scale, which tells the loss from its scaled twin)
    clipping            torch.nn.utils.clip_grad_norm_ and clip_grad_value_
    before the step     torch's global optimizer hooks (and GradScaler.step, which may skip it)
    after the step      the same

The functions of torch are wrapped while at least one listener is attached and restored when the last one leaves. A
listener that raises is told so and never called again; its error does not reach the user's loop. A process that a
loader forks inherits the wrappers but no listeners.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, GeneratorType
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.utils import clip_grad
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from trimtab import checksum, evaluations
from trimtab.errors import TrainingStopped
from trimtab.live import UNSCALED

log = logging.getLogger("trimtab")


Load = tuple[nn.Module, tuple[str, ...], tuple[str, ...], int | None]
"""What `weights_loaded` is told."""


class Points(Protocol):
    """What a listener is told. It changes nothing, unless a response was asked for."""

    def backward_begins(self, roots: Sequence[torch.Tensor]) -> None:
        """Hear that a backward pass from these tensors is about to run; the graph is whole."""

    def backward_ended(self) -> None:
        """Hear that it has run."""

    def clipping(self, parameters: Sequence[torch.Tensor]) -> None:
        """Hear that the gradients of these parameters are about to be clipped."""

    def unscaled(self, optimizer: torch.optim.Optimizer) -> None:
        """Hear that a GradScaler has divided the gradients of this optimizer by its scale."""

    def step_begins(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """Hear that an update is about to be taken; with a closure the backward passes come inside it."""

    def step_ended(self, optimizer: torch.optim.Optimizer) -> None:
        """Hear that it was taken."""

    def step_skipped(self, optimizer: torch.optim.Optimizer) -> None:
        """Hear that a GradScaler left an update out."""

    def weights_loaded(
        self, module: nn.Module, missing: Sequence[str], unexpected: Sequence[str], changed: int | None
    ) -> None:
        """Hear that weights were loaded into a module, which names did not fit, and how many tensors are others now.

        `changed` is None where that could not be seen.
        """

    def broke(self, where: str, error: Exception) -> None:
        """Hear that this listener raised `error` in the method `where`, and is told nothing more."""


class _Hearer:
    """Listens to loads alone."""

    def __init__(self) -> None:
        self.loads: list[Load] = []

    def weights_loaded(
        self, module: nn.Module, missing: Sequence[str], unexpected: Sequence[str], changed: int | None
    ) -> None:
        self.loads.append((module, tuple(missing), tuple(unexpected), changed))

    def _pass_over(self, *facts: Any) -> None:
        """Hear of something else."""

    backward_begins = backward_ended = clipping = unscaled = step_begins = step_ended = step_skipped = _pass_over
    broke = _pass_over


_listeners: list[Points] = []
_restore: list[Callable[[], None]] = []
_POINTS = (
    "backward_begins", "backward_ended", "clipping", "unscaled", "step_begins", "step_ended", "step_skipped",
    "weights_loaded",
)  # fmt: skip
_calls: dict[str, tuple[Callable[..., None], ...]] = dict.fromkeys(_POINTS, ())
_owner: dict[Callable[..., None], Points] = {}
_in_backward = 0
_in_step: list[tuple[int, FrameType]] = []
"""The steps that are running: the optimizer's id and the frame that called our hook, the outermost first."""
_stepped: set[int] = set()


@contextmanager
def attached(listener: Points) -> Iterator[None]:
    """Tell `listener` about every training step of this process while the block runs."""
    attach(listener)
    try:
        yield
    finally:
        detach(listener)


@contextmanager
def loads_heard() -> Iterator[list[Load]]:
    """Collect the loads of weights of the block, for a listener that is attached after it."""
    hearer = _Hearer()
    with attached(hearer):
        yield hearer.loads


def listeners() -> tuple[Points, ...]:
    """Return who is attached now."""
    return tuple(_listeners)


def attach(listener: Points) -> None:
    """Tell `listener` about every training step of this process from now on."""
    if not _listeners:
        _in_step.clear()
        _wrap_everything()
    if listener not in _listeners:
        _listeners.append(listener)
        _bind()


def detach(listener: Points) -> None:
    """Leave `listener` alone from now on; the last one to leave restores torch as it was."""
    if listener in _listeners:
        _listeners.remove(listener)
        _bind()
    if not _listeners:
        while _restore:
            _restore.pop()()


def _bind() -> None:
    """Look the listeners' methods up once, and not at each step."""
    _owner.clear()
    for point in _POINTS:
        calls = []
        for listener in _listeners:
            call = getattr(listener, point)
            _owner[call] = listener
            calls.append(call)
        _calls[point] = tuple(calls)


def _tell(where: str, *facts: Any) -> None:
    for call in _calls[where]:
        try:
            call(*facts)
        except TrainingStopped:
            raise
        except Exception as error:  # noqa: BLE001 - fail open: nothing of ours may reach the user's loop
            listener = _owner[call]
            detach(listener)
            try:
                listener.broke(where, error)
            except Exception:  # a listener that cannot even say that it broke is only logged
                log.exception("trimtab failed in %s and is switched off; the training goes on", where)


def _forked() -> None:
    global _in_backward
    _listeners.clear()
    _bind()
    _in_step.clear()
    _in_backward = 0


os.register_at_fork(after_in_child=_forked)


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put `make(original)` in place of `owner.name`, and remember how to undo it."""
    original = getattr(owner, name, None)
    if original is None:
        return
    replacement = make(original)
    setattr(owner, name, replacement)

    def undo() -> None:
        # Somebody else may have wrapped our wrapper; then theirs stays, and ours, without listeners, does nothing.
        if getattr(owner, name, None) is replacement:
            setattr(owner, name, original)

    _restore.append(undo)


def _wrap_everything() -> None:
    _replace(torch.autograd, "backward", _wrap_backward)
    scaler = torch.amp.GradScaler
    _replace(scaler, "scale", _wrap_scale)
    _replace(scaler, "unscale_", _wrap_unscale)
    _replace(scaler, "step", _wrap_scaler_step)
    # The inner function is looked up by name at each call, so a script that imported clip_grad_norm_ earlier is seen.
    inner = "_clip_grads_with_norm_" if hasattr(clip_grad, "_clip_grads_with_norm_") else "clip_grad_norm_"
    _replace(clip_grad, inner, _wrap_clip)
    _replace(clip_grad, "clip_grad_value_", _wrap_clip)
    for name in ("clip_grads_with_norm_", "clip_grad_value_"):
        _replace(torch.nn.utils, name, _wrap_clip)
    if inner == "clip_grad_norm_":
        _replace(torch.nn.utils, inner, _wrap_clip)
    _replace(nn.Module, "load_state_dict", _wrap_load)
    _replace(torch.jit, "script", _wrap_script)
    for handle in (register_optimizer_step_pre_hook(_before_step), register_optimizer_step_post_hook(_after_step)):
        _restore.append(handle.remove)


def _wrap_backward(original: Any) -> Any:
    @functools.wraps(original)
    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        global _in_backward
        if _in_backward or not _listeners:  # re-entrant: a checkpointed block runs its own backward inside this one
            return original(tensors, *args, **kwargs)
        roots = (tensors,) if isinstance(tensors, torch.Tensor) else tuple(tensors)
        if isinstance(tensors, GeneratorType):
            tensors = roots
        _tell("backward_begins", roots)
        _in_backward += 1
        try:
            result = original(tensors, *args, **kwargs)
        finally:
            _in_backward = max(_in_backward - 1, 0)
        _tell("backward_ended")
        return result

    return backward


def _wrap_clip(original: Any) -> Any:
    @functools.wraps(original)
    def clip(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        if _listeners:
            if isinstance(parameters, torch.Tensor):
                members: Sequence[torch.Tensor] = [parameters]
            else:
                members = list(parameters)
                parameters = members if members or not isinstance(parameters, GeneratorType) else parameters
            _tell("clipping", members)
        return original(parameters, *args, **kwargs)

    return clip


def _wrap_scale(original: Any) -> Any:
    @functools.wraps(original)
    def scale(self: Any, outputs: Any) -> Any:
        scaled = original(self, outputs)
        if _listeners and isinstance(scaled, torch.Tensor) and scaled is not outputs:
            setattr(scaled, UNSCALED, (outputs.detach(), self))
        return scaled

    return scale


def _wrap_unscale(original: Any) -> Any:
    @functools.wraps(original)
    def unscale_(self: Any, optimizer: Any) -> Any:
        result = original(self, optimizer)
        _tell("unscaled", optimizer)
        return result

    return unscale_


def _wrap_scaler_step(original: Any) -> Any:
    @functools.wraps(original)
    def step(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        _stepped.discard(id(optimizer))
        result = original(self, optimizer, *args, **kwargs)
        if _listeners and id(optimizer) not in _stepped:
            _tell("step_skipped", optimizer)
        return result

    return step


def _wrap_load(original: Any) -> Any:
    @functools.wraps(original)
    def load_state_dict(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = _sums(self) if _listeners else None
        result = original(self, *args, **kwargs)
        if _listeners:
            missing, unexpected = getattr(result, "missing_keys", ()), getattr(result, "unexpected_keys", ())
            after = _sums(self) if before is not None else None
            changed = checksum.changed(before, after) if before is not None and after is not None else None
            _tell("weights_loaded", self, tuple(missing), tuple(unexpected), changed)
        return result

    return load_state_dict


def moved_names(missing: Sequence[str], unexpected: Sequence[str]) -> dict[str, str]:
    """Return missing name -> unexpected name, for those that are likely one tensor.

    Their names differ in one number, as after a layer was added to a `Sequential` or taken away; or one is the other
    after a prefix, such as "module.". A new head under another name has no partner.
    """
    free = list(unexpected)
    found: dict[str, str] = {}
    for name in missing:
        partner = next((other for other in free if _is_moved(name, other)), None)
        if partner is not None:
            free.remove(partner)
            found[name] = partner
    return found


def _is_moved(name: str, other: str) -> bool:
    if name.endswith(f".{other}") or other.endswith(f".{name}"):
        return True
    here, there = name.split("."), other.split(".")
    apart = [(a, b) for a, b in zip(here, there, strict=False) if a != b]
    return len(here) == len(there) and len(apart) == 1 and apart[0][0].isdecimal() and apart[0][1].isdecimal()


def _sums(module: nn.Module) -> checksum.Checksums | None:
    try:
        return checksum.checksums(module)
    except Exception:
        log.debug("no checksums of %s", type(module).__name__, exc_info=True)
        return None


def _wrap_script(original: Any) -> Any:
    @functools.wraps(original)
    def script(obj: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(obj, nn.Module):
            if len(args) < 2:  # it looks names up in the caller's frame, which is one further up now
                kwargs["_frames_up"] = kwargs.get("_frames_up", 0) + 1
            return original(obj, *args, **kwargs)
        with evaluations.lifted(obj):
            return original(obj, *args, **kwargs)

    return script


def _before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    frame = sys._getframe(1)
    if _in_step:
        running, above = set(), frame.f_back
        while above is not None:
            running.add(above)
            above = above.f_back
        # A step that raised never came to its end; its frame is no longer above us.
        _in_step[:] = [entry for entry in _in_step if entry[1] in running]
    _in_step.append((id(optimizer), frame))
    _stepped.add(id(optimizer))
    if len(_in_step) > 1:  # an optimizer that wraps another one, or its own base class: the outer step is the update
        return
    closure = kwargs.get("closure") is not None or (len(args) > 1 and callable(args[1]))
    try:
        _tell("step_begins", optimizer, closure)
    except TrainingStopped:
        _in_step.clear()
        raise


def _after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    frame = sys._getframe(1)
    if not any(entry[1] is frame for entry in _in_step):
        return
    while _in_step.pop()[1] is not frame:
        pass
    if not _in_step:
        _tell("step_ended", optimizer)

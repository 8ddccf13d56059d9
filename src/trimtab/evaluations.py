"""Forward passes of a model while gradients are switched off, and in which mode its modules were.

A hook on each root module counts. It does nothing while gradients are on, nothing inside what torch compiles, and it
stays behind when the model is copied, pickled or scripted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


class Evaluations:
    """Counts the passes of some root modules."""

    def __init__(self) -> None:
        self._hooks: dict[int, tuple[_Hook, Any]] = {}

    def watch(self, models: Sequence[nn.Module]) -> None:
        """Count the passes of these models from now on, and of no others."""
        wanted = {id(model): model for model in models}
        for key in [key for key in self._hooks if key not in wanted]:
            self._hooks.pop(key)[1].remove()
        for key, model in wanted.items():
            if key not in self._hooks and not isinstance(model, torch.jit.ScriptModule):
                hook = _Hook()
                self._hooks[key] = hook, model.register_forward_pre_hook(hook)

    def take(self) -> tuple[int, int]:
        """Return the passes since the last call, and those that ran in training mode."""
        calls = in_training = 0
        for hook, _ in self._hooks.values():
            calls, in_training = calls + hook.calls, in_training + hook.in_training
            hook.calls = hook.in_training = 0
        return calls, in_training

    def close(self) -> None:
        """Take the hooks off."""
        self.watch(())


class _Silent:
    """A hook that does nothing: what a copy of a watched model has in its place."""

    def __call__(self, module: nn.Module, args: Any) -> None:
        return None

    def __deepcopy__(self, memo: Any) -> _Silent:
        return _Silent()

    def __reduce__(self) -> Any:
        # A pickled model must load where Trimtab is not installed. `{}.get(module, args)` is `args`: nothing changes.
        return getattr, ({}, "get")


class _Hook(_Silent):
    """Counts the passes of one root module."""

    def __init__(self) -> None:
        self.calls = self.in_training = 0
        self._dependent: list[nn.Module] | None = None

    def __call__(self, module: nn.Module, args: Any) -> None:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        self.calls += 1
        if module.training:
            if self._dependent is None:
                self._dependent = mode_dependent(module)
            self.in_training += any(_is_active(one) for one in self._dependent)


def mode_dependent(module: nn.Module) -> list[nn.Module]:
    """Return the modules inside that compute something else in training than in evaluation."""
    return [one for one in module.modules() if isinstance(one, (_BatchNorm, _DropoutNd, nn.MultiheadAttention))]


def _is_active(module: nn.Module) -> bool:
    if not module.training:
        return False
    if isinstance(module, _DropoutNd):
        return bool(module.p > 0)
    return not isinstance(module, nn.MultiheadAttention) or bool(module.dropout > 0)


@contextmanager
def lifted(module: nn.Module) -> Iterator[None]:
    """Take our hooks off a module while the block runs: `torch.jit.script` would try to translate them."""
    taken = []
    for one in module.modules():
        for key, hook in list(one._forward_pre_hooks.items()):
            if isinstance(hook, _Silent):
                taken.append((one, key, one._forward_pre_hooks.pop(key)))
    try:
        yield
    finally:
        for one, key, hook in taken:
            one._forward_pre_hooks[key] = hook

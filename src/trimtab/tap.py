"""Read or edit what a named part of a model hands on, for as long as a `with` block lasts.

    with tap(model, "blocks.0.attention") as seen:
        model(x)
    seen.output                                     # what that module returned, last time it ran

    with tap(model, "blocks.0.attention", edit=lambda output: 0.5 * output) as seen:
        model(x)
    seen.change                                     # 0.5: the edit was applied, and by how much

On exit, by an exception too, the model is as it was. Reading changes no number and draws none. One exception is
torch's own: `nn.TransformerEncoderLayer` and `nn.MultiheadAttention` leave their fused path for inference when a
hook stands on them, so that in eval mode without gradients their last digits may differ.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import nn

from trimtab.errors import UserError, nearest

Edit = Callable[[torch.Tensor], torch.Tensor]
"""What a module returned -> what it hands on instead: a new tensor of the same shape, type and device."""


class Tapped:
    """What was seen of one module."""

    def __init__(self, name: str, *, edit: Edit | None, index: int | str | None, detach: bool, retain: str):
        self.name = name
        self.calls = 0
        self._edit = edit
        self._index = index
        self._detach = detach
        self._retain = retain
        self._outputs: list[torch.Tensor] = []
        self._change: torch.Tensor | None = None
        self._largest: torch.Tensor | None = None

    @property
    def output(self) -> torch.Tensor:
        """What the module handed on when it last ran, edit included.

        Raises:
            UserError: it has not run, or outputs are not kept.
        """
        if not self._outputs:
            if self._retain == "none":
                raise UserError(f"tap {self.name!r}: retain='none' keeps no output; use 'last' or 'all'")
            raise UserError(f"tap {self.name!r}: {_NEVER_CALLED}")
        return self._outputs[-1]

    @property
    def outputs(self) -> tuple[torch.Tensor, ...]:
        """What the module handed on each time it ran (`retain="all"`), the last time only, or nothing."""
        return tuple(self._outputs)

    @property
    def change(self) -> float:
        """Relative change of the latest edit, |after - before| / |before|; 0 when nothing was edited."""
        return 0.0 if self._change is None else self._change.item()

    @property
    def largest_change(self) -> float:
        """The largest relative change of all edits so far: near 0, the edits did nothing."""
        return 0.0 if self._largest is None else self._largest.item()

    def __repr__(self) -> str:
        return f"Tapped({self.name!r}, calls={self.calls})"

    def hook(self, module: nn.Module, args: Any, returned: Any) -> Any:
        """Take in what the module returned; return what it hands on instead, or None to leave it alone."""
        before = self._pick(returned)
        after = before if self._edit is None else self._edited(before)
        self.calls += 1
        if self._retain == "last":
            self._outputs.clear()
        if self._retain != "none":
            self._outputs.append(after.detach().clone() if self._detach else after)
        return None if self._edit is None else _replaced(returned, self._index, after)

    def _pick(self, returned: Any) -> torch.Tensor:
        picked = returned
        if self._index is not None:
            try:
                picked = returned[self._index]
            except (TypeError, KeyError, IndexError):
                raise UserError(
                    f"tap {self.name!r}: index={self._index!r} does not fit what the module returned, {_kind(returned)}"
                ) from None
        if not isinstance(picked, torch.Tensor):
            raise UserError(
                f"tap {self.name!r}: expected a tensor, the module returned {_kind(returned)}; "
                f"choose one of its tensors with index="
            )
        return picked

    def _edited(self, before: torch.Tensor) -> torch.Tensor:
        assert self._edit is not None
        version = None if before.is_inference() else before._version
        after = self._edit(before)
        if not isinstance(after, torch.Tensor):
            raise UserError(f"tap {self.name!r}: edit must return a tensor, it returned {type(after).__name__}")
        if version is not None and before._version != version:
            raise UserError(f"tap {self.name!r}: edit changed its argument in place; let it return a new tensor")
        if (after.shape, after.dtype, after.device) != (before.shape, before.dtype, before.device):
            raise UserError(
                f"tap {self.name!r}: edit returned {_kind(after)}, expected {_kind(before)} like its argument"
            )
        with torch.no_grad():
            moved, size = torch.linalg.vector_norm(after - before), torch.linalg.vector_norm(before)
            self._change = torch.where(moved == 0, 0.0, moved / size)
            self._largest = self._change if self._largest is None else torch.maximum(self._largest, self._change)
        return after


class Taps:
    """What was seen of each module, by name: `seen["blocks.0"].output`.

    With one module, its quantities can be asked of this object directly.
    """

    def __init__(self, tapped: Mapping[str, Tapped]):
        self._tapped = dict(tapped)

    def __getitem__(self, name: str) -> Tapped:
        if name not in self._tapped:
            raise UserError(f"tap: {name!r} is not tapped.{nearest(name, self._tapped)} Tapped: {', '.join(self)}")
        return self._tapped[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tapped)

    def __contains__(self, name: object) -> bool:
        return name in self._tapped

    @property
    def output(self) -> torch.Tensor:
        """`Tapped.output` of the only module."""
        return self._only().output

    @property
    def outputs(self) -> tuple[torch.Tensor, ...]:
        """`Tapped.outputs` of the only module."""
        return self._only().outputs

    @property
    def calls(self) -> int:
        """How often the only module ran."""
        return self._only().calls

    @property
    def change(self) -> float:
        """`Tapped.change` of the only module."""
        return self._only().change

    @property
    def largest_change(self) -> float:
        """`Tapped.largest_change` of the only module."""
        return self._only().largest_change

    def _only(self) -> Tapped:
        if len(self._tapped) != 1:
            raise UserError(f"tap: several modules are tapped; ask for one by name: {', '.join(self)}")
        return next(iter(self._tapped.values()))


@contextmanager
def tap(
    model: nn.Module,
    where: str | Mapping[str, Edit | None],
    edit: Edit | None = None,
    *,
    index: int | str | None = None,
    detach: bool = True,
    retain: Literal["last", "all", "none"] = "last",
    required: bool = True,
) -> Iterator[Taps]:
    """Read, or edit, the outputs of named modules while the block lasts.

    Args:
        model: the module below which the names are looked up; "" is the model itself.
        where: one module's name, or module name -> edit (None to read only).
        edit: applied to each output of the module named by `where`.
        index: which part of an output that is a tuple, a list or a mapping.
        detach: keep a copy without graph, which nothing can change any more; False keeps the very tensor, for
            gradients.
        retain: keep the last output of each module, all of them (which needs the memory), or none (for edits that stay
            for a whole training).
        required: raise at the end when an edit was never applied.

    Raises:
        UserError: a name is unknown or inside a compiled region; an edit or index does not fit; an edited module
            was never called.
    """
    if not isinstance(where, str) and edit is not None:
        raise UserError("tap: give the edits in the mapping (module name -> edit) or one name with edit=, not both")
    if retain not in ("last", "all", "none"):
        raise UserError(f"tap: retain={retain!r}; expected 'last', 'all' or 'none'")
    wanted = {where: edit} if isinstance(where, str) else dict(where)
    modules = {name: _find(model, name) for name in wanted}
    seen = {name: Tapped(name, edit=wanted[name], index=index, detach=detach, retain=retain) for name in wanted}
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.callback(module.register_forward_hook(seen[name].hook).remove)
        yield Taps(seen)
    for name, tapped in seen.items():
        if required and wanted[name] is not None and not tapped.calls:
            raise UserError(
                f"tap {name!r}: the edit was never applied: {_NEVER_CALLED}; pass required=False if so meant"
            )


_NEVER_CALLED = (
    "the module was never called inside the block (its parent may call one of its methods other than forward, "
    "or a compiled copy of the model ran instead)"
)


def _find(model: nn.Module, name: str) -> nn.Module:
    """Return the module called `name`, refusing one whose hooks a compiled region would leave out."""
    module, path = model, ""
    for part in name.split(".") if name else ():
        inner = module._modules.get("_orig_mod") or module  # torch.compile(module) wraps it under this name
        child = module._modules.get(part) or inner._modules.get(part)
        if child is None:
            known = [one.replace("_orig_mod.", "") for one, _ in model.named_modules(remove_duplicate=False) if one]
            raise UserError(
                f"tap: {type(model).__name__} has no module {name!r}.{nearest(name, known)} "
                f"Directly below {repr(path) if path else 'the model'}: {', '.join(inner._modules) or 'no modules'}"
            )
        if inner is not module or module._compiled_call_impl is not None:
            raise _inside_compiled(name, path)
        module, path = child, f"{path}.{part}" if path else part
    if module._compiled_call_impl is not None:
        raise _inside_compiled(name, path)
    return module


def _inside_compiled(name: str, path: str) -> UserError:
    return UserError(
        f"tap {name!r}: {repr(path) if path else 'the model'} is compiled, and hooks inside a compiled region do not "
        f"run reliably; tap the model before torch.compile, or without it"
    )


def _replaced(returned: Any, index: int | str | None, after: torch.Tensor) -> Any:
    """Return what the module returned with one of its tensors replaced; the original is left alone."""
    if index is None:
        return after
    if isinstance(returned, tuple):
        assert isinstance(index, int)
        parts = list(returned)
        parts[index] = after
        return type(returned)(*parts) if hasattr(returned, "_fields") else tuple(parts)
    changed = copy.copy(returned)
    changed[index] = after
    return changed


def _kind(value: Any) -> str:
    """Return what a value is, for a message: 'float32 (4, 8) on cpu', 'a tuple of (Tensor, NoneType)'."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} on {value.device}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with keys {', '.join(map(repr, value))}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of ({', '.join(type(part).__name__ for part in value)})"
    return f"a {type(value).__name__}"

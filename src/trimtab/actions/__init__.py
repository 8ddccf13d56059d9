"""The actions: the only things that change a training, one file each. This tuple is the whole catalogue."""

from __future__ import annotations

from trimtab.actions._action import Action
from trimtab.actions.notify import Notify
from trimtab.actions.stop import Stop

ACTIONS: tuple[type[Action], ...] = (Notify, Stop)

__all__ = ["ACTIONS", "Action", "Notify", "Stop"]

"""What may become of a key of the write-up's configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Fate = Literal["honoured", "mapped", "no effect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What becomes of one key.

    Attributes:
        fate: "honoured": it is a setting here, with the same meaning. "mapped": other settings stand for it.
        settings: value -> setting -> what it is set to; empty for a key without effect.
        because: why it is mapped or has no effect.
        allowed: the values that it may have; None for any that the setting takes.
    """

    fate: Fate
    settings: Callable[[Any], dict[str, Any]] = lambda value: {}
    because: str = ""
    allowed: tuple[Any, ...] | None = None


def same(setting: str) -> Key:
    """Return a key that is a setting here."""
    return Key(fate="honoured", settings=lambda value: {setting: value})


def mapped(because: str, allowed: tuple[Any, ...] | None = None, **settings: Any) -> Key:
    """Return a key for which other settings stand; a callable is asked for the value."""

    def made(value: Any) -> dict[str, Any]:
        return {name: one(value) if callable(one) else one for name, one in settings.items()}

    return Key(fate="mapped", settings=made, because=because, allowed=allowed)


def nothing(because: str, allowed: tuple[Any, ...] | None = None) -> Key:
    """Return a key without effect."""
    return Key(fate="no effect", because=because, allowed=allowed)


GENERATION = "generation."
"""Before the settings of `Generation`, which lie one level deeper."""
PHASE = "/"
"""Between the name of a curriculum, the place of one of its phases, and 0 for its first epoch or 1 for its limit."""

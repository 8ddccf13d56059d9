"""What a setting may be in a search: a range or a choice, written as `log(1e-4,1e-2)`."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimtab.errors import UserError, nearest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FORMS = {
    "uniform": "uniform(low,high)",
    "log": "log(low,high)",
    "int": "int(low,high)",
    "logint": "logint(low,high)",
    "choice": "choice(a,b,...)",
}
"""The words of a space, and how each is written."""

_CALL = re.compile(r"^\s*(?P<word>[A-Za-z_]+)\s*\((?P<inside>.*)\)\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Real:
    """Any number from `low` to `high`, evenly, or evenly in its logarithm."""

    low: float
    high: float
    log: bool = False

    def distribution(self) -> BaseDistribution:
        """Return what Optuna draws from."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Say whether a value lies in it."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Whole:
    """Any whole number from `low` to `high`, both included, evenly, or evenly in its logarithm."""

    low: int
    high: int
    log: bool = False

    def distribution(self) -> BaseDistribution:
        """Return what Optuna draws from."""
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Say whether a value lies in it."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values, which need no order.

    `texts` are the values as JSON: Optuna tells choices apart by them, and lists may be among them.
    """

    texts: tuple[str, ...]

    @classmethod
    def of(cls, *values: Any) -> Choice:
        """Return the choice of these values."""
        return cls(tuple(json.dumps(value, sort_keys=True) for value in values))

    @property
    def values(self) -> tuple[Any, ...]:
        """The values themselves."""
        return tuple(json.loads(text) for text in self.texts)

    def distribution(self) -> BaseDistribution:
        """Return what Optuna draws from: the texts, not the values."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.texts)

    def holds(self, value: Any) -> bool:
        """Say whether a value is one of it."""
        return value in self.values


Space = Real | Whole | Choice


def is_space(text: str) -> bool:
    """Say whether a text has the form of a space, such as "log(1,2)", known or not."""
    return _CALL.match(text) is not None


def read_space(text: str, key: str) -> Space:
    """Read a space.

    Args:
        text: one of `FORMS`.
        key: the setting, for messages.

    Raises:
        UserError: an unknown word, a bound that is no number, an empty range, or a logarithm of what is not positive.
    """
    found = _CALL.match(text)
    if found is None or found["word"] not in FORMS:
        word = found["word"] if found is not None else text
        raise UserError(
            f"{key}={text}: {word!r} is no range.{nearest(word, FORMS)} Expected one of {', '.join(FORMS.values())}"
        )
    word, parts = found["word"], split_outside(found["inside"])
    if word == "choice":
        values = [read_value(part) for part in parts]
        texts = Choice.of(*values)
        if not values or len(set(texts.texts)) < len(values):
            raise UserError(f"{key}={text}: expected different values to choose from, such as choice(relu,gelu)")
        return texts
    bounds = [_number(part) for part in parts]
    if len(bounds) != 2 or any(bound is None for bound in bounds):
        raise UserError(f"{key}={text}: expected two numbers, {FORMS[word]}")
    low, high = (float(bound) for bound in bounds if bound is not None)
    log = word.startswith("log")
    if not low < high:
        raise UserError(f"{key}={text}: the range from {low:g} to {high:g} is empty; write the lower end first")
    if log and low <= 0:
        raise UserError(f"{key}={text}: a logarithm needs numbers above 0, got {low:g}; use uniform or int instead")
    if word in ("int", "logint"):
        if low != int(low) or high != int(high):
            raise UserError(f"{key}={text}: expected two whole numbers, {FORMS[word]}")
        return Whole(int(low), int(high), log)
    return Real(low, high, log)


def space_text(space: Space) -> str:
    """Return a space as `read_space` reads it."""
    if isinstance(space, Choice):
        return f"choice({','.join(space.texts)})"
    if isinstance(space, Whole):
        return f"{'logint' if space.log else 'int'}({space.low},{space.high})"
    return f"{'log' if space.log else 'uniform'}({space.low!r},{space.high!r})"


def read_value(text: str) -> Any:
    """Return the plain value that a text means: 1e-3 is a number, [64, 64] a list, relu a word.

    Raises:
        UserError: it is no plain value.
    """
    import yaml

    from trimtab.config.plain import yaml_loader

    try:
        value = yaml.load(text, Loader=yaml_loader())
        json.dumps(value)
    except (yaml.YAMLError, TypeError) as error:
        what = getattr(error, "problem", None) or error
        raise UserError(
            f"{text!r} is no plain value ({what}); expected a number, a word, true, null or a list"
        ) from None
    return value


def split_outside(text: str, at: str = ",") -> list[str]:
    """Return the parts of a text between the signs `at` that stand in no brackets and no quotes, trimmed."""
    parts, depth, quote, start = [], 0, "", 0
    for place, sign in enumerate(text):
        if quote:
            if sign == quote and text[place - 1] != "\\":
                quote = ""
        elif sign in "\"'":
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif depth == 0 and sign == at:
            parts.append(text[start:place].strip())
            start = place + 1
    parts.append(text[start:].strip())
    return [] if parts == [""] else parts


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

"""Panels as files of a run folder, and back: `panels/<name>.json`, one for each name."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from trimtab.errors import RunError, UserError
from trimtab.panels import Map, Panel, Scatter, Table
from trimtab.run.codec import FORMAT, check_format, encode

KINDS: dict[str, type[Panel]] = {"table": Table, "map": Map, "scatter": Scatter}
"""The word in the file -> what it holds."""
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""What a panel may be called: its file has the same name on every system."""
MOST_NAME = 80


class Shown(NamedTuple):
    """A panel of a run, and the step of the main stream at which it was shown."""

    panel: Panel
    step: int


def check_panel(name: Any, panel: Any) -> None:
    """Raise UserError unless `panel` can be shown under `name`."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > MOST_NAME:
        raise UserError(
            f"show: {name!r:.100} is no name of a panel; write small letters, digits and single hyphens between them, "
            f"at most {MOST_NAME}, such as 'errors-by-length'"
        )
    if not isinstance(panel, Table | Map | Scatter):
        raise UserError(
            f"show: {name!r} is a {type(panel).__name__}; expected a Table, a Map or a Scatter of trimtab.panels"
        )


def encode_panel(panel: Panel, step: int, place: int) -> dict[str, Any]:
    """Return what the file of a panel holds.

    Texts are written as they are; only in the cells of a table, where a number may stand as well, a text that reads
    like the word of a number is escaped.
    """
    kind = next(word for word, type_ in KINDS.items() if isinstance(panel, type_))
    values: dict[str, Any] = {}
    for field in dataclasses.fields(panel):
        value = getattr(panel, field.name)
        free = isinstance(panel, Table) and field.name == "rows"
        values[field.name] = encode(value) if free else _strict(value)
    return {"format": FORMAT, "kind": kind, "place": place, "step": step, **values}


def place_of(path: Path) -> int | None:
    """Return the place of the panel that is stored in this file; None if it cannot be read."""
    try:
        place = json.loads(path.read_bytes())["place"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return place if type(place) is int else None


def read_panel(path: Path) -> tuple[int, Shown]:
    """Return the place among the run's panels and the panel that a file holds.

    Raises:
        RunError: the file is damaged, of a newer format, or of a kind that this version does not know.
    """
    from pydantic import ValidationError

    from trimtab.run.models import PANELS

    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"panels/{path.name} is left out: it cannot be read ({error})") from None
    if not isinstance(stored, dict):
        raise RunError(f"panels/{path.name} is left out: expected a JSON object, got {type(stored).__name__}")
    try:
        check_format(stored.get("format"), f"panels/{path.name}")
        kind = stored.get("kind")
        if kind not in KINDS:
            raise RunError(f"{kind!r} is no kind of panel that this Trimtab knows ({', '.join(KINDS)})")
        model = PANELS[kind].model_validate(stored)
        names = [field.name for field in dataclasses.fields(KINDS[kind])]
        return model.place, Shown(KINDS[kind](**{name: getattr(model, name) for name in names}), model.step)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RunError(f"panels/{path.name} is left out: {wrong}") from None
    except UserError as error:
        raise RunError(f"panels/{path.name} is left out: {error}") from None


def _strict(value: Any) -> Any:
    """Return a value in which texts stand as they are and numbers that are not finite as their words."""
    if isinstance(value, str):
        return value
    return [_strict(one) for one in value] if isinstance(value, tuple) else encode(value)

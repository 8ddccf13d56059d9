"""What each file of a run folder may hold, as pydantic models; the JSON schemas in `schemas/` are made from them.

Imported where a file is read or checked, never where signals are written. A key that a model does not know is passed
over, so that a later version of format 1 may add some.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from trimtab import records
from trimtab.run.codec import COLUMNS, FORMAT, decode

_WORDS = ["NaN", "Infinity", "-Infinity"]


def _number(value: Any) -> Any:
    if isinstance(value, str) and value in _WORDS:
        return decode(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number or one of {', '.join(_WORDS)}")
    return value


def _fact(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if value is None or isinstance(value, dict):
        raise ValueError("expected a number or a text")
    return decode(value)


def _cell(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a number or a text")
    return decode(value)


_NUMBER_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "number"}, {"enum": _WORDS}]}
_FACT_SCHEMA: dict[str, Any] = {"type": ["number", "string", "boolean"]}
_FACTS_SCHEMA: dict[str, Any] = {"anyOf": [_FACT_SCHEMA, {"type": "array", "items": _FACT_SCHEMA}]}

Number = Annotated[float, BeforeValidator(_number), WithJsonSchema(_NUMBER_SCHEMA)]
"""A float; not finite as one of three words."""
Fact = Annotated[Any, BeforeValidator(_fact), WithJsonSchema(_FACTS_SCHEMA)]
"""A number or a text, or several; a text that reads like a number's word has a backslash in front."""
SeverityWord = Annotated[
    records.Severity,
    BeforeValidator(lambda word: records.Severity.parse(word) if isinstance(word, str) else word),
    WithJsonSchema({"enum": [str(severity) for severity in records.Severity]}),
]
Cell = Annotated[Any, BeforeValidator(_cell), WithJsonSchema({"type": ["number", "string"]})]
"""A number or a text; a text that reads like a number's word has a backslash in front."""
Count = Annotated[int, Field(strict=True)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Git(_Model):
    """The commit of the working directory, and whether a tracked file differed from it."""

    commit: str
    dirty: bool


class RunFacts(_Model):
    """run.json: what a run is and how it stands; anything that was added by `update` is kept as an extra field."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    id: str
    name: str = ""
    project: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    system: str = ""
    seed: int | None = None
    status: Literal["running", "finished", "stopped", "failed", "interrupted", "killed"]
    started: AwareDatetime
    ended: AwareDatetime | None = None
    how: dict[str, Any] | None = None
    mark: str = ""
    pid: int = 0
    pid_began: str = ""
    host: str = ""
    git: Git | None = None
    judged: tuple[str, ...] = ()
    not_judged: dict[str, str] = {}
    ignored: dict[str, int] = {}
    cost: dict[str, float] = {}
    updates: int = 0

    @property
    def more(self) -> dict[str, Any]:
        """What was added by `update`."""
        return self.model_extra or {}


class Environment(_Model):
    """environment.json: interpreter, packages, machine and the few environment variables that change results."""

    python: str
    implementation: str
    packages: dict[str, str]
    platform: str
    machine: str
    cpu: str
    cores: int | None
    usable_cores: int | None
    memory_bytes: int | None
    variables: dict[str, str]


class Header(_Model):
    """The first line of every JSONL file."""

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    kind: Literal["signals", "findings", "notes", "outcomes"]
    columns: tuple[str, ...] = ()


class Torn(_Model):
    """So many bytes before this line are no line: a write was cut short there."""

    torn: int


class Labels(_Model):
    """From here on the rows of a stream have these labels; a number means the set that was announced under it."""

    labels: dict[str, dict[str, tuple[str, ...]] | int]
    set: int | None = None


class Finding(_Model):
    """A line of findings.jsonl: one event in the life of a finding."""

    record: Literal["finding"]
    code: str
    subject: str = ""
    stream: str = "main"
    attempt: Count = 0
    severity: SeverityWord
    step: Count
    since_step: Count = -1
    summary: str
    measured: Number
    threshold: Number
    evidence: dict[str, Fact] = Field(default_factory=dict)
    event: Literal["judged", "opened", "worsened", "resolved"] = "judged"
    id: str = ""
    version: Count = 1
    excused_by: str = ""


class Unknown(_Model):
    """A line of findings.jsonl: a rule could not judge; with an empty reason, it can again."""

    record: Literal["unknown"]
    code: str
    reason: str
    stream: str = "main"
    attempt: Count = 0
    step: Count


class Note(_Model):
    """A line of notes.jsonl."""

    record: Literal["note"]
    kind: str
    step: Count
    after_rows: Count = 0
    until: Count | None = None
    text: str = ""
    facts: dict[str, Fact] = Field(default_factory=dict)


class Outcome(_Model):
    """A line of outcomes.jsonl."""

    record: Literal["outcome"]
    action: str
    code: str
    subject: str = ""
    stream: str = "main"
    attempt: Count = 0
    step: Count
    after_rows: Count = 0
    result: Literal["done", "declined", "failed"]
    changes: Literal["nothing", "schedule", "weights"]
    because: str = ""
    to_step: Count | None = None
    to_steps: dict[str, Count] = Field(default_factory=dict)
    stops: bool = False


class _Panel(_Model):
    format: Annotated[int, Field(ge=1, le=FORMAT)]
    place: Count = 0
    step: Count = 0
    title: str
    caption: str


class Table(_Panel):
    """panels/<name>.json: rows of texts and numbers under named columns."""

    kind: Literal["table"]
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    closing: bool = False


class Map(_Panel):
    """panels/<name>.json: numbers over two named axes."""

    kind: Literal["map"]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Number, ...], ...]
    low: Number | None = None
    high: Number | None = None


class Scatter(_Panel):
    """panels/<name>.json: points in a plane, each x, y, label and group."""

    kind: Literal["scatter"]
    points: tuple[tuple[Number, Number, str, str], ...]


PANELS: dict[str, type[Table | Map | Scatter]] = {"table": Table, "map": Map, "scatter": Scatter}
"""The word in the file of a panel -> its model."""

Row = tuple[int, int, int, str, Number, dict[str, Number | list[Number]]]
"""A line of signals/part-N.jsonl: attempt, step, update, stream, time, values."""

_RECORDS: dict[str, tuple[type[_Model], type]] = {
    "finding": (Finding, records.Finding),
    "unknown": (Unknown, records.Unknown),
    "note": (Note, records.Note),
    "outcome": (Outcome, records.Outcome),
}


def record_of(line: Any, kinds: tuple[str, ...]) -> Any:
    """Return the record that a parsed line holds.

    Raises:
        ValueError: the line is none of `kinds`, or a field is missing or of the wrong type.
    """
    kind = line.get("record") if isinstance(line, dict) else None
    if kind not in kinds:
        raise ValueError(f"expected a record of kind {' or '.join(kinds)}, got {kind!r}")
    model, record = _RECORDS[kind]
    checked = model.model_validate(line)
    return record(**{name: getattr(checked, name) for name in model.model_fields if name != "record"})


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each file of a run folder by the schema's file name; of JSONL files, of one line."""
    anything = dict[str, Any]
    lines: dict[str, Any] = {
        "run": RunFacts,
        "environment": Environment,
        "settings": anything,
        "diagnosis": anything,
        "signals": Header | Torn | Labels | Row,
        "findings": Header | Torn | Finding | Unknown,
        "notes": Header | Torn | Note,
        "outcomes": Header | Torn | Outcome,
        "panels": Table | Map | Scatter,
    }
    made = {}
    for name, kind in lines.items():
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TypeAdapter(kind).json_schema()}
        schema["title"] = f"{name} of a Trimtab run folder, format {FORMAT}"
        if name == "signals":
            schema["description"] = f"One line; a row is an array of {', '.join(COLUMNS)}."
        made[f"{name}.schema.json"] = schema
    return made


def write_schemas() -> None:
    """Write the schemas into `schemas/` beside this file; a test demands that they are current."""
    folder = Path(__file__).parent / "schemas"
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2, sort_keys=True) + "\n", encoding="utf-8")

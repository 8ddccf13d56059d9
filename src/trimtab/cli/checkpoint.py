"""`trimtab checkpoint`: look at checkpoints, check them, compare them, make one of a plain file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli._options import Format, Output, examples
from trimtab.errors import UserError

if TYPE_CHECKING:
    from trimtab.checkpoint import Inspection

Where = Annotated[
    Path,
    typer.Argument(metavar="PATH", help="A checkpoint; or a run, or a folder of checkpoints: its newest good one."),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A plain state_dict: .pt, .pth or .safetensors.")]

MOST = 40
"""So many tensors are listed; JSON has all."""

_app = typer.Typer(
    help="Look at checkpoints: what one holds, whether it is whole, how two differ.",
    rich_markup_mode=None,
    epilog=examples(
        "trimtab checkpoint inspect runs/a",
        "trimtab checkpoint verify runs/a/checkpoints",
        "trimtab checkpoint diff runs/a runs/b",
        "trimtab checkpoint convert weights.pt weights",
    ),
)


def add_to(app: typer.Typer) -> None:
    """Give the command line this verb."""
    app.add_typer(_app, name="checkpoint", short_help="Inspect, verify, compare or convert checkpoints.")


@_app.command("inspect", epilog=examples("trimtab checkpoint inspect runs/a"))
def _inspect(path: Where, format: Format = Output.TEXT) -> int:
    """Say what a checkpoint holds; its tensors are not read."""
    from trimtab.checkpoint import inspect
    from trimtab.cli import _show

    found = inspect(one_of(path))
    if format is Output.JSON:
        _show.document(plain(found))
        return 0
    console = _show.console()
    console.print(_show.text(str(found.path), "bold"))
    console.print(_show.table(["", ""], facts_of(found), wrap=""))
    for name, model in found.models.items():
        console.print()
        tensors = list(model.tensors.items())
        rows = [
            (called, str(one.dtype).removeprefix("torch."), str(tuple(one.shape)), _remarks(one))
            for called, one in tensors[:MOST]
        ]
        console.print(_show.table([f"tensors of {name}", "type", "shape", ""], rows, wrap=""))
        if len(tensors) > MOST:
            print(f"and {len(tensors) - MOST} more; --format json lists all")
    return 0


@_app.command("verify", epilog=examples("trimtab checkpoint verify runs/a"))
def _verify(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A checkpoint; or a run, or a folder of checkpoints: all of them.")
    ],
    format: Format = Output.TEXT,
) -> int:
    """Read every byte and compute every hash again. Exit with 1 when a checkpoint is damaged."""
    from trimtab.checkpoint import verify
    from trimtab.cli import _show

    found = [verify(one) for one in all_of(path) or [path]]
    if format is Output.JSON:
        _show.document([{**plain(one), "ok": one.ok} for one in found])
    else:
        for one in found:
            whole = f"whole: {one.files} files, {one.tensors} tensors, {one.size:,} bytes"
            print(f"{one.path}: {whole}" if one.ok else f"{one.path}: DAMAGED: {one.problem}")
    return int(not all(one.ok for one in found))


@_app.command("diff", epilog=examples("trimtab checkpoint diff runs/a runs/b", "trimtab checkpoint diff a.pt b.pt"))
def _diff(
    first: Annotated[Path, typer.Argument(metavar="PATH", help="A checkpoint, a run, or a plain file of weights.")],
    second: Annotated[Path, typer.Argument(metavar="PATH", help="The other one.")],
    format: Format = Output.TEXT,
) -> int:
    """Say how two checkpoints differ in settings and tensors."""
    from trimtab.checkpoint import diff
    from trimtab.cli import _show

    found = diff(*(path if path.is_file() else one_of(path) for path in (first, second)))
    if format is Output.JSON:
        _show.document({**plain(found), "equal": found.equal})
        return 0
    print(f"{found.first}\n{found.second}")
    for model in found.models_only_in_first:
        print(f"the model {model!r} is only in the first")
    for model in found.models_only_in_second:
        print(f"the model {model!r} is only in the second")
    for setting in found.settings:
        print(setting.words)
    if found.tensors:
        rows = [
            (one.name, one.kind, one.first, one.second, "-" if one.relative is None else f"{one.relative:.3g}")
            for one in found.tensors[:MOST]
        ]
        headings = ["tensor", "differs in", "first", "second", "|b - a| / |a|"]
        _show.console().print(_show.table(headings, rows, wrap="tensor"))
        if len(found.tensors) > MOST:
            print(f"and {len(found.tensors) - MOST} more; --format json lists all")
    print(f"{found.same} tensors are the same" + ("" if found.equal else f", {len(found.tensors)} differ"))
    for line in found.not_compared:
        print(f"not compared: {line}")
    return 0


@_app.command("convert", epilog=examples("trimtab checkpoint convert weights.pt weights"))
def _convert(
    file: File,
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="The checkpoint to make; it must not exist.")],
    key: Annotated[
        str | None, typer.Option("--key", metavar="NAME", help="The entry that holds the weights, when it is unclear.")
    ] = None,
    format: Format = Output.TEXT,
) -> int:
    """Make a checkpoint of a plain file of weights. Nothing in the file is run."""
    from trimtab.checkpoint import inspect, read_plain, save
    from trimtab.cli import _show

    tensors = read_plain(file, key)
    made = inspect(save(target, tensors, facts={"converted_from": file.name}))
    if format is Output.JSON:
        _show.document(plain(made))
    else:
        print(f"{made.path}: {len(tensors)} tensors, {made.parameters:,} numbers, {made.size:,} bytes")
    return 0


def all_of(path: Path) -> list[Path]:
    """Return the checkpoints of a run or of a folder of checkpoints, the newest first; none for anything else."""
    from trimtab.checkpoint.rotation import Checkpoints

    for folder in (path / "checkpoints", path):
        found = [one.path for one in Checkpoints(folder).all()]
        if found:
            return found
    if (path / "run.json").is_file():
        raise UserError(f"{path} is a run without checkpoints; train with --checkpoint-every N to have some")
    return []


def one_of(path: Path) -> Path:
    """Return the checkpoint that is meant: the newest good one of a run or folder, or the newest; else `path`."""
    found = all_of(path)
    return next((one for one in found if (one / "GOOD").exists()), found[0]) if found else path


def facts_of(found: Inspection) -> list[tuple[str, str]]:
    """Return what stands above the list of tensors: a word and its value."""
    built = {name: model.build.code for name, model in found.models.items() if model.build is not None}
    facts = {
        "step": "-" if found.step is None else f"{found.step:,}",
        "good": "yes" if found.good else "not marked",
        "made": f"{found.created} by " + ", ".join(f"{name} {number}" for name, number in found.versions.items()),
        "size": f"{found.size:,} bytes, {found.parameters:,} parameters" + ("" if found.finite else ", NOT FINITE"),
        "models": ", ".join(f"{name} ({model.class_name or 'tensors'})" for name, model in found.models.items()),
        "optimizers": ", ".join(f"{name} ({kind})" for name, kind in found.optimizers.items()),
        "parts": ", ".join(f"{name} ({kind})" for name, kind in found.parts.items()),
        **{f"built {name}": code for name, code in built.items()},
        **{f"metric {name}": _measured(one) for name, one in found.metrics.items()},
        **{f"config {name}": str(value) for name, value in found.config.items()},
        **{name: str(value) for name, value in found.facts.items()},
    }
    return [(name, value) for name, value in facts.items() if value]


def plain(value: Any) -> Any:
    """Return a dataclass of `trimtab.checkpoint` as JSON can hold it."""
    import dataclasses
    from collections.abc import Mapping

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _measured(one: Any) -> str:
    noise = f" +- {one['noise']:.3g}" if one["noise"] else ""
    return f"{one['value']:.6g}{noise} ({one['mode']})"


def _remarks(one: Any) -> str:
    said = [] if one.kind == "parameter" else [one.kind]
    said += [] if one.persistent else ["not persistent"]
    said += [] if one.trained or one.kind != "parameter" else ["frozen"]
    said += [f"tied to {one.tied_to}"] if one.tied_to is not None else []
    return ", ".join(said)

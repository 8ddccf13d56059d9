"""Sealed parts: a few thousand signal rows as compressed columns in one npz file.

A part holds, for each of its N rows, the whole numbers `attempt`, `step`, `update`, the float64 `time`, and three
indices into lists of the header: `stream`, `labels` and `layout`. A layout is the list of [name, size] of a row's
values in their order, size -1 for a scalar. All numbers of the k-th name stand in `values-<k>`, row after row. The
header is JSON text stored as bytes, so nothing in the file needs unpickling.

numpy is imported where it is used: the write path of a run must not load it before the user's program does.
"""

from __future__ import annotations

import json
import os
import zipfile
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import RunError
from trimtab.records import Signal, Value
from trimtab.run.codec import FORMAT, check_format

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALAR = -1
"""The size that a layout gives for a scalar; a vector has the number of its entries."""

_WHOLE = ("attempt", "step", "update")
_INDICES = ("stream", "labels", "layout")
_LEVEL = 1
"""zlib level: 6 takes six times as long for 8 % less of what float64 noise leaves to gain."""


class Columns:
    """Rows of signals by column, in memory, eight bytes a number; exactly what a sealed part holds."""

    def __init__(self) -> None:
        self.rows = 0
        self._whole = {name: array("q") for name in _WHOLE}
        self._time = array("d")
        self._indices = {name: array("q") for name in _INDICES}
        self._streams: dict[str, int] = {}
        self._layouts: dict[tuple[tuple[str, int], ...], int] = {}
        self._names: dict[str, array[float]] = {}
        self._labels: list[Mapping[str, tuple[str, ...]]] = []
        self._labels_now: dict[str, int] = {}

    def add(self, row: Signal) -> None:
        """Append one row."""
        layout = []
        for name, value in row.values.items():
            column = self._names.get(name)
            if column is None:
                column = self._names[name] = array("d")
            if isinstance(value, tuple | list):
                layout.append((name, len(value)))
                column.extend(value)
            else:
                layout.append((name, SCALAR))
                column.append(value)
        self._whole["attempt"].append(row.attempt)
        self._whole["step"].append(row.step)
        self._whole["update"].append(row.update)
        self._time.append(row.time)
        self._indices["stream"].append(self._streams.setdefault(row.stream, len(self._streams)))
        self._indices["labels"].append(self._labels_of(row))
        self._indices["layout"].append(self._layouts.setdefault(tuple(layout), len(self._layouts)))
        self.rows += 1

    def _labels_of(self, row: Signal) -> int:
        now = self._labels_now.get(row.stream)
        if now is not None and (row.labels is self._labels[now] or row.labels == self._labels[now]):
            return now
        self._labels.append(row.labels)
        self._labels_now[row.stream] = len(self._labels) - 1
        return len(self._labels) - 1

    def write(self, path: Path) -> None:
        """Write the part into a file beside `path`, flush it to the disk, then give it the name `path`.

        Raises:
            OSError: the disk refused; nothing of the part is left.
        """
        import numpy as np

        header = {
            "format": FORMAT,
            "kind": "signals",
            "rows": self.rows,
            "streams": list(self._streams),
            "labels": [{name: list(names) for name, names in labels.items()} for labels in self._labels],
            "layouts": [[list(entry) for entry in layout] for layout in self._layouts],
            "names": list(self._names),
        }
        arrays: dict[str, NDArray[Any]] = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)}
        for name, whole in {**self._whole, **self._indices}.items():
            arrays[name] = np.frombuffer(whole, dtype=np.int64) if whole else np.empty(0, np.int64)
        arrays["time"] = np.frombuffer(self._time, dtype=np.float64) if self._time else np.empty(0, np.float64)
        for index, values in enumerate(self._names.values()):
            arrays[f"values-{index}"] = np.frombuffer(values, np.float64) if values else np.empty(0, np.float64)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
                    for name, values_N in arrays.items():
                        with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                            np.lib.format.write_array(entry, values_N, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Ask the system to put a folder's list of names on the disk, where it can."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def read_part(path: Path) -> Iterator[Signal]:
    """Yield the rows of a sealed part in the order in which they were written.

    Raises:
        FileNotFoundError: there is no such part.
        RunError: the part is damaged or of a newer format.
    """
    header, columns, values = _load(path)
    streams: list[str] = header["streams"]
    layouts: list[list[tuple[str, int]]] = [[(name, size) for name, size in layout] for layout in header["layouts"]]
    labels = [{name: tuple(names) for name, names in entry.items()} for entry in header["labels"]]
    places = dict.fromkeys(values, 0)
    for attempt, step, update, time, stream, labelling, layout in zip(
        *(columns[name] for name in (*_WHOLE, "time", *_INDICES)), strict=True
    ):
        read: dict[str, Value] = {}
        for name, size in layouts[layout]:
            place = places[name]
            if size == SCALAR:
                read[name] = values[name][place]
                places[name] = place + 1
            else:
                read[name] = tuple(values[name][place : place + size])
                places[name] = place + size
        yield Signal(
            attempt=attempt,
            step=step,
            update=update,
            stream=streams[stream],
            time=time,
            values=read,
            labels=labels[labelling],
        )


def _load(path: Path) -> tuple[dict[str, Any], dict[str, list[Any]], dict[str, list[float]]]:
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:

            def array_of(name: str) -> NDArray[Any]:
                with archive.open(f"{name}.npy") as entry:
                    return np.lib.format.read_array(entry, allow_pickle=False)

            header = json.loads(array_of("header").tobytes())
            check_format(header.get("format"), str(path))
            columns = {name: array_of(name).tolist() for name in (*_WHOLE, "time", *_INDICES)}
            values = {name: array_of(f"values-{index}").tolist() for index, name in enumerate(header["names"])}
        rows = header["rows"]
        sizes = dict.fromkeys(values, 0)
        for layout in columns["layout"]:
            for name, size in header["layouts"][layout]:
                sizes[name] += 1 if size == SCALAR else size
        whole = all(len(column) == rows for column in columns.values())
        if not whole or any(len(values[name]) != size for name, size in sizes.items()):
            raise ValueError(f"the columns do not hold {rows} rows")
        if rows and (
            max(columns["stream"]) >= len(header["streams"]) or max(columns["labels"]) >= len(header["labels"])
        ):
            raise ValueError("an index points past its list")
    except (FileNotFoundError, RunError):
        raise
    except Exception as error:  # noqa: BLE001 - a damaged archive fails in many ways, each means the same to the reader
        raise RunError(
            f"{path} is damaged ({type(error).__name__}: {error}); expected a sealed part of signals. "
            "Restore the file from a copy; the other parts of the run are not affected"
        ) from None
    return header, columns, values

"""JSONL files that survive: appended by single unbuffered writes, readable after a kill at any byte.

A line that a full disk cut short stays in the file. The next write that succeeds starts with a newline and the line
`{"torn": N}`, which says that the N bytes before it (up to that newline) are no line; a reader passes over them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimtab.errors import RunError
from trimtab.run.codec import check_format

_LOOK_AHEAD = 64
"""How many lines after a damaged one may still be part of the damage that a later line announces."""


class LineFile:
    """A JSONL file that is only ever appended to; made with its header at the first line.

    Args:
        path: the file; its folder exists.
        header: the first line, newline included.
        again: the file may be there already and is gone on with; the end of it that a killed process left half
            written is mended by the first line.
    """

    def __init__(self, path: Path, header: bytes, *, again: bool = False):
        self.path = path
        self._header = header
        self._headed = False
        self._torn = 0
        self._fd = -1
        if again and path.exists():
            self._headed, self._torn = _unfinished(path.read_bytes())

    def append(self, lines: bytes) -> None:
        """Write whole lines by one write to the disk.

        Raises:
            OSError: the disk refused; what was half written is mended by the next write that succeeds.
        """
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if self._headed and not self._torn:  # nearly always
            self._write(b"", b"", lines)
        else:
            mend = b'\n{"torn":%d}\n' % self._torn if self._torn else b""
            self._write(mend, b"" if self._headed else self._header, lines)

    def _write(self, mend: bytes, header: bytes, lines: bytes) -> None:
        data = mend + header + lines
        done = 0
        try:
            while done < len(data):
                written = os.write(self._fd, data[done:] if done else data)
                if not written:
                    raise OSError(f"{self.path}: the system wrote nothing")
                done += written
        except OSError:
            if done < len(mend):
                self._torn += done  # not even the damage before could be announced; both are announced next time
                raise
            self._headed = self._headed or done >= len(mend) + len(header)
            self._torn = len(data[len(mend) : done].rpartition(b"\n")[2])
            if done < len(data) - 1:
                raise
            return  # only the last newline is missing: the lines are on the disk, the next write ends them
        self._headed = True
        self._torn = 0

    def close(self) -> None:
        """Give the file back to the system."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def read_lines(path: Path, kind: str, remarks: list[str]) -> Iterator[tuple[int, Any]]:
    """Yield (line number, parsed line) of a JSONL file, the header first; nothing if the file is empty.

    A torn last line and lines that were cut short and mended are passed over with a remark.

    Raises:
        FileNotFoundError: there is no such file; raised before the first line.
        RunError: the file is of another kind or a newer format, or a line in the middle is damaged.
    """
    lines = path.read_bytes().split(b"\n")
    ended = not lines[-1]
    if ended:
        lines.pop()
    headed = False
    index = 0
    while index < len(lines):
        try:
            parsed = json.loads(lines[index])
        except ValueError as error:
            after = _mended(lines, index)
            if after is not None:
                _remark(remarks, f"{path.name} line {index + 1}: a line that was cut short is left out")
                index = after
                continue
            if index == len(lines) - 1 and not ended:
                _remark(remarks, f"{path.name} line {index + 1}: the last line is torn and left out")
                return
            raise RunError(
                f"{path} line {index + 1} is damaged ({error}); expected one JSON value per line. "
                "Restore the file, or remove that line to read the rest"
            ) from None
        index += 1
        if isinstance(parsed, dict) and "torn" in parsed:
            continue
        if isinstance(parsed, dict) and "format" in parsed and "kind" in parsed:
            check_format(parsed["format"], f"{path} line {index}")
            if parsed["kind"] != kind:
                raise RunError(f"{path} line {index}: expected a file of {kind}, got one of {parsed['kind']}")
            if headed:
                continue
            headed = True
        elif not headed:
            raise RunError(f"{path} line {index}: expected a header with format and kind, got {parsed!r:.80}")
        yield index, parsed


def _unfinished(content: bytes) -> tuple[bool, int]:
    """Return whether the file has a whole first line, and how many bytes at its end are no whole lines."""
    lines = content.split(b"\n")
    index = start = 0
    headed = False
    while index < len(lines) - 1:
        try:
            json.loads(lines[index])
        except ValueError:
            after = _mended(lines, index)
            if after is None:
                break
        else:
            after = index + 1
            headed = True
        start += sum(len(line) + 1 for line in lines[index:after])
        index = after
    return headed, len(content) - start


def _mended(lines: list[bytes], index: int) -> int | None:
    """Return the index after the line that announces the damage which begins at `index`, or None."""
    size = len(lines[index])
    for after in range(index + 1, min(index + 1 + _LOOK_AHEAD, len(lines))):
        if lines[after] == b'{"torn":%d}' % size:
            return after + 1
        size += 1 + len(lines[after])
    return None


def _remark(remarks: list[str], text: str) -> None:
    if text not in remarks:
        remarks.append(text)

"""A PostgreSQL server of one's own: in a temporary folder, on a Unix socket there, gone when the block ends."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 60.0
"""So long a server may take to come up or to go down; on a busy machine it takes a few."""


def binaries() -> Path | None:
    """Return the folder of `initdb` and `postgres`; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    if found is not None and shutil.which("postgres") is not None:
        return Path(found).resolve().parent
    # Debian keeps them off the path, one folder for each version.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: (len(path.parent.name), path))
    return next((path for path in reversed(folders) if (path / "initdb").exists()), None)


class Server:
    """A server that was started by `postgres_server`.

    Attributes:
        url: of a database in it, for `Store.open`.
    """

    def __init__(self, folder: Path, programs: Path):
        self.url = f"postgresql://trimtab@/postgres?host={folder}"
        self._folder, self._programs = folder, programs
        # PostgreSQL refuses to run as root, and asks that the folder is its user's alone.
        self._who: dict[str, Any] = {}
        if os.getuid() == 0:
            user = _user()
            shutil.chown(folder, user)
            self._who = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        self._run(["initdb", "-D", "data", "-U", "trimtab", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB"]
        words = [str(self._programs / "postgres"), "-D", "data", "-k", str(self._folder), *settings]
        with open(self._folder / "log.txt", "ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                words, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._who
            )
        self._process = process
        until = time.monotonic() + SECONDS
        while "ready" not in self._pid_file():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not come up: {(self._folder / 'log.txt').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once, as a crash of the machine would; what was committed is there after the next start."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(SECONDS)
            self._process = None

    def _pid_file(self) -> str:
        try:
            return (self._folder / "data" / "postmaster.pid").read_text()
        except FileNotFoundError:
            return ""

    def _run(self, words: list[str]) -> None:
        done = subprocess.run(
            [self._programs / words[0], *words[1:]], cwd=self._folder, capture_output=True, text=True, check=False,
            **self._who,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{words[0]} ended with code {done.returncode}: {done.stderr[-2000:]}")


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Run a server while the block runs.

    Raises:
        RuntimeError: PostgreSQL is not installed, or does not come up; the message says why.
    """
    programs = binaries()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed: neither initdb on the path nor in /usr/lib/postgresql")
    # The path of a Unix socket may have 107 characters, and folders of pytest are longer than half of that.
    with tempfile.TemporaryDirectory(prefix="trimtab-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder), programs)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _user() -> str:
    """Return a user to run as who is not root."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")

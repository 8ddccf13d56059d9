"""What a run says about where it ran: packages, machine, git commit, process. Never the environment at large."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from typing import Any

ENVIRONMENT_VARIABLES = (
    "ACCELERATE_MIXED_PRECISION",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RANK",
    "TORCH_LOGS",
    "WORLD_SIZE",
)
"""The only environment variables that are ever stored."""

_PACKAGES = ("torch", "numpy", "lightning", "transformers", "accelerate")
_GIT_SECONDS = 2.0


def now() -> str:
    """Return the present moment as ISO text in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def environment() -> dict[str, Any]:
    """Return what is worth knowing about the interpreter, the packages and the machine."""
    from importlib import metadata

    from trimtab import __version__

    packages = {"trimtab": __version__}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "packages": packages,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory(),
        "variables": {name: os.environ[name] for name in ENVIRONMENT_VARIABLES if name in os.environ},
    }


def git() -> dict[str, Any] | None:
    """Return commit and dirty flag of the working directory; None outside git or when git takes too long.

    Dirty means that a tracked file differs from the commit; a file that git does not track (a run folder) is not asked.
    """
    command = ["git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        said = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = said.stdout.decode(errors="replace").splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    if said.returncode or not commit or commit == "(initial)":
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def host() -> str:
    """Return a short hash that tells this machine from others without naming it."""
    return hashlib.sha256(b"trimtab host " + platform.node().encode()).hexdigest()[:12]


def process_start(pid: int) -> str | None:
    """Return when a live process began, in words that only compare; None if it is gone, "" if it cannot be known."""
    if os.name != "posix":
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # it lives and belongs to somebody else
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return None if os.path.exists("/proc/self/stat") else ""
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def alive(pid: int, began: str) -> bool:
    """Say whether the process that began at `began` still lives; another process under its number does not count."""
    start = process_start(pid)
    return start is not None and (not start or not began or start == began)


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None

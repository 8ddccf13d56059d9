"""Storing a result: one JSON file with its command, commit, environment, figures, and what they can be checked from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def store(
    name: str, *, command: str, seeds: Sequence[int], figures: Mapping[str, float], detail: Mapping[str, Any]
) -> Path:
    """Write `benchmarks/results/<name>.json` and return its path.

    `figures` is a flat map figure -> number; `detail` is whatever the figures can be checked from.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {
        "name": name,
        "command": command,
        "commit": commit(),
        "environment": environment(),
        "seeds": list(seeds),
        "figures": dict(figures),
        "detail": dict(detail),
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def load(name: str) -> dict[str, Any] | None:
    """Return a stored result, or None."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def commit() -> str:
    """Return the commit that is measured, with '+dirty' when source files differ from it."""
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    status = ["git", "status", "--porcelain", "--", "../src", "*.py", "cases"]
    changes = subprocess.run(status, cwd=here, capture_output=True, text=True, check=False).stdout
    return head.stdout.strip() + ("+dirty" if changes.strip() else "")


def environment() -> dict[str, Any]:
    """Return CPU model, cores and versions; no paths and no hosts."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    packages = {name: version(name) for name in ("torch", "numpy", "trimtab")}
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), **packages}


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson interval (95 % for the usual z) of a share; (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    middle = share + z * z / (2 * n)
    half = z * ((share * (1 - share) + z * z / (4 * n)) / n) ** 0.5
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))

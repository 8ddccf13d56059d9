"""Every benchmark, one after the other: `python -m benchmarks.all`. Each can be run alone, and skips what is done."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    "benchmarks.overhead",
    "benchmarks.peers",
    "benchmarks.detection",
    "benchmarks.false_alarms",
    "benchmarks.margins",
    "benchmarks.snapshot_overhead",
    "benchmarks.recovery",
    "benchmarks.checkpoint_mismatch",
    "benchmarks.kill",
    "benchmarks.interval_coverage",
    "benchmarks.ternary",
    "benchmarks.ternary_faults",
    "benchmarks.sweep55",
    "benchmarks.sweep_engine",
    "benchmarks.sci_generate",
    "benchmarks.sci",
)


def main() -> int:
    """Run each in a process of its own; return 1 if one of them failed."""
    failed = []
    for name in BENCHMARKS:
        print(f"== python -m {name}", flush=True)
        if subprocess.run([sys.executable, "-m", name], check=False).returncode:
            failed.append(name)
    print("failed: " + ", ".join(failed) if failed else "all done")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

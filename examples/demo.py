"""What `make demo` runs: watch a healthy and a broken training through the command line, and be told what is wrong.

Ends with 0 if the healthy one was found clean and the broken one was caught, else with 1.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEALTHY = "examples/digits_mlp.py"
BROKEN = "examples/broken/digits_mlp_missing_zero_grad.py"
RUNS = Path(os.environ.get("TRIMTAB_RUNS") or ROOT / "runs")
THREADS = {"OMP_NUM_THREADS": "1"}  # matrices this small are multiplied faster by one thread
SEARCHED = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
ENVIRONMENT = {**THREADS, **os.environ, "PATH": SEARCHED}


def say(text):
    """Print a line of the demo's own, apart from what the commands print."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def run(*words, quiet=False):
    """Show a command as one would type it from the root of the repository, run it, and return its exit code."""
    print(f"$ {shlex.join(words)}", flush=True)
    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE if quiet else None, text=True)
    if quiet:
        lines = done.stdout.splitlines()
        print("\n".join([*lines[:2], "...", *lines[-2:]] if len(lines) > 5 else lines), flush=True)
    return done.returncode


def newest_run(before):
    """Return the run folder that was not there before."""
    (path,) = set(RUNS.glob("*/run.json")) - before
    return path.parent


def watch(script):
    """Watch a script; return the exit code and the run folder."""
    before = set(RUNS.glob("*/run.json"))
    code = run("trimtab", "watch", "--project", "demo", script, quiet=True)
    return code, newest_run(before)


def named(path):
    """Return a path as one would type it from the root of the repository."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def main():
    begin = time.monotonic()
    say(f"1/3  A healthy training: {HEALTHY} holds not one word of Trimtab.")
    clean, healthy = watch(HEALTHY)
    run("trimtab", "mark", named(healthy), "good")

    say(f"2/3  The same training with a classic mistake: {BROKEN} raises nothing, and still learns a little.")
    caught, broken = watch(BROKEN)

    say("3/3  What is wrong with it?")
    run("trimtab", "diagnose", named(broken))
    reports = []
    for path in (healthy, broken):
        run("trimtab", "report", named(path), "--fail-on", "never", quiet=True)
        reports.append(path / "report.html")

    say(f"The reports, to open in a browser ({time.monotonic() - begin:.0f} s for everything):")
    print(f"  healthy  {reports[0]}\n  broken   {reports[1]}")
    if clean != 0:
        print(f"\nThe healthy training was not found clean: `trimtab watch` ended with {clean}, expected 0.")
    if caught != 1:
        print(f"\nThe broken training was not caught: `trimtab watch` ended with {caught}, expected 1.")
    return 0 if (clean, caught) == (0, 1) else 1


if __name__ == "__main__":
    sys.exit(main())

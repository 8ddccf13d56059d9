"""How the tests of the command line call it: in this process, or as a program of its own."""

import os
import runpy
import subprocess
import sys
import warnings
from contextlib import suppress
from unittest import mock

from trimtab.cli import main


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def run(capsys, *words):
    """Call the command line in this process."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    return Said(code, *capsys.readouterr())


def alone(captured, path, *words):
    """Run a script without Trimtab, in this process, which has imported torch already; return what it prints."""
    captured.readouterr()
    with warnings.catch_warnings(), mock.patch.object(sys, "argv", [str(path), *words]), suppress(SystemExit):
        warnings.simplefilter("default")
        runpy.run_path(str(path), run_name="__main__")
    return captured.readouterr().out


def start(*words, **options):
    """Call the command line as a program."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    command = [sys.executable, "-m", "trimtab", *(str(word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)
    return Said(done.returncode, done.stdout, done.stderr)

"""The tutorial's commands print what the tutorial says, but for names of runs, times and the last digits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.kit import ROOT, blocks

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SCRIPT = "examples/broken/digits_cnn_stale_optimizer.py"
ID = re.compile(r"\d{8}-\d{6}-[\w-]+-[0-9a-f]{4}")


def after(command):
    """Return the block of the page that shows what the n-th `command` printed, for each time that it stands there."""
    shown = [block.text for block in blocks(PAGE)]
    return [shown[place + 1] for place, text in enumerate(shown) if re.fullmatch(rf"{command}\n", text)]


def told(text):
    """Return the lines of a text with `RUN` for each name of a run, without trailing blanks."""
    return [line.rstrip() for line in ID.sub("RUN", text.replace("\r", "")).strip("\n").splitlines()]


def edited(text):
    """Return a script with the tutorial's change made."""
    (change,) = (block.text for block in blocks(PAGE) if block.language == "diff")
    lines = change.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    assert text.count(before) == 1, "the script no longer holds the lines that the tutorial changes"
    return text.replace(before, "".join(line[1:] for line in lines if line[0] in " +"))


def test_the_change_that_the_tutorial_shows_fits_the_script():
    assert f"cp {SCRIPT} train.py" in PAGE
    text = (ROOT / SCRIPT).read_text(encoding="utf-8")
    fixed = edited(text)
    assert sorted(fixed.splitlines()) == sorted(text.splitlines())
    assert fixed.index("model.head = ") < fixed.index("optimizer = ")


@pytest.mark.slow
def test_the_way_of_the_tutorial(tmp_path):
    script = tmp_path / "train.py"
    script.write_text((ROOT / SCRIPT).read_text(encoding="utf-8"), encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "TRIMTAB_RUNS"}
    environment |= {"COLUMNS": "120", "OMP_NUM_THREADS": "1"}

    def trimtab(*words):
        command = [str(Path(sys.executable).with_name("trimtab")), *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    broken, fixed = after("trimtab watch train[.]py")
    done = trimtab("watch", "train.py")
    assert done.returncode == 1, done.stderr
    assert told(done.stderr) == told(broken)
    (diagnosis,) = after("trimtab diagnose")
    done = trimtab("diagnose")
    assert done.returncode == 1
    assert told(done.stdout) == told(diagnosis)
    assert trimtab("report", "--fail-on", "never").returncode == 0
    (first,) = (path.name for path in (tmp_path / "runs").iterdir())

    script.write_text(edited(script.read_text(encoding="utf-8")), encoding="utf-8")
    done = trimtab("watch", "train.py")
    assert done.returncode == 0, done.stderr
    assert told(done.stderr) == told(fixed)
    (comparison,) = after(r"trimtab compare [\w-]+ last")
    done = trimtab("compare", first, "last")
    numbers = re.compile(r"-?\d[\d.e-]*")
    assert [numbers.sub("#", line) for line in told(done.stdout)] == [
        numbers.sub("#", line) for line in told(comparison)
    ]
    assert trimtab("mark", "last", "good").returncode == 0
    assert "good" in trimtab("runs").stdout

"""`make demo`: the healthy training is clean, the broken one is caught, and both reports are where the demo says."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_demo_watches_diagnoses_and_reports(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["TRIMTAB_RUNS"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = [line[2:].split() for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert [words[:2] for words in shown] == [
        ["trimtab", verb] for verb in ("watch", "mark", "watch", "diagnose", "report", "report")
    ]
    reports = re.findall(r"^  (?:healthy|broken) +(\S+)$", done.stdout, re.MULTILINE)
    assert [Path(report).is_file() for report in reports] == [True, True]
    assert "most likely cause: missing-zero-grad" in done.stdout
    assert "nothing wrong found" in done.stderr

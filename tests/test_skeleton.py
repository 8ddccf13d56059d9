"""The project's own files keep their promises: versions agree, nothing names a machine, the import rules can fail."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import trimtab

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PICTURES = {".gif", ".jpg", ".png", ".svg", ".webp"}


@pytest.fixture(scope="module")
def tracked():
    """Every file that git tracks, as a path below the root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


# --- versions -------------------------------------------------------------------------------------


def test_the_version_is_the_same_in_pyproject_package_and_citation():
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert trimtab.__version__ == PROJECT["version"] == cited[1]


def test_constraints_pin_torch_forbid_torchvision_and_pin_every_dependency():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert "torchvision<0" in lines
    exact = [line for line in lines if line != "torchvision<0"]
    assert [line for line in exact if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    pins = dict(line.split("==") for line in exact)
    assert pins["torch"] == "2.13.0"

    def canonical(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    names = {canonical(re.split(r"[^\w.-]", requirement)[0]) for requirement in wanted}
    assert names - {canonical(name) for name in pins} == set()


# --- what is tracked ------------------------------------------------------------------------------

# Written in pieces, so that this file does not match itself.
NAMES_OF_A_MACHINE = re.compile(
    "|".join(
        [
            r"pypi\." + r"org",
            r"pytho" + r"nhosted",
            r"download\.py" + r"torch",
            r"anaconda\." + r"org",
            r"artifact" + r"ory",
            r"index" + r"-url",
            r"/sim" + r"ple/",
            r"(?<![\w.$}~/-])/(?:ro" + r"ot|wo" + r"rk|opt/pypi|ho" + r"me/\w+|Us" + r"ers/\w+)/",
        ]
    ).encode(),
    re.IGNORECASE,
)


def places_that_name_a_machine(content: bytes) -> list[str]:
    """The lines that hold a package registry's host or an absolute path of somebody's machine."""
    return [line.decode(errors="replace")[:120] for line in content.splitlines() if NAMES_OF_A_MACHINE.search(line)]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("https://py" + "pi.org/x", True),
        ("--extra-index" + "-url https://x", True),
        ("https://mirror.example/sim" + "ple/numpy", True),
        ("open('/ro" + "ot/run.json')", True),
        ("see /wo" + "rk/main", True),
        ("saved in /ho" + "me/ada/runs", True),
        ("docs/wo" + "rk/page.md and a simple/case", False),
        ("runs/last, /tmp/x, ../wo" + "rk/y, ~/wo" + "rk/z", False),
        ("${HOME}/wo" + "rk/main", False),
    ],
)
def test_a_machine_is_recognised_by_its_hosts_and_paths(line, named):
    assert bool(places_that_name_a_machine(line.encode())) is named


def test_no_tracked_file_names_a_registry_or_a_path_of_a_machine(tracked):
    text = [path for path in tracked if path.suffix not in PICTURES - {".svg"}]
    found = {str(path): places_that_name_a_machine((ROOT / path).read_bytes()) for path in text}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_no_lock_file_is_tracked(tracked):
    assert [str(path) for path in tracked if path.suffix == ".lock" or path.name == "package-lock.json"] == []


def test_no_tracked_file_is_large(tracked):
    def may_be_large(path):
        return path.is_relative_to("benchmarks/results") or (path.parts[0] == "docs" and path.suffix in PICTURES)

    sizes = {str(path): (ROOT / path).stat().st_size for path in tracked if not may_be_large(path)}
    assert {path: size for path, size in sizes.items() if size > 400_000} == {}


def test_every_silenced_rule_of_the_sources_gives_its_reason(tracked):
    silenced = re.compile(r"# noqa: [A-Z0-9, ]+|# type: ignore\[[\w, -]+\]")
    bare = [
        f"{path}:{number}"
        for path in tracked
        if path.is_relative_to("src") and path.suffix == ".py"
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        if (match := silenced.search(line)) and len(line[match.end() :].strip(" #-:")) < 8
    ]
    assert bare == []


# --- the import rules -----------------------------------------------------------------------------


@pytest.fixture
def empty_project(tmp_path):
    """A project with an empty file for each module that .importlinter names, and the same rules."""
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    systems = ["trimtab_systems", "trimtab_systems/one", "trimtab_systems/other"]
    modules = re.findall(r"\w+", rules["importlinter:contract:layers"]["layers"])
    for name in ["trimtab", *(f"trimtab/{module}" for module in modules), *systems]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def import_rules_hold_in(folder: Path) -> tuple[bool, str]:
    """Whether lint-imports is content with the packages in the folder; and what it says."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def test_the_import_rules_allow_what_the_design_allows(empty_project):
    allowed = {
        "trimtab": "from trimtab.guard import Guard",  # the lazy names
        "trimtab/records": "import dataclasses",
        "trimtab/trace": "import numpy\nfrom trimtab.records import Signal",
        "trimtab/sensors": "import torch\nfrom trimtab.live import Live",
        "trimtab/judge": "import numpy, trimtab\nfrom trimtab.trace import Trace",
        "trimtab/report": "import jinja2, matplotlib, numpy\nfrom trimtab.diagnose import diagnose",
        "trimtab_systems/one": "from trimtab.system import System",
    }
    for module, code in allowed.items():
        (empty_project / module / "__init__.py").write_text(code + "\n")
    holds, said = import_rules_hold_in(empty_project)
    assert holds, said


@pytest.mark.parametrize(
    ("module", "code", "broken"),
    [
        ("trimtab/trace", "from trimtab.guard import Guard", "downwards"),
        ("trimtab/attach", "from trimtab.measure import Measure", "never sideways"),
        ("trimtab/surprise", "", "a new module needs a row"),
        ("trimtab/guard", "import trimtab_systems.one", "knows no system"),
        ("trimtab_systems/one", "from trimtab_systems.other import SYSTEM", "never import each other"),
        ("trimtab/detectors", "def detect():\n    import torch", "without torch"),
        ("trimtab/errors", "import numpy", "the standard library alone"),
        ("trimtab/trace", "import pydantic", "numpy alone"),
    ],
)
def test_the_import_rules_catch_what_the_design_forbids(empty_project, module, code, broken):
    (empty_project / module).mkdir(exist_ok=True)
    (empty_project / module / "__init__.py").write_text(code + "\n")
    holds, said = import_rules_hold_in(empty_project)
    assert not holds
    assert re.search(rf"{broken}.*BROKEN", said), said

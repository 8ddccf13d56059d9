"""Every example script runs to its end, broken or not; the healthy ones reach the target that they state."""

import ast
import json
import os
import subprocess
import sys
from operator import gt, lt
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

# Few steps, and what the last line of a full run has to show.
HEALTHY = {
    "cancer_lbfgs.py": (["--steps", "2"], gt, 0.94),
    "cancer_mlp.py": (["--epochs", "1"], gt, 0.94),
    "digits_amp_accumulate.py": (["--epochs", "1"], gt, 0.95),
    "digits_cnn.py": (["--epochs", "1"], gt, 0.97),
    "digits_gan.py": (["--epochs", "1"], lt, 4.0),
    "digits_mlp.py": (["--epochs", "1"], gt, 0.95),
    "digits_vae.py": (["--epochs", "1"], lt, 26.0),
    "spirals_mlp.py": (["--epochs", "1"], lt, 0.15),
    "stdlib_char_gpt.py": (["--steps", "2"], lt, 1.9),
}
BROKEN = {
    "broken/cancer_mlp_log_zero.py": ["--epochs", "1"],
    "broken/char_gpt_detached.py": ["--steps", "2"],
    "broken/digits_cnn_lr_reaches_zero.py": ["--epochs", "1"],
    "broken/digits_cnn_stale_optimizer.py": ["--epochs", "1"],
    "broken/digits_mlp_double_softmax.py": ["--epochs", "1"],
    "broken/digits_mlp_lr_too_high.py": ["--epochs", "1"],
    "broken/digits_mlp_missing_zero_grad.py": ["--epochs", "1"],
    "broken/digits_mlp_same_batch.py": ["--epochs", "1"],
}
PLAIN: dict[str, list[str]] = {"two_lines/before.py": []}
SHORT = {name: arguments for name, (arguments, _, _) in HEALTHY.items()} | BROKEN | PLAIN
AWARE = {"demo.py", "two_lines/after.py"}
SCRIPTS = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py"))

# One process runs them one after another: importing torch seventeen times would cost more than the training.
RUN_EACH = """
import json, runpy, sys, traceback
codes = {}
for name, arguments in json.load(sys.stdin).items():
    sys.argv = [name, *arguments]
    try:
        runpy.run_path(name, run_name="__main__")
        codes[name] = "ended"
    except BaseException:
        codes[name] = traceback.format_exc()
print(json.dumps(codes))
"""


def python(*arguments, **options):
    """Run the interpreter in `examples/`, one thread, warnings as errors, nothing of Trimtab in the environment."""
    environment = {key: value for key, value in os.environ.items() if "TRIMTAB" not in key and key != "PYTHONPATH"}
    environment |= {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=EXAMPLES, env=environment, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def ends():
    """How each script ended when run for few steps: "ended", or its traceback."""
    done = python("-c", RUN_EACH, input=json.dumps(SHORT))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_script_is_forgotten():
    assert set(SCRIPTS) - AWARE == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_runs_to_its_end(ends, name):
    assert ends[name] == "ended", ends[name]


@pytest.mark.parametrize("name", sorted(set(SCRIPTS) - AWARE))
def test_knows_nothing_of_trimtab(name):
    assert "trimtab" not in (EXAMPLES / name).read_text(encoding="utf-8").lower()


@pytest.mark.parametrize("name", BROKEN)
def test_only_the_last_line_of_the_docstring_tells_the_mistake(name):
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring is not None
    assert docstring.splitlines()[-1].startswith("Mistake on purpose: ")
    assert text.lower().count("mistake") == 1


@pytest.mark.parametrize("name", [*HEALTHY, *PLAIN])
def test_healthy_script_announces_no_mistake(name):
    assert "mistake" not in (EXAMPLES / name).read_text(encoding="utf-8").lower()


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_script_reaches_its_target(name):
    _, better, target = HEALTHY[name]
    done = python(name)
    assert done.returncode == 0, done.stderr
    assert better(float(done.stdout.split()[-1]), target), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_broken_script_fails_silently(name):
    done = python(name)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_mlp.py", "digits_gan.py"])
def test_same_seed_same_output(name):
    short, _, _ = HEALTHY[name]
    assert python(name, *short).stdout == python(name, *short).stdout != ""

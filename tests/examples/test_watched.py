"""The examples under `trimtab watch`: nothing changes for them, healthy ones are silent, broken ones are caught."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.commands import alone
from trimtab import diagnose
from trimtab.records import Finding, Severity
from trimtab.run import Run, list_runs
from trimtab.watch import Options, run_command

EXAMPLES = Path(__file__).parents[2] / "examples"
HEALTHY = {
    "digits_mlp.py": ("--epochs", "6"),
    "digits_cnn.py": ("--epochs", "3"),
    "cancer_mlp.py": (),
    "cancer_lbfgs.py": (),
    "digits_gan.py": ("--epochs", "3"),
    "digits_vae.py": ("--epochs", "6"),
    "digits_amp_accumulate.py": ("--epochs", "6"),
    "stdlib_char_gpt.py": ("--steps", "60"),
}
BROKEN = {
    "digits_mlp_lr_too_high.py": ("gradient-exploding", "learning-rate-too-high"),
    "digits_mlp_missing_zero_grad.py": ("gradients-accumulate", "missing-zero-grad"),
    "digits_mlp_double_softmax.py": ("double-softmax", "softmax-before-cross-entropy"),
    "digits_cnn_stale_optimizer.py": ("parameters-outside-optimizer", "optimizer-does-not-hold-parameters"),
    "digits_mlp_same_batch.py": ("same-batch-repeated", "loader-repeats-one-batch"),
    "cancer_mlp_log_zero.py": ("loss-not-finite", "numerical-fault-in-loss"),
    "digits_cnn_lr_reaches_zero.py": ("learning-rate-zero", "learning-rate-schedule-ended"),
    "char_gpt_detached.py": ("parameters-never-changed", "graph-cut-by-detach"),
}
SHORT = {"char_gpt_detached.py": ("--steps", "60")}
AT_ONCE = {
    "cancer_lbfgs.py", "digits_gan.py", "digits_amp_accumulate.py",
    "digits_cnn_stale_optimizer.py", "cancer_mlp_log_zero.py",
}  # fmt: skip
"""A closure, two optimizers, a scaler; a fault of wiring, of a batch. The plain loop, healthy and with a fault of
values, is the demo's (`tests/cli/test_demo.py`). The others are for `make test-slow`: a process that imports torch
takes seconds before its first update."""


def scripts(names):
    return [pytest.param(name, marks=[] if name in AT_ONCE else [pytest.mark.slow]) for name in names]


def watched(script: Path, root: Path, *arguments: str) -> tuple[int, Run]:
    result = run_command([sys.executable, str(script), *arguments], Options(root=str(root), name=script.stem))
    (run,) = list_runs(root)
    return result.exit_code, run


def opened(run: Run) -> list[Finding]:
    return [
        e
        for e in run.events()
        if isinstance(e, Finding) and e.event in ("opened", "worsened") and e.severity >= Severity.WARNING
    ]


@pytest.mark.parametrize("script", scripts(HEALTHY))
def test_a_healthy_script_prints_what_it_prints_alone_and_raises_no_alarm(script, tmp_path, capfd):
    arguments = (*HEALTHY[script], "--seed", "0")
    bare = alone(capfd, EXAMPLES / script, *arguments)
    code, run = watched(EXAMPLES / script, tmp_path, *arguments)
    assert code == 0
    assert capfd.readouterr().out == bare
    assert [(f.code, f.summary) for f in opened(run)] == []


@pytest.mark.parametrize("script", scripts(BROKEN))
def test_a_broken_script_is_caught_and_its_cause_ranked_first(script, tmp_path, capfd):
    code, cause = BROKEN[script]
    exit_code, run = watched(EXAMPLES / "broken" / script, tmp_path, *SHORT.get(script, ()))
    assert exit_code == 0
    assert code in {f.code for f in opened(run)}
    assert diagnose(run).diagnoses[0].cause == cause


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("script", HEALTHY)
def test_a_healthy_script_is_silent_at_full_length_with_every_seed(script, seed, tmp_path, capfd):
    code, run = watched(EXAMPLES / script, tmp_path, "--seed", str(seed))
    assert code == 0
    assert [(f.code, f.summary) for f in opened(run)] == []

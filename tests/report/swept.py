"""Made-up results of sweeps, for the tests of what a person sees of them."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from trimtab.compare.arms import summarize
from trimtab.compare.summary import PhaseFacts
from trimtab.report.sweep_page import About
from trimtab.trial import Trial, TrialResult

METRIC = "validation/hierarchy"
NAN = float("nan")


def result(
    arm, seed, *, mean=-0.74, spread=0.03, settings=None, phase="", evaluations=10, every=50, start=None, **facts
):
    """One trial that begins somewhere, comes down to a best value and ends a little above it; lower is better."""
    rng = np.random.default_rng([seed, *(phase + arm).encode()])
    trial = Trial(
        target="ternary", phase=phase, arm=arm, seed=seed, settings=settings if settings is not None else {"arm": arm}
    )
    begin = rng.normal(-0.13, 0.2) if start is None else start
    best = mean + spread * np.random.default_rng(seed).normal() + 0.3 * spread * rng.normal()
    turn, every = max(evaluations // 2, 1), 50
    points = [
        (every * at, float(begin + (best - begin) * min(at / turn, 1) + 0.02 * max(at - turn, 0) / turn))
        for at in range(evaluations + 1)
    ]
    given = {
        "status": "finished", "metric": METRIC, "better": "lower", "points": tuple(points),
        "steps": every * evaluations, "cpu_seconds": 4.2, "wall_seconds": 5.0, "train_cpu_seconds": 2.1,
        "run": f"20261121-1200{seed:02}-ternary-{trial.key[:4]}", "losses_hash": trial.key, "code": "abc1234",
        "checkpoint": "checkpoints/step-000000000250", "checkpoint_hash": trial.key * 2, "config_hash": trial.key,
        "evaluations_again": (min(value for _, value in points),) * 2,
    }  # fmt: skip
    return TrialResult(trial=trial, **{**given, **facts})


def failed(arm, seed, error="RuntimeError: boom <script>alert(1)</script>", **facts):
    """One trial that raised."""
    trial = result(arm, seed, **facts).trial
    return TrialResult(trial=trial, status="failed", attempts=3, metric=METRIC, better="lower", error=error)


def seven_phases():
    """55 trials in seven phases, some of them failed, stopped or without a number at the end."""
    results = [
        result(f"c={c}", seed, phase="curvature", settings={"curvature": c}, losses_hash=f"same {seed}", start=-0.1)
        for c in (0.5, 1.0, 2.0)
        for seed in range(2)
    ]
    weights = {"baseline": (5, 2, 3), "high_hier": (8, 1, 4), "high_rich": (3, 4, 2), "balanced": (5, 5, 3),
               "extreme": (10, 0.5, 5)}  # fmt: skip
    results += [
        result(name, 0, phase="loss-weights", settings=dict(zip(("h", "r", "separation"), values, strict=True)))
        for name, values in weights.items()
    ]
    results += [
        result(name, seed, phase="scheduling", mean=mean, evaluations=steps, status=status, stop_reason=reason)
        for name, mean, steps, status, reason in (
            ("no_schedule", -0.70, 10, "finished", ""),
            ("early_stop_p5", -0.79, 6, "stopped", "no gain for 5 evaluations"),
            ("step_decay with a name that is rather long=0.0001", -0.71, 10, "finished", ""),
        )
        for seed in range(2)
    ]
    results += [
        result(f"lr={lr}", seed, phase="learning-rate", mean=-0.6 - 0.1 * at, settings={"lr": lr})
        for at, lr in enumerate((1e-4, 1e-3))
        for seed in range(6)
    ]
    results += [failed("lr=1", 0, phase="learning-rate", settings={"lr": 1.0})]
    results += [result("alone", seed, phase="stability", spread=0.04) for seed in range(10)]
    results += [result("matched", seed, phase="extended") for seed in range(14)]
    worse = result("matched", 14, phase="extended")
    results.append(replace(worse, points=(*worse.points, (600, NAN)), findings=(("loss-not-finite", "fatal"),)))
    facts = {
        "curvature": PhaseFacts(baseline="c=1.0"),
        "learning-rate": PhaseFacts(score="final", baseline="lr=0.0001", bands={METRIC: (-0.9, -0.65)}),
    }
    return results, facts


def one_run():
    """One arm, one seed."""
    return [result("default", 0, settings={})], {}


def all_failed():
    """Nothing came to an end."""
    return [failed("lr=1", seed) for seed in range(3)] + [failed("lr=2", 0, error="")], {}


def never_a_number():
    """Every evaluation is NaN."""
    points = ((0, NAN), (50, math.inf), (100, NAN))
    return [result(arm, seed, points=points, evaluations_again=()) for arm in ("a", "b") for seed in (0, 1)], {}


def a_search(arms=1_000):
    """So many arms with one seed each; four settings vary."""
    rng = np.random.default_rng(0)
    results = []
    for place in range(arms):
        settings = {
            "lr": float(f"{10 ** rng.uniform(-5, -1):.3g}"),
            "width": int(rng.integers(8, 128)),
            "activation": str(rng.choice(["relu", "gelu", "tanh"])),
            "dropout": float(rng.choice([0.0, 0.1, 0.2])),
        }
        mean = -0.7 - 0.02 * math.log10(settings["lr"]) - settings["width"] / 1000
        if place % 50 == 7:
            results.append(failed(f"{place:04}", 0, settings=settings))
        else:
            results.append(result(f"{place:04}", 0, mean=mean, settings=settings, checkpoint="", checkpoint_hash=""))
    return results, {}


def waiting():
    """A sweep that has only begun."""
    done = result("a", 0)
    return [done, TrialResult(trial=result("a", 1).trial, status="running"),
            TrialResult(trial=result("b", 0).trial, status="waiting")], {}  # fmt: skip


EVERY: dict[str, Any] = {
    made.__name__: made for made in (seven_phases, one_run, all_failed, never_a_number, a_search, waiting)
}


def summary_of(made):
    """Return summary and results."""
    results, facts = made
    return summarize(results, phases=facts), results


def about(folder=None, **facts):
    """What is told beside the results."""
    given = {
        "name": "ternary-1a2b3c4d", "target": "ternary", "preset": "tiny", "created": "2026-11-21 12:00",
        "command": "trimtab sweep ternary --phases sweep.yaml", "versions": {"trimtab": "0.5.0", "python": "3.11.2"},
        "plan": {"target": "ternary", "seeds": [0, 1], "phases": [{"name": "<b>curvature</b>"}]},
    }  # fmt: skip
    return About(**{**given, "folder": folder, **facts})

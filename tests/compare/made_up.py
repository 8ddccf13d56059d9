"""Made-up results of sweeps: courses of a metric, losses with a given beginning, whole phases."""

import hashlib
import struct

import numpy as np

from trimtab.trial import Trial, TrialResult

METRIC = "validation/accuracy"


def losses(*parts):
    """Losses of a run as pieces: (name, updates) gives numbers that are the same wherever the name is."""
    made = []
    for name, count in parts:
        made += np.random.default_rng(list(name.encode())).normal(size=count).tolist()
    return tuple(made)


def hash_of(values):
    return hashlib.sha256(struct.pack(f"{len(values)}d", *values)).hexdigest() if values else ""


LOSSES = {}
"""hash -> the losses, for `losses_of`."""


def losses_of(result):
    return LOSSES.get(result.losses_hash, ())


def trial_of(arm, seed, phase, settings):
    settings = {"arm": arm} if settings is None else settings
    return Trial(target="system", phase=phase, arm=arm, seed=seed, settings=settings)


def result(
    arm,
    seed=0,
    values=(0.1, 0.5, 0.9),
    *,
    every=10,
    phase="",
    settings=None,
    status="finished",
    trained=None,
    better="higher",
    metric=METRIC,
    **more,
):
    """One result whose metric took `values`, the first before training; `trained` are pieces of its losses."""
    trial = Trial(
        target="system", phase=phase, arm=arm, seed=seed, settings={"arm": arm} if settings is None else settings
    )
    points = tuple((number * every, value) for number, value in enumerate(values))
    steps = points[-1][0] if points else 0
    if trained is None:
        trained = ((f"{phase} {arm} {seed}", steps),)
    series = losses(*trained)
    LOSSES[hash_of(series)] = series
    return TrialResult(
        trial=trial,
        status=status,
        metric=metric,
        better=better,
        points=points,
        losses_hash=hash_of(series),
        steps=steps,
        **{"cpu_seconds": 1.0, "code": "abc", **more},
    )


def failed(arm, seed=0, *, phase="", error="ValueError: no", settings=None):
    trial = Trial(
        target="system", phase=phase, arm=arm, seed=seed, settings={"arm": arm} if settings is None else settings
    )
    return TrialResult(trial=trial, status="failed", error=error, cpu_seconds=0.5)


def arm(name, bests, *, fall=0.0, start=None, **more):
    """One arm: seed i climbs to bests[i] in three evaluations, and ends `fall` lower."""
    made = []
    for seed, best in enumerate(bests):
        first = 0.1 if start is None else start[seed]
        middle = first + 0.6 * (best - first)
        made.append(result(name, seed, (first, middle, best, best - fall), **more))
    return made


def healthy(difference=0.2, n=10, scatter=0.02, seed=0, arms=("a", "b", "c")):
    """A well-powered sweep whose arms differ, with starts of their own and exact evaluations."""
    generator = np.random.default_rng(seed)
    made = []
    for place, name in enumerate(arms):
        noise = generator.normal(scale=scatter, size=n)
        made += arm(
            name,
            (0.5 + place * difference + noise).tolist(),
            start=(0.1 + generator.normal(scale=0.01, size=n)).tolist(),
            fall=0.0,
        )
    return made


def simulated(seed, n=8, effect=0.05):
    """A healthy sweep as they are: noisy evaluations, patience, starts that say nothing, four arms that differ."""
    generator = np.random.default_rng(seed)
    made = []
    for place, name in enumerate("abcd"):
        for number in range(n):
            start, pace = generator.normal(0.1, 0.02), generator.uniform(2, 3)
            gain = 0.7 + effect * place + generator.normal(0, 0.02) - start
            values = [start + gain * (1 - np.exp(-step / pace)) + generator.normal(0, 0.003) for step in range(20)]
            peaks = [max(values[: step + 1]) for step in range(20)]
            stop = next((step for step in range(5, 20) if peaks[step] == peaks[step - 5]), 20)
            again = tuple(max(values[: stop + 1]) - 0.0036 + generator.normal(0, 0.003, 2))
            status = "finished" if stop == 20 else "stopped"
            made.append(result(name, number, tuple(values[: stop + 1]), status=status, evaluations_again=again))
    return made

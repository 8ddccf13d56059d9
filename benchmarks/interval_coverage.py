"""How often a nominal 95 % interval of the mean of a few runs holds the true mean.

`python -m benchmarks.interval_coverage` draws samples of known mean from three kinds of data (normal, log-normal, and
runs of which 15 % collapse), makes the intervals of `trimtab.statistics` from them, and counts. The figures go into
`trimtab.statistics.COVERAGE`, from where every report of a sweep quotes them; a test keeps both alike. One generator
with one seed draws everything, so that the same command gives the same figures.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np

from benchmarks.stored import load, store
from trimtab.statistics import bca_interval, t_interval, wilson

SIZES = (3, 5, 10, 20)
SAMPLES = 2000
"""Standard error of a share of 0.9 is then 0.007."""
SEED = 0
COLLAPSED = 0.15
"""Share of runs that collapse, as in the published table that this is compared with."""
SUCCESS, FAILURE, SCATTER = 0.9, 0.1, 0.02
"""Scores of a run that works and of one that collapsed, and the scatter of both."""

Draw = Callable[[np.random.Generator, int], np.ndarray]


def normal(generator: np.random.Generator, n: int) -> np.ndarray:
    """Return n values of mean 0."""
    return generator.normal(size=n)


def log_normal(generator: np.random.Generator, n: int) -> np.ndarray:
    """Return n values of mean exp(1/2)."""
    return generator.lognormal(size=n)


def collapsed(generator: np.random.Generator, n: int) -> np.ndarray:
    """Return n scores of which 15 % are those of collapsed runs."""
    middle = np.where(generator.random(n) < COLLAPSED, FAILURE, SUCCESS)
    return middle + generator.normal(scale=SCATTER, size=n)


DATA: dict[str, tuple[Draw, float]] = {
    "normal": (normal, 0.0),
    "log-normal": (log_normal, math.exp(0.5)),
    "collapsed": (collapsed, (1 - COLLAPSED) * SUCCESS + COLLAPSED * FAILURE),
}


def coverage(name: str, n: int, samples: int = SAMPLES, seed: int = SEED) -> dict[str, float]:
    """Return interval -> share of samples of size n whose interval holds the true mean."""
    draw, mean = DATA[name]
    generator = np.random.default_rng([seed, n, sorted(DATA).index(name)])
    held = {"t": 0, "bca": 0}
    for _ in range(samples):
        values = draw(generator, n).tolist()
        held["t"] += t_interval(values).holds(mean)
        held["bca"] += bca_interval(values, generator=generator).holds(mean)
    return {interval: count / samples for interval, count in held.items()}


def main() -> None:
    """Measure what is not stored yet, and store it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--again", action="store_true", help="measure everything anew")
    given = parser.parse_args()
    stored = None if given.again else load("interval_coverage")
    known = stored["detail"]["coverage"] if stored and stored["detail"]["samples"] == given.samples else {}
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name in DATA:
        table[name] = {}
        for n in SIZES:
            table[name][str(n)] = known.get(name, {}).get(str(n)) or coverage(name, n, given.samples)
            print(
                f"{name:12} n={n:2d}  " + "  ".join(f"{how} {share:.3f}" for how, share in table[name][str(n)].items())
            )
    figures = {
        f"{name}_{interval}_n{n}".replace("-", "_"): share
        for name, sizes in table.items()
        for n, shares in sizes.items()
        for interval, share in shares.items()
    }
    error = wilson(round(0.9 * given.samples), given.samples)
    detail = {"samples": given.samples, "coverage": table, "interval_of_a_share_of_0.9": [error.low, error.high]}
    command = "python -m benchmarks.interval_coverage"
    print(store("interval_coverage", command=command, seeds=[SEED], figures=figures, detail=detail))


if __name__ == "__main__":
    main()

"""What snapshots cost: seconds and bytes to take and to put back, and CPU time of a guarded step with and without them.

    python -m benchmarks.snapshot_overhead

Taking and restoring: a stack of square linear layers with AdamW after one update, of 1 and of 50 million parameters,
so three numbers a parameter; the first snapshot asks for its memory, the others use that of an older one again.

In a training: the small GPT of `benchmarks.overhead`, in blocks of as many updates as lie between two snapshots, so
that each block of the arm with snapshots takes one. Arms run in turn and in changing order on one thread: bare, bare
again (the noise), `respond="safe"` without snapshots, and the same with them, as shipped. A ratio is the median over
rounds of with / without of the same round, or over the mean of the two bare blocks; its 95 % interval is by bootstrap
over rounds. CPU seconds of the process throughout.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.overhead import HALF_WIDTH, Arm, Clock, gpt, interval
from benchmarks.stored import store
from trimtab import Guard, attach
from trimtab.checkpoint import TrainingState
from trimtab.checkpoint.snapshots import Ring

COMMAND = "python -m benchmarks.snapshot_overhead"
SIZES = {"1M": (512, 4), "50M": (2048, 12)}
"""Width and number of the layers."""
BARE, AGAIN, WITHOUT, WITH = "bare", "bare again", "without snapshots", "with snapshots"


def stack(width: int, layers: int) -> TrainingState:
    """Return a model and an AdamW that has taken one update."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, width)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return TrainingState({"model": model}, {"main": optimizer})


def cost(width: int, layers: int, repeats: int) -> dict[str, float]:
    """Return seconds and bytes of one snapshot of a stack, medians over repeats."""
    state = stack(width, layers)
    parameters = sum(p.numel() for p in state.models["model"].parameters())
    begin = time.process_time()
    captured = state.capture()
    first = time.process_time() - begin
    take = _median_seconds(lambda: state.capture(captured), repeats)
    restore = _median_seconds(lambda: state.restore(captured), repeats)
    millions = parameters / 1e6
    return {
        "parameters": parameters,
        "bytes": captured.size,
        "first_take_seconds": first,
        "take_seconds": take,
        "restore_seconds": restore,
        "take_seconds_per_million_parameters": take / millions,
        "restore_seconds_per_million_parameters": restore / millions,
    }


def _median_seconds(do: Callable[[], object], repeats: int) -> float:
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        do()
        spent.append(time.process_time() - begin)
    return statistics.median(spent)


def arms_of(folder: Path, seed: int) -> list[Arm]:
    """Return the four ways of running the same steps."""
    arms = []
    for name in (BARE, AGAIN, WITHOUT, WITH):
        model, loss = gpt(seed)
        arm = Arm(name, model, loss, torch.optim.AdamW(model.parameters(), lr=1e-3))
        if name in (WITHOUT, WITH):
            arm.clock = Clock()
            arm.guard = Guard(
                folder / name.replace(" ", "-"), model, arm.optimizer, respond="safe", clock=arm.clock, pyproject=False,
                snapshots=None if name == WITHOUT else Ring(),
            )  # fmt: skip
            attach.detach(arm.guard)
        arms.append(arm)
    return arms


def measure(folder: Path, seed: int, block: int, warm_up: int, least: int, most: int) -> dict[str, Any]:
    """Run the arms until the interval of with over without is narrow enough; return ratios and intervals."""
    arms = {arm.name: arm for arm in arms_of(folder, seed)}
    for arm in arms.values():
        arm.run(warm_up)
    order = random.Random(seed)
    for turn in range(most):
        for arm in order.sample(list(arms.values()), len(arms)):
            arm.seconds.append(arm.run(block))
        if turn + 1 >= least and half_width(snapshot_ratios(arms)) <= HALF_WIDTH:
            break
    spent = {name: arm.seconds for name, arm in arms.items()}
    mean_bare = [statistics.fmean(pair) for pair in zip(spent[BARE], spent[AGAIN], strict=True)]
    found = {
        "rounds": len(spent[BARE]), "block_steps": block, "bare_ms": 1e3 * statistics.median(spent[BARE]),
        "with_over_without": rated(snapshot_ratios(arms)),
        "with_over_bare": rated(_over(spent[WITH], mean_bare)),
        "without_over_bare": rated(_over(spent[WITHOUT], mean_bare)),
        "bare_against_bare": rated(_over(spent[AGAIN], spent[BARE])),
    }  # fmt: skip
    for name in (WITHOUT, WITH):
        guard = arms[name].guard
        assert guard is not None
        found[name] = {"updates": guard.measure.update, "outcomes": len(guard.outcomes)}
        guard.close()
    return found


def snapshot_ratios(arms: dict[str, Arm]) -> list[float]:
    """Return with / without of each round."""
    return _over(arms[WITH].seconds, arms[WITHOUT].seconds)


def _over(spent: Sequence[float], reference: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(spent, reference, strict=True)]


def half_width(ratios: list[float]) -> float:
    """Return half the width of the interval."""
    low, high = interval(ratios, draws=400)
    return (high - low) / 2


def rated(ratios: list[float]) -> dict[str, Any]:
    """Return the median of some ratios and its interval."""
    return {"ratio": statistics.median(ratios), "interval_95": list(interval(ratios))}


def main() -> None:
    """Measure, print and store `snapshot_overhead.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rounds, nothing stored: to see that it runs")
    parser.add_argument("--rounds", type=int, default=60, help="at most so many")
    options = parser.parse_args()
    torch.set_num_threads(1)
    repeats, least, most = (2, 2, 2) if options.quick else (9, 12, options.rounds)
    ring = Ring()
    detail: dict[str, Any] = {name: cost(width, layers, repeats) for name, (width, layers) in SIZES.items()}
    print(detail, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        warm_up = ring.every if options.quick else 3 * ring.every
        detail["gpt"] = measure(Path(folder), 0, ring.every, warm_up, least, most)
    detail["ring"] = {"every": ring.every, "keep": ring.keep, "clean": ring.clean}
    training = detail["gpt"]
    figures = {
        "gpt_ratio": training["with_over_without"]["ratio"],
        "gpt_ratio_upper": training["with_over_without"]["interval_95"][1],
        "responding_ratio": training["with_over_bare"]["ratio"],
        "responding_ratio_upper": training["with_over_bare"]["interval_95"][1],
        "bare_against_bare": training["bare_against_bare"]["ratio"],
        "seconds_per_million_parameters": detail["50M"]["take_seconds_per_million_parameters"],
        "seconds_per_million_parameters_at_1M": detail["1M"]["take_seconds_per_million_parameters"],
        "restore_seconds_per_million_parameters": detail["50M"]["restore_seconds_per_million_parameters"],
        "restore_seconds_per_million_parameters_at_1M": detail["1M"]["restore_seconds_per_million_parameters"],
        "bytes_per_parameter": detail["50M"]["bytes"] / detail["50M"]["parameters"],
    }
    print(detail["gpt"], figures, sep="\n")
    if not options.quick:
        print(store("snapshot_overhead", command=COMMAND, seeds=[0], figures=figures, detail=detail))


if __name__ == "__main__":
    main()

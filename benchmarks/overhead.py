"""What observing costs: CPU seconds of watched steps over bare steps, paired and interleaved.

    python -m benchmarks.overhead

Arms run in blocks of steps, in turn and in changing order, in one process and on one thread, each with its own model
and optimizer from the same seed: bare, bare again (the noise), watched as shipped, and watched with every sensor on
every step. A ratio is the median over rounds of watched / mean of the two bare blocks of the same round; its 95 %
interval is by bootstrap over rounds. Writing the run folder is included; finding the models before the first step and
sealing at the end are reported apart. The budget's clock stands still while another arm runs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.stored import store
from trimtab import Guard, attach

HALF_WIDTH = 0.005
"""Rounds are added until the interval's half-width is at most this (or the round limit is reached)."""


def mlp(seed: int) -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    """Return 7 linear layers, 14 tensors, 0.35 M parameters, and a loss on a batch of 192: about 5 ms a step."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Linear(64, 256), nn.ReLU()]
    for _ in range(5):
        layers += [nn.Linear(256, 256), nn.ReLU()]
    x, y = torch.randn(192, 64), torch.randint(0, 10, (192,))
    return nn.Sequential(*layers, nn.Linear(256, 10)), lambda model: F.cross_entropy(model(x), y)


class Block(nn.Module):
    """One pre-norm block of a causal transformer."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return the block's output, shape (B, T, D)."""
        b, t, d = x_BTD.shape
        q, k, v = self.mix(self.before_attention(x_BTD)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x_BTD = x_BTD + self.out(seen)
        mixed: torch.Tensor = x_BTD + self.down(F.gelu(self.up(self.before_mlp(x_BTD))))
        return mixed


class SmallGPT(nn.Module):
    """A causal transformer of 4 blocks, width 128, on 64 positions and 128 tokens: 0.83 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(128, 128), nn.Embedding(64, 128)
        self.blocks = nn.Sequential(*(Block(128, 4) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 128, bias=False)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Return the scores of the next token, shape (B, T, 128)."""
        x_BTD = self.token(tokens_BT) + self.place(torch.arange(tokens_BT.shape[1]))
        scores: torch.Tensor = self.head(self.norm(self.blocks(x_BTD)))
        return scores


def gpt(seed: int) -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    """Return a small GPT and a loss on a batch of 16 x 64 tokens: about 90 ms a step."""
    torch.manual_seed(seed)
    tokens = torch.randint(0, 128, (16, 65))
    x, y = tokens[:, :-1], tokens[:, 1:].reshape(-1)
    return SmallGPT(), lambda model: F.cross_entropy(model(x).view(-1, 128), y)


@dataclass
class Arm:
    """One way of running the same steps."""

    name: str
    model: nn.Module
    loss: Callable[[nn.Module], torch.Tensor]
    optimizer: torch.optim.Optimizer
    guard: Guard | None = None
    clock: Any = None
    seconds: list[float] = field(default_factory=list)

    def run(self, steps: int) -> float:
        """Take so many steps; return the CPU seconds of one."""
        if self.guard is not None:
            self.clock.go()
            attach.attach(self.guard)
        start = time.process_time()
        for _ in range(steps):
            loss = self.loss(self.model)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        spent = (time.process_time() - start) / steps
        if self.guard is not None:
            attach.detach(self.guard)
            self.clock.stop()
        return spent


class Clock:
    """Seconds that pass only between go() and stop()."""

    def __init__(self) -> None:
        self.total, self.since = 0.0, 0.0

    def go(self) -> None:
        """Let time pass."""
        self.since = time.perf_counter()

    def stop(self) -> None:
        """Hold time."""
        self.total += time.perf_counter() - self.since
        self.since = 0.0

    def __call__(self) -> float:
        return self.total + (time.perf_counter() - self.since if self.since else 0.0)


def interval(ratios: list[float], draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws) - 1]


def measure(make: Any, block: int, folder: Path, seed: int, least: int, most: int) -> dict[str, Any]:
    """Run the arms of one model until the intervals are narrow enough; return ratios, intervals and row counts."""
    arms = []
    for name, options in (("bare", None), ("bare again", None), ("default", {}), ("every step", EVERY_STEP)):
        model, loss = make(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        arm = Arm(name, model, loss, optimizer)
        if options is not None:
            arm.clock = Clock()
            arm.guard = Guard(folder / name.replace(" ", "-"), model, optimizer, clock=arm.clock, **options)
            attach.detach(arm.guard)
        arms.append(arm)
    begin = {arm.name: arm.run(1) for arm in arms}
    for arm in arms:
        arm.run(200 if block > 10 else 70)  # past the first full rows, and far enough for the cadence to settle
    order = random.Random(seed)
    for turn in range(most):
        for arm in order.sample(arms, len(arms)):
            arm.seconds.append(arm.run(block))
        if turn + 1 >= least and turn % 10 == 9 and all(_half(arms, a) <= HALF_WIDTH for a in arms[2:]):
            break
    figures: dict[str, Any] = {"rounds": len(arms[0].seconds), "block_steps": block}
    figures["bare_ms"] = 1e3 * statistics.median(arms[0].seconds)
    figures["bare_against_bare"] = statistics.median(_ratios(arms[:1], arms[1]))
    for arm in arms[2:]:
        assert arm.guard is not None
        ratios = _ratios(arms, arm)
        low, high = interval(ratios)
        rows = arm.guard.history.traces["main"].rows
        figures[arm.name] = {
            "ratio": statistics.median(ratios),
            "interval_95": [low, high],
            "microseconds_a_step": 1e6 * (statistics.median(arm.seconds) - statistics.median(arms[0].seconds)),
            "first_step_extra_ms": 1e3 * (begin[arm.name] - begin["bare again"]),
            "rows_per_step": rows / (arm.guard.measure.update or 1),
            "full_row_every": arm.guard.measure.budget.every,
            "values_per_full_row": sum(
                len(arm.guard.history.traces["main"].vector(name) or ())
                if arm.guard.history.traces["main"].labels(name)
                else 1
                for name in arm.guard.history.traces["main"].names()
            ),
        }
        arm.guard.close()
    return figures


EVERY_STEP: dict[str, Any] = {"every": 1, "overhead": None}


def _ratios(arms: list[Arm], arm: Arm) -> list[float]:
    bare = [one.seconds for one in arms if one.name.startswith("bare")]
    return [spent / statistics.fmean(each) for spent, *each in zip(arm.seconds, *bare, strict=True)]


def _half(arms: list[Arm], arm: Arm) -> float:
    low, high = interval(_ratios(arms, arm), draws=400)
    return (high - low) / 2


def main() -> None:
    """Measure both models and store `overhead.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rounds, nothing stored: to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    least, most = (3, 3) if options.quick else (60, 400)
    detail = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make, block, limit in (("mlp", mlp, 40, most // 2), ("gpt", gpt, 3, most)):
            (Path(folder) / name).mkdir()
            detail[name] = measure(make, block, Path(folder) / name, 0, least, max(limit, least))
            print(name, detail[name])
    figures = {
        "mlp_default_ratio": detail["mlp"]["default"]["ratio"],
        "gpt_default_ratio": detail["gpt"]["default"]["ratio"],
        "mlp_every_step_ratio": detail["mlp"]["every step"]["ratio"],
        "gpt_every_step_ratio": detail["gpt"]["every step"]["ratio"],
        "rows_per_step": detail["gpt"]["default"]["rows_per_step"],
    }
    for model in ("mlp", "gpt"):
        for arm, word in (("default", "default"), ("every step", "every_step")):
            figures[f"{model}_{word}_ratio_upper"] = detail[model][arm]["interval_95"][1]
        figures[f"{model}_bare_against_bare"] = detail[model]["bare_against_bare"]
    print(figures)
    if not options.quick:
        print(store("overhead", command="python -m benchmarks.overhead", seeds=[0], figures=figures, detail=detail))


if __name__ == "__main__":
    main()

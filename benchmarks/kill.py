"""Trainings that are killed at random moments while they make checkpoints all the time, and then go on.

    python -m benchmarks.kill                # 200 kills
    python -m benchmarks.kill --kills 10     # fewer; nothing is stored

A tiny System (two optimizers, a schedule, dropout, batches in the middle of an epoch) is trained by `trimtab.train`
with a checkpoint after every update. The parent has torch loaded and used, runs no threads of its own and forks one
child for each training, so that a kill costs a fraction of a second. A child is sent SIGKILL at a moment that is drawn
evenly over the time that a whole training takes after its first checkpoint. Few quantities are measured, so that saves
take most of that time; folders lie in memory where the system has such a place. Then, in the parent:

- every checkpoint that is marked good, and the one that `newest_good` hands out, is read back whole: one that is not is
  `corrupted_accepted`;
- a run that had a good checkpoint before the kill must have one: else it is `good_lost`;
- another child resumes the run with `trimtab.train(resume=...)` and ends with the hash of its final weights, moments
  and schedule, which must equal that of a training that was never interrupted.

Every third resumed training is killed again, once, before it may finish. Whether a kill came inside a save is told by
the temporary folder that it left.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn

from benchmarks.stored import store
from trimtab import Run, System, Training, train
from trimtab.batches import Batches
from trimtab.checkpoint import verify
from trimtab.checkpoint.rotation import Checkpoints
from trimtab.detectors import GradientNotFinite, LossDiverging, LossNotFinite
from trimtab.resume import Place, state_of
from trimtab.sensors import GradientNorm, LearningRate, Loss

COMMAND = "python -m benchmarks.kill"
KILLS = 200
SEED = 4
STEPS = 30
PATIENCE = 120.0
"""Seconds after which a child that has not ended counts as stuck."""
GUARD = {
    "pyproject": False,
    "sensors": (Loss(), GradientNorm(), LearningRate()),
    "detectors": (LossNotFinite(), GradientNotFinite(), LossDiverging()),
}
MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of the training that is killed."""

    steps: int = STEPS
    width: int = 64
    lr: float = 0.01
    evaluate_every: int = 7


def build(config: Config, seed: int) -> Training:
    """Return two optimizers, a schedule with a state, dropout and batches that end in the middle of an epoch."""
    body = nn.Sequential(nn.Linear(8, config.width), nn.ReLU(), nn.Dropout(0.2))
    model = nn.Sequential(body, nn.Linear(config.width, 1))
    optimizers: dict[str, torch.optim.Optimizer] = {
        "body": torch.optim.AdamW(model[0].parameters(), lr=config.lr),
        "head": torch.optim.SGD(model[1].parameters(), lr=config.lr, momentum=0.9),
    }
    restarts = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizers["head"], T_0=11)
    x_NF = torch.randn(100, 8, generator=torch.Generator().manual_seed(seed))
    y_N1 = x_NF.sum(dim=1, keepdim=True)

    def evaluate() -> dict[str, float]:
        model.eval()
        with torch.no_grad():
            loss = nn.functional.mse_loss(model(x_NF), y_N1).item()
        model.train()
        return {"loss": loss}

    return Training(
        model=model,
        optimizers=optimizers,
        batches=Batches((x_NF, y_N1), 16, seed=seed),
        loss=lambda model, batch: nn.functional.mse_loss(model(batch[0]), batch[1]),
        evaluate=evaluate,
        better={"loss": "lower"},
        steps=config.steps,
        evaluate_every=config.evaluate_every,
        clip=1.0,
        schedule=lambda step: restarts.step(),
        parts={"restarts": restarts},
    )


def system(kept: list[Training]) -> System:
    """Return the System, which leaves the training that it makes in `kept`."""

    def keeping(config: Config, seed: int) -> Training:
        kept.append(build(config, seed))
        return kept[-1]

    return System(
        name="killed", summary="a straight line", presets={"tiny": Config, "reference": Config}, build=keeping
    )


def fingerprint(training: Training) -> str:
    """Return the hash of weights, moments and schedule."""
    digest = hashlib.sha256()
    states: list[Any] = [training.model.state_dict(), training.parts["restarts"].state_dict()]
    for optimizer in training.optimizers.values():
        states += [optimizer.param_groups, *optimizer.state.values()]
    for state in states:
        entries = state.items() if isinstance(state, dict) else enumerate(state)
        for name, value in entries:
            tensor = isinstance(value, torch.Tensor)
            digest.update(f"{name}:".encode() + (value.numpy().tobytes() if tensor else repr(plain(value)).encode()))
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """Return a value in which tensors are lists, so that its words say all of it."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def child(folder: Path, resume: Path | None, say: Connection) -> None:
    """Train in a process of its own: say "begun" after the first checkpoint, and the fingerprint at the end."""
    torch.set_num_threads(1)
    kept: list[Training] = []
    begun = False

    def progress(done: int, steps: int, loss: float) -> None:
        nonlocal begun
        if not begun:
            say.send("begun")
            begun = True

    how: dict[str, Any] = {"root": folder} if resume is None else {"resume": resume}
    try:
        train(
            system(kept), seed=SEED, checkpoint_every=1, keep=2, progress=progress, guard_options=GUARD, **how
        )  # fmt: skip
        say.send(fingerprint(kept[-1]))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        say.send(f"failed: {type(error).__name__}: {error}")
    os._exit(0)


class Child:
    """One training in a forked process."""

    def __init__(self, folder: Path, resume: Path | None = None):
        forked = multiprocessing.get_context("fork")
        self._hear, say = forked.Pipe(duplex=False)
        self.process = forked.Process(target=child, args=(folder, resume, say))
        self.process.start()
        say.close()
        self.began = time.perf_counter()

    def word(self) -> str:
        """Return the next word of the child; "stuck" when it says nothing, "gone" when it is."""
        try:
            return str(self._hear.recv()) if self._hear.poll(PATIENCE) else "stuck"
        except EOFError:
            return "gone"

    def kill(self) -> None:
        """End it at once."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)

    def join(self) -> None:
        """Wait until it is gone."""
        self.process.join(PATIENCE)
        self._hear.close()
        self.process.close()


@dataclass(slots=True)
class Counts:
    """What was seen."""

    kills: int = 0
    resumed: int = 0
    again: int = 0
    in_save: int = 0
    in_delete: int = 0
    corrupted_accepted: int = 0
    good_lost: int = 0
    with_good: int = 0
    identical: int = 0
    finished_before: int = 0


def look(run: Path, had_good: bool, counts: Counts) -> bool:
    """Take down what a kill left; return whether there is a good checkpoint."""
    folder = run / "checkpoints"
    names = [entry.name for entry in folder.iterdir()]
    counts.in_save += any(name.endswith(".tmp") for name in names)
    counts.in_delete += any(name.startswith(".gone-") for name in names)
    reader = Checkpoints(folder)
    marked = [one.path for one in reader.all() if one.good]
    handed_out = reader.newest_good()
    counts.corrupted_accepted += sum(not verify(path).ok for path in {*marked, *filter(None, [handed_out])})
    counts.good_lost += had_good and handed_out is None
    return handed_out is not None


def once(folder: Path, expected: str, span: float, draw: random.Random, again: bool, counts: Counts) -> list[str]:
    """Kill a training, look, let it go on; return what went wrong, in words."""
    run: Path | None = None
    had_good = False
    for attempt in range(1 + again):
        one = Child(folder, run)
        if one.word() != "begun":
            one.join()
            return [f"kill {counts.kills}: the training did not begin"]
        time.sleep(draw.uniform(0.0, span))
        if run is None:
            (run,) = [entry for entry in folder.iterdir() if entry.is_dir()]
        had_good = had_good or any((run / "checkpoints").glob("step-*/GOOD"))
        one.kill()
        last = one.word()
        one.join()
        if last != "gone":  # it had finished a moment before
            counts.finished_before += 1
            return [] if last == expected else [f"kill {counts.kills}: {last}"]
        counts.again += attempt
        had_good = look(run, had_good, counts)
    counts.kills += 1
    counts.with_good += had_good
    one = Child(folder, run)
    words = [one.word()]
    if words[0] == "begun":
        words.append(one.word())
    one.join()
    assert run is not None
    if words[-1].startswith(("failed", "stuck", "gone")):
        return [f"kill {counts.kills}: {words[-1]}"]
    counts.resumed += Run(run).status == "finished"
    counts.identical += words[-1] == expected
    return [] if words[-1] == expected else [f"kill {counts.kills}: other weights"]


def measure(kills: int) -> tuple[Counts, list[str], dict[str, float]]:
    """Kill so many trainings; return what was seen, what went wrong, and the times."""
    logging.getLogger("trimtab").setLevel(logging.CRITICAL)
    counts, draw = Counts(), random.Random(SEED)
    wrong: list[str] = []
    began = time.perf_counter()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        warm = train(system([]), overrides=["steps=3"], root=Path(scratch) / "warm", guard_options=GUARD)
        Checkpoints(warm.path / "checkpoints").resume(state_of(build(Config(), 0), Place()))
        gc.freeze()
        spans, prints = [], set()
        for number in range(3):  # never interrupted
            one = Child(Path(scratch) / f"whole-{number}")
            first, start = one.word(), time.perf_counter()
            prints.add(one.word())
            spans.append(time.perf_counter() - start)
            one.join()
            assert first == "begun", first
        (expected,) = prints
        span = min(spans)  # a slower one has not ended by then, and a faster one leaves nothing to kill
        while counts.kills < kills and len(wrong) < 20:
            folder = Path(scratch) / "run"
            folder.mkdir()
            gc.collect()
            wrong += once(folder, expected, span, draw, counts.kills % 3 == 2, counts)
            shutil.rmtree(folder)
            if counts.kills % 20 == 0:
                print(f"{counts.kills} kills, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return counts, wrong, {"seconds": time.perf_counter() - began, "span": span}


def main() -> int:
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS)
    kills = parser.parse_args().kills
    counts, wrong, times = measure(kills)
    figures = {
        "kills": counts.kills,
        "resumed": counts.resumed,
        "corrupted_accepted": counts.corrupted_accepted,
        "good_lost": counts.good_lost,
        "bit_identical": int(counts.identical == counts.kills and not wrong),
    }
    detail = {
        "identical": counts.identical,
        "killed_inside_a_save": counts.in_save,
        "killed_inside_a_deletion": counts.in_delete,
        "killed_again_after_resuming": counts.again,
        "with_a_good_checkpoint": counts.with_good,
        "finished_before_the_kill": counts.finished_before,
        "wrong": wrong,
        "steps": STEPS,
        "seconds_of_a_training": round(times["span"], 2),
        "seconds": round(times["seconds"], 1),
    }
    print(figures, detail, sep="\n")
    if kills == KILLS:
        print(store("kill", command=COMMAND, seeds=[SEED], figures=figures, detail=detail))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

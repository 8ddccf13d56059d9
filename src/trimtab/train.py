"""Train a System under a Guard, into a run folder: the loop that `trimtab train` runs.

It is an ordinary PyTorch loop. Nothing in it is special to Trimtab but the three calls of the Guard, which a loop of
your own can make just as well.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from trimtab import attach
from trimtab import config as settings
from trimtab.actions import EarlyStop
from trimtab.detectors import DETECTORS
from trimtab.errors import RunError, TrainingStopped, UserError, nearest
from trimtab.guard import Guard
from trimtab.resume import (
    KEEP,
    Keeper,
    check_same,
    config_of,
    keeper_of,
    own_random_numbers,
    parts_of,
    run_to_resume,
    seed_of,
)
from trimtab.run import Run
from trimtab.system import System, Training, find_system

if TYPE_CHECKING:
    from trimtab.respond import Policy

log = logging.getLogger("trimtab")

Progress = Callable[[int, int, float], None]
"""Called after each update with the number of updates done, the number planned and the loss."""

Evaluated = Callable[[int, Mapping[str, float]], None]
"""Called after each evaluation with the number of updates done and the metrics."""

Built = Callable[[Training], None]
"""Called once with the training, before its first update."""


def train(
    system: System | str | None = None,
    *,
    preset: str | None = None,
    fault: str | None = None,
    config_file: str | Path | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    root: str | Path | None = None,
    name: str | None = None,
    respond: Policy | Literal["safe"] | None = None,
    progress: Progress | None = None,
    evaluated: Evaluated | None = None,
    built: Built | None = None,
    guard_options: Mapping[str, Any] | None = None,
    resume: Run | str | Path | None = None,
    checkpoint_every: int | None = None,
    keep: int = KEEP,
) -> Run:
    """Train a System once and return its Run; a training that a response stops ends here too, without an error.

    Args:
        system: a System, or the name of an installed one; None only to resume a run, which says what it trained.
        preset: which of its configurations to start from; "tiny" when None, or the preset of the fault.
        fault: a known way to break it, added last.
        config_file: a YAML file of settings that differ from the preset.
        overrides: further settings, each as "key=value".
        seed: of the weights, the data and every random number that the training draws; 0 when None.
        root: where the run folder goes; TRIMTAB_RUNS or ./runs when None.
        name: of the run; by default system, preset and fault.
        respond: finding code -> Action, or several; or "safe". None takes those that the training brings itself, and
            where it brings none, or for an empty mapping, the Guard only observes.
        progress: told after each update; reading the loss costs one device sync.
        evaluated: told after each evaluation.
        built: told the training before its first update; it may look at it, and must not change it.
        guard_options: further keyword arguments of the Guard.
        resume: a run that ended early, to go on with in the same folder: a Run, its folder, the beginning of its id, or
            "last". Settings that are given must be those of the run.
        checkpoint_every: updates between two checkpoints, 0 for none. None makes one before the first update and about
            ten more, where the batches can be stored.
        keep: so many of the newest checkpoints are kept, and the newest good one.

    Raises:
        UserError: an unknown system, preset, fault or setting, a setting that the fault would replace, a run folder
            that cannot be made, or a run that cannot be gone on with.
    """
    earlier = None if resume is None else run_to_resume(resume, root)
    if system is None:
        if earlier is None:
            raise UserError("train: no system was given; name one, or a run to resume")
        system = earlier.facts.system
    system = find_system(system) if isinstance(system, str) else system
    if earlier is None:
        preset = preset_of(system, preset, fault)
        config = resolve(system, preset=preset, fault=fault, config_file=config_file, overrides=overrides)
    else:
        config, stored = config_of(earlier, system), earlier.settings()
        anything = preset or fault or config_file or overrides
        preset, fault = preset or stored.get("preset"), fault or stored.get("fault") or None
        if anything:
            same = resolve(system, preset=preset, fault=fault, config_file=config_file, overrides=overrides)
            check_same(earlier, same)
        seed = seed_of(earlier, seed)
    seed = seed or 0
    words = (system.name, preset or "tiny", fault)
    with own_random_numbers(seed):
        with attach.loads_heard() as loads:
            training = system.build(config, seed)
        keeper = keeper_of(training, checkpoint_every, keep, must=earlier is not None)
        again = keeper.put_back(earlier) if keeper is not None and earlier is not None else None
        if built is not None:
            built(training)
        guard = Guard(
            model=training.model,
            optimizer=training.optimizers,
            root=root,
            name=name or "-".join(part for part in words if part),
            system=system.name,
            seed=seed,
            config=settings.as_dict(config),
            settings={"preset": preset or "tiny", "fault": fault or ""},
            respond=training.respond if respond is None else respond,
            milestones=system.milestones(config),
            again=again,
            **{
                "detectors": (*DETECTORS, *system.detectors, *training.detectors),
                "state": parts_of(training),
                "early_stop": training.early_stop,
                **(guard_options or {}),
            },
        )
        if earlier is None:
            for module, missing, unexpected, changed in loads:
                if module is training.model:  # what was loaded before there was a Guard
                    guard.weights_loaded(module, missing, unexpected, changed)
        try:
            with guard:
                _loop_until_stopped(training, guard, progress, keeper, evaluated)
        except TrainingStopped as stopped:
            log.warning("the training was stopped: %s", stopped)
        finally:
            if keeper is not None:
                keeper.close()
    if guard.run_path is None:
        raise RunError("the training ran, but no run folder could be made for it; see the warning above, or give root=")
    return Run(guard.run_path)


def _loop_until_stopped(
    training: Training,
    guard: Guard,
    progress: Progress | None,
    keeper: Keeper | None,
    evaluated: Evaluated | None,
) -> None:
    """Run the loop; where an early stop ends it, the weights that it leaves are those of the newest checkpoint."""
    try:
        loop(training, guard, progress, keeper, evaluated)
    except TrainingStopped:
        if keeper is not None and guard.outcomes and guard.outcomes[-1].action == EarlyStop.name:
            keeper.keep_last(guard)
        raise


def loop(
    training: Training,
    guard: Guard,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
    evaluated: Evaluated | None = None,
) -> None:
    """Take every planned update that was not taken yet, or until it has finished; evaluate on the way and last."""
    model, optimizers = training.model, training.optimizers.values()

    def evaluate(done: int) -> None:
        metrics = training.evaluate()
        guard.record(split="validation", better=training.better, **metrics)
        if evaluated is not None:
            evaluated(done, metrics)

    model.train()
    first = 0 if keeper is None else keeper.begin(guard)
    if training.evaluate_first and first == 0:
        evaluate(0)
    if first and _finished(training):
        return
    for step in range(first, training.steps):
        batch = next(training.batches)
        loss = training.loss(model, batch)
        loss.backward()
        if training.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        if guard.allows(batch=batch):
            for optimizer in optimizers:
                optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()
        if training.schedule is not None:
            training.schedule(step)
        done = step + 1
        last = done == training.steps or _finished(training)
        if last or done % training.evaluate_every == 0:
            evaluate(done)
        if training.observe is not None:
            training.observe(guard, done)
        if keeper is not None:
            keeper.after(done, guard, last=last)
        if progress is not None:
            progress(done, training.steps, loss.item())
        if last:
            return


def _finished(training: Training) -> bool:
    return training.finished is not None and training.finished()


def preset_of(system: System, preset: str | None, fault: str | None) -> str:
    """Return the preset to start from: the one asked for, or that of the fault, or "tiny"."""
    return preset or ("tiny" if fault is None else system.fault(fault).preset)


def resolve(
    system: System,
    *,
    preset: str | None = None,
    fault: str | None = None,
    config_file: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Any:
    """Return the Config of a training: the preset, then the file, then the overrides, then the fault.

    Raises:
        UserError: an unknown preset, fault or setting, or a setting that the fault would replace.
    """
    preset = preset_of(system, preset, fault)
    if preset not in system.presets:
        known = ", ".join(sorted(system.presets))
        raise UserError(
            f"system {system.name!r} has no preset {preset!r}.{nearest(preset, system.presets)} Known: {known}"
        )
    start = system.presets[preset]()
    config = settings.load(start, config_file, overrides)
    if fault is None:
        return config
    change = system.fault(fault).change
    for key in change:
        if getattr(config, key) != getattr(start, key):
            raise UserError(f"the fault {fault!r} sets {key}={change[key]!r}; leave {key} out of your own settings")
    return dataclasses.replace(config, **change)

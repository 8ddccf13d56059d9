"""The peers that act on a training, as their users put them into a loop; each in its default setting.

Packages are imported where they are used. What cannot be installed beside our versions, or needs a loop of its own, is
written anew from its description, with the source named; no code of theirs is here.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cases.training import Training
from benchmarks.peers.peer import Peer

CHECKPOINT_EVERY = 20
"""Updates between two checkpoints of a training that a supervisor starts again: about an epoch of these trainings."""
RESTARTS = 10
"""A supervisor gives up after so many."""


@dataclass(frozen=True, kw_only=True)
class Acting:
    """One tool at work: `protect` changes a training that is about to run, until the block ends."""

    name: str
    how: str
    protect: Callable[[Training], AbstractContextManager[None]]
    package: str = ""
    wanted: str = ""

    @property
    def missing(self) -> str:
        """Why it cannot run here, empty when it can."""
        like = Peer(name=self.name, setting="", how="", begin=_never, package=self.package, wanted=self.wanted)
        return like.missing


def _never(*_: Any) -> Any:
    raise AssertionError("an acting peer is not replayed")


@contextlib.contextmanager
def before_each_step(training: Training, do: Callable[[], None]) -> Iterator[None]:
    """Do something between the gradients and each optimizer step; with a loss scale, after it was taken out."""
    handles = [o.register_step_pre_hook(lambda *_: do()) for o in training.optimizers.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trainer_defaults(training: Training) -> AbstractContextManager[None]:
    """Clip the global norm to 1.0 before each step: the default `max_grad_norm` of transformers' TrainingArguments.

    Its other default, `logging_nan_inf_filter`, replaces a loss that is not finite in the log alone: nothing to do
    here (transformers 5.23.0, documentation of TrainingArguments; reproduced in anchors 1.3).
    """
    return before_each_step(training, lambda: _quietly(nn.utils.clip_grad_norm_, training.model.parameters(), 1.0))


def _quietly(call: Callable[..., Any], *args: Any) -> None:
    call(*args)


def zclip(training: Training) -> AbstractContextManager[None]:
    """ZClip().step(model) before each step, as its page says."""
    from zclip import ZClip

    clip = ZClip()
    return before_each_step(training, lambda: _quietly(clip.step, training.model))


@contextlib.contextmanager
def stabilityguard(training: Training) -> Iterator[None]:
    """GuardedOptimizer around each optimizer, which leaves out the steps that it takes for bad."""
    from stabilityguard import GuardedOptimizer

    logging.getLogger("stabilityguard").setLevel(logging.CRITICAL)
    bare, wrapped = dict(training.optimizers), list[Any]()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for name, optimizer in bare.items():
            wrapped.append(GuardedOptimizer(optimizer, training.model, log_dir=folder, verbose=False))
            training.optimizers[name] = wrapped[-1]
        try:
            yield
        finally:
            for one in wrapped:
                one.close()
            training.optimizers = bare


def _spike_detection(folder: str) -> Callable[[int, float], None]:
    """Return Lightning's callback as a function of the update and its loss; it raises to end the training."""
    from lightning.fabric import Fabric
    from lightning.fabric.utilities.spike import SpikeDetection

    logging.getLogger("lightning.fabric").setLevel(logging.CRITICAL)
    fabric = Fabric(accelerator="cpu", devices=1)
    detection = SpikeDetection(exclude_batches_path=Path(folder) / "skip.json")
    return lambda step, loss: detection.on_train_batch_end(fabric, torch.tensor(loss), None, step)


@contextlib.contextmanager
def spike_detection(training: Training) -> Iterator[None]:
    """SpikeDetection() after each update, as Fabric's loop calls it: it ends the training."""
    update = training.update
    with tempfile.TemporaryDirectory() as folder:
        after = _spike_detection(folder)

        def updating(training: Training) -> float:
            loss = update(training)
            after(training.step, loss)
            return loss

        training.update = updating
        yield
        training.update = update


@contextlib.contextmanager
def supervised_spike_detection(training: Training) -> Iterator[None]:
    """The same, and whenever it ends the training a supervisor restarts from the last checkpoint with later batches.

    A fresh detection each time, for its own state cannot be loaded (anchors 1.3). The supervisor is ours: Lightning
    has none.
    """
    from lightning.fabric.utilities.spike import TrainingSpikeException

    update = training.update
    holders = {
        "model": training.model,
        **{f"optimizer {name}": optimizer for name, optimizer in training.optimizers.items()},
        **{f"schedule {number}": schedule for number, schedule in enumerate(training.schedulers)},
        **training.parts,
    }

    def checkpoint() -> dict[str, Any]:
        return {name: copy.deepcopy(holder.state_dict()) for name, holder in holders.items()}

    with tempfile.TemporaryDirectory() as folder:
        kept, restarts, began = checkpoint(), 0, 0
        after = _spike_detection(folder)

        def updating(training: Training) -> float:
            nonlocal kept, restarts, after, began
            loss = update(training)
            try:
                after(training.step - began, loss)
            except TrainingSpikeException:
                restarts += 1
                if restarts > RESTARTS:
                    raise
                for name, holder in holders.items():
                    holder.load_state_dict(copy.deepcopy(kept[name]))
                after, began = _spike_detection(folder), training.step + 1
            else:
                if (training.step + 1) % CHECKPOINT_EVERY == 0:
                    kept = checkpoint()
            return loss

        training.update = updating
        yield
        training.update = update


ACTING: tuple[Acting, ...] = (
    Acting(
        name="lightning-spike-detection", package="lightning", wanted="2.6.6", protect=spike_detection,
        how="SpikeDetection(): ends the training",
    ),
    Acting(
        name="transformers-trainer", protect=trainer_defaults,
        how="defaults of Trainer, re-stated: clipping to a norm of 1.0, and a filter of the log",
    ),
    Acting(
        name="zclip", package="zclip", wanted="1.0.0", protect=zclip,
        how="ZClip(): clips to the running mean of norms, never above 1.0",
    ),
    Acting(
        name="stabilityguard", package="stabilityguard", wanted="0.3.0", protect=stabilityguard,
        how="GuardedOptimizer(): leaves out what it takes for a spike",
    ),
)  # fmt: skip
"""What acts while a training runs."""

SUPERVISED = Acting(
    name="lightning-spike-detection-supervised", package="lightning", wanted="2.6.6",
    protect=supervised_spike_detection,
    how="SpikeDetection(), and a supervisor of ours that restarts from a checkpoint of every 20 updates, later batches",
)  # fmt: skip
"""More than the tool does by itself; reported beside the others."""

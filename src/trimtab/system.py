"""What a System is: something trainable that Trimtab can train, judge and break on purpose.

A System is six files under `trimtab_systems/<name>/`; `recipe.py` holds the frozen Config, the presets and the
System value that the entry point group `trimtab.systems` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trimtab.errors import UserError, nearest
from trimtab.milestone import Milestone
from trimtab.patience import Patience

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trimtab.panels import Panel


class Recorder(Protocol):
    """What of a Guard a system's own code may use: it records, and neither judges nor acts."""

    def record(self, *, split: str | None = None, better: Any = None, **metrics: Any) -> None:
        """Record quantities at the current step."""

    def keep(self, name: str, tensor: torch.Tensor, *, every: int = 1) -> None:
        """Store a tensor in the run's `samples/` folder."""

    def show(self, name: str, panel: Panel) -> None:
        """Put a table, a map or a scatter of `trimtab.panels` into the run; a later one of the name replaces it."""

    def note(self, kind: str, *, steps: int | None = None, text: str = "", **facts: float | str) -> None:
        """Announce something that is intended, so that rules which know this kind excuse it for `steps` updates."""

    def examine(
        self,
        *,
        kind: Literal["representation", "latent", "attention"],
        every: int | None = None,
        **tensors: torch.Tensor,
    ) -> None:
        """Measure tensors now and then: a "representation", a "latent" or an "attention"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A known way to break a system: the config change that causes it and the finding codes that must appear.

    `causes` names the hypotheses that are right; the codes must open within `budget` updates of a training that starts
    from `preset`. `probes` names the claims that `trimtab check` must then refute; a fault that no training shows has
    probes alone, and neither codes nor causes. One with `refused` is caught before it can train: building it raises a
    ConfigError, so it has nothing else to show.
    """

    name: str
    summary: str
    change: Mapping[str, Any]
    expect: tuple[str, ...]
    causes: tuple[str, ...]
    budget: int
    preset: str = "tiny"
    probes: tuple[str, ...] = ()
    refused: bool = False


@dataclass(slots=True, kw_only=True)
class Training:
    """One training, ready to run: what `trimtab.train` needs from a System.

    Attributes:
        model: the module whose weights are trained.
        optimizers: stream name -> optimizer; "main" when there is only one.
        batches: endless iterator of batches, seeded; one with `state_dict` and `load_state_dict`, such as
            `trimtab.batches.Batches`, can be stored in checkpoints and gone on with.
        loss: (model, batch) -> scalar tensor with a graph.
        evaluate: () -> metric -> number, on held-out data, without gradients; called every `evaluate_every` updates.
        better: metric -> "higher" or "lower".
        steps: how many updates the run takes.
        clip: global gradient norm to clip to, or None.
        schedule: called after each update with its index; moves the learning rate, or None.
        finished: asked after each update and `schedule`, and before a training is gone on with, whether it is done;
            True ends it there, evaluated once more, as if all `steps` were taken. None takes them all.
        parts: what else changes while it trains, by name: schedulers, averages, generators, anything with
            `state_dict` and `load_state_dict`. They go into checkpoints; what is not named here does not.
        evaluate_first: evaluate before the first update as well, so that the start is known.
        early_stop: when to stop before all updates are taken, or None.
        fixed: patterns of the names of parameters that are random and stay as they are on purpose, such as
            "projection.*"; probes then do not take them for forgotten.
        observe: called with the Guard and the number of updates done, after each update and its evaluation: where a
            system records quantities of its own (`guard.record`), keeps tensors (`guard.keep`) and shows tables and
            maps (`guard.show`). It must not change the training, nor draw from its random numbers; probes and tried
            remedies train without it.
        represent: (model, batch, shift) -> a row of numbers for each thing of the batch, such as a word, whose input
            was moved by `shift` places: the same things in the same order for every shift, or None where it cannot be
            moved so far. It draws no random numbers; the probe `representation-ignores-position` asks it.
        respond: finding code -> Action, or several: the answers that the recipe prescribes. `trimtab.train` gives them
            where its caller gives none; what the caller gives, an empty mapping too, replaces all of them.
        detectors: rules that this training brings beside those of the catalogue and of its System, such as one whose
            thresholds are settings.
    """

    model: nn.Module
    optimizers: Mapping[str, torch.optim.Optimizer]
    batches: Iterator[Any]
    loss: Callable[[nn.Module, Any], torch.Tensor]
    evaluate: Callable[[], Mapping[str, float]]
    better: Mapping[str, Literal["higher", "lower"]]
    steps: int
    evaluate_every: int
    clip: float | None = None
    schedule: Callable[[int], None] | None = None
    finished: Callable[[], bool] | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    evaluate_first: bool = False
    early_stop: Patience | None = None
    fixed: Sequence[str] = ()
    observe: Callable[[Recorder, int], None] | None = None
    represent: Callable[[nn.Module, Any, int], torch.Tensor | None] | None = None
    respond: Mapping[str, Any] | None = None
    detectors: Sequence[Any] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Something trainable: its configurations, how to build a training, and how it is known to break.

    `presets` maps a preset's name to a function that returns a Config (always with "tiny" and "reference");
    `build(config, seed)` returns a Training; `milestones(config)` the staged checks of the recipe.
    """

    name: str
    summary: str
    presets: Mapping[str, Callable[[], Any]]
    build: Callable[[Any, int], Training]
    faults: Sequence[Fault] = ()
    milestones: Callable[[Any], Sequence[Milestone]] = lambda config: ()
    detectors: Sequence[Any] = field(default=())
    hypotheses: Sequence[Any] = field(default=())

    def fault(self, name: str) -> Fault:
        """Return the fault called `name`; raise UserError that names the known ones."""
        for fault in self.faults:
            if fault.name == name:
                return fault
        known = [fault.name for fault in self.faults]
        raise UserError(
            f"system {self.name!r} has no fault {name!r}.{nearest(name, known)} Known: {', '.join(known) or 'none'}"
        )


def system_names() -> tuple[str, ...]:
    """Return the names of the installed systems; none of them is loaded."""
    return tuple(sorted({entry.name for entry in entry_points(group="trimtab.systems")}))


def find_system(name: str) -> System:
    """Return the installed System called `name` (entry point group `trimtab.systems`).

    Raises:
        UserError: no such system; the message lists the installed ones.
    """
    found = {entry.name: entry for entry in entry_points(group="trimtab.systems")}
    if name not in found:
        raise UserError(
            f"there is no system {name!r}.{nearest(name, found)} Installed: {', '.join(sorted(found)) or 'none'}"
        )
    system = found[name].load()
    if not isinstance(system, System):
        raise UserError(f"entry point {name!r} of group trimtab.systems is a {type(system).__name__}, not a System")
    return system

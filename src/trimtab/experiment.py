"""Experiments on copies of a training: `check` runs the probes before a training does.

    checkup = check("separability")
    checkup = check("my_package.recipe:make", overrides=["lr=0.01"])
    for result in checkup.results:
        print(result.claim, result.verdict, result.summary or result.reason)

Nothing of the caller's is touched: probes work on trainings that are made for them, and a Guard that listens to this
process does not hear them.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from trimtab import attach
from trimtab import config as settings
from trimtab.errors import UserError, nearest
from trimtab.probes import PROBES, Probe, Result, SettingsHaveEffect, StartIsGoodEnough, Subject
from trimtab.probes._copies import apart, copy_of, updates
from trimtab.records import Finding, Severity
from trimtab.system import System, Training, find_system
from trimtab.train import preset_of, resolve

log = logging.getLogger("trimtab")
_Made = TypeVar("_Made")

BUDGET = 60.0
"""CPU seconds of a whole check, making the copies not counted; the probes share it out as their own budgets say."""

FORM = (
    "expected a function that returns a trimtab.Training, or the four things (model, optimizer, loss, batches): an "
    "nn.Module, one torch optimizer or a mapping name -> optimizer, a function (model, batch) -> scalar tensor, and "
    "something to iterate over"
)
"""What a target may be, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What all probes said of one training.

    Attributes:
        name: what was checked.
        results: one for each probe, in the order of the catalogue.
        findings: all that is wrong, worst first.
        seconds: CPU seconds that it took, the copies included.
    """

    name: str
    results: tuple[Result, ...]
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def severity(self) -> Severity | None:
        """The severity of the worst finding; None without findings."""
        return max((one.severity for one in self.findings), default=None)


def check(
    target: System | str | Callable[..., Any],
    *,
    preset: str | None = None,
    fault: str | None = None,
    config_file: str | Path | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    checkpoint: str | Path | None = None,
    accept: Sequence[str] = (),
    probes: Sequence[Probe] = PROBES,
    only: Sequence[str] = (),
    budget: float = BUDGET,
    progress: Callable[[str], None] | None = None,
) -> Checkup:
    """Test claims about a training on copies of it, before it is run.

    Args:
        target: a System or the name of an installed one, or a function (also as "module:function") that makes a
            training anew at each call: a Training, or (model, optimizer, loss, batches). Its parameters with defaults
            are its settings; one called `seed` gets the seed; a single parameter whose default is a frozen dataclass is
            the configuration.
        preset, fault, config_file, overrides: as in `trimtab.train`; a function has overrides alone.
        seed: of the training that is checked; some probes try the seeds after it as well.
        checkpoint: a stored checkpoint for the claims that are about one.
        accept: conditions on the start, such as "validation/loss <= 3.5".
        probes: what to run.
        only: claims to test; all by default.
        budget: CPU seconds for all of them together, making the copies not counted.
        progress: told each claim before it is tested.

    Returns:
        What each probe said. One that raises says "unknown" with the error: that is no pass.

    Raises:
        UserError: the target is none, the claims, settings or conditions are unknown, two calls give parts of one
            training, or the training does not get through its first update.
    """
    began = time.process_time()
    if not (math.isfinite(budget) and budget > 0):
        raise UserError(f"budget={budget}: expected CPU seconds above 0")
    chosen = _chosen(probes, only)
    with _unheard():
        subject = _subject(target, preset, fault, config_file, overrides, seed, checkpoint)
        endless = _check_apart(subject)
        share = budget / sum(one.budget for one in chosen)
        results = []
        for probe in chosen:
            if progress is not None:
                progress(probe.claim)
            results.append(_run(_set_up(probe, share, accept, endless), subject))
    found = sorted((one for result in results for one in result.findings), key=lambda one: -one.severity)
    seconds = time.process_time() - began
    return Checkup(name=subject.name, results=tuple(results), findings=tuple(found), seconds=seconds)


def _chosen(probes: Sequence[Probe], only: Sequence[str]) -> list[Probe]:
    known = [one.claim for one in probes]
    for claim in only:
        if claim not in known:
            raise UserError(f"there is no probe {claim!r}.{nearest(claim, known)} Known: {', '.join(known)}")
    chosen = [one for one in probes if not only or one.claim in only]
    if not chosen:
        raise UserError("no probes were given; leave them out for all")
    return chosen


def _set_up(probe: Probe, share: float, accept: Sequence[str], endless: bool) -> Probe:
    """Return the probe with its share of the budget, and with the condition of the start if it is about that.

    Settings that say how long a training is are not tested where the length is not part of what is checked.
    """
    if not dataclasses.is_dataclass(probe) or isinstance(probe, type):
        return probe
    changes: dict[str, Any] = {}
    if "budget" in {one.name for one in dataclasses.fields(probe)}:
        changes["budget"] = probe.budget * share
    if accept and isinstance(probe, StartIsGoodEnough):
        changes["accept"] = tuple(accept)
    if endless and isinstance(probe, SettingsHaveEffect):
        changes["aside"] = (*probe.aside, *OF_LENGTH)
    return dataclasses.replace(probe, **changes) if changes else probe


def _run(probe: Probe, subject: Subject) -> Result:
    began = time.process_time()
    try:
        return probe.run(subject)
    except UserError:  # what was asked for makes no sense, such as a condition on a metric that there is none of
        raise
    except Exception as error:
        log.debug("the probe %s failed", probe.claim, exc_info=True)
        reason = f"it failed: {type(error).__name__}: {' '.join(str(error).split())}"
    return Result(claim=probe.claim, verdict="unknown", reason=reason, seconds=time.process_time() - began)


@contextmanager
def _unheard() -> Iterator[None]:
    """Let no Guard of this process hear what the copies do while a block runs."""
    listeners = attach.listeners()
    try:
        for one in listeners:
            attach.detach(one)
        yield
    finally:
        for one in listeners:
            attach.attach(one)


# --- what is checked ------------------------------------------------------------------------------


def _subject(
    target: System | str | Callable[..., Any],
    preset: str | None,
    fault: str | None,
    config_file: str | Path | None,
    overrides: Sequence[str],
    seed: int,
    checkpoint: str | Path | None,
) -> Subject:
    name = target if isinstance(target, str) else getattr(target, "name", getattr(target, "__qualname__", "training"))
    if isinstance(target, str):
        target = settings.load_object(target) if ":" in target else find_system(target)
    stored = Path(checkpoint) if checkpoint is not None else None
    if isinstance(target, System):
        system = target
        config = resolve(system, preset=preset, fault=fault, config_file=config_file, overrides=overrides)
        words = (system.name, preset_of(system, preset, fault), fault)
        return Subject(
            name="-".join(word for word in words if word), make=system.build, config=config, seed=seed, system=system,
            checkpoint=stored,
        )  # fmt: skip
    for option, value in (("preset", preset), ("fault", fault)):
        if value is not None:
            raise UserError(f"{name}: {option}={value!r} is for Systems; a function has settings alone (key=value)")
    if isinstance(target, Training):
        raise UserError(f"{name}: this is one Training, and probes need fresh ones; give the function that makes it")
    if not callable(target):
        raise UserError(f"{name}: got a {type(target).__name__}; {FORM}")
    config, make = _of_function(str(name), target)
    if config_file is not None or overrides:
        if config is None:
            raise UserError(f"{name}: it has no parameters with defaults, so that there is nothing to set")
        config = settings.load(config, config_file, overrides)
    return Subject(name=str(name), make=make, config=config, seed=seed, checkpoint=stored)


def _of_function(name: str, function: Callable[..., Any]) -> tuple[Any, Callable[[Any, int], Training]]:
    """Return the settings of a function, and how to call it with settings and a seed."""
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except (ValueError, TypeError, NameError):
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (ValueError, TypeError):
            parameters = []
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    without = [one.name for one in named if one.default is one.empty and one.name != "seed"]
    if without:
        raise UserError(f"{name}: the parameters {', '.join(without)} have no defaults; give them some, or wrap it")
    takes_seed = any(one.name == "seed" for one in named)
    own = [one for one in named if one.name != "seed"]

    def call(seed: int, **values: Any) -> Training:
        return _training(name, function(**values, **({"seed": seed} if takes_seed else {})))

    if len(own) == 1 and dataclasses.is_dataclass(own[0].default) and not isinstance(own[0].default, type):
        (only,) = own
        return only.default, lambda config, seed: call(seed, **{only.name: config})
    if not own:
        return None, lambda config, seed: call(seed)
    kind = dataclasses.make_dataclass(
        "Settings",
        [(one.name, _kind(one), dataclasses.field(default_factory=_constant(one.default))) for one in own],
        frozen=True,
        kw_only=True,
    )

    def make(config: Any, seed: int) -> Training:
        return call(seed, **{one.name: getattr(config, one.name) for one in own})

    return kind(), make


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _kind(parameter: inspect.Parameter) -> Any:
    """Return the type of a parameter: what it is annotated with, or that of its default."""
    if parameter.annotation is not parameter.empty and not isinstance(parameter.annotation, str):
        return parameter.annotation
    return Any if parameter.default is None else type(parameter.default)


def _training(name: str, made: Any) -> Training:
    """Return a Training of what a function returned.

    Raises:
        UserError: it is something else; the message says what was expected in which place.
    """
    if isinstance(made, Training):
        return made
    if not isinstance(made, tuple) or len(made) != 4:
        came = f"a tuple of {len(made)}" if isinstance(made, tuple) else f"a {type(made).__name__}"
        raise UserError(f"{name} returned {came}; {FORM}")
    model, optimizer, loss, batches = made
    if isinstance(optimizer, torch.optim.Optimizer):
        optimizer = {"main": optimizer}
    wrong = (
        None if isinstance(model, nn.Module)
        else f"the first is a {type(model).__name__}, not an nn.Module"
    ) or (
        None if isinstance(optimizer, Mapping) and optimizer
        and all(isinstance(one, torch.optim.Optimizer) for one in optimizer.values())
        else f"the second is a {type(made[1]).__name__}, not an optimizer"
    ) or (
        None if callable(loss) else f"the third is a {type(loss).__name__}, not a function"
    ) or (
        None if isinstance(batches, Iterable) else f"the fourth is a {type(batches).__name__}, not to be iterated over"
    )  # fmt: skip
    if wrong:
        raise UserError(f"{name} returned four things of which {wrong}; {FORM}")
    return Training(
        model=model, optimizers=optimizer, batches=_endless(name, batches), loss=_scalar(name, loss),
        evaluate=dict, better={}, steps=STEPS, evaluate_every=STEPS,
    )  # fmt: skip


OF_LENGTH = ("*steps*", "*epochs*", "*iterations*", "*_every*", "*patience*")
"""Settings of whoever runs the loop, which a function that returns four things does not."""

STEPS = 100
"""So many updates count as the whole training of a function that does not say how many it takes."""


def _endless(name: str, batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches, epoch after epoch where they can be iterated over again."""
    while True:
        some = False
        for batch in batches:
            some = True
            yield batch
        if not some:
            return


def _scalar(name: str, loss: Callable[[nn.Module, Any], torch.Tensor]) -> Callable[[nn.Module, Any], torch.Tensor]:
    """Return the loss function, refusing what is no scalar with a graph."""

    def checked(model: nn.Module, batch: Any) -> torch.Tensor:
        try:
            value = loss(model, batch)
        except TypeError as error:
            raise UserError(f"{name}: the loss could not be called as loss(model, batch): {error}") from error
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise UserError(f"{name}: the loss returned {shape}; expected a tensor with one element")
        return value

    return checked


def _check_apart(subject: Subject) -> bool:
    """Raise unless two calls give two trainings: a probe that trained the user's own model would change it.

    Raise also unless one of them gets through an evaluation and an update: of what never runs, nothing can be said.
    Return whether the training has no length of its own, as one of four things.
    """
    with apart():
        one, other = _tried(subject, "making it", copy_of), _tried(subject, "making it again", copy_of)
        mine = {parameter.data_ptr(): name for name, parameter in one.model.named_parameters() if parameter.numel()}
        shared = [
            name
            for name, parameter in other.model.named_parameters()
            if parameter.numel() and parameter.data_ptr() in mine and parameter.requires_grad
        ]
    if one.model is other.model or shared:
        what = f"the parameters {', '.join(shared[:3])}" if shared else "the model"
        raise UserError(
            f"{subject.name}: two calls return {what} of one training. A probe trains what it is given, so the model, "
            "the optimizer and the batches must be made anew inside the function"
        )
    with apart():
        _tried(subject, "its evaluation before the first update", lambda _: one.evaluate())
        if not _tried(subject, "its first update", lambda _: list(updates(one, 1))):
            raise UserError(f"{subject.name}: there is no batch to take an update with; {FORM}")
    return one.evaluate is dict


def _tried(subject: Subject, what: str, do: Callable[[Subject], _Made]) -> _Made:
    """Return what a part of the training returns.

    Raises:
        UserError: it raised; the message says which part, and what.
    """
    try:
        return do(subject)
    except UserError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"{subject.name}: {what} failed, so that nothing can be checked: {type(error).__name__}: "
            f"{' '.join(str(error).split())} ({Path(where.filename).name}, line {where.lineno})"
        ) from error

"""No parameter that the loss depends on is left at its random initialisation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from trimtab import graph
from trimtab.probes._base import Base, listed
from trimtab.probes._copies import Clock, copy_of, identical, loads, updates
from trimtab.probes._probe import Result, Subject
from trimtab.records import Evidence, Finding, Severity

TERMS = 32
"""A loss with more terms is a sum over examples and not over parts."""
_ALONE = {"MulBackward0", "DivBackward0", "NegBackward0", "ViewBackward0", "SqueezeBackward0", "ToCopyBackward0"}
"""Nodes that pass the gradient of a scalar on to one other node."""


@dataclass(frozen=True, slots=True)
class _Path:
    """What the loss depends on, by name; and the terms of the loss: (what it is, the parameters that it depends on)."""

    reached: frozenset[str]
    terms: tuple[tuple[str, frozenset[str]], ...]


@dataclass(frozen=True, kw_only=True)
class EveryParameterOnTheLossPathIsTrainedOrLoaded(Base):
    """No parameter that the loss depends on is left at its random initialisation.

    What it claims.
    Every parameter that the loss depends on is trained by an optimizer, or was loaded, or is the same for every seed.
    A part that is random and frozen passes noise on: a decoder that was frozen before it was trained keeps an encoder
    from ever being read, and no learning rate helps.

    How it tests.
    On the loss path: in a copy every frozen parameter is unfrozen, and the autograd graph of the loss is walked. What
    runs without gradients is asked in another way: its tensors are changed, and the loss is compared.
    Random: the tensor differs between two copies with different seeds. Where the seed changes nothing at all, not even
    the first loss, it counts as random when no load filled it and its numbers are not all alike; this is weaker and
    gives a warning.
    Frozen: it requires no gradient, no schedule of the training ever changes that, and a few updates leave it as it is.
    Buffers are no parameters and are never counted.
    The same graph tells which terms of the loss depend on frozen parameters alone: they are constant, however large.
    A few updates tell which trainable parameters have a gradient of exactly zero, and which no optimizer holds.

    What it costs.
    Four builds and five updates.

    False alarms.
    A random projection that is meant to stay (random features, an echo state) is named in `Training.fixed`, or given as
    `fixed=("projection.*",)`; registering it as a buffer says the same. A target network that follows a trained one is
    recognised: it is a copy of it, or it moves.

    What to try.
    Train the part, or load it and see that the load filled it. Freeze only what was trained before.

    Since.
    0.2.0
    """

    claim: str = "every-parameter-on-the-loss-path-is-trained-or-loaded"
    codes: tuple[str, ...] = (
        "random-and-frozen", "parameters-outside-optimizer", "parameters-never-changed", "loss-term-constant",
        "frozen-in-optimizer",
    )  # fmt: skip
    budget: float = 8.0
    """CPU seconds, making the copies not counted."""
    updates: int = 5
    """Layers that wait for others to leave zero, as those of an adapter, get a gradient at the second update."""
    batches: int = 3
    """Batches whose graphs are walked: losses that take turns, layers that are left out at random."""
    fixed: tuple[str, ...] = ()
    """Patterns of names, such as "projection.*", that are random and frozen on purpose."""
    schedule_steps: int = 20_000
    """So many calls of a schedule are looked at for whether it unfreezes something later."""

    def _test(self, subject: Subject, clock: Clock) -> Result:
        with loads() as seen:
            training = copy_of(subject)
        model = training.model
        start = {name: one.detach().clone() for name, one in model.named_parameters()}
        trainable = {name for name, one in model.named_parameters() if one.requires_grad}
        held = {id(one) for optimizer in training.optimizers.values() for one in _members(optimizer)}
        in_optimizer = {name for name, one in model.named_parameters() if id(one) in held}
        filled = seen.filled(model)
        other = dict(copy_of(subject, subject.seed + 1).model.named_parameters())
        seeded = {name for name, one in start.items() if name not in other or not identical(one, other[name])}
        del other

        path = self._path(subject)
        with_gradient: set[str] = set()
        graphs = 0

        def look(step: int) -> None:
            nonlocal graphs
            graphs += 1
            named = model.named_parameters()
            with_gradient.update(name for name, one in named if one.grad is not None and bool(one.grad.any()))

        for _ in updates(training, self.updates, look):
            if clock.spent > self.budget * 0.75:
                break
        if not graphs:
            return self.unknown("there is no batch to compute a loss of")
        moved = {name for name, one in model.named_parameters() if not identical(start[name], one)}
        frozen = [name for name in start if name not in trainable and name not in moved]

        ignored = not seeded and self._first_loss(subject, ()) == self._first_loss(subject, (), subject.seed + 1)
        random = seeded if not ignored else {n for n in start if n not in filled and not _constant(start[n])}
        copied = [start[name] for name in trainable]
        candidates = [
            name
            for name in frozen
            if name in random
            and not any(fnmatchcase(name, pattern) for pattern in (*self.fixed, *training.fixed))
            and not any(identical(start[name], one) for one in copied)
        ]
        announced = [name for name in frozen if name in random and name not in candidates]
        reached = set(path.reached) if path is not None else None
        unseen = [name for name in candidates if reached is None or name not in reached]
        by_change = self._by_change(subject, unseen, clock) if unseen else set()
        later = self._unfrozen_later(subject) if candidates else set()
        on_path = set(reached or ()) | set(by_change or ()) | {name for name in with_gradient if name in trainable}
        guilty = [name for name in candidates if name in on_path and name not in later]

        sizes = {name: one.numel() for name, one in start.items()}
        found = [
            *self._random_and_frozen(guilty, sizes, ignored),
            *self._outside(start, trainable, in_optimizer, on_path, random - filled, sizes),
            *self._terms(path, trainable, later),
            *self._without_gradient(trainable & in_optimizer, with_gradient, on_path, graphs),
            *self._held_and_frozen([name for name in frozen if name in in_optimizer]),
        ]
        total = max(sum(sizes.values()), 1)
        shares = {
            "trained": _share(trainable & in_optimizer, sizes, total),
            "loaded": _share(filled & set(sizes), sizes, total),
            "frozen": _share(frozen, sizes, total),
            "random and frozen": _share(guilty, sizes, total),
            "random and frozen on purpose": _share(announced, sizes, total),
        }
        measured: dict[str, float | str] = {f"share {name}": value for name, value in shares.items()}
        measured |= {"parameters": float(total), "updates": float(graphs), "loads": float(len(seen.seen))}
        if by_change is None or (path is None and not guilty):
            return self.unknown(
                "what runs without gradients could not be told apart: two copies with one seed give different losses"
                if by_change is None
                else "the graph of the loss could not be walked",
                findings=tuple(found), measured=measured, n=graphs,
            )  # fmt: skip
        summary = f"{len(on_path)} of {len(start)} tensors are on the loss path; " + ", ".join(
            f"{value:.1%} of the parameters are {name}" for name, value in shares.items() if value or name == "trained"
        )
        return self.judged(summary, found, n=graphs, measured=measured)

    # --- what the loss depends on -----------------------------------------------------------------

    def _path(self, subject: Subject) -> _Path | None:
        """Return what the loss of a copy depends on whose parameters are all unfrozen; None where it cannot be told."""
        training = copy_of(subject)
        names = {id(one): name for name, one in training.model.named_parameters()}
        reached: set[str] = set()
        terms: tuple[tuple[str, frozenset[str]], ...] = ()
        try:
            for one in training.model.parameters():
                if one.is_floating_point() or one.is_complex():
                    one.requires_grad_(True)
            for place in range(self.batches):
                loss = training.loss(training.model, next(training.batches))
                if loss.grad_fn is None:
                    return None
                reached |= _named(loss.grad_fn, names)
                if place == 0:
                    parts = list(_terms(loss.grad_fn))
                    if len(parts) > 1:
                        terms = tuple((_kind(node), frozenset(_named(node, names))) for node in parts[:TERMS])
        except StopIteration:
            pass
        except RuntimeError:  # a part that writes into its own weights cannot be unfrozen
            return None
        return _Path(frozenset(reached), terms)

    def _by_change(self, subject: Subject, names: Sequence[str], clock: Clock) -> set[str] | None:
        """Return which tensors change the first loss when they are changed; None where equal copies differ."""
        base = self._first_loss(subject, ())
        if base != self._first_loss(subject, ()):
            return None
        if base == self._first_loss(subject, names):
            return set()
        found: set[str] = set()
        groups = _by_module(names)
        for members in groups.values():
            alone = len(groups) == 1
            if alone or clock.left == 0.0 or self._first_loss(subject, members) != base:
                found |= set(members)
        return found

    @staticmethod
    def _first_loss(subject: Subject, changed: Collection[str], seed: int | None = None) -> str:
        training = copy_of(subject, seed)
        with torch.no_grad():
            for name, one in training.model.named_parameters():
                if name in changed:
                    one.mul_(1.5).add_(0.1)  # any change will do: an equal loss must be an accident
            return repr(training.loss(training.model, next(training.batches)).item())

    def _unfrozen_later(self, subject: Subject) -> set[str]:
        """Return what the schedule unfreezes at some step, asked of a copy that takes no updates."""
        training = copy_of(subject)
        if training.schedule is None:
            return set()
        frozen = {name: one for name, one in training.model.named_parameters() if not one.requires_grad}
        later: set[str] = set()
        try:
            for step in range(min(training.steps, self.schedule_steps)):
                training.schedule(step)
                later.update(name for name, one in frozen.items() if one.requires_grad)
        except Exception:  # noqa: BLE001 - a schedule that wants updates between its calls says nothing here
            return later
        return later

    # --- findings ---------------------------------------------------------------------------------

    def _random_and_frozen(self, names: Sequence[str], sizes: Mapping[str, int], ignored: bool) -> list[Finding]:
        if not names:
            return []
        modules = _modules(names)
        share = sum(sizes[name] for name in names) / max(sum(sizes.values()), 1)
        words = (
            f"{len(names)} of {len(sizes)} tensors ({share:.1%} of the parameters) are random and frozen on the loss "
            f"path: {listed(modules)}"
        )
        if ignored:
            words += " (taken as random because no load filled them; the seed changes no weight here)"
        return [
            self.finding(
                "random-and-frozen",
                Severity.WARNING if ignored else Severity.ERROR,
                words,
                share,
                {"names": tuple(names[:32]), "modules": tuple(modules[:32]), "tensors": float(len(names))},
                modules[0],
            )
        ]

    def _outside(
        self,
        start: Mapping[str, Any],
        trainable: set[str],
        held: set[str],
        on_path: set[str],
        random: set[str],
        sizes: Mapping[str, int],
    ) -> list[Finding]:
        names = [name for name in start if name in trainable and name not in held and name in on_path]
        if not names:
            return []
        forgotten = [name for name in names if name in random]
        share = sum(sizes[name] for name in names) / max(sum(sizes.values()), 1)
        words = (
            f"{len(names)} trainable tensors on the loss path ({share:.1%} of the parameters) are in no optimizer, "
            f"{len(forgotten)} of them random: {listed(names)}"
        )
        severity = Severity.ERROR if forgotten else Severity.WARNING
        evidence = {"names": tuple(names[:32]), "random": tuple(forgotten[:32])}
        return [self.finding("parameters-outside-optimizer", severity, words, share, evidence, names[0])]

    def _terms(self, path: _Path | None, trainable: set[str], later: set[str]) -> list[Finding]:
        terms = path.terms if path is not None else ()
        found = []
        for place, (kind, names) in enumerate(terms):
            if not names or names & (trainable | later):
                continue
            words = (
                f"term {place + 1} of {len(terms)} of the loss ({kind}) depends on frozen parameters alone, so that "
                f"its gradient is zero everywhere: {listed(_modules(sorted(names)))}"
            )
            evidence: Evidence = {"term": kind, "names": tuple(sorted(names)[:32])}
            found.append(self.finding("loss-term-constant", Severity.WARNING, words, 1.0, evidence, kind))
        return found

    def _without_gradient(
        self, trained: set[str], with_gradient: set[str], on_path: set[str], graphs: int
    ) -> list[Finding]:
        found = []
        for reached in (True, False):
            names = sorted(name for name in trained if name not in with_gradient and (name in on_path) == reached)
            if not names:
                continue
            what = "have a gradient of exactly zero" if reached else "are not reached by the loss"
            words = f"{len(names)} tensors of an optimizer {what} in {graphs} updates: {listed(names)}"
            evidence: Evidence = {"names": tuple(names[:32]), "reached": float(reached)}
            found.append(
                self.finding("parameters-never-changed", Severity.INFO, words, float(len(names)), evidence, names[0])
            )
        return found

    def _held_and_frozen(self, names: Sequence[str]) -> list[Finding]:
        if not names:
            return []
        words = f"an optimizer holds {len(names)} frozen tensors, which it never changes: {listed(names)}"
        evidence = {"names": tuple(names[:32])}
        return [self.finding("frozen-in-optimizer", Severity.INFO, words, float(len(names)), evidence, names[0])]


def _members(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _constant(tensor: torch.Tensor) -> bool:
    return tensor.numel() < 2 or bool((tensor == tensor.reshape(-1)[0]).all())


def _share(names: Collection[str], sizes: Mapping[str, int], total: int) -> float:
    return sum(sizes[name] for name in names) / total


def _modules(names: Sequence[str]) -> list[str]:
    """Return the modules of these parameters, in order."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))


def _by_module(names: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return groups


def _named(node: Any, names: Mapping[int, str]) -> set[str]:
    return {names[key] for key in graph.forward_order(node) if key in names}


def _kind(node: Any) -> str:
    loss = graph.find_loss(node)
    return loss.kind if loss is not None else graph.name_of(node).removesuffix("0").removesuffix("Backward")


def _terms(root: Any) -> Iterator[Any]:
    """Yield the nodes that the root adds up; what it is multiplied by on the way does not matter."""
    waiting, seen = [root], 0
    while waiting and seen < 8 * TERMS:
        node, seen = waiting.pop(), seen + 1
        name, after = graph.name_of(node), graph.parents(node)
        summed = name in ("SumBackward0", "MeanBackward0") and [graph.name_of(one) for one in after] == [
            "StackBackward0"
        ]
        if name in ("AddBackward0", "SubBackward0", "StackBackward0") or summed or (name in _ALONE and len(after) == 1):
            waiting.extend(reversed(after))
        else:
            yield node

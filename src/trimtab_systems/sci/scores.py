"""How right generated actions are, and in which way they are wrong; of sequences of action indices, for every model.

A sequence is a tuple of action indices without an end sign. `predicted` and `targets` always stand in the same order.
Nothing here draws random numbers or knows a network; `similarity` alone takes a tensor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch

from trimtab.errors import UserError

Actions = Sequence[int]

# --- rates ----------------------------------------------------------------------------------------


def exact_match(predicted: Sequence[Actions], targets: Sequence[Actions]) -> float:
    """Return the share of predictions that are the whole target and nothing else; NaN without examples."""
    _same_count(predicted, targets)
    return _mean([float(tuple(one) == tuple(target)) for one, target in zip(predicted, targets, strict=True)])


def token_accuracy(predicted: Sequence[Actions], targets: Sequence[Actions]) -> float:
    """Return the mean over examples of the actions that stand right, over the length of the target.

    Places after the shorter of the two count as wrong, and what is said beyond the target costs nothing: that is what
    `length_accuracy` is for. A target without actions counts as right where nothing was predicted.
    """
    _same_count(predicted, targets)
    return _mean([_share_right(one, target) for one, target in zip(predicted, targets, strict=True)])


def length_accuracy(predicted: Sequence[Actions], targets: Sequence[Actions]) -> float:
    """Return the share of predictions that have as many actions as the target; NaN without examples."""
    _same_count(predicted, targets)
    return _mean([float(len(one) == len(target)) for one, target in zip(predicted, targets, strict=True)])


class Rates(NamedTuple):
    """The three rates of some examples.

    Attributes:
        n: how many examples.
        exact: how many of them are exactly right.
        exact_match, token_accuracy, length_accuracy: see the functions of these names.
    """

    n: int
    exact: int
    exact_match: float
    token_accuracy: float
    length_accuracy: float


def rates(predicted: Sequence[Actions], targets: Sequence[Actions]) -> Rates:
    """Return all three rates of some examples."""
    share = exact_match(predicted, targets)
    exact = sum(tuple(one) == tuple(target) for one, target in zip(predicted, targets, strict=True))
    return Rates(
        len(targets), exact, share, token_accuracy(predicted, targets), length_accuracy(predicted, targets)
    )  # fmt: skip


def by_length(
    predicted: Sequence[Actions], targets: Sequence[Actions], buckets: Sequence[int] = ()
) -> dict[str, Rates]:
    """Return the rates by the length of the target, shortest first.

    Args:
        predicted, targets: the examples.
        buckets: the longest length of each bucket, rising; what is longer than the last one has a bucket of its own.
            Without it each length is one.

    Returns:
        Name of the bucket, such as "24" or "16-22", -> rates of the examples in it. Empty buckets are left out.
    """
    if any(low >= high for low, high in itertools.pairwise(buckets)):
        raise UserError(f"buckets={tuple(buckets)}: expected lengths that rise, such as (15, 22)")
    lengths = [len(one) for one in targets]
    found = grouped(predicted, targets, [_bucket(length, buckets) for length in lengths])
    first = {_bucket(length, buckets): length for length in sorted(lengths, reverse=True)}
    return dict(sorted(found.items(), key=lambda item: first[item[0]]))


def _bucket(length: int, buckets: Sequence[int]) -> str:
    if not buckets:
        return str(length)
    above = -1
    for upper in buckets:
        if length <= upper:
            return str(upper) if above + 1 == upper else f"{above + 1}-{upper}"
        above = upper
    return f"{above + 1}+"


def by_clauses(predicted: Sequence[Actions], targets: Sequence[Actions], seen: Sequence[bool]) -> dict[str, Rates]:
    """Return the rates of the commands whose clauses all occur in the training set, and of the others.

    A model that learns clauses as wholes and recombines them is right on the first group and on none of the second.

    Args:
        predicted, targets: the examples.
        seen: for each, whether all of its clauses were seen; `clauses_seen` gives it.
    """
    found = grouped(predicted, targets, ["seen clauses" if one else "an unseen clause" for one in seen])
    return {name: found[name] for name in ("seen clauses", "an unseen clause") if name in found}


def clauses_seen(clauses: Sequence[Sequence[tuple[str, ...]]], known: Collection[tuple[str, ...]]) -> list[bool]:
    """Say for each command, given as its clauses, whether all of them are among the known ones."""
    return [all(one in known for one in each) for each in clauses]


def grouped(predicted: Sequence[Actions], targets: Sequence[Actions], groups: Sequence[str]) -> dict[str, Rates]:
    """Return the rates of each group, in the order in which the groups first occur."""
    _same_count(predicted, targets)
    if len(groups) != len(targets):
        raise UserError(f"{len(groups)} groups for {len(targets)} examples; give one for each")
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return {
        group: rates([predicted[index] for index in chosen], [targets[index] for index in chosen])
        for group, chosen in members.items()
    }


# --- mistakes -------------------------------------------------------------------------------------

Kind = Literal["stopped early", "stopped late", "wrong count of a phrase", "wrong action", "other"]
KINDS: tuple[Kind, ...] = ("stopped early", "stopped late", "wrong count of a phrase", "wrong action", "other")
"""The classes of mistakes, in the order in which they are tried: the first that fits counts, so each has one."""


class Mistake(NamedTuple):
    """In which way one prediction is wrong.

    Attributes:
        kind: "stopped early": the target goes on where the prediction ends. "stopped late": the prediction goes on
            where the target ends. "wrong count of a phrase": a phrase is said too often or too seldom before the end,
            and all else is right. "wrong action": the length is right, and actions are wrong. "other": anything else.
        amount: actions missing or too many (early, late), actions of the phrases that are too many or, negative, too
            few (count), actions that are wrong (action), and the difference in length (other).
        place: the first place that differs, counted from 0; the length of the shorter one where it ends first.
    """

    kind: Kind
    amount: int
    place: int


def mistake(predicted: Actions, target: Actions) -> Mistake | None:
    """Return in which way a prediction is wrong; None where it is right."""
    said, wanted = tuple(predicted), tuple(target)
    if said == wanted:
        return None
    place = next((i for i, (a, b) in enumerate(zip(said, wanted, strict=False)) if a != b), min(len(said), len(wanted)))
    more = len(said) - len(wanted)
    if place == len(said):
        return Mistake("stopped early", -more, place)
    if place == len(wanted):
        return Mistake("stopped late", more, place)
    if more > 0 and _repeats(said, wanted):
        return Mistake("wrong count of a phrase", more, place)
    if more < 0 and _repeats(wanted, said):
        return Mistake("wrong count of a phrase", more, place)
    if more == 0:
        return Mistake("wrong action", sum(a != b for a, b in zip(said, wanted, strict=True)), place)
    return Mistake("other", more, place)


def _repeats(longer: tuple[int, ...], shorter: tuple[int, ...]) -> bool:
    """Say whether the longer one is the shorter one with a stretch of it said once or more often again, in place."""
    extra = len(longer) - len(shorter)
    for end in range(1, len(shorter) + 1):
        if longer[:end] != shorter[:end]:
            return False
        if longer[end + extra :] != shorter[end:]:
            continue
        for length in range(1, min(end, extra) + 1):
            if extra % length == 0 and longer[end : end + extra] == shorter[end - length : end] * (extra // length):
                return True
    return False


def mistakes(predicted: Sequence[Actions], targets: Sequence[Actions]) -> dict[Kind, tuple[Mistake, ...]]:
    """Return all mistakes by their kind, every kind included: their numbers add up to that of the wrong predictions."""
    _same_count(predicted, targets)
    found = [mistake(one, target) for one, target in zip(predicted, targets, strict=True)]
    return {kind: tuple(one for one in found if one is not None and one.kind == kind) for kind in KINDS}


# --- what late actions still hear of the first words ----------------------------------------------

THIRDS = ("first third", "middle third", "last third")


class Following(NamedTuple):
    """How often places of the output follow the words that they must follow.

    Attributes:
        n: places at which the two targets differ, so that the action must change with the command.
        followed: the share of them at which both predictions are right.
        stuck: the share of them at which both predictions are the same action: the word has no influence there.
    """

    n: int
    followed: float
    stuck: float


def influence(
    predicted: Sequence[Actions],
    swapped: Sequence[Actions],
    targets: Sequence[Actions],
    swapped_targets: Sequence[Actions],
    buckets: Sequence[int] = (),
) -> dict[str, dict[str, Following]]:
    """Return how the influence of words on the output depends on how late the action stands, and on the length.

    Take commands, and the same ones with one word changed for another (their first action word, say). Places at which
    the two targets differ must follow that word, wherever they stand. A place that a prediction does not reach counts
    as not followed, and not as stuck.

    Args:
        predicted, targets: of the commands.
        swapped, swapped_targets: of the changed ones.
        buckets: as in `by_length`.

    Returns:
        Bucket of the target's length -> third of the target ("first third", ...) -> what was counted there. Thirds
        without such a place are left out.
    """
    _same_count(predicted, targets)
    _same_count(swapped, swapped_targets)
    _same_count(predicted, swapped)
    counts: dict[str, dict[str, list[int]]] = {}
    lengths: dict[str, int] = {}
    for said, other, target, other_target in zip(predicted, swapped, targets, swapped_targets, strict=True):
        name = _bucket(len(target), buckets)
        lengths[name] = min(lengths.get(name, len(target)), len(target))
        for place, (wanted, other_wanted) in enumerate(zip(target, other_target, strict=False)):
            if wanted == other_wanted:
                continue
            third = THIRDS[min(3 * place // len(target), 2)]
            tally = counts.setdefault(name, {}).setdefault(third, [0, 0, 0])
            here = said[place] if place < len(said) else None
            there = other[place] if place < len(other) else None
            tally[0] += 1
            tally[1] += here == wanted and there == other_wanted
            tally[2] += here is not None and here == there
    return {
        name: {
            third: Following(n, followed / n, stuck / n)
            for third in THIRDS
            for n, followed, stuck in [counts[name].get(third, [0, 0, 0])]
            if n
        }
        for name in sorted(counts, key=lambda one: lengths[one])
    }


class SwapCheck(NamedTuple):
    """What a model says after the content of one command was put in the place of another's.

    Attributes:
        n: pairs whose two targets differ; the others can tell nothing.
        right: the share that says exactly what the command with the other content means.
        unchanged: the share that still says what the own command means: the swap had no effect.
        other: the share that says something else.
    """

    n: int
    right: float
    unchanged: float
    other: float


def swap_check(
    after_swap: Sequence[Actions], swapped_targets: Sequence[Actions], own_targets: Sequence[Actions]
) -> SwapCheck:
    """Return how often an intervention on the content has the effect that it must have (swap-and-check accuracy).

    Args:
        after_swap: what the model says of command x once its bound content was replaced by that of x~.
        swapped_targets: what x~ means; x and x~ have the same template.
        own_targets: what x means.
    """
    _same_count(after_swap, swapped_targets)
    _same_count(after_swap, own_targets)
    triples = [
        (tuple(said), tuple(other), tuple(own))
        for said, other, own in zip(after_swap, swapped_targets, own_targets, strict=True)
        if tuple(other) != tuple(own)
    ]
    right = _mean([float(said == other) for said, other, _ in triples])
    unchanged = _mean([float(said == own) for said, _, own in triples])
    return SwapCheck(len(triples), right, unchanged, 1.0 - right - unchanged)


# --- invariance -----------------------------------------------------------------------------------


class Similarity(NamedTuple):
    """Mean cosines of pairs of rows.

    Attributes:
        same: of pairs of one group; NaN without such a pair.
        different: of pairs of two groups; NaN without one.
    """

    same: float
    different: float

    @property
    def ratio(self) -> float:
        """The one over the other; NaN where the other is not above 0, for a ratio means nothing there."""
        return self.same / self.different if self.different > 0 else math.nan


def similarity(rows_MD: torch.Tensor, groups: Sequence[Hashable]) -> Similarity:
    """Return how alike the rows of one group are, and those of different groups: 1 is the same direction.

    Args:
        rows_MD: a representation of each command, such as its slots in one row.
        groups: the template of each.
    """
    if rows_MD.ndim != 2 or len(groups) != rows_MD.shape[0]:
        raise UserError(f"rows {tuple(rows_MD.shape)} and {len(groups)} groups; expected a row (M, D) for each group")
    number: dict[Hashable, int] = {}
    of_M = torch.tensor([number.setdefault(one, len(number)) for one in groups], device=rows_MD.device)
    unit_MD = torch.nn.functional.normalize(rows_MD.detach().double(), dim=1)
    cosine_MM = unit_MD @ unit_MD.T
    same_MM = of_M[:, None] == of_M
    apart_MM = ~torch.eye(len(groups), dtype=torch.bool, device=rows_MD.device)
    return Similarity(_mean_of(cosine_MM[same_MM & apart_MM]), _mean_of(cosine_MM[~same_MM]))


def as_metrics(found: Mapping[str, Rates], prefix: str = "exact_match") -> dict[str, float]:
    """Return the exact match of each group as metrics to record: "exact_match/24" -> 0.5."""
    return {f"{prefix}/{group.replace(' ', '_')}": one.exact_match for group, one in found.items()}


def _share_right(predicted: Actions, target: Actions) -> float:
    if not target:
        return float(not predicted)
    return sum(a == b for a, b in zip(predicted, target, strict=False)) / len(target)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _mean_of(values: torch.Tensor) -> float:
    return float(values.mean()) if values.numel() else math.nan


def _same_count(one: Sequence[Actions], other: Sequence[Actions]) -> None:
    if len(one) != len(other):
        raise UserError(f"{len(one)} sequences were compared with {len(other)}; give one prediction for each target")

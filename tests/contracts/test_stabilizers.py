"""The contract over the catalogue of stabilizers: what each guarantees, that off changes nothing, that it resumes."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import trimtab.stabilizers
from trimtab.checkpoint.tree import flatten, unflatten
from trimtab.stabilizers import (
    STABILIZERS,
    ActivationClamp,
    Baseline,
    Curriculum,
    FreezeHeads,
    Knob,
    LearningRate,
    Look,
    ModuleSchedule,
    Noise,
    NormStats,
    Phase,
    Stage,
    StagedEscalation,
    VarianceClamp,
    entropy_floor,
    free_bits,
    norm_excess_penalty,
    orthogonality_penalty,
    orthogonality_projection,
    rescale_norm,
    saturation_hinge,
    shift_invariant_logits,
    soft_clamp,
    sparsity_target,
    spread_across_tasks,
    usage_weighted_cosine,
)
from trimtab.tap import tap

WIDTH = 8


@dataclass(frozen=True, kw_only=True)
class Training:
    """Three updates of a small attention network, with one stabilizer at work in one of five places."""

    passing: Callable[[torch.Tensor], torch.Tensor] = lambda hidden: hidden
    """What is done to the hidden state (examples, places, WIDTH)."""
    scores: Callable[[torch.Tensor], torch.Tensor] = lambda scores: scores
    """What is done to the scores of an attention, whose largest in each row is 0."""
    term: Callable[[torch.Tensor], torch.Tensor] | None = None
    """hidden -> what is added to the loss."""
    around: Callable[[nn.Module, torch.optim.Optimizer], Any] = lambda model, optimizer: nullcontext()
    """(model, optimizer) -> what the training runs in."""
    after: Callable[[Any], Any] = lambda entered: None
    """What is done after each update with what was entered."""

    def weights(self) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.ModuleDict(
            {
                "in": nn.Linear(3, WIDTH),
                "attention": nn.MultiheadAttention(WIDTH, 4, batch_first=True),
                "out": nn.Linear(WIDTH, 2),
            }
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        with self.around(model, optimizer) as entered:
            for seed in range(3):
                x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(seed))
                hidden = self.passing(model["in"](x))
                read = model["attention"](hidden, hidden, hidden)[0]
                scores = read @ read.mT
                scores = self.scores(scores - scores.detach().amax(-1, keepdim=True))
                loss = (model["out"](scores.softmax(-1) @ hidden) - 1).square().mean()
                loss = loss if self.term is None else loss + self.term(hidden)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                self.after(entered)
        return [parameter.detach() for parameter in model.parameters()]


def entered(make: Callable[[nn.Module, torch.optim.Optimizer], Any]) -> Callable[..., Any]:
    """Return `around` for what is made and needs no `with`."""
    return lambda model, optimizer: nullcontext(make(model, optimizer))


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the contract asks of one stabilizer."""

    guarantee: Callable[[torch.Tensor], bool]
    """Any (4, 5, WIDTH) tensor -> whether what it promises holds there."""
    off: Training
    """With the stabilizer off; must end bit for bit where `Training()` ends."""
    make: Callable[[], Any] | None = None
    """A fresh one that has a state."""
    use: Callable[[Any, int], Any] = lambda made, seed: made.step()
    """Use it once; what is returned is compared too."""
    carry: Callable[[Any, Any], object] = lambda one, other: None
    """Bring what belongs to it but is not in its state from one to the other, as a checkpoint would."""


def within(x: torch.Tensor, low: float, high: float) -> bool:
    return bool((x.double() >= low - 1e-4).all()) and bool((x.double() <= high + 1e-4 * max(1.0, abs(high))).all())


def run_module(kind: Callable[..., Any], x: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, torch.Tensor]:
    """Return an intervention at a module that returns its input, and what it hands on for `x`."""
    model = nn.Sequential(nn.Identity())
    made = kind(model, *args, **kwargs)
    with made, tap(model, "0") as seen:
        model(x)
    return made, seen.output


TARGET = Baseline(where="0", norm=2.0, spread=0.5, width=WIDTH, tokens=1)
IN = replace(TARGET, where="in")
HEADS = {"attention": [1, 3]}
BATCH = replace(TARGET, scope="batch")


def clamped_norms(x: torch.Tensor) -> bool:
    _, y = run_module(ActivationClamp, x, TARGET, least=0)
    before, after = x.norm(dim=-1), y.norm(dim=-1)
    return within(after[before > 1e-3], 2, 2) and bool(y.isfinite().all())


def clamped_spreads(x: torch.Tensor) -> bool:
    _, y = run_module(VarianceClamp, x, TARGET, least=0)
    spread = x.std(-1, correction=0) > 1e-2 * (1 + x.abs().amax(-1))
    scale = 1 + x.abs().max().item()
    kept = (y.double().mean(-1) - x.double().mean(-1)).abs().max().item() < 1e-5 * scale
    return kept and bool(((y.double().std(-1, correction=0) - 0.5).abs()[spread] < 1e-3 * scale).all())


def held_heads(x: torch.Tensor) -> bool:
    """Whatever gradient comes, the frozen rows stay."""
    torch.manual_seed(0)
    model = nn.MultiheadAttention(WIDTH, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    before = model.in_proj_weight.detach()[2:4].clone()
    with FreezeHeads(model, {"": [1]}, optimizer=optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            model(x, x, x)[0].sum().backward()
            optimizer.step()
    return torch.equal(model.in_proj_weight[2:4], before)


def own_noise(x: torch.Tensor) -> bool:
    state = torch.get_rng_state()
    _, one = run_module(Noise, x, "0", size=0.1, least=0)
    _, other = run_module(Noise, x, "0", size=0.1, least=0)
    return torch.equal(one, other) and torch.equal(state, torch.get_rng_state())


def use_module(made: Any, seed: int) -> torch.Tensor:
    with made:
        returned: torch.Tensor = made.model(torch.randn(4, 5, WIDTH, generator=torch.Generator().manual_seed(seed)))
        return returned


def frozen_heads() -> FreezeHeads:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(WIDTH, 4)
    return FreezeHeads(model, {"": [1]}, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


def use_heads(made: FreezeHeads, seed: int) -> None:
    model = made._attentions[""]
    x = torch.randn(4, 5, WIDTH, generator=torch.Generator().manual_seed(seed))
    with made:
        made.optimizers[0].zero_grad()
        model(x, x, x)[0].square().sum().backward()
        made.optimizers[0].step()


def knob() -> StagedEscalation:
    return StagedEscalation([Knob("scale", 0.1, 0.4, lambda value: None)], steps=10)


class Coins:
    """A gate that says healthy where a number is positive."""

    def __init__(self, x: torch.Tensor) -> None:
        self.left = (x.flatten() > 0).tolist()

    def look(self) -> Look:
        return Look(state="healthy" if self.left.pop() else "unhealthy")


def between_base_and_target(x: torch.Tensor) -> bool:
    values: list[float] = []
    coins = Coins(x)
    escalation = StagedEscalation([Knob("scale", 0.1, 0.4, values.append)], steps=10, gate=coins, clear_for=1)
    healthy = 0
    for _ in range(40):
        healthy += coins.left[-1]
        escalation.step()
    return all(0.1 <= value <= 0.4 for value in values) and escalation.progress <= healthy / 10


def rate(**factors: Any) -> LearningRate:
    return LearningRate(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), **factors)


def product_of_factors(x: torch.Tensor) -> bool:
    one, other = x.flatten()[:2].abs().tolist()
    return math.isclose(rate(a=one, b=other).rates[0], 0.1 * one * other)


def phases(*trains: str) -> Callable[[nn.Module, torch.optim.Optimizer], ModuleSchedule]:
    def make(model: nn.Module, optimizer: torch.optim.Optimizer) -> ModuleSchedule:
        return ModuleSchedule(
            model, optimizer, [Phase(name=str(i), begins=i, trains=(one,)) for i, one in enumerate(trains)]
        )

    return make


def alone_in_its_phase(x: torch.Tensor) -> bool:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = phases("1")(model, optimizer)
    before = model[0].weight.detach().clone()
    model(x).sum().backward()
    optimizer.step()
    schedule.step()
    return torch.equal(model[0].weight, before)


def schedule_of_two() -> ModuleSchedule:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2))
    return phases("1", "*")(model, torch.optim.SGD(model.parameters(), lr=0.1))


def use_schedule(made: ModuleSchedule, seed: int) -> tuple[str, ...]:
    made.optimizer.zero_grad()
    made.model(torch.ones(1, WIDTH)).sum().backward()
    made.optimizer.step()
    made.step()
    return made.frozen


def none_harder(x: torch.Tensor) -> bool:
    difficulty = x.flatten().numpy()
    limit = float(difficulty[0])
    curriculum = Curriculum(difficulty, [Stage(begins=0, at_most=limit)])
    return bool((difficulty[curriculum.indices().numpy()] <= limit).all())


def lessons() -> Curriculum:
    return Curriculum(range(10), [Stage(begins=0, at_most=3), Stage(begins=2, at_most=math.inf)])


class Everything:
    """A curriculum whose only stage takes every example, asked before a training is let go on."""

    def __init__(self) -> None:
        self.curriculum = Curriculum(range(10), [Stage(begins=0, at_most=math.inf)])

    def step(self) -> None:
        self.curriculum.step()
        assert self.curriculum.indices().tolist() == list(range(10))


STEP = Training(after=lambda made: made.step())
CASES: Mapping[Callable[..., Any], Case] = {
    rescale_norm: Case(
        guarantee=lambda x: within(rescale_norm(x, 1.0, -1).norm(dim=-1), 0, 1),
        off=Training(passing=lambda x: rescale_norm(x, None, -1)),
    ),
    norm_excess_penalty: Case(
        guarantee=lambda x: norm_excess_penalty(rescale_norm(x, 1.0, -1), 1.001, -1).item() == 0,
        off=Training(term=lambda x: norm_excess_penalty(x, math.inf, -1)),
    ),
    NormStats: Case(
        guarantee=lambda x: _told(x).max >= _told(x).p95 >= _told(x).p50,
        off=Training(passing=lambda x: rescale_norm(x, None, -1, stats=NormStats())),
        make=lambda: NormStats(top=3, keep=12),
        use=lambda made, seed: made.add(torch.rand(5, generator=torch.Generator().manual_seed(seed)), max_norm=0.5),
    ),
    soft_clamp: Case(
        guarantee=lambda x: bool((soft_clamp(x, 1, 3).abs() <= x.abs().clamp_max(3)).all()),
        off=Training(passing=lambda x: soft_clamp(x, 1, None)),
    ),
    shift_invariant_logits: Case(
        guarantee=lambda x: within(shift_invariant_logits(x, limit=5), -5, 0),
        off=Training(scores=shift_invariant_logits),
    ),
    entropy_floor: Case(
        guarantee=lambda x: within(entropy_floor(x.softmax(-1), 0.9), 0, 0.9),
        off=Training(term=lambda x: entropy_floor(x.softmax(-1), 0.0)),
    ),
    usage_weighted_cosine: Case(
        guarantee=lambda x: within(usage_weighted_cosine(x.abs(), x[..., 0].sigmoid()), 0, 1),
        off=Training(term=lambda x: usage_weighted_cosine(x.exp(), torch.zeros(x.shape[:2]))),
    ),
    sparsity_target: Case(
        guarantee=lambda x: not sparsity_target(x.sigmoid(), 0, WIDTH).item(),
        off=Training(term=lambda x: sparsity_target(x.sigmoid(), 0, math.inf)),
    ),
    orthogonality_projection: Case(
        guarantee=lambda x: _orthogonal(x[:, :3], orthogonality_projection(x, x[:, :3])),
        off=Training(passing=lambda x: orthogonality_projection(x, torch.zeros(4, 2, WIDTH))),
    ),
    orthogonality_penalty: Case(
        guarantee=lambda x: within(orthogonality_penalty(x[:, :2], x), 0, 1),
        off=Training(term=lambda x: orthogonality_penalty(x, x, torch.zeros(4, 5, dtype=torch.bool))),
    ),
    saturation_hinge: Case(
        guarantee=lambda x: saturation_hinge(x.clamp(-3, 3)).item() == 0 <= saturation_hinge(x).item(),
        off=Training(term=lambda x: saturation_hinge(x, math.inf)),
    ),
    spread_across_tasks: Case(
        guarantee=lambda x: within(spread_across_tasks(x[:, 0, 0], torch.tensor([0, 0, 1, 1])), 0, 0.5),
        off=Training(term=lambda x: spread_across_tasks(x[:, 0, 0], floor=0)),
    ),
    free_bits: Case(
        guarantee=lambda x: free_bits(x[:, 0].abs(), 1.0).item() <= free_bits(x[:, 0].abs(), 0.0).item() + 1e-6,
        off=Training(term=lambda x: free_bits(x[:, 0].square(), math.inf)),
    ),
    ActivationClamp: Case(
        guarantee=clamped_norms,
        off=Training(around=lambda model, optimizer: ActivationClamp(model, IN, on=False)),
        make=lambda: ActivationClamp(nn.Sequential(nn.Identity()), BATCH),
        use=use_module,
    ),
    VarianceClamp: Case(
        guarantee=clamped_spreads,
        off=Training(around=lambda model, optimizer: VarianceClamp(model, IN, on=False)),
        make=lambda: VarianceClamp(nn.Sequential(nn.Identity()), BATCH),
        use=use_module,
    ),
    FreezeHeads: Case(
        guarantee=held_heads,
        off=Training(around=lambda model, optimizer: FreezeHeads(model, HEADS, optimizer=optimizer, on=False)),
        make=frozen_heads,
        use=use_heads,
        carry=lambda one, other: other._attentions[""].load_state_dict(one._attentions[""].state_dict()),
    ),
    Noise: Case(
        guarantee=own_noise,
        off=Training(around=lambda model, optimizer: Noise(model, "in", size=0.0)),
        make=lambda: Noise(nn.Sequential(nn.Identity()), "0", size=0.1),
        use=use_module,
    ),
    StagedEscalation: Case(
        guarantee=between_base_and_target,
        off=replace(STEP, around=entered(lambda model, optimizer: StagedEscalation(
            [Knob.of(nn.Dropout(0.0), "p", target=0.0)], steps=2))),
        make=knob,
    ),
    LearningRate: Case(
        guarantee=product_of_factors,
        off=replace(STEP, around=entered(lambda model, optimizer: LearningRate(optimizer))),
        make=lambda: rate(backoff=0.5),
    ),
    ModuleSchedule: Case(
        guarantee=alone_in_its_phase,
        off=replace(STEP, around=entered(phases("*"))),
        make=schedule_of_two,
        use=use_schedule,
    ),
    Curriculum: Case(
        guarantee=none_harder,
        off=replace(STEP, around=entered(lambda model, optimizer: Everything())),
        make=lessons,
        use=lambda made, seed: (made.step(), made.indices().tolist())[1],
    ),
}  # fmt: skip


def _told(x: torch.Tensor) -> Any:
    stats = NormStats()
    rescale_norm(x, 1.0, -1, stats=stats)
    return stats.compute()


def _orthogonal(slots: torch.Tensor, left: torch.Tensor) -> bool:
    scale = (1 + slots.norm(dim=-1).max()) * (1 + left.norm(dim=-1).max())
    return bool((slots @ left.mT).abs().max() <= 1e-4 * scale)


EVERY = pytest.mark.parametrize("kind", STABILIZERS, ids=lambda kind: kind.__name__)


def test_every_member_has_a_case_and_every_file_a_member():
    assert set(CASES) == set(STABILIZERS), "write a Case for each stabilizer in tests/contracts/test_stabilizers.py"
    files = {p.stem for p in Path(trimtab.stabilizers.__file__).parent.glob("*.py") if not p.stem.startswith("_")}
    assert {kind.__module__.rpartition(".")[2] for kind in STABILIZERS} == files


@EVERY
def test_it_says_what_it_is_where_it_comes_from_and_what_it_takes(kind):
    text = inspect.getdoc(kind)
    assert "Args:" in text
    assert "Source:" in text
    assert kind.__name__ in trimtab.stabilizers.__all__


@EVERY
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([0.0, 1e-3, 1.0, 30.0]))
def test_what_it_guarantees_holds(kind, seed, size):
    x = size * torch.randn(4, 5, WIDTH, generator=torch.Generator().manual_seed(seed))
    assert CASES[kind].guarantee(x)


@pytest.fixture(scope="module")
def plain():
    return Training().weights()


@EVERY
def test_off_is_bit_identical(kind, plain):
    off = CASES[kind].off
    assert off != Training()
    assert all(torch.equal(a, b) for a, b in zip(off.weights(), plain, strict=True))


@pytest.mark.parametrize("kind", [k for k in STABILIZERS if hasattr(k, "state_dict")], ids=lambda kind: kind.__name__)
def test_a_state_goes_on_where_it_was(kind):
    case = CASES[kind]
    assert case.make is not None
    one, other = case.make(), case.make()
    for seed in range(3):
        case.use(one, seed)
    case.carry(one, other)
    other.load_state_dict(stored(one.state_dict()))
    assert same(other.state_dict(), one.state_dict())
    for seed in range(3, 6):
        assert same(case.use(other, seed), case.use(one, seed))
    assert same(other.state_dict(), one.state_dict())


def stored(state: Any) -> Any:
    """Return a state as a checkpoint gives it back."""
    tensors, plain = flatten(state)
    return unflatten(json.loads(json.dumps(plain, allow_nan=False)), tensors)


def same(one: Any, other: Any) -> bool:
    """Whether two nests hold the same values, tensors and NaN included."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other or one != one)

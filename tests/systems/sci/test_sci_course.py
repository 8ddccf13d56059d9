"""A training of SCI-Loop moves from part to part by training fit, and draws anew what failed, so often and no more."""

import dataclasses

import pytest
import torch
from torch import nn

from trimtab_systems.sci.course import Course, Place, Plan
from trimtab_systems.sci.data import Example, encode, interpret
from trimtab_systems.sci.losses import Aids, loop_loss
from trimtab_systems.sci.model import SCILoop

PLAN = Plan(
    outer=10, inner=10, whole=10, check_every=5, fit=0.9, warmup=4, floors_until=8, call_until=6, structure_floor=0.06,
    pattern_floor=0.3, end_floor=0.1, stop_floor=0.03, call_bonus=0.35, steady_from=5, steady=3, guesses=2,
    guesses_until=3, explorations=2, pattern_from=0,
)  # fmt: skip


class Forgetful(nn.Module):
    """Remembers what it was told to forget."""

    def __init__(self):
        super().__init__()
        self.outer, self.inner = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        self.pattern = nn.Linear(1, 1)
        self.forgotten = []

    def forget(self, *, inner):
        self.forgotten.append("inner" if inner else "outer")
        nn.init.normal_(self.inner)
        return [self.inner]


def course(fit=1.0, copied=1.0, plan=PLAN):
    model = Forgetful()
    optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "peak": 0.1}])
    (model.outer + model.inner).backward()
    optimizer.step()
    return Course(plan, model, optimizer, lambda scaffold: fit, lambda: copied, 0)


def walked(one, steps):
    """Return the part at each of so many updates."""
    parts = []
    for step in range(steps):
        parts.append(one.place.part)
        one.after(step)
        if one.place.done:
            break
    return parts


def test_parts_follow_each_other_where_all_goes_well():
    one = course()
    assert walked(one, 99) == ["outer"] * 5 + ["inner"] * 5 + ["whole"] * 5
    assert one.place.done
    assert one.place.redrawn == 0
    assert one.model.forgotten == []


def test_what_failed_is_drawn_anew_so_often_and_no_more():
    one = course(fit=0.5)
    assert walked(one, 99) == ["outer"] * 30 + ["inner"] * 5 + ["whole"] * 10
    assert one.place.redrawn == 2
    assert one.model.forgotten == ["outer", "outer"]
    assert one.place.done


def test_the_inner_loop_is_drawn_anew_twice_before_everything_is():
    one = course(copied=0.5, plan=dataclasses.replace(PLAN, explorations=3))
    walked(one, 60)
    assert one.model.forgotten == ["inner", "inner", "outer"]
    assert one.place.attempt == 1


def test_drawing_anew_clears_the_moments_of_what_was_drawn_and_takes_no_random_number():
    one = course(fit=0.5)
    before = torch.random.get_rng_state()
    walked(one, 10)
    assert one.model.forgotten == ["outer"]
    assert one.model.inner not in one.optimizer.state
    assert one.model.outer in one.optimizer.state
    assert torch.equal(torch.random.get_rng_state(), before)


def test_its_state_says_everything():
    one, other = course(fit=0.5), course(fit=0.5)
    walked(one, 17)
    other.load_state_dict(one.state_dict())
    assert other.place == one.place != Place()
    for step in range(17, 45):
        one.after(step)
        other.after(step)
        assert other.place == one.place
        assert other.aids(step + 1) == one.aids(step + 1)
        assert other.optimizer.param_groups[0]["lr"] == one.optimizer.param_groups[0]["lr"]


def test_what_is_frozen_is_frozen_again():
    plan = dataclasses.replace(PLAN, pattern_from=3)
    one, other = course(plan=plan), course(plan=plan)
    for step in range(9):
        one.after(step)
        other.load_state_dict(one.state_dict())
        learns = [[part.requires_grad for part in each.model.pattern.parameters()] for each in (one, other)]
        assert learns[0] == learns[1] == [step >= 7] * 2


def test_aids_go_to_zero():
    one = course()
    first, last = one.aids(0), one.aids(9)
    assert first == Aids(structure=0.06, end=0.1, stop=0.03, call=0.35, scaffold=True)
    assert last == Aids(structure=1e-3, scaffold=True, steady=3)
    one.place.part = "inner"
    assert one.aids(0) == Aids(pattern=0.3)
    assert one.aids(9).pattern == 0.02
    one.place.part = "whole"
    assert one.aids(9) == Aids(steady=3)
    assert one.guesses(0) == 1


def test_rates_rise_at_first_and_fall_in_the_later_parts():
    one = course()
    (group,) = one.optimizer.param_groups
    assert group["lr"] == pytest.approx(0.1 / 4)
    one.before(3)
    assert group["lr"] == pytest.approx(0.1)
    one.place.part = "whole"
    one.before(0)
    at_first = group["lr"]
    one.before(10)
    assert at_first == pytest.approx(0.05)
    assert group["lr"] == pytest.approx(0.005)


@pytest.mark.slow
def test_a_small_model_finds_out_what_is_structure():
    acts, ways = ("walk", "jump", "run", "look"), (("left",), ("right",), ())
    clauses = [(act, *way, *often) for act in acts for way in ways for often in ((), ("twice",), ("thrice",))]
    words = [
        *clauses,
        *((*one, join, *other) for one in clauses for other in clauses[::5] for join in ("and", "after")),
    ]
    every = encode([Example(one, interpret(one)) for one in words])
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = SCILoop(width=32, heads=2, features=8, slots=6, longest=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(250):
        rows = torch.randint(len(words), (64,), generator=generator)
        left = max(0.0, 1.0 - step / 200)
        aids = Aids(structure=max(1e-3, 0.06 * left), end=0.1 * left, stop=0.03 * left, call=0.35 * left, scaffold=True)
        loss = loop_loss(model, type(every)(*(part[rows] for part in every)), aids, 2, generator)
        (loss.task + loss.roles).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    structural = {
        word for one, roles in zip(words, model.hard_roles(every.words_BN).tolist(), strict=True)
        for word, role in zip(one, roles, strict=False) if role == 0
    }  # fmt: skip
    assert structural == {"twice", "thrice", "and", "after"}

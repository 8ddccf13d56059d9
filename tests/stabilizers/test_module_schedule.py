"""Phases of what trains: frozen parts stay bit for bit, and a phase that did not take effect is an error."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trimtab import Guard
from trimtab.errors import UserError
from trimtab.run import Run
from trimtab.stabilizers.learning_rate import LearningRate, cosine
from trimtab.stabilizers.module_schedule import LEFT_OUT, ModuleSchedule, NoEffect, Phase, parameter_groups


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.backbone(x))


def batch(index):
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(16, 4, generator=generator)
    return x, (x[:, 0] > 0).long()


def update(model, optimizer, index, *, to_none=True):
    x, y = batch(index)
    optimizer.zero_grad(set_to_none=to_none)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def weights(model, part):
    return {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith(part)}


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


ALL = Phase(name="all", begins=0, trains=("*",))
HEAD = Phase(name="head", begins=0, trains=("head",))


def groups(model, kind=torch.optim.AdamW, **more):
    return kind(parameter_groups(model, ["backbone", "head"]), lr=0.01, **more)


KINDS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {"weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.5}),
    "fused": (torch.optim.AdamW, {"weight_decay": 0.5, "fused": True}),
    "foreach": (torch.optim.AdamW, {"weight_decay": 0.5, "foreach": True}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.9, "weight_decay": 0.1}),
}


@pytest.mark.parametrize("to_none", [True, False], ids=["to none", "to zero"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_part_does_not_move_whatever_its_moments_and_decay_are(kind, to_none):
    model = Net()
    optimizer = groups(model, KINDS[kind][0], **KINDS[kind][1])
    schedule = ModuleSchedule(model, optimizer, [ALL, Phase(name="head only", begins=5, trains=("head",))])
    for index in range(5):
        update(model, optimizer, index, to_none=to_none)
        schedule.step()
    backbone, head = weights(model, "backbone"), weights(model, "head")
    for index in range(5, 10):
        update(model, optimizer, index, to_none=to_none)
        schedule.step()
    assert equal(backbone, weights(model, "backbone"))
    assert not equal(head, weights(model, "head"))


def test_without_it_zeroed_gradients_move_what_was_meant_to_be_frozen():
    """The trap: requires_grad=False leaves the old gradient, zero_grad makes it zero, decay and moments go on."""
    model = Net()
    optimizer = groups(model, weight_decay=0.5)
    for index in range(5):
        update(model, optimizer, index, to_none=False)
    model.backbone.requires_grad_(False)
    backbone = weights(model, "backbone")
    update(model, optimizer, 5, to_none=False)
    assert not equal(backbone, weights(model, "backbone"))


def test_parts_thaw_and_freeze_in_turn_with_their_rates():
    model = Net()
    optimizer = groups(model)
    schedule = ModuleSchedule(
        model,
        optimizer,
        [
            HEAD,
            Phase(name="all", begins=3, trains=("*",), learning_rate={"backbone": 0.1}, weight_decay={"head": 0.0}),
            Phase(name="first", begins=6, trains=("backbone.0",), learning_rate={"*": 0.5}),
        ],
    )
    seen = []
    for index in range(9):
        before = weights(model, "")
        update(model, optimizer, index)
        after = weights(model, "")
        moved = sorted({name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])})
        seen.append((schedule.phase.name, moved, [g["lr"] for g in optimizer.param_groups]))
        began = schedule.step()
        assert began == (index in (2, 5))
    assert seen[0] == ("head", ["head"], [0.01, 0.01])
    assert seen[4] == ("all", ["backbone.0", "backbone.2", "head"], [pytest.approx(0.001), 0.01])
    assert seen[8] == ("first", ["backbone.0"], [0.005, 0.005])
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.01, 0.01]  # back to the base
    assert schedule.frozen == ("backbone.2.weight", "backbone.2.bias", "head.weight", "head.bias")


def test_multipliers_go_to_the_one_writer_of_the_rate():
    model = Net()
    optimizer = groups(model)
    rate = LearningRate(optimizer, decay=cosine(10, minimum=0.0))
    schedule = ModuleSchedule(
        model, optimizer, [ALL, Phase(name="slow", begins=2, trains=("*",), learning_rate={"backbone": 0.1})], rate=rate
    )
    for index in range(5):
        update(model, optimizer, index)
        rate.step()
        schedule.step()
    assert rate.rates[0] == pytest.approx(0.1 * rate.rates[1])
    assert rate.rates[1] == pytest.approx(0.01 * cosine(10, minimum=0.0).at(5))


# -- each transition is proved ----------------------------------------------------------------------------------------


def test_a_flag_that_somebody_else_set_is_an_error():
    model = Net()
    optimizer = groups(model)
    ModuleSchedule(model, optimizer, [HEAD])
    model.requires_grad_(True)
    with pytest.raises(NoEffect, match=r"'head' did not take effect \(step 0\): 'backbone.0.weight' shall be frozen"):
        update(model, optimizer, 0)


def test_a_part_that_gets_no_gradient_is_an_error():
    model = Net()
    optimizer = groups(model)
    ModuleSchedule(model, optimizer, [Phase(name="both", begins=0, trains=("backbone", "head"))])
    x, y = batch(0)
    F.cross_entropy(model.head(model.backbone(x).detach()), y).backward()
    with pytest.raises(NoEffect, match=r"'backbone' shall train, and none of its 4 tensors got a gradient"):
        optimizer.step()


def test_a_rate_that_a_scheduler_overwrites_is_an_error():
    model = Net()
    optimizer = groups(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    phases = [ALL, Phase(name="slow", begins=1, trains=("*",), learning_rate={"backbone": 0.1})]
    schedule = ModuleSchedule(model, optimizer, phases)
    update(model, optimizer, 0)
    schedule.step()
    scheduler.step()
    with pytest.raises(NoEffect, match=r"lr of group 0 is 0.009 where 0.001 was written.*LearningRate"):
        update(model, optimizer, 1)


class Stubborn(torch.optim.SGD):
    """An optimizer that moves every parameter, with or without a gradient."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(0.9)


def test_an_optimizer_that_moves_what_has_no_gradient_is_an_error():
    model = Net()
    optimizer = Stubborn(parameter_groups(model, ["backbone"]), lr=0.1)
    ModuleSchedule(model, optimizer, [HEAD])
    with pytest.raises(NoEffect, match=r"'backbone.0.weight' \(and 3 more\) is frozen and the update moved it"):
        update(model, optimizer, 0)


def test_a_gradient_that_was_left_over_moves_nothing():
    model = Net()
    optimizer = groups(model)
    ModuleSchedule(model, optimizer, [HEAD])
    backbone = weights(model, "backbone")
    for index in range(3):
        x, y = batch(index)
        F.cross_entropy(model(x), y).backward()
        model.backbone[0].weight.grad = torch.ones_like(model.backbone[0].weight)
        optimizer.step()
    assert equal(backbone, weights(model, "backbone"))


def test_later_updates_are_watched_too():
    model = Net()
    optimizer = groups(model)
    ModuleSchedule(model, optimizer, [HEAD])
    update(model, optimizer, 0)

    @torch.no_grad()
    def moves(*_):
        model.backbone[0].weight.mul_(0.9)

    optimizer.register_step_pre_hook(moves)
    with pytest.raises(NoEffect, match=r"'backbone.0.weight' is frozen and the update moved it"):
        update(model, optimizer, 1)


def test_a_rollback_may_write_what_is_frozen():
    model = Net()
    optimizer = groups(model)
    ModuleSchedule(model, optimizer, [HEAD])
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    update(model, optimizer, 0)
    model.load_state_dict(stored)
    update(model, optimizer, 1)


def test_updates_that_a_response_leaves_out_prove_nothing_and_harm_nothing():
    model = Net()
    optimizer = groups(model)
    schedule = ModuleSchedule(model, optimizer, [Phase(name="both", begins=0, trains=("backbone", "head"))])
    for _ in range(LEFT_OUT - 1):
        optimizer.zero_grad()
        optimizer.step()
        schedule.step()
    update(model, optimizer, 0)


def test_but_a_phase_without_any_gradient_is_an_error():
    optimizer = groups(model := Net())
    ModuleSchedule(model, optimizer, [ALL])
    with pytest.raises(NoEffect, match="8 updates in a row came without a gradient"):
        [optimizer.step() for _ in range(LEFT_OUT)]


def test_a_phase_that_saw_no_update_is_an_error():
    model = Net()
    schedule = ModuleSchedule(model, groups(model), [HEAD, Phase(name="all", begins=2, trains=("*",))])
    schedule.step()
    with pytest.raises(NoEffect, match="'head' ends at step 2 and its optimizer took no update in it"):
        schedule.step()


def test_gradients_of_a_closure_are_proved_after_the_update():
    model = Net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    ModuleSchedule(model, optimizer, [Phase(name="both", begins=0, trains=("backbone", "head"))])
    x, y = batch(0)

    def closure(cut=False):
        optimizer.zero_grad()
        features = model.backbone(x)
        loss = F.cross_entropy(model.head(features.detach() if cut else features), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    other = Net()
    model, optimizer = other, torch.optim.LBFGS(other.parameters(), lr=0.1, max_iter=2)
    ModuleSchedule(model, optimizer, [Phase(name="both", begins=0, trains=("backbone", "head"))])
    with pytest.raises(NoEffect, match="'backbone' shall train"):
        optimizer.step(lambda: closure(cut=True))


def test_closing_takes_the_proofs_off():
    model = Net()
    optimizer = groups(model)
    ModuleSchedule(model, optimizer, [HEAD]).close()
    model.requires_grad_(True)
    update(model, optimizer, 0)


# -- memory and notes --------------------------------------------------------------------------------------------------


def planned(model, optimizer, **more):
    phases = [HEAD, Phase(name="all", begins=4, trains=("*",), learning_rate={"backbone": 0.1})]
    return ModuleSchedule(model, optimizer, phases, **more)


@pytest.mark.parametrize("cut", [2, 4, 6])
def test_a_training_that_is_gone_on_with_is_the_same_bit_for_bit(cut):
    def some(schedule, model, optimizer, first, last):
        for index in range(first, last):
            update(model, optimizer, index)
            schedule.step()

    model = Net()
    optimizer = groups(model)
    schedule = planned(model, optimizer)
    some(schedule, model, optimizer, 0, cut)
    state = json.loads(json.dumps(schedule.state_dict()))
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moments = copy.deepcopy(optimizer.state_dict())
    other = Net()
    second = groups(other)
    resumed = planned(other, second)
    other.load_state_dict(kept)
    second.load_state_dict(moments)
    resumed.load_state_dict(state)
    some(resumed, other, second, cut, 8)
    some(schedule, model, optimizer, cut, 8)
    assert equal(weights(model, ""), weights(other, ""))
    assert resumed.state_dict() == schedule.state_dict()


def test_a_state_of_other_phases_is_refused():
    state = planned(model := Net(), groups(model)).state_dict()
    with pytest.raises(UserError, match="in phase 'head' with 2 groups at step 0, where this one has 'all'"):
        ModuleSchedule(model, groups(model), [ALL]).load_state_dict(state)


def test_each_phase_is_a_note(tmp_path):
    model = Net()
    optimizer = groups(model)
    with Guard(tmp_path / "a", model, optimizer, pyproject=False) as guard:
        schedule = planned(model, optimizer, guard=guard)
        for index in range(6):
            update(model, optimizer, index)
            schedule.step()
    notes = [note for note in Run(tmp_path / "a").notes() if note.kind == "freeze"]
    assert [(note.step, note.facts["phase"], note.facts["frozen"]) for note in notes] == [(0, "head", 4), (3, "all", 0)]
    assert notes[0].text == "phase 'head': head trains (2 tensors), 4 tensors are frozen"


# -- what a person gives wrongly ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phases", "says"),
    [
        ([], "expected 0 first"),
        ([Phase(name="late", begins=1, trains=("*",))], "expected 0 first"),
        ([ALL, Phase(name="again", begins=0, trains=("*",))], "each later than the last"),
        ([Phase(name="p", begins=0, trains=("haed",))], "'haed' matches no parameter. Did you mean 'head'"),
        ([Phase(name="p", begins=0, trains="head")], "expected a tuple of patterns"),
        (
            [Phase(name="p", begins=0, trains=("*",), learning_rate={"backbone.0": 0.1})],
            "2 of the 4 tensors of group 0",
        ),
        ([Phase(name="p", begins=0, trains=("*",), learning_rate={"neck": 0.1})], "'neck' matches no parameter"),
        ([Phase(name="p", begins=0, trains=("*",), learning_rate={"*": 1, "head": 0.1})], "name it once"),
        ([Phase(name="p", begins=0, trains=("*",), weight_decay={"head": -1})], "expected a finite number"),
    ],
)
def test_a_wrong_plan_says_what_was_expected(phases, says):
    model = Net()
    with pytest.raises(UserError, match=says):
        ModuleSchedule(model, groups(model), phases)


def test_a_part_outside_the_optimizer_cannot_train():
    model = Net()
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    with pytest.raises(UserError, match=r"'backbone.0.bias' \(and 3 more\) is in no group of the optimizer"):
        ModuleSchedule(model, optimizer, [ALL])


def test_the_rate_must_be_that_of_the_optimizer():
    model = Net()
    with pytest.raises(UserError, match="writes another optimizer"):
        ModuleSchedule(model, groups(model), [ALL], rate=LearningRate(groups(model)))


def test_groups_take_each_parameter_once():
    made = parameter_groups(Net(), ["backbone.0", "*bias"], lr=0.5)
    assert [(g["name"], len(g["params"]), g["lr"]) for g in made] == [
        ("backbone.0", 2, 0.5), ("*bias", 2, 0.5), ("others", 2, 0.5),
    ]  # fmt: skip
    with pytest.raises(UserError, match="matches no parameter"):
        parameter_groups(Net(), ["*", "head"])

"""An update that is left out changes nothing at all, for every optimizer class that is trusted with it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import ASGD, SGD, Adadelta, Adafactor, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop, Rprop

from tests.kernel.kit import RULES, everything, loss_of, net, same, train
from trimtab import Guard, TrainingStopped
from trimtab.actions import SkipStep
from trimtab.levers import LEAVES_OUT
from trimtab.run import Run

DECAY = {"weight_decay": 0.1}
TABLE = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, **DECAY}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "fused": True, **DECAY}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "foreach": False, "maximize": True}),
    (Adam, {"amsgrad": True, **DECAY}),
    (Adam, {"foreach": True, **DECAY}),
    (Adam, {"fused": True, **DECAY}),
    (Adam, {"foreach": False, **DECAY}),
    (Adam, {"lr": torch.tensor(0.01), "foreach": False}),
    (AdamW, {"amsgrad": True, **DECAY}),
    (AdamW, {"foreach": True, **DECAY}),
    (AdamW, {"fused": True, **DECAY}),
    (Rprop, {}),
    (RMSprop, {"momentum": 0.9, "centered": True, **DECAY}),
    (Adagrad, {"lr_decay": 0.1, **DECAY}),
    (Adagrad, {"fused": True}),
    (Adadelta, DECAY),
    (Adamax, DECAY),
    (NAdam, {"decoupled_weight_decay": True, **DECAY}),
    (RAdam, {"decoupled_weight_decay": True, **DECAY}),
    (ASGD, {"t0": 2, **DECAY}),
    (Adafactor, DECAY),
    *([(torch.optim.Muon, {"lr": 0.01})] if hasattr(torch.optim, "Muon") else []),
]


def update(model, optimizer, index, factor=1.0):
    loss_of(model, index, factor).backward()
    optimizer.step()


POLICY = {"loss-not-finite": SkipStep(), "gradient-not-finite": SkipStep()}


@pytest.mark.parametrize("at", [0, 3], ids=["first", "later"])
@pytest.mark.parametrize(("kind", "options"), TABLE, ids=lambda value: getattr(value, "__name__", None))
def test_an_update_that_is_left_out_is_an_exact_no_op(tmp_path, kind, options, at):
    model = net()
    optimizer = kind(model.parameters(), **options)
    with Guard(tmp_path / "a", model, optimizer, respond=POLICY) as guard:
        for index in range(6):
            before = everything(model, optimizer)
            update(model, optimizer, index, float("nan") if index == at else 1.0)
            assert same(before, everything(model, optimizer)) == (index == at)
            assert all(p.grad is not None for p in model.parameters())
            optimizer.zero_grad()
    assert [(o.action, o.result, o.step) for o in guard.outcomes] == [("skip-step", "done", at)]
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_table_has_every_class_that_is_trusted():
    assert {kind for kind, _ in TABLE} | {torch.optim.SparseAdam} == set(LEAVES_OUT)


def test_sparse_gradients_are_left_out_too(tmp_path):
    torch.manual_seed(0)
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters())
    with Guard(tmp_path / "a", model, optimizer, respond=POLICY) as guard:
        for index in range(6):
            before = everything(model, optimizer)
            loss = model(torch.tensor([index % 5])).square().sum() * (float("nan") if index == 3 else 1.0)
            loss.backward()
            optimizer.step()
            assert same(before, everything(model, optimizer)) == (index == 3)
            optimizer.zero_grad()
    assert [o.result for o in guard.outcomes] == ["done"]


class Wrapped(SGD):
    """A class of somebody's own, which decays the weights whether there are gradients or not."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(0.5)
        return super().step(closure)


def test_a_class_that_is_not_known_is_declined_unless_it_is_trusted(tmp_path):
    outcomes = {}
    for name, trust in (("unknown", ()), ("trusted", (f"{Wrapped.__module__}.Wrapped",))):
        model = net()
        optimizer = Wrapped(model.parameters(), lr=0.1)
        policy = {"gradient-not-finite": SkipStep(trust=trust)}
        with Guard(tmp_path / name, model, optimizer, respond=policy) as guard:
            for index in range(4):
                update(model, optimizer, index, float("nan") if index == 2 else 1.0)
                optimizer.zero_grad()
        outcomes[name] = [(o.result, o.because) for o in guard.outcomes]
    assert outcomes["unknown"][0][0] == "declined"
    assert f"trust=('{Wrapped.__module__}.Wrapped',)" in outcomes["unknown"][0][1]
    assert [result for result, _ in outcomes["trusted"]] == ["done"]


def test_an_update_with_a_closure_is_declined(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)

    def closure(index):
        optimizer.zero_grad()
        loss = loss_of(model, index, float("nan") if index in (2, 3) else 1.0)
        loss.backward()
        return loss

    with Guard(tmp_path / "a", model, optimizer, respond=POLICY) as guard:
        for index in range(5):
            optimizer.step(lambda index=index: closure(index))
    assert {o.result for o in guard.outcomes} == {"declined"}
    assert "closure" in guard.outcomes[0].because


def test_each_update_for_which_the_finding_holds_is_left_out_and_says_so_in_its_row(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    bad = (2, 3, 4, 7)
    with Guard(tmp_path / "a", model, optimizer, respond=POLICY) as guard:
        for index in range(12):
            update(model, optimizer, index, float("nan") if index in bad else 1.0)
            optimizer.zero_grad()
    assert tuple(o.step for o in guard.outcomes) == bad
    rows = list(Run(tmp_path / "a").rows())
    assert tuple(row.step for row in rows if row.values.get("update_left_out")) == bad
    assert [row.step for row in rows if "loss" in row.values] == list(range(12))


def test_a_fault_that_comes_at_every_update_spends_the_budget_and_stops(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(TrainingStopped, match="came again"),
        Guard(tmp_path / "a", model, optimizer, respond={"*": SkipStep(at_most=3)}) as guard,
    ):
        train(model, optimizer, [1.0, 1.0, *[float("nan")] * 10])
    assert [o.result for o in guard.outcomes if o.action == "skip-step"] == ["done"] * 3
    assert all(p.grad is not None and p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("fused", [False, True])
def test_under_a_scaler_it_is_left_out_inside_the_step(tmp_path, fused):
    model = net()
    optimizer = AdamW(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    policy = {"too-steep": SkipStep()}
    with Guard(tmp_path / "a", model, optimizer, respond=policy, detectors=RULES) as guard:
        for index in range(8):
            before = everything(model, optimizer)
            scaler.scale(loss_of(model, index, 1e7 if index == 5 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            assert same(before, everything(model, optimizer)) == (index == 5)
            optimizer.zero_grad()
    assert [(o.result, o.step) for o in guard.outcomes] == [("done", 5)]
    assert scaler.get_scale() == 256.0

"""A training that is stopped by its patience ends with the weights of its best step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trimtab import Guard, Run, TrainingStopped
from trimtab.actions import EarlyStop, Notify
from trimtab.detectors import DETECTORS, PatienceSpent
from trimtab.judge import replay
from trimtab.patience import Patience

FIVE = Patience(metric="validation/accuracy", better="higher", patience=2, min_delta=0.01)


def course(evaluation):
    """Best at the third evaluation."""
    return (0.5, 0.6, 0.8, 0.79, 0.805, 0.7, 0.9)[evaluation]


def loop(model, optimizer, guard, kept, updates=35):
    """Five updates for each evaluation; `kept` gets the weights at each."""
    for update in range(updates):
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(update))
        F.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
        if guard.allows():
            optimizer.step()
        optimizer.zero_grad()
        if update % 5 == 4:
            kept.append([parameter.detach().clone() for parameter in model.parameters()])
            guard.record(split="validation", accuracy=course(update // 5))


def trained(folder, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    kept = []
    said = ""
    with Guard(folder, model, optimizer, early_stop=FIVE, **options) as guard:
        try:
            loop(model, optimizer, guard, kept)
        except TrainingStopped as stopped:
            said = str(stopped)
    return guard, list(model.parameters()), kept, said


def same(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_it_stops_when_the_patience_is_spent_with_the_weights_of_the_best_evaluation(tmp_path):
    guard, weights, kept, said = trained(tmp_path / "a")
    assert len(kept) == 5
    assert same(weights, kept[2])
    assert "the weights are those of step 14, where validation/accuracy was 0.8" in said
    (outcome,) = guard.outcomes
    assert (outcome.action, outcome.code, outcome.result, outcome.stops) == (
        "early-stop", "patience-spent", "done", True
    )  # fmt: skip


def test_the_run_says_so_and_a_replay_finds_the_same(tmp_path):
    trained(tmp_path / "a")
    run = Run(tmp_path / "a")
    assert run.status == "stopped"
    assert run.config()["trimtab"]["detectors"]["patience-spent"]["patience"]["patience"] == 2
    rules = [replace(d, patience=FIVE) if isinstance(d, PatienceSpent) else d for d in DETECTORS]
    events, _ = replay(rules, run.rows(), run.notes(), run.outcomes())
    assert [(e.code, e.step) for e in events if getattr(e, "event", "") == "opened"] == [("patience-spent", 24)]
    assert [(e.code, e.step) for e in run.findings()] == [("patience-spent", 24)]


@pytest.mark.parametrize(
    ("answer", "place"),
    [(EarlyStop(restore_best=False), 4), (Notify(), 6)],
    ids=["with the last weights", "only told"],
)
def test_another_answer_may_be_given(tmp_path, answer, place):
    _, weights, kept, said = trained(tmp_path / "a", respond={"patience-spent": answer})
    assert len(kept) == place + 1
    assert bool(said) == (place == 4)
    assert same(weights, kept[place])


def test_without_snapshots_it_stops_all_the_same(tmp_path):
    _, weights, kept, said = trained(tmp_path / "a", snapshots=None)
    assert "no best moment was kept" in said
    assert same(weights, kept[4])


def test_it_stands_beside_other_answers(tmp_path):
    guard, weights, kept, _ = trained(tmp_path / "a", respond="safe")
    assert same(weights, kept[2])
    assert [outcome.action for outcome in guard.outcomes] == ["early-stop"]


def test_without_a_patience_nobody_waits(tmp_path):
    with Guard(tmp_path / "a") as guard:
        guard.record(accuracy=0.5)
    assert guard.judge.coverage().unknown["patience-spent"] == "no patience was declared"

"""A run that ended early goes on in its folder, and its weights come to be what they would have been, bit for bit."""

import dataclasses
import itertools
import random
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from trimtab.actions import EarlyStop, Notify, RollBack
from trimtab.batches import Batches
from trimtab.checkpoint import load
from trimtab.checkpoint.rotation import Checkpoints
from trimtab.config import as_dict
from trimtab.detectors import DETECTORS
from trimtab.errors import RunError, UserError
from trimtab.judge import replay
from trimtab.patience import Patience
from trimtab.resume import config_of
from trimtab.run import Run
from trimtab.system import Fault, System, Training
from trimtab.train import train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 23
    lr: float = 0.05
    widths: tuple[int, ...] = (16, 8)
    evaluate_every: int = 5


class Ended(BaseException):
    """What ends a training early."""


def build(config, seed):
    """Return two optimizers, two schedules, dropout, batch statistics, an average, and random numbers of every kind."""
    body = nn.Sequential(nn.Linear(4, config.widths[0]), nn.BatchNorm1d(config.widths[0]), nn.ReLU(), nn.Dropout(0.3))
    model = nn.Sequential(body, nn.Linear(config.widths[0], 1))
    optimizers = {
        "body": torch.optim.AdamW(model[0].parameters(), lr=config.lr),
        "head": torch.optim.SGD(model[1].parameters(), lr=config.lr, momentum=0.9, nesterov=True),
    }
    restarts = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizers["head"], T_0=7)
    average = AveragedModel(model)
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(seed))
    own = np.random.default_rng(seed)

    def schedule(step):
        optimizers["body"].param_groups[0]["lr"] = config.lr / (1 + step / 10)
        restarts.step()
        average.update_parameters(model)

    def loss(model, batch):
        (x,) = batch
        noise = own.normal() + np.random.rand() + random.random()
        return ((model(x) - x.sum(dim=1, keepdim=True) - 0.01 * noise) ** 2).mean()

    def evaluate():
        model.eval()
        with torch.no_grad():
            distance = (average(x) - x.sum(dim=1, keepdim=True)).square().mean().item()
        model.train()
        return {"distance": distance}

    return Training(
        model=model,
        optimizers=optimizers,
        batches=Batches((x,), 8, seed=seed),
        loss=loss,
        evaluate=evaluate,
        better={"distance": "lower"},
        steps=config.steps,
        evaluate_every=config.evaluate_every,
        clip=1.0,
        schedule=schedule,
        parts={"restarts": restarts, "average": average, "own": own},
    )


TOY = System(
    name="toy",
    summary="a straight line",
    presets={"tiny": Config, "reference": lambda: Config(steps=30)},
    build=build,
    faults=(
        Fault(name="too-fast", summary="", change={"lr": 3.0}, expect=("loss-diverging",), causes=("x",), budget=9),
    ),
)


def poisoned(config, seed):
    """Return the training with one batch, the tenth, whose loss is not a number."""
    training = build(config, seed)
    loss, batches = training.loss, training.batches

    def broken(model, batch):
        return loss(model, batch) * (float("nan") if (batches.epoch, batches.position) == (1, 3) else 1.0)

    training.loss = broken
    return training


def trained(folder, *, stop_at=None, build=build, **given):
    """Train TOY, ended after `stop_at` updates; return the run, and the training with its final weights."""
    kept = []

    def keeping(config, seed):
        kept.append(build(config, seed))
        return kept[-1]

    def progress(done, steps, loss):
        if done == stop_at:
            raise Ended

    random.seed(), np.random.seed()  # every training begins with its own seed all the same
    system = dataclasses.replace(TOY, build=keeping)
    try:
        run = train(**{"system": system, "root": folder, "progress": progress, "checkpoint_every": 4, **given})
    except Ended:
        (path,) = folder.iterdir()
        run = Run(path)
    return run, kept[-1]


def everything(training):
    state = training.optimizers["body"].state_dict(), training.optimizers["head"].state_dict()
    parts = {name: part.state_dict() for name, part in training.parts.items() if name != "own"}
    return [*training.model.state_dict().values(), str(state), str(parts)]


def same(one, other):
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(everything(one), everything(other), strict=True)
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("whole"), seed=3)


@pytest.mark.parametrize("stop_at", [2, 4, 14, 22])
def test_a_resumed_training_ends_with_the_same_weights_bit_for_bit(tmp_path, uninterrupted, stop_at):
    first, _ = trained(tmp_path, stop_at=stop_at, seed=3)
    assert first.status == "failed"
    random.seed(1), np.random.seed(1)
    run, training = trained(tmp_path, resume=first)
    assert (run.path, run.status, run.id) == (first.path, "finished", first.id)
    assert same(training, uninterrupted[1])


def test_the_rows_go_on_and_readers_rewind(tmp_path, uninterrupted):
    trained(tmp_path, stop_at=14, seed=3)
    run, _ = trained(tmp_path, resume="last")
    (outcome,) = run.outcomes()
    assert (outcome.action, outcome.result, outcome.changes) == ("resume", "done", "weights")
    assert outcome.to_steps == {"main": 7, "body": 7, "head": 7}
    for stream in ("body", "head"):
        rows = [row for row in run.rows() if row.stream == stream and "loss" in row.values]
        assert [row.step for row in rows] == [*range(14), *range(8, 23)]
        assert [row.attempt for row in rows] == [0] * 14 + [1] * 15
        assert [row.update for row in rows if row.attempt] == [
            row.update for row in uninterrupted[0].rows() if row.stream == stream and row.step >= 8
        ]
        assert all(a.time <= b.time for a, b in itertools.pairwise(rows))
        after = [row.values["loss"] for row in uninterrupted[0].rows() if row.stream == stream and row.step >= 8]
        assert [row.values["loss"] for row in rows if row.attempt] == after
    assert [note.kind for note in run.notes()].count("metric") == 1


def test_a_replay_says_what_the_resumed_run_said(tmp_path):
    trained(tmp_path, stop_at=14, fault="too-fast")
    run, _ = trained(tmp_path, resume="last")
    events, _ = replay(DETECTORS, run.rows(), run.notes(), run.outcomes())
    assert [(e.code, e.step, e.attempt) for e in events] == [(e.code, e.step, e.attempt) for e in run.events()]
    assert {event.attempt for event in run.findings()} == {0, 1}
    opened = [finding.id for finding in run.findings() if finding.event == "opened"]
    assert len(set(opened)) == len(opened)


def test_a_run_can_be_resumed_again_and_again(tmp_path, uninterrupted):
    run, _ = trained(tmp_path, stop_at=3, seed=3)
    for stop_at in (9, 10, 18, None):
        run, training = trained(tmp_path, resume=run, stop_at=stop_at)
    assert same(training, uninterrupted[1])
    assert [one["status"] for one in run.facts.resumed] == ["failed"] * 4
    assert max(row.attempt for row in run.rows()) == 4


def test_the_best_checkpoint_that_is_whole_is_taken(tmp_path, uninterrupted):
    first, _ = trained(tmp_path, stop_at=18, seed=3)
    checkpoints = Checkpoints(first.path / "checkpoints")
    assert [(one.step, one.good) for one in checkpoints.all()] == [(16, False), (12, True), (8, True)]
    weights = checkpoints.all()[1].path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    run, training = trained(tmp_path, resume=first)
    assert run.outcomes()[0].because == "went on after update 8"
    assert same(training, uninterrupted[1])


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    trained(tmp_path, stop_at=9)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    drawn = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    train(TOY, root=tmp_path, resume="last")
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == drawn


def test_a_training_that_is_answered_goes_on_with_what_is_left_of_its_budgets(tmp_path):
    respond = {"loss-diverging": Notify(at_most=2), "*": Notify()}
    first, _ = trained(tmp_path, stop_at=18, fault="too-fast", respond=respond)
    assert {outcome.action for outcome in first.outcomes()} == {"notify"}
    for given, said in [(respond, "went on after update 12"), (None, "; findings are answered otherwise than before")]:
        run, _ = trained(tmp_path, resume=first, respond=given, stop_at=19)
        resumed = [outcome for outcome in run.outcomes() if outcome.action == "resume"]
        assert resumed[-1].because.endswith(said)


@pytest.mark.parametrize("respond", ["safe", {"loss-not-finite": RollBack(), "gradient-not-finite": RollBack()}])
def test_a_training_that_acts_goes_on_with_the_same_weights(tmp_path, respond):
    how = {"respond": respond, "build": poisoned, "seed": 3}
    whole, expected = trained(tmp_path / "whole", **how)
    assert {"skip-step", "roll-back"} & {outcome.action for outcome in whole.outcomes() if outcome.result == "done"}
    first, _ = trained(tmp_path / "cut", stop_at=20, **how)
    run, training = trained(tmp_path / "cut", resume=first, respond=respond, build=poisoned)
    assert run.status == "finished"
    assert run.outcomes()[-1].action == "resume"
    assert same(training, expected)
    rules = [detector for detector in DETECTORS if detector.code in ("loss-not-finite", "gradient-not-finite")]
    events, _ = replay(rules, run.rows(), run.notes(), run.outcomes())
    wanted = [(e.code, e.step, e.attempt) for e in run.events() if e.code in {rule.code for rule in rules}]
    assert [(e.code, e.step, e.attempt) for e in events] == wanted


def test_no_checkpoints_where_none_are_wanted_or_possible(tmp_path):
    run, _ = trained(tmp_path / "a", checkpoint_every=0)
    assert not (run.path / "checkpoints").exists()
    plain = dataclasses.replace(
        TOY,
        build=lambda config, seed: dataclasses.replace(build(config, seed), batches=iter([(torch.ones(8, 4),)] * 99)),
    )
    run = train(plain, root=tmp_path / "b")
    assert not (run.path / "checkpoints").exists()
    with pytest.raises(UserError, match=r"'batches' is a list_iterator.*make the batches with trimtab\.batches"):
        train(plain, root=tmp_path / "b", checkpoint_every=5)


def test_numbers_without_meaning_are_refused_before_anything_is_made(tmp_path):
    for wrong in ({"keep": 0}, {"keep": 2.5}, {"checkpoint_every": -1}, {"checkpoint_every": 1.5}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))}: expected a whole number"):
            train(TOY, root=tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("restore", [True, False])
def test_an_early_stop_leaves_a_checkpoint_of_the_weights_that_it_leaves(tmp_path, restore):
    """The metric is best at update 10; it stops before update 21, where a checkpoint of update 20 was made already."""
    metric = iter([1.0, 0.5, 2.0, 3.0, 4.0])

    def patient(config, seed):
        training = build(config, seed)
        waits = Patience(metric="validation/distance", better="lower", patience=2)
        drawing = training.evaluate  # its average has dropout
        return dataclasses.replace(training, evaluate=lambda: {**drawing(), "distance": next(metric)}, early_stop=waits)

    respond = {"patience-spent": EarlyStop(restore_best=restore)}
    run, training = trained(tmp_path, build=patient, seed=3, respond=respond)
    assert run.status == "stopped"
    newest = Checkpoints(run.path / "checkpoints").all()[0]
    assert newest.step == 20
    again = build(Config(), 0)
    load(newest.path, again.model, name="model")
    stored, left = again.model.state_dict(), training.model.state_dict()
    assert all(torch.equal(stored[name], left[name]) for name in left)
    at_20, _ = trained(tmp_path / "whole", seed=3, keep=9)
    load(at_20.path / "checkpoints" / newest.path.name, again.model, name="model")
    assert all(torch.equal(one, left[name]) for name, one in again.model.named_parameters()) != restore


def test_a_training_that_has_finished_keeps_its_last_checkpoint_and_is_over_when_it_is_gone_on_with(tmp_path):
    def ending(config, seed):
        training = build(config, seed)
        batches = training.batches
        return dataclasses.replace(training, finished=lambda: (batches.epoch, batches.position) >= (1, 3))

    run, _ = trained(tmp_path, build=ending, seed=3)
    assert run.status == "finished"
    assert Checkpoints(run.path / "checkpoints").all()[0].step == 10
    first, _ = trained(tmp_path / "cut", build=ending, seed=3, stop_at=10)
    for older in Checkpoints(first.path / "checkpoints").all()[1:]:
        shutil.rmtree(older.path)
    again, _ = trained(tmp_path / "cut", build=ending, resume=first)
    assert again.status == "finished"
    assert not [row for row in again.rows() if row.attempt == 1 and "loss" in row.values]


def test_about_ten_checkpoints_are_made_and_the_newest_kept(tmp_path):
    run = train(TOY, root=tmp_path)
    assert [one.step for one in Checkpoints(run.path / "checkpoints").all()] == [23, 22, 20]


def test_a_checkpoint_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("trimtab.checkpoint.writing.os.rename", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    run, _ = trained(tmp_path)
    assert run.status == "finished"
    assert "no checkpoint was made after update 4" in caplog.text


def test_the_settings_of_the_run_are_used_and_others_refused(tmp_path):
    run, _ = trained(tmp_path, stop_at=9, preset="reference", overrides=["widths=12,4", "lr=0.03"], seed=5)
    assert config_of(run, TOY) == Config(steps=30, widths=(12, 4), lr=0.03)
    stored = as_dict(config_of(run, TOY))
    for given, said in [
        ({"overrides": ["lr=0.03"]}, "widths: [12, 4] there, [16, 8] here"),
        ({"preset": "tiny"}, "steps: 30 there, 23 here"),
        ({"fault": "too-fast"}, "lr: 0.03 there, 3.0 here"),
        ({"seed": 6}, "has the seed 5, 6 was given"),
        ({"system": dataclasses.replace(TOY, name="other")}, "trained the system 'toy', not 'other'"),
    ]:
        with pytest.raises(UserError) as caught:
            trained(tmp_path, resume=run, **given)
        assert said in str(caught.value)
    run, _ = trained(tmp_path, resume=run, overrides=["widths=12,4", "lr=0.03"], seed=5)
    assert (run.status, run.config()["config"], run.settings()["preset"]) == ("finished", stored, "reference")
    assert max(row.step for row in run.rows()) == 29


def test_what_cannot_be_gone_on_with_is_refused_and_left_as_it_is(tmp_path):
    finished, _ = trained(tmp_path / "a")
    with pytest.raises(RunError, match="has finished; there is nothing to go on with"):
        trained(tmp_path / "a", resume=finished)
    without, _ = trained(tmp_path / "b", stop_at=9, checkpoint_every=0)
    before = {path: path.read_bytes() for path in without.path.rglob("*.json*")}
    with pytest.raises(UserError, match=r"there is no checkpoint in .*checkpoints\. Train anew"):
        trained(tmp_path / "b", resume=without)
    assert {path: path.read_bytes() for path in without.path.rglob("*.json*")} == before
    with pytest.raises(RunError, match="holds no runs"):
        trained(tmp_path / "c", resume="last")
    with pytest.raises(UserError, match="no system was given"):
        train()


def test_a_run_that_is_still_running_is_refused(tmp_path):
    refused = []

    def progress(done, steps, loss):
        if done == 6:
            with pytest.raises(RunError) as caught:
                train(TOY, root=tmp_path, resume="last")
            refused.append(str(caught.value))

    trained(tmp_path, progress=progress)
    assert "is still running, as process" in refused[0]


def test_a_loop_of_your_own_goes_on_exactly(tmp_path):
    from trimtab.checkpoint import TrainingState

    def my_loop(folder, stop_at=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=40)
        x = torch.randn(30, 4)
        batches = Batches((x, x.sum(dim=1, keepdim=True)), 8)
        state = TrainingState({"model": model}, {"main": optimizer}, {"scheduler": scheduler, "batches": batches})
        with Checkpoints(folder, keep=2, good_after=3) as checkpoints:
            for step in range(checkpoints.resume(state) or 0, 40):
                x_BF, y_B1 = next(batches)
                loss = nn.functional.mse_loss(model(x_BF), y_B1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                checkpoints.mark_clean(step + 1, clean=bool(loss.isfinite()))
                if (step + 1) % 5 == 0:
                    checkpoints.save(state, step + 1)
                if step + 1 == stop_at:
                    break
        return model

    my_loop(tmp_path / "a", stop_at=4)
    for stop_at in (13, 14, 31):
        my_loop(tmp_path / "a", stop_at=stop_at)
    resumed, whole = my_loop(tmp_path / "a"), my_loop(tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))

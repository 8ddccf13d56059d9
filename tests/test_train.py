"""train() runs a System under a Guard: an ordinary loop, reproducible, with every setting honoured or refused."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from trimtab.actions import Notify, Stop
from trimtab.compare import OF_THE_MACHINE
from trimtab.detectors._detector import Detector
from trimtab.errors import UserError
from trimtab.milestone import Milestone
from trimtab.records import Severity
from trimtab.system import Fault, System, Training
from trimtab.train import train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 6
    lr: float = 0.2
    clip: float = 1.0
    noise: float = 0.1
    evaluate_every: int = 4


class Watched(nn.Linear):
    """A linear layer that remembers the gradient norm at each update, and what its training was told."""

    def __init__(self):
        super().__init__(3, 1)
        self.norms, self.scheduled, self.evaluated = [], [], 0


def build(config, seed):
    model = Watched()  # draws from the global generator on purpose: train() must have seeded it
    weight, bias = torch.optim.SGD([model.weight], lr=config.lr), torch.optim.SGD([model.bias], lr=config.lr)
    weight.register_step_pre_hook(
        lambda *_: model.norms.append(
            math.hypot(*(gradient.norm() for gradient in (model.weight.grad, model.bias.grad) if gradient is not None))
        )
    )
    generator = torch.Generator().manual_seed(seed)

    def batches():
        while True:
            x = torch.randn(32, 3, generator=generator)
            yield x, x.sum(dim=1, keepdim=True)

    def loss(model, batch):
        x, y = batch
        return ((model(x) - y + config.noise * torch.randn(32, 1)) ** 2).mean()

    def evaluate():
        model.evaluated += 1
        return {"distance": (model.weight - 1).norm().item(), "updates": float(len(model.norms))}

    return Training(
        model=model,
        optimizers={"weight": weight, "bias": bias},
        batches=batches(),
        loss=loss,
        evaluate=evaluate,
        better={"distance": "lower"},
        steps=config.steps,
        evaluate_every=config.evaluate_every,
        clip=config.clip,
        schedule=model.scheduled.append,
    )


TOY = System(
    name="toy",
    summary="a straight line",
    presets={"tiny": Config, "reference": lambda: Config(steps=12)},
    build=build,
    faults=(
        Fault(
            name="no-learning",
            summary="the learning rate is zero",
            change={"lr": 0.0},
            expect=("milestone-missed",),
            causes=("learning-rate-zero",),
            budget=20,
        ),
    ),
    # Every optimizer's updates count, and there are two.
    milestones=lambda config: [Milestone(metric="validation/distance", comparison="<=", value=0.5, by_step=8)],
)


@pytest.fixture
def built(monkeypatch):
    """A System that keeps each Training it builds in the list beside it."""
    kept = []

    def keeping(config, seed):
        kept.append(build(config, seed))
        return kept[-1]

    return dataclasses.replace(TOY, build=keeping), kept


def values_of(run, name, stream=None):
    return [row.values[name] for row in run.rows() if name in row.values and stream in (None, row.stream)]


# --- the loop -------------------------------------------------------------------------------------


def test_a_run_holds_one_row_per_update_of_each_stream(tmp_path):
    run = train(TOY, root=tmp_path)
    steps = {stream: [row.step for row in run.rows() if "loss" in row.values and row.stream == stream]
             for stream in ("weight", "bias")}  # fmt: skip
    assert steps == {"weight": [0, 1, 2, 3, 4, 5], "bias": [0, 1, 2, 3, 4, 5]}
    assert run.status == "finished"


def test_each_update_sees_clipped_gradients_that_are_cleared_afterwards(tmp_path, built):
    system, kept = built
    train(system, root=tmp_path)
    model = kept[0].model
    assert len(model.norms) == 6
    assert max(model.norms) == pytest.approx(1.0, rel=1e-4)
    assert model.weight.grad is None
    assert model.bias.grad is None


def test_the_schedule_is_called_after_each_update(tmp_path, built):
    system, kept = built
    train(system, root=tmp_path)
    assert kept[0].model.scheduled == [0, 1, 2, 3, 4, 5]


def test_evaluations_come_as_often_as_planned_and_at_the_end(tmp_path):
    run = train(TOY, root=tmp_path)
    assert values_of(run, "validation/updates") == [4.0, 6.0]
    run = train(TOY, overrides=["steps=8"], root=tmp_path)
    assert values_of(run, "validation/updates") == [4.0, 8.0]


def done_after(count, **given):
    """TOY, each training of which says after so many updates that it has finished."""

    def ending(config, seed):
        training = build(config, seed)
        return dataclasses.replace(training, finished=lambda: len(training.model.norms) >= count, **given)

    return dataclasses.replace(TOY, build=ending)


def test_a_training_that_has_finished_is_evaluated_once_more_and_takes_no_further_update(tmp_path):
    told = []
    run = train(done_after(5), root=tmp_path, progress=lambda done, *_: told.append(done))
    assert run.status == "finished"
    assert values_of(run, "validation/updates") == [4.0, 5.0]
    assert told == [1, 2, 3, 4, 5]
    assert values_of(train(done_after(4), root=tmp_path), "validation/updates") == [4.0]
    assert values_of(train(done_after(99), root=tmp_path), "validation/updates") == [4.0, 6.0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecondUpdate(Detector):
    """The second update has come."""

    reads: tuple[str, ...] = ("loss",)

    def detect(self, trace):
        if trace.step != 1:
            return None
        return self.finding(trace, severity=Severity.WARNING, summary="", measured=1.0, threshold=0.0)


def test_a_training_may_bring_rules_and_answers_of_its_own_and_what_the_caller_gives_replaces_the_answers(tmp_path):
    system = done_after(6, respond={SecondUpdate.code: Notify()}, detectors=(SecondUpdate(),))
    run = train(system, root=tmp_path)
    assert {(one.action, one.code) for one in run.outcomes()} == {("notify", "second-update")}
    run = train(system, root=tmp_path, respond={SecondUpdate.code: Stop()})
    assert [one.action for one in run.outcomes()] == ["stop"]
    run = train(system, root=tmp_path, respond={})
    assert "second-update" in {finding.code for finding in run.findings()}
    assert run.outcomes() == []


def test_progress_is_told_after_each_update(tmp_path):
    told = []
    run = train(TOY, root=tmp_path, progress=lambda *facts: told.append(facts))
    assert [(step, steps) for step, steps, _ in told] == [(done, 6) for done in range(1, 7)]
    assert [loss for _, _, loss in told] == values_of(run, "loss", "weight")


def test_a_plain_loop_gives_the_same_weights_bit_for_bit(tmp_path, built):
    system, kept = built
    train(system, seed=3, root=tmp_path)
    torch.manual_seed(3)
    plain = build(Config(), 3)
    for batch in itertools.islice(plain.batches, 6):
        plain.loss(plain.model, batch).backward()
        torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 1.0)
        for optimizer in plain.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(kept[0].model.weight, plain.model.weight)
    assert torch.equal(kept[0].model.bias, plain.model.bias)


def test_the_seed_decides_everything_and_the_callers_generator_is_left_alone(tmp_path):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    losses = [values_of(train(TOY, seed=seed, root=tmp_path), "loss") for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_the_same_seed_gives_the_same_rows_when_the_cadence_is_fixed(tmp_path):
    def facts(seed):
        run = train(TOY, seed=seed, root=tmp_path, guard_options={"overhead": None})
        rows = [row for row in run.rows() if "trimtab_seconds" not in row.values]
        values = [{name: v for name, v in row.values.items() if name not in OF_THE_MACHINE} for row in rows]
        return [repr(dataclasses.replace(row, time=0.0, values=v)) for row, v in zip(rows, values, strict=True)]

    assert facts(0) == facts(0) != facts(1)


# --- what is stored -------------------------------------------------------------------------------


def test_the_run_says_what_was_trained_and_how(tmp_path):
    run = train(TOY, preset="reference", fault="no-learning", overrides=["noise=0.5"], seed=7, root=tmp_path)
    assert run.facts.name == "toy-reference-no-learning"
    assert (run.facts.system, run.facts.seed) == ("toy", 7)
    assert run.config()["config"] == {"steps": 12, "lr": 0.0, "clip": 1.0, "noise": 0.5, "evaluate_every": 4}


def test_a_name_and_guard_options_are_passed_on(tmp_path):
    run = train(TOY, name="mine", root=tmp_path, guard_options={"tags": ("a", "b"), "every": 3})
    assert run.facts.name == "mine"
    assert tuple(run.facts.tags) == ("a", "b")
    assert run.config()["trimtab"]["every"] == 3


def test_settings_come_from_the_preset_then_the_file_then_the_overrides(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("lr: 0.2\nnoise: 0.3\n")
    run = train(TOY, preset="reference", config_file=file, overrides=["noise=0.4"], root=tmp_path / "runs")
    config = run.config()["config"]
    assert (config["steps"], config["lr"], config["noise"]) == (12, 0.2, 0.4)


def test_a_stop_ends_the_run_and_not_the_caller(tmp_path):
    run = train(TOY, fault="no-learning", overrides=["steps=40"], root=tmp_path, respond={"milestone-missed": Stop()})
    assert run.status == "stopped"
    assert [outcome.action for outcome in run.outcomes()] == ["stop"]
    assert max(row.step for row in run.rows()) < 39


def test_the_milestones_of_the_system_are_judged(tmp_path):
    healthy = train(TOY, overrides=["steps=12"], root=tmp_path)
    broken = train(TOY, fault="no-learning", overrides=["steps=12"], root=tmp_path)
    assert [finding.code for finding in healthy.findings() if finding.severity >= Severity.WARNING] == []
    assert "milestone-missed" in {finding.code for finding in broken.findings()}


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"system": "separabilty"}, "there is no system 'separabilty'. Did you mean 'separability'?"),
        ({"preset": "tinny"}, "system 'toy' has no preset 'tinny'. Did you mean 'tiny'? Known: reference, tiny"),
        ({"fault": "no-lerning"}, "system 'toy' has no fault 'no-lerning'. Did you mean 'no-learning'?"),
        ({"overrides": ["stepz=3"]}, "Did you mean 'steps'?"),
        (
            {"fault": "no-learning", "overrides": ["lr=0.3"]},
            "the fault 'no-learning' sets lr=0.0; leave lr out of your own settings",
        ),
        ({"respond": {"milestone-mised": Stop()}}, "Did you mean 'milestone-missed'?"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_is_trained(tmp_path, built, call, said):
    system, kept = built
    with pytest.raises(UserError) as caught:
        train(**{"system": system, "root": tmp_path, **call})
    assert said in str(caught.value)
    assert [model.norms for model in (training.model for training in kept)] in ([], [[]])
    assert list(tmp_path.iterdir()) == []

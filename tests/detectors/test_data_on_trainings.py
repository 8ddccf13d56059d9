"""Rules about data, modes, loads and time on real small trainings under a Guard."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.detectors import MemoryGrowing, StepSlowing
from trimtab.guard import Guard
from trimtab.records import Finding, Severity
from trimtab.sensors import Loss, Resources

Batch = tuple[Tensor, Tensor]
CENTRES = torch.randn(4, 8, generator=torch.Generator().manual_seed(7))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def net(dropout: float = 0.2) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(dropout), nn.Linear(24, 4)
    )  # fmt: skip


def mixed(size: int = 32) -> Iterator[Batch]:
    """Four clouds of points, shuffled."""
    while True:
        y = torch.randint(0, 4, (size,))
        yield CENTRES[y] + 0.7 * torch.randn(size, 8), y


def train(
    path,
    model: nn.Module,
    batches: Iterator[Batch],
    *,
    steps: int = 64,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    on_step: Callable[[int], object] = lambda step: None,
    before: Callable[[], object] = lambda: None,
    notes: tuple[str, ...] = (),
) -> dict[str, Finding]:
    """Train under a Guard; return what was opened at warning or above, by code."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Guard(path / "run", model, optimizer, overhead=None) as guard:
        before()
        for kind in notes:
            guard.note(kind, steps=1000)
        for step in range(steps):
            on_step(step)
            x, y = next(batches)
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
    found = [e for e in guard.events if isinstance(e, Finding) and e.event == "opened"]
    return {e.code: e for e in found if e.severity >= Severity.WARNING}


def test_a_healthy_training_raises_none(tmp_path):
    model = net()

    def evaluate(step):
        model.eval()
        if step % 10 == 9:
            with torch.no_grad():
                model(torch.randn(16, 8))
        model.train()

    assert train(tmp_path, model, mixed(), steps=160, on_step=evaluate) == {}


def test_labels_in_order_are_named(tmp_path):
    def in_order() -> Iterator[Batch]:
        y = torch.arange(4).repeat_interleave(160)
        while True:
            for begin in range(0, 640, 32):
                part = y[begin : begin + 32]
                yield CENTRES[part] + 0.7 * torch.randn(32, 8), part

    found = train(tmp_path, net(), in_order())["labels-sorted"]
    assert found.step <= 24
    assert found.evidence["between"] > 0.9


@pytest.mark.parametrize("announced", [False, True])
def test_labels_that_are_shuffled_in_the_middle_are_named_unless_announced(tmp_path, announced):
    def broken() -> Iterator[Batch]:
        for step, (x, y) in enumerate(mixed(64)):
            yield x, (y if step < 100 else y[torch.randperm(len(y))])

    model = net(dropout=0.0)
    found = train(tmp_path, model, broken(), steps=144, notes=("data-change",) if announced else ())
    assert ("labels-unrelated" in found) != announced
    if not announced:
        assert found["labels-unrelated"].since_step == 100


@pytest.mark.parametrize(("scale", "shift"), [(300.0, 1000.0), (255.0, 0.0)])
def test_inputs_without_a_scale_are_named_where_the_loss_feels_it(tmp_path, scale, shift):
    def large() -> Iterator[Batch]:
        for x, y in mixed():
            yield scale * x + shift, y

    plain = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 4))
    assert train(tmp_path / "plain", plain, large(), steps=12)["inputs-unscaled"].step == 0
    assert "inputs-unscaled" not in train(tmp_path / "normalised", net(), large(), steps=12)


def one_hot(of: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda scores, y: of(scores, F.one_hot(y, 4).float())


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (one_hot(F.mse_loss), "one hot under squared"),
        (one_hot(F.binary_cross_entropy_with_logits), "one hot under binary"),
        (lambda scores, y: F.mse_loss(scores[:, :1], y.float() + 0.5), "targets broadcast"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_loss_for_other_targets_is_named(tmp_path, loss, kind):
    found = train(tmp_path, net(), mixed(), steps=12, loss=loss)["loss-does-not-fit-targets"]
    assert (found.step, found.evidence["kind"]) == (1, kind)


def test_updates_in_evaluation_mode_are_named(tmp_path):
    model = net().eval()
    found = train(tmp_path, model, mixed(), steps=40)["modules-in-wrong-mode"]
    assert found.subject == "updates"
    assert found.evidence["modules"] == ("1", "3")
    assert found.step <= 24


def test_normalisations_that_are_frozen_by_themselves_are_meant(tmp_path):
    model = net()
    model[1].eval()
    assert train(tmp_path, model, mixed(), steps=40) == {}


def test_a_part_that_is_frozen_may_stay_in_evaluation_mode(tmp_path):
    model = net()
    model[1].eval().requires_grad_(False)
    model[3].eval()
    model.eval()
    model[4].requires_grad_(True)
    for parameter in (*model[0].parameters(),):
        parameter.requires_grad_(False)
    head = nn.Sequential(model.requires_grad_(False), nn.Linear(4, 4))
    head.train()
    model.eval()
    assert "modules-in-wrong-mode" not in train(tmp_path, head, mixed(), steps=40)


@pytest.mark.parametrize("notes", [(), ("mc-dropout",)])
def test_evaluation_in_training_mode_is_named_unless_announced(tmp_path, notes):
    model = net()

    def evaluate(step):
        if step % 20 == 19:
            with torch.no_grad():
                model(torch.randn(16, 8))

    found = train(tmp_path, model, mixed(), steps=72, on_step=evaluate, notes=notes)
    assert (found["modules-in-wrong-mode"].subject == "evaluation") if not notes else found == {}


def test_a_teacher_in_every_step_is_no_evaluation(tmp_path):
    model = net()

    def teach(step):
        with torch.no_grad():
            model(torch.randn(16, 8))

    assert train(tmp_path, model, mixed(), steps=72, on_step=teach) == {}


def test_names_with_a_prefix_that_load_nothing_are_named(tmp_path):
    model, state = net(), {f"module.{name}": value for name, value in net().state_dict().items()}
    load = lambda: model.load_state_dict(state, strict=False)  # noqa: E731
    found = train(tmp_path, model, mixed(), steps=12, before=load)["weights-lost-after-load"]
    assert found.step <= 2
    assert found.evidence["changed"] == 0.0


def test_a_load_that_fits_raises_none(tmp_path):
    model, state = net(), net().state_dict()
    assert train(tmp_path, model, mixed(), steps=40, before=lambda: model.load_state_dict(state)) == {}


def test_first_weights_loaded_in_the_middle_are_named(tmp_path):
    model = net(dropout=0.0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    load = lambda step: model.load_state_dict(state) if step == 80 else None  # noqa: E731
    found = train(tmp_path, model, mixed(64), steps=112, on_step=load)["weights-lost-after-load"]
    assert found.since_step in (79, 80)


def test_large_first_weights_of_a_regression_are_told_at_the_first_step(tmp_path):
    def pairs() -> Iterator[Batch]:
        while True:
            x = torch.randn(32, 8)
            yield x, x[:, :1] - x[:, 1:2]

    model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 1))
    assert train(tmp_path / "fine", model, pairs(), steps=12, loss=F.mse_loss) == {}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(12)
    assert train(tmp_path / "large", model, pairs(), steps=2, loss=F.mse_loss)["loss-far-from-chance"].step == 0


class Long:
    """A long training of which nothing but time and memory is looked at, with a clock of its own."""

    def __init__(self, seconds: Callable[[int], float]):
        self.step, self.time, self.seconds = 0, 0.0, seconds

    def run(self, path, steps, rule, on_step=lambda step: None) -> list[Finding]:
        model = nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        sensors = (Loss(), Resources(clock=lambda: self.time))
        with Guard(path / "run", model, optimizer, overhead=None, sensors=sensors, detectors=(rule,)) as guard:
            for step in range(steps):
                on_step(step)
                optimizer.zero_grad()
                model(torch.ones(4, 8)).square().mean().backward()
                self.time += self.seconds(step)
                optimizer.step()
        return [e for e in guard.events if isinstance(e, Finding) and e.event == "opened"]


def test_steps_that_take_longer_and_longer_are_named(tmp_path):
    (found,) = Long(lambda step: 0.004 + 2e-5 * step).run(tmp_path / "slower", 900, StepSlowing())
    assert found.severity == Severity.WARNING
    assert found.step < 800
    assert Long(lambda step: 0.004).run(tmp_path / "steady", 900, StepSlowing()) == []


def test_tensors_that_pile_up_are_named(tmp_path):
    kept = []
    pile = lambda step: kept.append(torch.ones(250_000))  # noqa: E731
    (found,) = Long(lambda step: 0.01).run(tmp_path, 700, MemoryGrowing(), pile)
    assert found.evidence["bytes_per_step"] == pytest.approx(1e6, rel=0.3)

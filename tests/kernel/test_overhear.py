"""What a program logs, and its loss under no_grad, become rows; the program itself notices nothing."""

import pickle
import sys
import time
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trimtab import Guard, Run
from trimtab.overhear import EVALUATION, Overheard, _wrap_loss

LOSSES = {
    "cross_entropy": (torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])),
    "nll_loss": (torch.randn(6, 3).log_softmax(-1), torch.tensor([0, 1, 2, 0, 1, 2])),
    "binary_cross_entropy": (torch.rand(6), torch.rand(6)),
    "binary_cross_entropy_with_logits": (torch.randn(6), torch.rand(6)),
    "mse_loss": (torch.randn(6), torch.randn(6)),
    "l1_loss": (torch.randn(6), torch.randn(6)),
    "smooth_l1_loss": (torch.randn(6), torch.randn(6)),
    "huber_loss": (torch.randn(6), torch.randn(6)),
}


@pytest.fixture
def overheard():
    one = Overheard()
    one.start()
    yield one
    one.stop()


@pytest.mark.parametrize("name", LOSSES)
def test_the_training_loss_under_no_grad_is_an_evaluation(overheard, name):
    loss = getattr(F, name)
    output, target = LOSSES[name]
    with torch.no_grad():
        loss(output, target.clone())  # not seen in training yet: it says nothing
    loss(output.clone().requires_grad_(), target)
    with torch.no_grad():
        values = [loss(output * scale, target.clone()).item() for scale in (0.9, 0.8)]
    assert overheard.take(1) == {EVALUATION: pytest.approx(sum(values) / 2)}
    assert overheard.take(2) == {}


def test_only_the_kind_and_reduction_of_the_training_counts_and_not_its_own_batch(overheard):
    output, target = torch.randn(4, requires_grad=True), torch.randn(4)
    F.mse_loss(output, target)
    with torch.no_grad():
        F.l1_loss(output, target.clone())
        F.mse_loss(output, target.clone(), reduction="sum")
        F.mse_loss(output, target)  # a number about the batch in training, for a person to read
    assert overheard.take(1) == {}
    with torch.inference_mode():
        inside = F.mse_loss(output, target.clone())
    assert overheard.take(9) == {EVALUATION: pytest.approx(inside.item())}


def test_what_comes_at_every_step_is_taken_once_in_eight_and_what_is_not_finite_always(overheard):
    taken = {}
    for step in range(20):
        overheard.hear({"train/loss": torch.tensor(1.0) if step != 5 else float("nan"), "words": "no number"})
        taken[step] = overheard.take(step)
    assert [step for step, values in taken.items() if values] == [0, 5, 14]
    assert all(list(values) in ([], ["train/loss"]) for values in taken.values())


def test_a_tag_without_a_slash_cannot_take_the_name_of_a_signal(overheard):
    overheard.hear({"loss": 1.0, "val/loss": 2.0, "flags": True, "many": torch.ones(3)})
    assert overheard.take(0) == {"logged/loss": 1.0, "val/loss": 2.0}


def test_everything_is_restored_and_pickles_scripts_and_compiles_meanwhile(overheard):
    assert pickle.loads(pickle.dumps(F.cross_entropy)) is F.cross_entropy
    for name, (output, target) in LOSSES.items():
        loss = getattr(F, name)
        compiled = torch.compile(lambda a, b, loss=loss: loss(a, b), backend="aot_eager", fullgraph=True)
        assert compiled(output, target).item() == pytest.approx(loss(output, target).item())
    overheard.stop()
    assert not hasattr(torch._C._nn.cross_entropy_loss, "_trimtab")
    assert not hasattr(torch.binary_cross_entropy_with_logits, "_trimtab")


def test_the_wrapper_costs_a_training_call_next_to_nothing(overheard):
    class Result:
        requires_grad = True

    target, result = torch.zeros(1), Result()

    def bare(*args):
        return result

    wrapped = _wrap_loss(bare, name="mse_loss", place=2)
    costs = []
    for _ in range(20):
        times = []
        for call in (bare, wrapped):
            begin = time.process_time()
            for _ in range(5000):
                call(target, target, 1)
            times.append(time.process_time() - begin)
        costs.append((times[1] - times[0]) / 5000)
    assert min(costs) < 1.5e-6  # measured: see the module; a busy machine is several times slower


class SummaryWriter:
    """The shape of the real one's call; the package is not needed for it."""

    def __init__(self):
        self.written = []

    def add_scalar(self, tag, scalar_value, global_step=None, walltime=None):
        self.written.append((tag, scalar_value, global_step))


class WandbRun:
    def __init__(self):
        self.logged = []

    def log(self, data, step=None):
        self.logged.append(data)


@pytest.fixture
def modules(monkeypatch):
    """Modules of the same shape as TensorBoard's and wandb's, imported only by the training itself."""
    writer = types.ModuleType("torch.utils.tensorboard.writer")
    copy = type("SummaryWriter", (SummaryWriter,), {"add_scalar": SummaryWriter.add_scalar})
    vars(writer)["SummaryWriter"] = copy
    wandb, inner = types.ModuleType("wandb"), types.ModuleType("wandb.sdk.wandb_run")
    vars(inner)["Run"] = type("Run", (WandbRun,), {"log": WandbRun.log})

    def arrive():
        for module in (writer, wandb, inner):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return writer, wandb, inner

    return arrive


def test_a_whole_training_is_overheard_and_trains_the_same(tmp_path, modules):
    def train(watched):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        guard = Guard(tmp_path / "run", model, optimizer) if watched else None
        writer_module, wandb, inner = modules()
        writer, run = writer_module.SummaryWriter(), inner.Run()
        validation = torch.randn(8, 4), torch.randint(0, 3, (8,))
        for step in range(40):
            x, y = torch.randn(16, 4), torch.randint(0, 3, (16,))
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if step == 1:
                wandb.log = run.log  # as wandb.init does
            if (step + 1) % 10 == 0:
                with torch.no_grad():
                    value = F.cross_entropy(model(validation[0]), validation[1])
                writer.add_scalar("val/loss", value, step)
                wandb.log({"val/copy": value.item(), "epoch": step // 10})
        if guard is not None:
            guard.close()
        return [p.detach().clone() for p in model.parameters()], writer, run, guard, writer_module.SummaryWriter

    weights, writer, run, guard, kind = train(True)
    again, *_ = train(False)
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert len(writer.written) == len(run.logged) == 4
    assert not hasattr(kind.add_scalar, "_trimtab")
    rows = [row for row in Run(guard.run_path).rows() if EVALUATION in row.values]
    assert [row.step for row in rows] == [9, 19, 29, 39]
    for row in rows:
        assert row.values["val/loss"] == row.values["val/copy"] == row.values[EVALUATION]
        assert "logged/epoch" in row.values
    notes = [note for note in guard.history.notes if note.kind == "metric"]
    assert [(note.text, note.facts) for note in notes] == [(EVALUATION, {"better": "lower"})]


def test_the_real_tensorboard_is_overheard(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    one = Overheard()
    one.start()
    with tensorboard.SummaryWriter(tmp_path) as writer:
        writer.add_scalar("val/accuracy", 0.5, 3)
    assert one.take(0) == {"val/accuracy": 0.5}
    one.stop()
    assert not hasattr(tensorboard.SummaryWriter.add_scalar, "_trimtab")


def test_the_mean_of_many_losses_of_few_bits(overheard):
    target = torch.zeros(4, dtype=torch.bfloat16)
    output = torch.full((4,), 1.5, dtype=torch.bfloat16)
    F.mse_loss(output.clone().requires_grad_(), target)
    with torch.no_grad():
        for _ in range(1000):
            F.mse_loss(output, target.clone())
    assert overheard.take(1) == {EVALUATION: pytest.approx(2.25)}


def test_the_wrappers_leave_the_table_of_scripting(overheard):
    from torch.jit import _builtins

    wrapper = id(torch._C._nn.mse_loss)
    assert _builtins._get_builtin_table()[wrapper] == "aten::mse_loss"
    overheard.stop()
    assert wrapper not in _builtins._get_builtin_table()

"""Rows of real small trainings: each number against the slow obvious way to get it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trimtab import attach
from trimtab.measure import Measure
from trimtab.sensors import SENSORS


class Watched:
    """Attaches a Measure and collects its rows."""

    def __init__(self, **options):
        self.rows, self.failures = [], []
        options = {"overhead": None, "every": 1, **options}
        sensors = options.pop("sensors", SENSORS)
        self.measure = Measure(sensors, self.rows.append, lambda *what: self.failures.append(what), **options)

    def __getattr__(self, name):
        return getattr(self.measure, name)

    def weights_loaded(self, module, missing, unexpected, changed):
        pass

    def broke(self, where, error):
        raise AssertionError(f"{where} raised") from error

    def __enter__(self):
        attach.attach(self)
        return self

    def __exit__(self, *_):
        attach.detach(self)
        self.measure.flush()
        assert not self.failures

    def values(self, name, stream="main"):
        return [row.values[name] for row in self.rows if row.stream == stream and name in row.values]


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def batch(index=0, rows=16):
    generator = torch.Generator().manual_seed(index)
    return torch.randn(rows, 6, generator=generator), torch.randint(0, 3, (rows,), generator=generator)


def test_norms_losses_and_updates_agree_with_the_slow_obvious_way():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    slow = []
    with Watched(models=[model], optimizers={"main": optimizer}) as seen:
        for index in range(5):
            x, y = batch(index)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            norms = [p.grad.norm().item() for p in model.parameters()]
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.step()
            moved = [(p.detach() - b).norm().item() for p, b in zip(model.parameters(), before, strict=True)]
            weight = torch.cat([b.reshape(-1) for b in before]).norm().item()
            slow.append((loss.item(), norms, moved, weight))
            optimizer.zero_grad()
    assert len(seen.rows) == 5
    for row, (loss, norms, moved, weight) in zip(seen.rows, slow, strict=True):
        assert row.values["loss"] == loss
        assert row.values["gradient_norms"] == pytest.approx(norms, rel=1e-5)
        assert row.values["gradient_norm"] == pytest.approx(math.hypot(*norms), rel=1e-5)
        assert row.values["update_norms"] == pytest.approx(moved, rel=1e-4)
        assert row.values["update_ratio"][0] == pytest.approx(math.hypot(*moved) / weight, rel=1e-4)
        assert row.values["learning_rate"] == (0.01,)
    assert seen.rows[-1].labels["gradient_norms"] == ("0.weight", "0.bias", "2.weight", "2.bias")


def test_nothing_has_to_be_handed_over():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watched() as seen:
        x, y = batch()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert seen.rows[0].labels["gradient_norms"] == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert seen.values("parameter_held") == [(1.0, 1.0, 1.0, 1.0)]


def test_the_gradient_norm_is_the_one_before_clipping_and_the_applied_one_the_one_after():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watched() as seen:
        for index in range(2):
            x, y = batch(index)
            (100 * F.cross_entropy(model(x), y)).backward()
            raw = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            assert seen.values("gradient_norm")[index] == pytest.approx(raw, rel=1e-5)
    assert seen.values("gradient_norm_applied") == pytest.approx([0.5, 0.5], rel=1e-3)
    assert seen.values("clipped") == [1.0, 1.0]


def test_under_a_loss_scale_loss_and_norms_are_the_unscaled_ones():
    model, twin = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x, y = batch()
    with Watched(models=[model]) as seen:
        loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    plain = F.cross_entropy(twin(x), y)
    plain.backward()
    assert seen.values("loss") == [plain.item()]
    assert seen.values("gradient_norms")[0] == pytest.approx(
        [p.grad.norm().item() for p in twin.parameters()], rel=1e-4
    )


def test_clipping_without_unscaling_first_still_gives_the_unscaled_norm():
    model, twin = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x, y = batch()
    with Watched(models=[model], optimizers={"main": optimizer}) as seen:
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        scaler.step(optimizer)
    F.cross_entropy(twin(x), y).backward()
    expected = torch.nn.utils.get_total_norm([p.grad for p in twin.parameters()]).item()
    assert seen.values("gradient_norm") == [pytest.approx(expected, rel=1e-4)]


def test_an_update_that_the_scaler_skips_is_a_row_that_says_so():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    x, y = batch()
    with Watched() as seen:
        for step in range(3):
            loss = F.cross_entropy(model(x), y)
            scaler.scale(loss * (float("inf") if step == 0 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert [row.values.get("update_skipped", 0.0) for row in seen.rows] == [1.0, 0.0, 0.0]
    assert [row.step for row in seen.rows] == [0, 1, 2]


def test_accumulation_gives_one_row_with_the_mean_loss_and_is_not_carrying():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    with Watched() as seen:
        for update in range(3):
            for part in range(4):
                x, y = batch(4 * update + part)
                loss = F.cross_entropy(model(x), y) / 4
                loss.backward()
                losses.append(loss.item())
            optimizer.step()
            optimizer.zero_grad()
    assert seen.values("backward_calls") == [4.0, 4.0, 4.0]
    assert seen.values("loss")[0] == pytest.approx(sum(losses[:4]) / 4, rel=1e-6)
    assert seen.values("gradients_carried") == [0.0, 0.0]


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("forget", [True, False])
def test_a_missing_zero_grad_is_told_by_the_version_of_the_gradient(forget, set_to_none):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    with Watched() as seen:
        for index in range(4):
            x, y = batch(index)
            F.cross_entropy(model(x), y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if not forget:
                optimizer.zero_grad(set_to_none=set_to_none)
    assert seen.values("gradients_carried") == [float(forget)] * 3


def test_two_optimizers_of_a_gan_are_two_streams_with_their_own_losses():
    torch.manual_seed(0)
    maker, critic = nn.Linear(2, 3), nn.Linear(3, 1)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)
    maker_optimizer = torch.optim.Adam(maker.parameters(), lr=0.01)
    with Watched() as seen:
        for index in range(6):
            noise = torch.randn(8, 2, generator=torch.Generator().manual_seed(index))
            critic_optimizer.zero_grad()
            critic_loss = critic(maker(noise).detach()).mean()
            critic_loss.backward()
            critic_optimizer.step()
            maker_optimizer.zero_grad()
            maker_loss = -critic(maker(noise)).mean()
            maker_loss.backward()
            maker_optimizer.step()
    streams = sorted({row.stream for row in seen.rows})
    assert len(streams) == 2
    for stream in streams:
        rows = [row for row in seen.rows if row.stream == stream]
        assert [row.step for row in rows] == list(range(6))
        assert all(value == 0.0 for value in seen.values("gradients_carried", stream))
    critic_stream = next(row.stream for row in seen.rows if "Linear2" not in str(row.stream))
    assert sorted(row.update for row in seen.rows) == list(range(12))
    assert critic_stream in streams


def test_one_backward_that_two_optimizers_share_counts_for_both():
    model = net()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with Watched(models=[model], optimizers={"first": first, "second": second}) as seen:
        x, y = batch()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        first.step()
        second.step()
    assert seen.values("loss", "first") == seen.values("loss", "second") == [loss.item()]


def test_a_closure_is_measured_after_it_ran():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    x, y = batch()

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with Watched() as seen:
        for _ in range(3):
            optimizer.step(closure)
    assert len(seen.rows) == 3
    assert all(value > 1 for value in seen.values("backward_calls"))
    assert all(value == 0.0 for value in seen.values("gradients_carried"))
    assert all(norm > 0 for norm in seen.values("gradient_norm"))
    assert all(ratio[0] > 0 for ratio in seen.values("update_ratio"))


def test_a_batch_is_known_again_and_another_one_is_not():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watched() as seen:
        for index in (0, 0, 1, 0):
            x, y = batch(index)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    for name in ("target_fingerprint", "input_fingerprint"):
        first, again, other, back = seen.values(name)
        assert first == again == back != other
    assert seen.values("batch_rows") == [16.0] * 4


def test_the_rows_behind_the_loader_are_known():
    data = torch.utils.data.TensorDataset(*batch(rows=64))
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watched() as seen:
        for x, y in loader:
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert seen.values("loader_rows") == [64.0] * 4


def test_the_place_of_a_nan_in_one_gradient_is_named():
    model = net()
    model[2].weight.register_hook(lambda gradient: gradient * float("nan"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watched(every=64) as seen:
        x, y = batch()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    row = seen.rows[0]
    shares = dict(zip(row.labels["nonfinite_share"], row.values["nonfinite_share"], strict=True))
    assert shares == {"0.weight": 0.0, "0.bias": 0.0, "2.weight": 1.0, "2.bias": 0.0}
    assert row.values["nonfinite_weights"] == 0.0
    assert math.isnan(row.values["gradient_norm"])
    assert math.isfinite(row.values["loss"])


def test_thin_rows_leave_out_the_vectors_and_a_row_in_trouble_has_them():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watched(every=1000) as seen:
        for index in range(60):
            x, y = batch(index)
            loss = F.cross_entropy(model(x), y) * (float("nan") if index == 50 else 1.0)
            loss.backward()
            if index == 50:
                optimizer.zero_grad()
                for p in model.parameters():
                    p.grad = torch.zeros_like(p)
            optimizer.step()
            optimizer.zero_grad()
    full = [row.step for row in seen.rows if "gradient_norms" in row.values]
    assert full == [*range(32), *range(50, 59)]


def test_a_new_parameter_group_gets_its_name_and_its_place():
    model = net()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with Watched() as seen:
        for index in range(2):
            x, y = batch(index)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if index == 0:
                optimizer.add_param_group({"params": list(model[2].parameters()), "lr": 0.5, "name": "head"})
    first, second = seen.rows
    assert first.values["parameter_held"] == (1.0, 1.0, 0.0, 0.0)
    assert second.values["parameter_held"] == (1.0, 1.0, 1.0, 1.0)
    assert second.labels["learning_rate"] == ("0", "head")
    assert second.labels["gradient_norms"] == ("0.weight", "0.bias", "2.weight", "2.bias")


def test_sparse_gradients_are_measured():
    torch.manual_seed(0)
    table = nn.Embedding(20, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.01)
    with Watched() as seen:
        table(torch.tensor([1, 1, 3])).sum().backward()
        expected = table.weight.grad.to_dense().norm().item()
        optimizer.step()
    assert seen.values("gradient_norm") == [pytest.approx(expected, rel=1e-6)]


def test_a_sensor_that_raises_is_left_out_and_the_others_go_on():
    class Broken:
        name, points, tier, axes, sparse, copies_weights = "broken", ("before",), "step", {}, (), False

        def read(self, live):
            raise RuntimeError("planted")

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watched = Watched(sensors=(*SENSORS, Broken()))
    attach.attach(watched)
    for index in range(2):
        x, y = batch(index)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    attach.detach(watched)
    assert [(part, str(error)) for part, error, _ in watched.failures] == [("sensor broken", "planted")]
    assert len(watched.rows) == 2


def test_measuring_every_step_changes_no_weight_and_no_random_number():
    def weights(watched):
        model = net()
        model.insert(1, nn.Dropout(0.5))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        loop = Watched() if watched else None
        if loop is not None:
            attach.attach(loop)
        for index in range(20):
            x, y = batch(index)
            F.cross_entropy(model(x), y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if loop is not None:
            attach.detach(loop)
        return [p.detach().clone() for p in model.parameters()], torch.rand(1)

    (bare, after_bare), (seen, after_seen) = weights(False), weights(True)
    assert all(torch.equal(a, b) for a, b in zip(bare, seen, strict=True))
    assert torch.equal(after_bare, after_seen)


def test_rows_that_come_later_from_a_device_are_the_rows_that_are_read_at_once(monkeypatch):
    """The asynchronous way of an accelerator, on a CPU: each row is handed on one step later, under its own step."""

    def rows(later):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        watched = Watched(models=[model], optimizers={"main": optimizer}, every=8)
        if later:
            monkeypatch.setattr(watched.measure, "_waits", lambda stream: True)
        late = []
        with watched as seen:
            for index in range(50):
                x, y = batch(index)
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
                late.append(index + 1 - len(seen.rows))
        return watched.rows, late

    at_once, none_late = rows(later=False)
    delayed, late = rows(later=True)
    assert set(none_late) == {0}
    assert set(late) <= {1, 2}
    assert [row.step for row in delayed] == [row.step for row in at_once] == list(range(50))
    for one, other in zip(at_once, delayed, strict=True):
        assert _of_the_training(one.values) == _of_the_training(other.values)


def test_a_nan_that_comes_later_from_a_device_still_brings_its_vectors(monkeypatch):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watched = Watched(models=[model], optimizers={"main": optimizer}, every=8)
    monkeypatch.setattr(watched.measure, "_waits", lambda stream: True)
    with watched as seen:
        for index in range(45):
            x, y = batch(index)
            (F.cross_entropy(model(x), y) * (float("nan") if index == 40 else 1.0)).backward()
            optimizer.step()
            optimizer.zero_grad()
    row = seen.rows[40]
    assert math.isnan(row.values["loss"])
    assert all(math.isnan(norm) for norm in row.values["gradient_norms"])


def _of_the_training(values):
    """Leave out what differs between two equal trainings: what the machine was doing."""
    return {name: value for name, value in values.items() if name not in ("memory_bytes", "step_seconds")}


def test_the_scale_of_a_grad_scaler_stands_in_no_fact_about_the_loss():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Watched(models=[model], optimizers={"main": optimizer}) as watched:
        for index in range(3):
            x, y = batch(index)
            optimizer.zero_grad()
            scores = model(x)
            loss = (
                F.cross_entropy(scores, y) + F.mse_loss(scores, torch.zeros(16, 3))
                if index
                else F.cross_entropy(scores, y)
            )
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert watched.values("chance_level")[0] == pytest.approx(math.log(3))
    assert watched.values("parameter_reached")[0] == (1.0,) * 4
    assert sum(watched.values("loss_parts")[0]) == pytest.approx(watched.values("loss")[1], rel=1e-5)


def test_complex_weights_and_inputs_are_measured():
    weight = nn.Parameter(torch.randn(6, 3, dtype=torch.cfloat))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    with Watched(models=[], optimizers={"main": optimizer}) as watched:
        for index in range(3):
            optimizer.zero_grad()
            (batch(index)[0].cfloat() @ weight).abs().square().mean().backward()
            optimizer.step()
    assert all(math.isfinite(norm) for norm in watched.values("gradient_norm"))
    assert len(set(watched.values("input_fingerprint"))) == 3


def test_a_graph_whose_layers_cannot_be_read_costs_the_layers_alone(monkeypatch):
    def broken(node, names):
        raise RuntimeError("unknown tensor")

    monkeypatch.setattr("trimtab.graph.layers", broken)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watched(models=[model], optimizers={"main": optimizer}) as watched:
        for index in range(3):
            x, y = batch(index)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        failed = [part for part, _, _ in watched.failures]
        watched.failures.clear()
    assert failed == ["reading the layers"]
    assert len(watched.values("loss")) == 3

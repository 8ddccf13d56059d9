"""A load that is refused late takes everything back, and verifying a metric leaves nothing behind."""

import pytest
import torch
from torch import nn

from tests.checkpoint.kit import kept, same
from trimtab.checkpoint import load, save
from trimtab.errors import CheckpointError, UserError


class Remembers(nn.Module):
    """Keeps a tensor and a number beside its state_dict, as quantised layers do."""

    def __init__(self, refuses=False):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self._seen, self._refuses = torch.zeros(2), refuses

    def get_extra_state(self):
        return {"seen": self._seen, "times": 1}

    def set_extra_state(self, state):
        self._seen = state["seen"]
        if self._refuses and float(self._seen.sum()):
            raise RuntimeError("not mine")


def remembering(tmp_path, **given):
    model = nn.Sequential(nn.ReLU(), Remembers())
    model[1]._seen = torch.ones(2)
    return save(tmp_path / "a", model, **given), model


def test_what_modules_keep_beside_their_tensors_is_loaded(tmp_path):
    path, model = remembering(tmp_path)
    other = nn.Sequential(nn.ReLU(), Remembers())
    load(path, other)
    assert same(kept(other), kept(model))
    assert torch.equal(other[1]._seen, torch.ones(2))
    moved = nn.Sequential(Remembers())
    load(path, moved, rename={"1.*": "0.*"}, override={"class.*": ...})
    assert torch.equal(moved[0]._seen, torch.ones(2))
    plain = nn.Sequential(nn.ReLU(), nn.ModuleDict({"inner": nn.Linear(2, 2)}))
    assert "no module here takes it" in load(path, plain, override={"class.*": ...}).not_compared[-1]


def test_a_module_that_refuses_what_it_kept_leaves_the_model_as_it_was(tmp_path):
    path, _ = remembering(tmp_path)
    other = nn.Sequential(nn.ReLU(), Remembers(refuses=True))
    before = kept(other)
    with pytest.raises(CheckpointError, match="set_extra_state of this model refuses: RuntimeError: not mine"):
        load(path, other)
    assert same(kept(other), before)
    assert torch.equal(other[1]._seen, torch.zeros(2))


def test_a_refused_metric_takes_everything_back(tmp_path):
    path, _ = remembering(tmp_path, metrics={"a": 1.0})
    other = nn.Sequential(nn.ReLU(), Remembers())
    before = kept(other)
    with pytest.raises(CheckpointError, match="does not come out again"):
        load(path, other, verify=lambda _: 2.0)
    assert same(kept(other), before)
    assert torch.equal(other[1]._seen, torch.zeros(2))
    with pytest.raises(CheckpointError, match="expected a number for 'a', got None"):
        load(path, other, verify=lambda _: None)  # type: ignore[return-value]  # what is tested


def test_verifying_changes_nothing(tmp_path):
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    path = save(tmp_path / "a", model, metrics={"a": 1.0})
    other = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    random = torch.get_rng_state()

    def evaluate(model):
        model(torch.randn(8, 2))  # in training mode, so that the running statistics move
        model.eval()
        return 1.0

    load(path, other, verify=evaluate)
    assert same(kept(other), kept(model))
    assert all(module.training for module in other.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_what_has_no_memory_yet_is_refused(tmp_path):
    path = save(tmp_path / "a", nn.Linear(2, 2))
    with torch.device("meta"):
        empty = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"'weight' of this Linear is on the meta device.*to_empty"):
        load(path, empty)
    with pytest.raises(UserError, match="'weight' is a lazy parameter"):
        load(path, nn.LazyLinear(2))

"""A model is made again from its stored constructor, and a stored metric computed again."""

import dataclasses

import pytest
import torch
from torch import nn

from tests.checkpoint.kit import Small, TwoProjections, kept, same
from trimtab.checkpoint import Constructor, Measured, load, plan, rebuild, save
from trimtab.errors import CheckpointError, UserError


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    model = Constructor.of(TwoProjections).build()
    return save(tmp_path / "a", model), model


def test_a_model_is_rebuilt_from_its_constructor(saved):
    path, model = saved
    seen = [rebuild(path) for _ in range(5)]
    assert all(same(kept(model), kept(one)) for one in seen)
    assert all(type(one) is TwoProjections for one in seen)


@dataclasses.dataclass(frozen=True)
class Settings:
    size: int
    shape: tuple[int, ...] = (1, 2)


class Composed(nn.Module):
    def __init__(self, settings, /, inner, *sizes, activation=nn.ReLU, **more):
        super().__init__()
        self.settings, self.inner, self.activation, self.more = settings, inner, activation(), more
        self.layers = nn.ModuleList(nn.Linear(settings.size, size) for size in sizes)


def test_constructors_take_dataclasses_classes_and_further_constructors(tmp_path):
    made = Constructor.of(Composed, Settings(3), Constructor.of(nn.Linear, 2, 2), 4, 5, activation=nn.SiLU, extra=None)
    model = made.build()
    assert isinstance(model.inner, nn.Linear)
    back = rebuild(save(tmp_path / "a", model), allow=[__name__])
    assert back.settings == Settings(3)
    assert isinstance(back.activation, nn.SiLU)
    assert back.more == {"extra": None}
    assert same(kept(model), kept(back))
    other = Constructor.of(Composed, Settings(3, (1, 3)), Constructor.of(nn.Linear, 2, 2), 4, 5).build()
    keys = {one.key for one in plan(tmp_path / "a", other).settings}
    assert {"settings.shape", "activation", "extra"} <= keys


@pytest.mark.parametrize("argument", [print, torch.ones(2), object(), lambda: 0])
def test_an_argument_that_cannot_be_stored_is_told_at_once(argument):
    with pytest.raises(UserError, match="kind"):
        Constructor.of(Small, kind=argument)
    with pytest.raises(UserError, match="unexpected keyword"):
        Constructor.of(Small, unknown=1)


@pytest.mark.parametrize(
    ("class_name", "words"),
    [
        ("os:system", "no class"),
        ("subprocess:Popen", "no class of modules"),
        ("some_module_that_is_not_there:Net", "not imported"),
        ("torch.fx.graph_module:GraphModule", "no class of modules"),
        ("tests.checkpoint.kit:Missing", "no class 'Missing'"),
        ("tests.checkpoint.kit:Small.forward", "no class"),
        ("tests.checkpoint.kit:nn.Module", "no class"),
    ],
)
def test_only_classes_of_modules_that_are_known_are_called(tmp_path, class_name, words):
    stored = dataclasses.replace(Constructor.of(Small), class_name=class_name, kind=None)
    with pytest.raises(CheckpointError, match=words):
        stored.build()


def test_a_checkpoint_without_a_constructor_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"save with build=Constructor.of"):
        rebuild(save(tmp_path / "a", Small()))


def test_a_class_that_has_changed_since_is_told(tmp_path, monkeypatch):
    path = save(tmp_path / "a", Constructor.of(Small).build())
    real = Small.__init__

    def grown(self, *args, **kwargs):
        real(self, *args, **kwargs)
        self.more = nn.Linear(1, 1)

    monkeypatch.setattr(Small, "__init__", grown)
    with pytest.raises(CheckpointError, match="the class has changed since"):
        rebuild(path)


def test_a_stored_metric_is_computed_again(tmp_path):
    model = Constructor.of(TwoProjections).build()
    path = save(tmp_path / "a", model, metrics={"hierarchy": Measured(value=-0.8162, noise=0.01)})
    rebuild(path, verify=lambda model: -0.8170)
    with pytest.raises(CheckpointError, match=r"stored -0.8162 .*now 0.74"):
        rebuild(path, verify=lambda model: 0.74)
    other = Constructor.of(TwoProjections).build()
    before = kept(other)
    for wrong in (lambda model: float("nan"), {"other": lambda model: 0.0}):
        with pytest.raises(CheckpointError):
            load(path, other, verify=wrong)
        assert same(before, kept(other))

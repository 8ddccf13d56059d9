"""What a training of SCI-Loop records goes on where it stopped, and a wrong plan is refused."""

from types import SimpleNamespace

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab_systems.sci.course import Place
from trimtab_systems.sci.data import encode, train_of
from trimtab_systems.sci.model import SCILoop
from trimtab_systems.sci.recipe import Config
from trimtab_systems.sci.watch import Watch


class Book:
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def note(self, kind, *, steps=None, text="", **facts):
        self.told.append(("note", text))

    def record(self, **values):
        self.told.append(("record", values))

    def show(self, name, panel):
        self.told.append(("show", name, panel))


@pytest.fixture
def watch():
    held = encode(train_of("length")[::1000])
    torch.manual_seed(0)
    model = SCILoop(width=8, heads=2, features=4, slots=4, longest=3)
    asked = [target[:length] for target, length in zip(held.actions_BT.tolist(), held.lengths_B.tolist(), strict=True)]
    return lambda: Watch(model, SimpleNamespace(place=Place(part="inner"), latest=None), held, asked)


def test_a_watch_that_was_put_back_tells_what_it_would_have_told(watch):
    one, other = watch(), watch()
    one.observe(Book(), 50)
    other.load_state_dict(one.state_dict())
    told, again = Book(), Book()
    for done in range(51, 101):
        one.observe(told, done)
        other.observe(again, done)
    assert told.told == again.told
    assert [kind for kind, *_ in told.told].count("record") == 5
    assert not any(kind == "note" for kind, *_ in told.told)
    assert [step for step, _ in other.history] == [50, 100]


def test_a_second_score_that_would_never_learn_is_refused():
    with pytest.raises(ConfigError, match=r"pattern_from: expected less than inner_steps = 60, got 75"):
        Config(inner_steps=60)

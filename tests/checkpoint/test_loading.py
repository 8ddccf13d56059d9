"""A load plans first, refuses any difference, and says what it did."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.checkpoint.kit import Places, Projection, Small, Training, TwoProjections, kept, same
from trimtab.checkpoint import Constructor, TrainingState, load, plan, resume, save
from trimtab.errors import CheckpointError, UserError

EIGHT = {
    f"{projection}.{head}.{old}.{leaf}": f"{projection}.{head}.{new}.{leaf}"
    for projection in "ab"
    for head, old, new in [("direction_net", 4, 3), ("radius_net", 3, 2)]
    for leaf in ("weight", "bias")
}
"""The renames of seed file 003: a Dropout was removed, the layers behind it moved up."""


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    model = Constructor.of(TwoProjections).build()
    return save(tmp_path / "a", model, config={"projection_dropout": 0.1, "name": "x"}, step=5), model


def test_the_bug_of_seed_file_003_is_refused_with_its_eight_renames(saved):
    path, _ = saved
    other = Constructor.of(TwoProjections, projection_dropout=0.0).build()
    before = kept(other)
    made = plan(path, other)
    assert not made.clean
    assert set(made.missing) == set(EIGHT.values())
    assert set(made.unexpected) == set(EIGHT)
    assert {one.stored: one.present for one in made.likely_renames} == EIGHT
    assert {one.why for one in made.likely_renames} == {"a Dropout was removed?"}
    with pytest.raises(CheckpointError) as refusal:
        load(path, other)
    message = str(refusal.value)
    assert "8 missing" in message
    assert "8 unexpected" in message
    assert all(f"{old} -> {new}: a Dropout was removed?" in message for old, new in EIGHT.items())
    assert "projection_dropout: 0.1 stored, 0.0 here (constructor; changes shapes)" in message
    assert "TwoProjections(projection_dropout=0.1, max_radius=0.95, curvature=1.0)" in message
    assert f"{made.random_share:.1%} of the parameters would stay random" in message
    assert same(before, kept(other))


def test_after_the_rename_five_loads_are_bit_identical(saved):
    path, model = saved
    patterns = {"a.direction_net.4.*": "a.direction_net.3.*", "b.direction_net.4.*": "b.direction_net.3.*"}
    patterns |= {"*.radius_net.3.weight": "*.radius_net.2.weight", "*.radius_net.3.bias": "*.radius_net.2.bias"}
    accept = {"projection_dropout": 0.0, "class.*": ...}
    seen = []
    for _ in range(5):
        other = Constructor.of(TwoProjections, projection_dropout=0.0).build()
        done = load(path, other, rename=patterns, override=accept)
        assert len(done.renamed) == 8
        assert len(done.loaded) == len(other.state_dict())
        assert not done.left_at_initialisation
        assert done.step == 5
        seen.append(kept(other))
    assert all(same(seen[0], one) for one in seen)
    stored = kept(model)
    assert all(torch.equal(tensor, seen[0][EIGHT.get(name, name)]) for name, tensor in stored.items())


def test_the_advice_of_the_message_is_what_it_takes(saved):
    path, _ = saved
    other = Constructor.of(TwoProjections, projection_dropout=0.0, curvature=2.0).build()
    advice = plan(path, other).message.partition("load(..., ")[2].splitlines()[0]
    load(path, other, **eval(f"dict({advice}"))


def test_where_a_number_that_exists_stands_for_another_layer_it_is_renamed_too(tmp_path):
    def stack(*dropped):
        layers = [nn.Linear(4, 4), *dropped, nn.Linear(4, 4), *dropped, nn.Linear(4, 4)]
        return nn.Sequential(*layers)

    path = save(tmp_path / "a", stack(nn.Dropout(0.1)))
    made = plan(path, stack())
    assert {one.pattern for one in made.likely_renames} == {("2.*", "1.*"), ("4.*", "2.*")}
    assert set(made.missing) == {"1.weight", "1.bias"}  # a plain load puts layer 2 where layer 3 belongs


def test_a_value_only_difference_is_refused_and_accepted_only_by_its_value(tmp_path):
    path = save(tmp_path / "a", Projection())
    other = Projection(max_radius=0.99)
    with pytest.raises(CheckpointError, match=r"max_radius: 0.95 stored, 0.99 here \(module; changes values only\)"):
        load(path, other)
    with pytest.raises(CheckpointError, match=r"override says 0.5, which the model does not have"):
        load(path, other, override={"max_radius": 0.5})
    assert load(path, other, override={"max_*": 0.99}).overridden


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda model: setattr(model.norm, "eps", 1e-5), "norm.eps"),
        (lambda model: setattr(model.drop, "p", 0.5), "drop.p"),
        (lambda model: setattr(model, "kind", "other"), "kind"),
        (lambda model: setattr(model, "drop", nn.AlphaDropout(0.2)), "class.drop"),
        (lambda model: setattr(model, "more", nn.ReLU()), "class.more"),
        (lambda model: delattr(model, "drop"), "class.drop"),
        (lambda model: model.double(), "dtype.first.weight"),
        (lambda model: model.scale.fill_(3.0), "scale"),
        (lambda model: setattr(model, "limit", 3), "limit"),
    ],
)
def test_every_setting_that_a_strict_load_does_not_see_is_seen(tmp_path, change, key):
    path = save(tmp_path / "a", Small())
    other = Small()
    change(other)
    made = plan(path, other)
    assert key in {one.key for one in made.settings}
    assert not made.missing
    assert not made.unexpected
    assert not made.misfits
    load(path, other, override={one.key: ... for one in made.settings})


def test_one_number_of_a_frozen_layer_is_a_weight_and_no_setting(tmp_path):
    stored = nn.Sequential(nn.Linear(3, 1))
    path = save(tmp_path / "a", stored)
    model = nn.Sequential(nn.Linear(3, 1)).requires_grad_(False)
    load(path, model)
    assert torch.equal(model[0].bias, stored[0].bias)


def test_a_curvature_that_is_kept_as_a_buffer_is_a_setting(tmp_path):
    path = save(tmp_path / "a", TwoProjections(curvature=1.0))
    with pytest.raises(CheckpointError, match=r"curvature: 1.0 stored, 2.0 here \(buffer; changes values only\)"):
        load(path, TwoProjections(curvature=2.0))
    for value, result in ((2.0, 2.0), (..., 2.0), (1.0, 1.0)):
        model = TwoProjections(curvature=2.0)
        load(path, model, override={"curvature": value})
        assert model.curvature.item() == result


def test_counters_and_running_statistics_are_no_settings(tmp_path):
    model = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1))
    model(torch.randn(8, 3))
    other = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1))
    load(save(tmp_path / "a", model), other)
    assert same(kept(model), kept(other))


def test_a_half_fitting_model_is_not_half_loaded(tmp_path):
    path = save(tmp_path / "a", Small(hidden=6))
    other = Small(hidden=7)
    before = kept(other)
    with pytest.raises(CheckpointError, match=r"have another shape"):
        load(path, other)
    assert same(before, kept(other))
    built = Constructor.of(Small, hidden=7).build()
    made = plan(path, built, build=Constructor.of(Small, hidden=7))
    assert {one.effect for one in made.settings if one.key.endswith("features")} == {"shapes"}


def test_configuration_is_compared_key_by_key(tmp_path):
    config = {"lr": 1e-3, "model": {"hidden": 6, "eps": 1e-3}, "gone": None}
    path = save(tmp_path / "a", Small(), config=config)
    made = plan(path, Small(), config={"lr": 1e-3, "model": {"hidden": 6, "eps": 1e-4}, "new": [1]})
    assert {one.key: (repr(one.stored), repr(one.present)) for one in made.settings} == {
        "model.eps": ("0.001", "0.0001"),
        "gone": ("None", "(not there)"),
        "new": ("(not there)", "[1]"),
    }
    assert any("pass config=" in one for one in plan(path, Small()).not_compared)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"allow_missing": ["nothing.*"]}, "allow_missing: 'nothing.*'"),
        ({"allow_unexpected": ["nothing.*"]}, "allow_unexpected: 'nothing.*'"),
        ({"rename": {"nothing.*": "some.*"}}, "rename: 'nothing.*'"),
        ({"override": {"nothing": 1}}, "override: 'nothing'"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(tmp_path, given, words):
    path = save(tmp_path / "a", Small())
    with pytest.raises(CheckpointError) as refusal:
        load(path, Small(), **given)
    assert "1 patterns match nothing" in str(refusal.value)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "rename", [{"*.a*": "*.b"}, {"first.*": "x"}, {"first.weight": "first.bias"}, {"*": "x*", "f*": "y*"}]
)
def test_a_rename_that_is_not_clear_is_an_error(tmp_path, rename):
    path = save(tmp_path / "a", Small())
    with pytest.raises(UserError, match="rename"):
        load(path, Small(), rename=rename)


class Net(nn.Module):
    def __init__(self, hidden, dropout):
        super().__init__()
        drop = [nn.Dropout(dropout)] if dropout else []
        self.body = nn.Linear(8, hidden)
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), *drop, nn.Linear(hidden, 1))


def test_the_message_of_the_page_is_the_one_that_comes(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    path = save(tmp_path / "a", Constructor.of(Net, hidden=32, dropout=0.1).build())
    message = plan(path, Constructor.of(Net, hidden=32, dropout=0.0).build()).message
    assert message.replace(str(path), "runs/a/step-1000") in page


def test_an_expanded_buffer_is_never_half_loaded(tmp_path):
    class Wide(nn.Linear):
        def __init__(self, value):
            super().__init__(2, 2)
            self.register_buffer("wide", torch.tensor([value]).expand(3))

    path = save(tmp_path / "a", Wide(1.0))
    load(path, Wide(1.0))
    other = Wide(2.0)
    before = kept(other)
    with pytest.raises(CheckpointError, match="is expanded"):
        load(path, other)
    assert same(before, kept(other))


def test_what_is_allowed_to_be_missing_is_listed_and_left_at_initialisation(tmp_path):
    path = save(tmp_path / "a", nn.Sequential(nn.Linear(3, 3)))
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    before = kept(model)
    done = load(path, model, allow_missing=["1.*"], override={"class.1": ...})
    assert done.left_at_initialisation == ("1.weight", "1.bias")
    assert torch.equal(before["1.weight"], model[1].weight)
    back = nn.Sequential(nn.Linear(3, 3))
    done = load(save(tmp_path / "b", model), back, allow_unexpected=["1.*"], override={"class.1": ...})
    assert done.left_out == ("1.weight", "1.bias")


@pytest.mark.parametrize("frozen", ["parameter", "buffer"])
def test_what_stays_at_initialisation_and_is_frozen_is_always_an_error(tmp_path, frozen):
    path = save(tmp_path / "a", nn.Sequential(nn.Linear(3, 3)))
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    if frozen == "parameter":
        model[1].weight.requires_grad_(False)
    else:
        model[1].register_buffer("weights", torch.ones(1))
    with pytest.raises(CheckpointError, match="frozen, so that no training repairs them"):
        load(path, model, allow_missing=["1.*"], override={"class.1": ...})


def test_statistics_of_a_new_layer_that_trains_may_start_anew(tmp_path):
    path = save(tmp_path / "a", nn.Sequential(nn.Linear(3, 3)))
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    assert len(load(path, model, allow_missing=["1.*"], override={"class.1": ...}).left_at_initialisation) == 5


RENAMES = {
    "parallel wrapper": (lambda name: f"module.{name}", {("module.*", "*")}),
    "part of a larger model": (lambda name: f"encoder.{name}", {("encoder.*", "*")}),
    "norm called otherwise": (lambda name: name.replace("norm.", "bn."), {("bn.*", "norm.*")}),
    "gamma and beta": (
        lambda name: name.replace("norm.weight", "norm.gamma").replace("norm.bias", "norm.beta"),
        {("norm.gamma", "norm.weight"), ("norm.beta", "norm.bias")},
    ),
}


@pytest.mark.parametrize("case", RENAMES)
def test_likely_renames_of_files_from_elsewhere(tmp_path, case):
    change, patterns = RENAMES[case]
    model = Small()
    torch.save({change(name): tensor for name, tensor in model.state_dict().items()}, tmp_path / "a.pt")
    other = Small()
    made = plan(tmp_path / "a.pt", other)
    assert {one.pattern for one in made.likely_renames} == patterns
    load(tmp_path / "a.pt", other, rename=dict(patterns))
    assert same(kept(model), kept(other))


def test_ties_are_kept_and_a_lost_tie_is_told(tmp_path):
    path = save(tmp_path / "a", Small(tied=True))
    loaded = Small(tied=True)
    load(path, loaded)
    assert loaded.again.weight is loaded.first.weight
    loose = Small(tied=True)
    loose.again.weight = nn.Parameter(loose.first.weight.detach().clone())
    assert "tie.again.weight" in {one.key for one in plan(path, loose).settings}
    made = plan(save(tmp_path / "b", loose), Small(tied=True))
    assert made.clean  # the values agree, so nothing is lost
    with torch.no_grad():
        loose.again.weight.zero_()
    assert "tie.again.weight" in {one.key for one in plan(save(tmp_path / "c", loose), Small(tied=True)).settings}


def test_a_training_that_was_set_up_otherwise_is_not_resumed(tmp_path):
    training = Training().steps(3)
    path = save(tmp_path / "a", training.state, config={"lr": 1e-2})

    def refused(words, change, **given):
        other = Training(seed=4)
        change(other)
        before = other.weights()
        with pytest.raises(CheckpointError, match=words):
            resume(path, other.state, **given)
        assert same(before, other.weights())

    refused("lr: 0.01 stored, 0.1 here", lambda other: None, config={"lr": 0.1})
    refused("optimizers differ", lambda other: other.state.optimizers.pop("critic"))
    refused("parts differ", lambda other: other.state.parts.pop("places"))
    refused("parts differ", lambda other: other.state.parts.update(more=Places()))
    refused("the models", lambda other: other.state.models.pop("critic"))
    refused("drop.p", lambda other: setattr(other.model.drop, "p", 0.9))
    refused("'one-cycle' is a", lambda other: other.state.parts.update({"one-cycle": Places()}))
    refused("match no difference", lambda other: None, override={"drop.p": 0.1})

    def swapped(other):
        other.state.optimizers["main"] = torch.optim.AdamW(list(other.model.parameters())[::-1])

    refused("in the same order", swapped)
    refused(
        "is a torch.optim.sgd.SGD",
        lambda other: other.state.optimizers.update(main=torch.optim.SGD(other.model.parameters())),
    )
    other = Training(seed=4)
    other.state.parts.pop("places")
    assert resume(path, other.state, allow_left=["places"], config={"lr": 0.1}, override={"lr": 0.1}).left == {
        "places": "it is not part of this training; name it among the parts"
    }


def test_weights_alone_are_not_a_training(tmp_path):
    path = save(tmp_path / "a", dict(Small().state_dict()))
    with pytest.raises(CheckpointError, match="weights alone"):
        resume(path, TrainingState({"model": Small()}))
    load(path, Small())


def test_a_name_with_brackets_means_itself(tmp_path):
    path = save(tmp_path / "a", nn.ModuleDict({"x": nn.Linear(1, 1)}))
    model = nn.ModuleDict({"x": nn.Linear(1, 1), "[CLS]": nn.Linear(1, 1)})
    made = plan(path, model)
    advice = made.message.partition("load(..., ")[2].partition(")\n")[0]
    assert "allow_missing=['[CLS].weight', '[CLS].bias'], override={'class.[CLS]': 'Linear'}" in advice
    done = load(
        path, model, allow_missing=["[CLS].weight", "[CLS].bias"], override={"class.[CLS]": "Linear"},
    )  # fmt: skip
    assert done.left_at_initialisation == ("[CLS].weight", "[CLS].bias")


def test_patterns_may_overlap_and_the_closer_one_decides(tmp_path):
    path = save(tmp_path / "a", nn.Sequential(nn.Dropout(0.1), nn.Dropout(0.2)))
    model = nn.Sequential(nn.Dropout(0.3), nn.Dropout(0.4))
    assert len(load(path, model, override={"*.p": ..., "1.p": 0.4}).overridden) == 2
    with pytest.raises(CheckpointError, match=r"1\.p: 0\.2 stored, 0\.4 here \(.*override says 0\.9"):
        load(path, model, override={"*.p": ..., "1.p": 0.9})
    for wrong in ({"rename": "x"}, {"override": ["1.p"]}):
        with pytest.raises(UserError, match="expected a mapping"):
            load(path, model, **wrong)

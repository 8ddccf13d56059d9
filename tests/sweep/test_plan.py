"""A plan gives the same trials with the same keys wherever it is read, and refuses what cannot be run."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.checkpoint import save
from trimtab.errors import UserError
from trimtab.sweep import Arm, Condition, Found, Phase, Plan, Search, grid
from trimtab.sweep.plan import arm_name, overrides_of, score_of
from trimtab.sweep.settle import content_name, settle
from trimtab.sweep.space import Choice, Real, Whole, read_space, read_value, space_text, split_outside
from trimtab.trial import Trial, TrialResult

TOY = "tests.sweep.toy:SYSTEM"

words = st.text(alphabet="abcxyz_", min_size=1, max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
settings_of = st.dictionaries(words, values, max_size=3)
seeds = st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True).map(tuple)
bounds = st.tuples(st.floats(1e-6, 1.0), st.floats(2.0, 1e6))
wholes = st.tuples(st.integers(1, 10), st.integers(11, 99))
choices = st.lists(values, min_size=1, max_size=4, unique_by=lambda value: json.dumps(value))
spaces = (
    bounds.flatmap(lambda ends: st.builds(Real, st.just(ends[0]), st.just(ends[1]), st.booleans()))
    | wholes.flatmap(lambda ends: st.builds(Whole, st.just(ends[0]), st.just(ends[1]), st.booleans()))
    | choices.map(lambda its: Choice.of(*its))
)


@st.composite
def plans(draw):
    phases = []
    for name in draw(st.lists(words, min_size=1, max_size=3, unique=True)):
        earlier = [phase.name for phase in phases]
        arms, search = (), None
        if draw(st.booleans()):
            names = draw(st.lists(words, min_size=1, max_size=3, unique=True))
            arms = tuple(Arm(name=one, settings=draw(settings_of), seeds=draw(st.none() | seeds)) for one in names)
        else:
            search = Search(
                space=draw(st.dictionaries(words, spaces, min_size=1, max_size=2)), arms=draw(st.integers(1, 9))
            )
        phases.append(
            Phase(
                name=name, arms=arms, search=search, base=draw(settings_of), seeds=draw(st.none() | seeds),
                preset=draw(st.none() | words), score=draw(st.sampled_from(["best", "final"])),
                take=draw(st.sampled_from(["", "best"])), guard=draw(st.sampled_from([None, "", "a/b > 0.5"])),
                use={"checkpoint": draw(st.sampled_from(earlier))} if earlier and draw(st.booleans()) else {},
                bands=draw(st.dictionaries(words, bounds, max_size=1)),
            )
        )  # fmt: skip
    return Plan(target="x.py", phases=tuple(phases), seeds=draw(seeds), defaults=draw(settings_of))


@settings(deadline=None, max_examples=60)
@given(plans())
def test_a_plan_is_the_same_after_a_way_through_json(plan):
    again = Plan.from_dict(json.loads(json.dumps(plan.as_dict())))
    assert again == plan
    assert again.hash == plan.hash
    found = {phase.name: Found(arm="a", settings={"x": 1}, checkpoint="checkpoint:1") for phase in plan.phases}
    for phase in plan.phases:
        trials = plan.trials(phase, found)
        assert len({trial.key for trial in trials}) == len(trials) == (0 if phase.search else plan.count(phase))
        assert [one.key for one in again.trials(again.phase(phase.name), found)] == [one.key for one in trials]


@settings(deadline=None, max_examples=60)
@given(plans(), st.randoms(use_true_random=False))
def test_the_order_of_results_is_that_of_the_plan_whatever_order_they_come_in(plan, random):
    found = {phase.name: Found(arm="a", settings={}, checkpoint="checkpoint:1") for phase in plan.phases}
    results = [
        TrialResult(trial=trial, status="finished")
        for phase in plan.phases
        for trial in plan.trials(phase, found)
    ]  # fmt: skip
    shuffled = [*results, TrialResult(trial=Trial(target="x.py", phase="no", arm="such", seed=0), status="finished")]
    random.shuffle(shuffled)
    assert plan.in_order(shuffled) == results


@given(st.dictionaries(words, st.lists(values, min_size=1, max_size=3, unique_by=json.dumps), max_size=3))
def test_a_grid_has_an_arm_for_every_combination_and_no_name_twice(axes):
    arms = grid(axes)
    expected = 1
    for its in axes.values():
        expected *= len(its)
    assert len(arms) == expected
    assert all(set(arm.settings) == set(axes) for arm in arms)
    assert len({json.dumps(arm.settings, sort_keys=True) for arm in arms}) == expected


@given(spaces)
def test_a_space_is_the_same_when_it_is_read_again(space):
    assert read_space(space_text(space), "x") == space


@given(settings_of)
def test_the_texts_of_settings_keep_every_value(some):
    for (key, value), text in zip(some.items(), overrides_of(some), strict=True):
        name, _, written = text.partition("=")
        assert (name, read_value(written)) == (key, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lg(1,2)", "'lg' is no range. Did you mean 'log'"),
        ("log(0,1)", "a logarithm needs numbers above 0"),
        ("uniform(2,1)", "is empty"),
        ("int(1,2.5)", "two whole numbers"),
        ("int(1)", r"two numbers, int\(low,high\)"),
        ("uniform(a,1)", "two numbers"),
        ("choice()", "different values"),
        ("choice(a,a)", "different values"),
    ],
)
def test_what_is_no_range_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        read_space(text, "x")


def test_values_are_split_outside_of_brackets_and_quotes():
    assert split_outside("a, [1,2] ,'b,c',{d: [1,2]}") == ["a", "[1,2]", "'b,c'", "{d: [1,2]}"]
    assert split_outside("") == []


def one(**changes):
    return Phase(**{"arms": (Arm(name="a"), Arm(name="b", settings={"lr": 1})), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": ""}, "there is no target"),
        ({"phases": ()}, "the plan has no phase"),
        ({"better": "more"}, "expected 'higher' or 'lower'"),
        ({"seeds": ()}, "there is no seed"),
        ({"seeds": (1, 1)}, "a seed stands twice"),
        ({"seeds": (-1,)}, "seed -1; expected 0 or more"),
        ({"guard": "coverage over 1"}, "expected METRIC > NUMBER"),
        ({"guard": "coverage > nan"}, "expected METRIC > NUMBER"),
        ({"phases": (one(), one())}, "two phases ''"),
        ({"phases": (one(name="a"), one())}, "a phase has no name"),
        ({"phases": (one(arms=()),)}, "either arms or a search, got neither"),
        ({"phases": (one(arms=(Arm(name="a"), Arm(name="a"))),)}, "two arms 'a'"),
        ({"phases": (one(score="last"),)}, "expected 'best' or 'final'"),
        ({"phases": (one(take="worst"),)}, "expected 'best'"),
        ({"phases": (one(baseline="A"),)}, "no arm 'A' to be the baseline"),
        ({"phases": (one(bands={"x": (1.0, 0.0)}),)}, "the lower end first"),
        ({"phases": (one(name="first", use={"c": "frst"}),)}, "names 'frst', which is no earlier phase"),
        ({"phases": (one(name="first"), one(name="b", use={"c": "frst"}))}, "Did you mean 'first'"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_at_once(changes, message):
    with pytest.raises(UserError, match=message):
        Plan(**{"target": "x.py", "phases": (one(),), **changes})


def test_what_comes_later_wins_among_settings():
    plan = Plan(
        target="x.py",
        defaults={"a": 0, "b": 0, "c": 0, "d": 0},
        phases=(
            one(name="first", take="best"),
            Phase(name="second", base={"c": 2, "d": 2}, arms=(Arm(name="x", settings={"d": 3}),)),
        ),
    )
    assert plan.needs(plan.phases[1]) == ("first",)
    with pytest.raises(UserError, match="phase 'second' needs what first found"):
        plan.trials(plan.phases[1])
    found = {"first": Found(arm="b", settings={"b": 1, "c": 1, "d": 1})}
    assert plan.trials(plan.phases[1], found)[0].settings == {"a": 0, "b": 1, "c": 2, "d": 3}


def result(arm, seed, points, status="finished"):
    return TrialResult(
        trial=Trial(target="x.py", arm=arm, seed=seed), status=status, metric="m", better="lower", points=points
    )


def test_the_best_arm_is_that_of_the_best_mean_and_a_failed_seed_is_not_left_out():
    plan = Plan(target="x.py", phases=(one(),), seeds=(0, 1), better="lower")
    whole = [result("a", 0, ((0, 4.0), (1, 2.0))), result("a", 1, ((0, 4.0), (1, 1.0)))]
    better = result("b", 0, ((0, 4.0), (1, 0.1)))
    failed, weak = result("b", 1, ((0, 4.0),), "failed"), result("b", 1, ((0, 4.0), (1, 1.5)))
    assert plan.best_arm(plan.phases[0], [*whole, better, failed]) == ("a", whole[1])
    assert plan.best_arm(plan.phases[0], [*whole, better, weak]) == ("b", better)
    assert plan.best_arm(plan.phases[0], [result("a", 0, (), "failed")]) is None
    assert [score_of(whole[0], score) for score in ("best", "final")] == [2.0, 2.0]


def test_a_guard_bars_the_evaluations_where_it_does_not_hold():
    guard = Condition.parse("coverage >= 0.9", split="validation")
    assert str(guard) == "validation/coverage >= 0.9"
    points = ((0, 0.1), (1, 0.2), (2, 0.3))
    guarded = TrialResult(
        trial=Trial(target="x.py", arm="a", seed=0), status="finished", metric="m", points=points,
        others={"validation/coverage": ((0, 0.5), (2, 0.9))},
    )  # fmt: skip
    assert guard.barred(guarded) == (0, 1)
    assert Condition.parse("m<0.25").barred(guarded) == (2,)


def test_names_are_short_and_tell_types_apart():
    assert arm_name({"lr": 1e-3, "wide": True, "kind": "plain", "layers": [1, 2]}) == (
        "lr=0.001 wide=true kind=plain layers=[1, 2]"
    )
    assert arm_name({}) == "default"


# --- proved against the System --------------------------------------------------------------------


def toy(*arms, **changes):
    phase = Phase(arms=tuple(Arm(name=str(place), settings=its) for place, its in enumerate(arms)))
    return Plan(**{"target": TOY, "phases": (phase,), "metric": "distance", "better": "lower", **changes})


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (toy({"lrr": 1}), "arm '0'.*no setting 'lrr'. Did you mean 'lr'"),
        (toy({"lr": "fast"}), "arm '0'.*'lr' expects float"),
        (toy({}, {"lr": 0.1}), "'0' = '1' have the same settings"),
        (toy({}, preset="tiney"), "no preset 'tiney'. Did you mean 'tiny'"),
        (toy({}, target="separabilty"), "no system 'separabilty'. Did you mean 'separability'"),
        (toy({}, target="tests.sweep.toy:Config"), "is a Config; expected a System"),
        (toy({}, target="no/such.py"), "there is no script 'no/such.py'"),
        (toy({}, metric="distanc", better=""), "no direction for 'validation/distanc'. Did you mean 'validation/dist"),
    ],
)
def test_a_plan_is_proved_against_its_system_before_anything_runs(plan, message):
    with pytest.raises(UserError, match=message):
        settle(plan)


def test_what_the_plan_leaves_out_is_what_the_system_declares():
    plan = settle(toy({}, metric="", better="", guard="x > 0")).plan
    assert (plan.metric, plan.better, plan.guard) == ("validation/distance", "lower", "validation/x > 0")


def test_a_setting_that_an_earlier_phase_gives_must_exist():
    phases = (one(name="a", arms=(Arm(name="x"),)), one(name="b", arms=(Arm(name="x"),), use={"checkpont": "a"}))
    with pytest.raises(UserError, match=r"phase 'b': use: there is no setting 'checkpont'. Did you mean 'checkpoint'"):
        settle(toy(phases=phases))


def test_a_range_that_the_system_refuses_is_refused_before_anything_runs():
    search = Search(space={"lr": Choice.of(0.1, "fast")}, arms=2)
    with pytest.raises(UserError, match="'lr' expects float, got 'fast'"):
        settle(toy(phases=(Phase(search=search),)))


def test_a_checkpoint_is_told_by_its_tensors_and_not_by_its_place_or_time(tmp_path):
    def store(place, weight):
        model = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(model.weight, weight)
        torch.nn.init.zeros_(model.bias)
        save(tmp_path / place, model)

    store("here", 1.0)
    store("there", 1.0)
    here, there = (settle(toy({"checkpoint": str(tmp_path / place)})) for place in ("here", "there"))
    name = content_name(tmp_path / "here")
    assert here.plan == there.plan
    assert here.plan.trials(here.plan.phases[0])[0].settings == {"checkpoint": name}
    assert here.paths == {name: str(tmp_path / "here")}
    store("elsewhere", 2.0)
    assert content_name(tmp_path / "elsewhere") != name


def test_a_folder_that_is_no_checkpoint_of_a_model_is_refused(tmp_path):
    for text in ("[]", '{"files": {}}', "nothing"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match="names no weights of a model"):
            content_name(tmp_path)


def test_a_script_needs_the_direction_of_its_metric(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("")
    with pytest.raises(UserError, match="give --better"):
        settle(toy({}, target=str(script), better=""))
    with pytest.raises(UserError, match="a script has no presets"):
        settle(toy({}, target=str(script), preset="tiny"))
    assert settle(toy({}, target=str(script))).plan.metric == "distance"


def test_a_script_is_told_by_its_path_from_here_however_it_is_written(tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "train.py").touch()
    (tmp_path / "beside.py").touch()
    monkeypatch.chdir(tmp_path)
    plans = [
        settle(Plan(target=target, phases=(Phase(arms=(Arm(name="a"),)),))).plan
        for target in ("inside/train.py", "./inside/train.py", str(tmp_path / "inside" / "train.py"))
    ]
    assert [one.target for one in plans] == ["inside/train.py"] * 3
    monkeypatch.chdir(tmp_path / "inside")
    assert settle(Plan(target="../beside.py", phases=plans[0].phases)).plan.target == "../beside.py"

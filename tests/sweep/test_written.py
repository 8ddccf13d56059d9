"""What people write becomes a plan, and what they mistype an error that says where and what was meant."""

import pytest

from trimtab.errors import UserError
from trimtab.sweep import Arm, Phase, Plan, Search
from trimtab.sweep.space import Choice, Real, Whole
from trimtab.sweep.written import fixed_words, phase_of_words, read_jobs, read_phases, read_seeds, tick


def test_lists_of_values_make_a_grid_and_single_values_its_base():
    phase = phase_of_words(["lr=1e-3,1e-2", "steps=30", "layers=[8,8],[16]", "name=", "wide=true"])
    assert phase.base == {"steps": 30, "name": "", "wide": True}
    assert [arm.settings for arm in phase.arms] == [
        {"lr": lr, "layers": layers} for lr in (1e-3, 1e-2) for layers in ([8, 8], [16])
    ]
    assert phase_of_words([]) == Phase(arms=(Arm(name="default"),))


def test_a_range_makes_a_search_in_which_lists_are_choices():
    phase = phase_of_words(["lr=log(1e-4,1e-2)", "act=relu,gelu", "width=int(8,64)", "steps=30"], arms=9)
    assert phase.search == Search(
        space={"lr": Real(1e-4, 1e-2, log=True), "width": Whole(8, 64), "act": Choice.of("relu", "gelu")}, arms=9
    )
    assert phase.base == {"steps": 30}


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["lr"], {}, "expected key=value"),
        (["=3"], {}, "expected key=value"),
        (["lr=1", "lr=2"], {}, "'lr' stands twice"),
        (["lr=1,1"], {}, "a value stands twice"),
        (["lr={a: 1"], {}, "is no plain value"),
        (["lr=log(1,2)"], {}, "needs a number of arms"),
        (["lr=log(1,2)"], {"sampler": "grid"}, "no grid has every value"),
        (["lr=1,2"], {"arms": 3}, "a grid tries every combination"),
        (["lr=1,2"], {"sampler": "tpee", "arms": 3}, "no sampler 'tpee'. Did you mean 'tpe'"),
        (["lr=1,2"], {"sampler": "tpe", "arms": 3, "pruner": "medina"}, "no pruner 'medina'. Did you mean 'median'"),
    ],
)
def test_a_word_that_is_mistyped_is_refused(words, options, message):
    with pytest.raises(UserError, match=message):
        phase_of_words(words, **options)


def test_beside_a_file_a_setting_has_one_value():
    assert fixed_words(["lr=1e-3", "steps=4"]) == {"lr": 1e-3, "steps": 4}
    with pytest.raises(UserError, match="'lr' has several values"):
        fixed_words(["lr=1,2"])


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        (3, (0, 1, 2)), ("3", (0, 1, 2)), ([3], (3,)), ("3,", (3,)), ("3,7", (3, 7)), ("10-12", (10, 11, 12)),
        ("1,4-5", (1, 4, 5)),
    ],
)  # fmt: skip
def test_seeds_are_a_count_or_a_list(text, seeds):
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["a", "", "0", "5-3", "-1", [1.5], True, None, 0])
def test_what_is_no_seed_is_refused(text):
    with pytest.raises(UserError, match="seeds"):
        read_seeds(text)


JOBS = """# tried on Monday
small: width=32 lr=1e-3
- [x] named: "kind='a b'"   # a remark
[ ] width=64

base:
"""


def test_a_jobs_file_has_one_arm_a_line(tmp_path):
    path = tmp_path / "jobs.txt"
    path.write_text(JOBS)
    jobs = read_jobs(path)
    assert [(job.line, job.ticked, job.arm.name, job.arm.settings) for job in jobs] == [
        (2, False, "small", {"width": 32, "lr": 1e-3}),
        (3, True, "named", {"kind": "a b"}),
        (4, False, "width=64", {"width": 64}),
        (6, False, "base", {}),
    ]


def test_ticks_are_set_and_taken_away_and_the_rest_stays(tmp_path):
    path = tmp_path / "jobs.txt"
    path.write_text(JOBS)
    assert tick(path, {"small", "base"}) == 3
    assert (
        path.read_text()
        == """# tried on Monday
[x] small: width=32 lr=1e-3
- [ ] named: "kind='a b'"   # a remark
[ ] width=64

[x] base:
"""
    )
    assert tick(path, {"small", "base"}) == 0
    assert [job.arm.name for job in read_jobs(path)] == ["small", "named", "width=64", "base"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no arm"),
        ("a: lr", "line 1: 'lr'; expected name: key=value"),
        ("a: lr=1\n\na: lr=2", "line 3: an arm 'a' stands in line 1 already"),
        ("a: lr=1 lr=2", "line 1: 'lr' stands twice"),
        ("a: lr='1", "line 1: No closing quotation"),
    ],
)
def test_a_line_that_is_mistyped_is_refused_by_its_number(tmp_path, text, message):
    path = tmp_path / "jobs.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_jobs(path)


PHASES = """
target: ternary
preset: as-written
metric: hierarchy
better: lower
seeds: 2
guard: coverage > 0.99
defaults: {epochs: 40}
phases:
  base:
    preset: base
    seeds: [7]
    arms: {base: {}}
  curvature:
    use: {checkpoint: base}
    base: {lr: 5e-4}
    score: final
    baseline: c=1
    bands: {hierarchy: [-0.83206, -0.8315]}
    guard: ""
    arms:
      c=0.5: {curvature: 0.5}
      c=1: {settings: {curvature: 1}, seeds: 3}
    take: best
  rate:
    grid: {lr: [1e-4, 3e-4], width: 8}
  look:
    space: {lr: "log(1e-4,1e-2)", act: [relu, gelu]}
    trials: 12
    sampler: random
    pruner: median
    at_once: 2
    sampler_seed: 5
"""


def read(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return read_phases(path)


def test_a_phases_file_says_all_that_a_plan_has(tmp_path):
    base = Phase(name="base", preset="base", seeds=(7,), arms=(Arm(name="base"),))
    curvature = Phase(
        name="curvature",
        use={"checkpoint": "base"},
        base={"lr": 5e-4},
        score="final",
        baseline="c=1",
        bands={"hierarchy": (-0.83206, -0.8315)},
        guard="",
        take="best",
        arms=(
            Arm(name="c=0.5", settings={"curvature": 0.5}),
            Arm(name="c=1", settings={"curvature": 1}, seeds=(0, 1, 2)),
        ),
    )
    rate = Phase(
        name="rate",
        base={"width": 8},
        arms=(Arm(name="lr=0.0001", settings={"lr": 1e-4}), Arm(name="lr=0.0003", settings={"lr": 3e-4})),
    )
    space = {"lr": Real(1e-4, 1e-2, log=True), "act": Choice.of("relu", "gelu")}
    look = Phase(name="look", search=Search(space=space, arms=12, sampler="random", pruner="median", at_once=2, seed=5))
    assert read(tmp_path, PHASES) == Plan(
        target="ternary", preset="as-written", metric="hierarchy", better="lower", seeds=(0, 1),
        guard="coverage > 0.99", defaults={"epochs": 40}, phases=(base, curvature, rate, look),
    )  # fmt: skip


def test_phases_and_arms_may_be_lists_with_names(tmp_path):
    text = """
target: toy
phases:
  - name: a
    arms:
      - {name: x, settings: {lr: 1}, seeds: [3]}
      - settings: {lr: 2}
"""
    plan = read(tmp_path, text)
    assert plan.phases[0].arms == (
        Arm(name="x", settings={"lr": 1}, seeds=(3,)),
        Arm(name="lr=2", settings={"lr": 2}),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("phase: {}", "there is no 'phase'. Did you mean 'phases'"),
        ("target: x", "there are no phases"),
        ("- a", "expected a mapping"),
        ("phases: {a: {arm: {}}}", "phase 'a': there is no 'arm'. Did you mean 'arms'"),
        ("phases: {a: {}}", "phase 'a': expected one of arms, grid and space, got none"),
        ("phases: {a: {arms: {}, grid: {}}}", "got arms and grid"),
        ("phases: {a: {grid: {lr: []}}}", "'lr' has no value"),
        ("phases: {a: {arms: {x: {}}, sampler: tpe}}", "'sampler' belongs to a search"),
        ("phases: {a: {space: {lr: 'lg(1,2)'}, trials: 3}}", "'lg' is no range"),
        ("phases: {a: {space: {lr: 'log(1,2)'}}}", "needs a number of arms"),
        ("phases: {a: {space: {lr: 'log(1,2)'}, trials: many}}", "trials='many'; expected a whole number"),
        ("phases: {a: {arms: {x: {}}, bands: {m: 3}}}", "band of 'm' is 3; expected"),
        ("phases: {a: {arms: {x: {}}, seeds: 0}}", "seeds: 0 seeds; expected at least 1"),
        ("phases: {a: {arms: {no: {}}}}", "name of an arm: expected a text, got False; put it in quotes"),
        ("phases:\n  a: {arms: {x: {}}}\n  a: {arms: {x: {}}}", "line 3: 'a' stands in line 2 already"),
        ("phases: {a: [", "line 1 is no plain YAML"),
        ("target: !!python/name:os.system x", "is no plain YAML"),
    ],
)
def test_a_phases_file_that_is_mistyped_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_phases(tmp_path / "no.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_jobs(tmp_path / "no.txt")

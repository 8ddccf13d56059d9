"""What a sweep got wrong by itself: each remark on made-up results that show it, and on twins that do not."""

import math
import random

import numpy as np
import pytest

from tests.compare.made_up import METRIC, arm, failed, healthy, losses_of, result, simulated
from trimtab.compare import PhaseFacts, summarize
from trimtab.compare.remarks import REMARKS

NAN = math.nan
BEST, FINAL = PhaseFacts(score="best"), PhaseFacts(score="final")


def told(results, code, **options):
    """The remarks of one code."""
    return [
        remark for remark in summarize(results, **{"losses_of": losses_of, **options}).remarks if remark.code == code
    ]


def said(results, code, **options):
    (remark,) = told(results, code, **options)
    return remark


def weights(results, **options):
    return {(remark.code, remark.severity) for remark in summarize(results, losses_of=losses_of, **options).remarks}


# --- healthy sweeps -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_healthy_sweep_is_left_alone(seed):
    assert weights(healthy(seed=seed)) == set()


@pytest.mark.parametrize("seed", range(5))
def test_noise_patience_and_starts_as_they_are_give_no_warning(seed):
    # 120 such sweeps gave none; too-few-seeds as a fact in 4 of them.
    assert weights(simulated(seed), baseline="a") <= {("too-few-seeds", "info")}


@pytest.mark.parametrize("seed", range(6))
def test_arms_that_are_alike_are_no_fault_of_the_sweep(seed):
    # Ten seeds and no difference: that the arms cannot be told apart is a fact, not a warning.
    found = weights(healthy(difference=0.0, seed=seed))
    assert found <= {("too-few-seeds", "info"), ("scores-mixed", "info")}


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_arms_and_seeds_changes_no_remark(seed):
    results = the_published_sweep()
    shuffled = list(results)
    random.Random(seed).shuffle(shuffled)
    assert weights(results, phases=PUBLISHED) == weights(shuffled, phases=PUBLISHED)


def the_published_sweep():
    """A small sweep with all the eight faults of the published one."""
    generator = np.random.default_rng(0)
    starts = np.sort(generator.normal(scale=0.4, size=10))
    made = [
        result(f"c={c}", 0, (-0.1, -0.5, -0.7), phase="1", settings={"c": c}, trained=(("same", 20),), better="lower")
        for c in (0.5, 1, 2)
    ]
    course = (-0.1, -0.7, -0.6, -0.5)
    for name, length in (("stop", 15), ("none", 30)):
        made.append(
            result(name, 0, course[: length // 5], every=5, phase="3", trained=(("p", length - 5),), better="lower")
        )
    made.append(result("step", 0, course, every=5, phase="3", trained=(("p", 10), ("q", 5)), better="lower"))
    for seed, start in enumerate(starts):
        late = 3 + 3 * (seed // 2)
        climb = [start + (-0.75 + 0.05 * start - start) * min(1.0, step / late) for step in range(20)]
        values = climb if seed > 4 else climb[: late + 4]
        made.append(
            result(
                "same",
                seed,
                tuple(values),
                phase="5",
                settings={"checkpoint": "checkpoint:abc"},
                status="finished" if seed > 4 else "stopped",
                better="lower",
                findings=(("random-and-frozen", "error"),) if seed == 0 else (),
            )
        )
    return made


PUBLISHED = {"1": FINAL, "3": BEST, "5": BEST}
THE_EIGHT = {
    "setting-without-effect",
    "identical-until-the-peak",
    "too-few-seeds",
    "best-of-noisy-evaluations",
    "scores-mixed",
    "start-not-controlled",
    "stopping-harms-late-starters",
    "conclusion-from-a-frozen-part",
}


def test_the_eight_faults_of_the_published_sweep_are_all_said():
    found = {code for code, _ in weights(the_published_sweep(), phases=PUBLISHED)}
    assert THE_EIGHT - found == set()


def test_remarks_stand_worst_first():
    order = [remark.severity for remark in summarize(the_published_sweep(), phases=PUBLISHED).remarks]
    assert order == sorted(order, key=["error", "warning", "info"].index)


# --- setting-without-effect -----------------------------------------------------------------------


def curvature(values=(0.5, 1, 2), seeds=(0, 1), **more):
    return [
        result(f"c={c}", seed, settings={"c": c, "lr": 0.1}, trained=((f"same {seed}", 20),), **more)
        for c in values
        for seed in seeds
    ]


def test_a_setting_without_effect_is_named_with_its_values():
    remark = said(curvature(), "setting-without-effect")
    assert (remark.severity, remark.subject) == ("error", "c")
    assert remark.summary.startswith("c (0.5, 1, 2) had no effect on the training: same trajectories on 2 of 2 seeds")


def test_a_setting_that_acts_on_the_evaluation_alone_is_a_fact():
    results = curvature((1,))
    results += [
        result("c=2", seed, (0.2, 0.6, 0.8), settings={"c": 2, "lr": 0.1}, trained=((f"same {seed}", 20),))
        for seed in (0, 1)
    ]
    remark = said(results, "setting-without-effect")
    assert remark.severity == "info"
    assert "it acts on the evaluation alone" in remark.summary


def test_a_patience_that_one_seed_never_used_is_a_fact():
    results = [
        result("p5", 0, settings={"patience": 5}, trained=(("zero", 20),)),
        result("p9", 0, settings={"patience": 9}, trained=(("zero", 20),)),
        result("p5", 1, (0.1, 0.5), settings={"patience": 5}, status="stopped", trained=(("one", 10),)),
        result("p9", 1, settings={"patience": 9}, trained=(("one", 20),)),
    ]
    assert said(results, "setting-without-effect").severity == "info"


@pytest.mark.parametrize(
    "results",
    [
        healthy(n=2),
        [result("a", 0, trained=()), result("b", 0, trained=())],  # no hash is no evidence
        [result("a", 0, phase="1", trained=(("x", 5),)), result("a", 0, phase="2", trained=(("x", 5),))],
        [result("a", 0, trained=(("x", 5),)), result("b", 1, trained=(("x", 5),))],
    ],
)
def test_what_differs_or_is_not_known_is_no_setting_without_effect(results):
    assert told(results, "setting-without-effect") == []


# --- identical-until-the-peak ---------------------------------------------------------------------


def schedules(parts=30, best=1, seeds=(0,)):
    """Two schedules that are one training for `parts` updates; the better one is best at its evaluation `best`."""
    made = []
    for seed in seeds:
        values = [0.1, 0.2, 0.3, 0.4, 0.5]
        values[best] = 0.9
        for name in ("none", "step"):
            after = values if name == "step" else [v if 10 * i <= parts else v - 0.05 for i, v in enumerate(values)]
            trained = ((f"begin {seed}", parts), (f"{name} {seed}", 40 - parts))
            made.append(result(name, seed, tuple(after), trained=trained))
    return made


def test_a_best_before_the_arms_differ_is_said_with_the_updates():
    remark = said(schedules(seeds=(0, 1)), "identical-until-the-peak")
    assert remark.severity == "warning"
    assert "best after 10 updates" in remark.summary
    assert "they part at update 30" in remark.summary


@pytest.mark.parametrize(
    ("results", "options"),
    [
        (schedules(parts=9), {}),
        (schedules(parts=25, best=3), {}),
        (schedules(), {"phases": {"": FINAL}}),
        (healthy(n=2), {}),
        (curvature(), {}),  # that is a setting without effect
    ],
)
def test_a_best_that_the_arm_earned_itself_is_not_accused(results, options):
    assert told(results, "identical-until-the-peak", **options) == []


def test_without_losses_equal_evaluations_stand_in():
    assert told(schedules(), "identical-until-the-peak", losses_of=None)
    assert not told(schedules(parts=9), "identical-until-the-peak", losses_of=None)
    flat = [result(name, 0, (1.0, 1.0, end)) for name, end in (("a", 0.9), ("b", 0.8))]
    assert not told(flat, "identical-until-the-peak", losses_of=None)


# --- too-few-seeds --------------------------------------------------------------------------------


def test_one_seed_an_arm_is_too_few():
    remark = said(arm("a", [0.9]) + arm("b", [0.8]), "too-few-seeds")
    assert remark.severity == "warning"
    assert "with one seed an arm no difference can be told from chance" in remark.summary


def test_the_number_of_seeds_that_the_gap_needs_is_said():
    results = arm("a", [0.80, 0.84, 0.88]) + arm("b", [0.81, 0.86, 0.865])
    remark = said(results, "too-few-seeds")
    assert remark.severity == "warning"
    assert remark.evidence["seeds_needed"] > 10
    assert f"needs about {remark.evidence['seeds_needed']} seeds an arm" in remark.summary


def test_a_plain_gap_of_few_seeds_is_only_a_fact():
    remark = said(arm("a", [0.80, 0.81, 0.82]) + arm("b", [0.50, 0.51, 0.525]), "too-few-seeds")
    assert remark.severity == "info"
    assert "cannot give a p below 0.25" in remark.summary


def test_enough_seeds_are_enough():
    assert told(healthy(n=8), "too-few-seeds") == []
    assert told(arm("a", [0.5]), "too-few-seeds") == []


# --- best-of-noisy-evaluations --------------------------------------------------------------------


def test_different_evaluation_grids_are_said():
    results = arm("often", [0.8, 0.9]) + arm("rare", [0.7, 0.8], every=50)
    remark = said(results, "best-of-noisy-evaluations")
    assert remark.severity == "warning"
    assert "10 updates (often), 50 updates (rare)" in remark.summary
    assert told(results, "best-of-noisy-evaluations", phases={"": FINAL}) == []


def test_grids_that_differ_between_phases_are_a_fact():
    results = arm("a", [0.8, 0.9], phase="1") + arm("a", [0.7, 0.8], every=50, phase="2")
    assert said(results, "best-of-noisy-evaluations").severity == "info"


def noisy(gap, noise, n=2):
    return [
        result(name, seed, (0.1, 0.8 + base + 0.03 * seed), evaluations_again=again)
        for name, base in (("a", 0.0), ("b", gap))
        for seed in range(n)
        for value in [0.8 + base + 0.03 * seed - noise]
        for again in [(value - noise / 2, value + noise / 2)]
    ]


def test_noise_like_the_gap_is_said_with_the_values_measured_anew():
    remark = said(noisy(gap=0.01, noise=0.02), "best-of-noisy-evaluations")
    assert "only 0.01 apart" in remark.summary
    assert "measured anew the order is b 0.805, a 0.795" in remark.summary


@pytest.mark.parametrize(("gap", "noise"), [(0.2, 0.02), (0.01, 0.0), (0.01, 0.001)])
def test_noise_that_is_small_beside_gap_or_spread_is_not_said(gap, noise):
    assert told(noisy(gap, noise), "best-of-noisy-evaluations") == []


# --- scores-mixed ---------------------------------------------------------------------------------


def test_phases_that_are_scored_differently_are_said():
    results = arm("a", [0.8], phase="1") + arm("a", [0.8], phase="2")
    remark = said(results, "scores-mixed", phases={"1": FINAL, "2": BEST})
    assert remark.summary.endswith("by the final evaluation 1; by the best evaluation 2")
    assert told(results, "scores-mixed", phases={"1": BEST, "2": BEST}) == []


def test_another_winner_by_the_last_evaluation_is_said():
    results = arm("peaks", [0.9, 0.91, 0.92], fall=0.3) + arm("stays", [0.8, 0.81, 0.82])
    remark = said(results, "scores-mixed")
    assert (remark.severity, remark.evidence["winner_by_best"]) == ("warning", "peaks")
    assert remark.evidence["winner_by_final"] == "stays"
    assert said(arm("peaks", [0.9], fall=0.3) + arm("stays", [0.8]), "scores-mixed").severity == "info"


def test_close_arms_that_change_places_are_not_accused():
    results = arm("a", [0.90, 0.85, 0.95], fall=0.03) + arm("b", [0.89, 0.84, 0.94])
    assert told(results, "scores-mixed") == []


# --- start-not-controlled -------------------------------------------------------------------------


def test_results_that_the_start_decides_are_said():
    starts = [0.1 * seed for seed in range(8)]
    remark = said(arm("a", [0.5 + 0.4 * start for start in starts], start=starts), "start-not-controlled")
    assert remark.evidence["r"] == pytest.approx(1.0)
    assert "8 seeds" in remark.summary


def test_seeds_that_arms_share_count_once():
    starts = [0.1 * seed for seed in range(4)]
    bests = [0.5 + 0.4 * start for start in starts]
    results = arm("a", bests, start=starts) + arm("b", bests, start=starts)
    assert told(results, "start-not-controlled") == []


@pytest.mark.parametrize("seed", range(20))
def test_chance_is_not_called_a_start_that_decides(seed):
    generator = np.random.default_rng(seed)
    results = arm("a", generator.normal(0.9, 0.01, 6).tolist(), start=generator.normal(0.1, 0.1, 6).tolist())
    assert told(results, "start-not-controlled") == []


def loaded(starts, **more):
    settings = {"checkpoint": "checkpoint:1234"}
    return [result("a", seed, (start, 0.8), settings=settings, **more) for seed, start in enumerate(starts)]


def test_one_checkpoint_that_starts_at_different_places_is_said():
    remark = said(loaded([0.1, 0.5, -0.2, 0.3]), "start-not-controlled")
    assert "4 runs load one checkpoint" in remark.summary
    assert remark.evidence["sd"] > 0.2


@pytest.mark.parametrize(
    "results",
    [
        loaded([0.759, 0.760, 0.758]),
        loaded([0.1, 0.5]),
        loaded([0.6, 0.7, 0.65], evaluations_again=(0.75, 0.85)),
        [result("a", seed, (start, 0.8)) for seed, start in enumerate([0.1, 0.5, -0.2])],
    ],
)
def test_equal_starts_noise_and_fresh_weights_are_not_accused(results):
    assert told(results, "start-not-controlled") == []


# --- stopping-harms-late-starters -----------------------------------------------------------------


def stopped_and_not(later=0.9, status="stopped", parts=20):
    trained = (("x", parts), ("y", 40 - parts))
    return [
        result("stops", 0, (0.1, 0.5, 0.4), status=status, trained=(("x", 20),)),
        result("goes on", 0, (0.1, 0.5, 0.4, 0.6, later), trained=trained),
    ]


def test_a_twin_that_went_on_and_became_better_is_said():
    remark = said(stopped_and_not(), "stopping-harms-late-starters")
    assert remark.subject == "stops"
    assert "became better by 0.4 on 1 of 1 seeds" in remark.summary
    assert told(stopped_and_not(), "stopping-harms-late-starters", losses_of=None)


@pytest.mark.parametrize(
    "results",
    [stopped_and_not(later=0.45)[:1], stopped_and_not(status="finished"), stopped_and_not(parts=5), healthy(n=2)],
)
def test_what_was_no_twin_or_not_stopped_is_not_accused(results):
    assert told(results, "stopping-harms-late-starters") == []


def late_starters(order=1):
    """Runs with a worse start peak later; those with a good one are stopped soon after."""
    made = []
    for seed in range(10):
        start, peak = -0.1 * seed, 2 + seed
        values = [start + (0.8 - start) * min(step, peak) / peak for step in range(peak + 4)]
        made.append(result("a", seed * order % 10, tuple(values), status="stopped" if seed < 5 else "finished"))
    return made


def test_bad_starts_that_peak_late_are_said():
    remark = said(late_starters(), "stopping-harms-late-starters")
    assert remark.evidence["r"] == pytest.approx(1.0)
    assert "10 seeds" in remark.summary


@pytest.mark.parametrize("seed", range(10))
def test_late_peaks_that_have_nothing_to_do_with_the_start_are_not_accused(seed):
    generator = np.random.default_rng(seed)
    made = []
    for number in range(10):
        peak = int(generator.integers(2, 12))
        values = [float(generator.normal(0.1, 0.01)), *np.linspace(0.2, 0.8, peak), 0.8, 0.8]
        made.append(result("a", number, tuple(values), status="stopped" if peak < 7 else "finished"))
    assert told(made, "stopping-harms-late-starters") == []


# --- conclusion-from-a-frozen-part ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "fires"),
    [
        ([("random-and-frozen", "warning")], True),
        ([("frozen-decoder", "error")], True),
        ([("frozen-backbone", "warning")], False),
        ([("loss-spike", "error")], False),
    ],
)
def test_runs_around_a_frozen_part_are_said(findings, fires):
    results = [*arm("a", [0.8, 0.9]), result("b", 0, findings=tuple(findings))]
    remarks = told(results, "conclusion-from-a-frozen-part")
    assert bool(remarks) is fires
    if fires:
        assert (remarks[0].severity, remarks[0].subject) == ("error", "b")


# --- plans and failures ---------------------------------------------------------------------------


def test_arms_of_one_configuration_are_an_error():
    results = [result(name, 0, settings={"lr": lr}, config_hash="same") for name, lr in (("a", 1), ("b", 1.0))]
    assert said(results, "arms-do-not-differ").severity == "error"
    assert told([result("a", 0), result("b", 0)], "arms-do-not-differ") == []
    assert told([result("a", 0, settings={}), result("b", 0, settings={})], "arms-do-not-differ")


def test_bands_that_exclude_each_other_and_bands_that_were_never_checked_are_errors():
    results = arm("a", [0.8, 0.9])
    facts = {"": PhaseFacts(bands={METRIC: (1.0, 0.0), "validation/never": (0.0, 1.0)})}
    assert "is empty" in said(results, "bands-not-possible-together", phases=facts).summary
    assert said(results, "nothing-was-checked", phases=facts).subject == "validation/never"
    assert told(results, "nothing-was-checked", phases={"": PhaseFacts(bands={METRIC: (0.0, 1.0)})}) == []


def test_a_sweep_without_a_result_checked_nothing():
    assert said([failed("a"), failed("b")], "nothing-was-checked").severity == "error"
    assert told([failed("a"), result("b", status="waiting", values=())], "nothing-was-checked") == []


def test_seeds_that_are_one_training_are_an_error():
    results = [result("a", seed, trained=(("one", 20),)) for seed in (0, 1)]
    assert "the seed has no effect" in said(results, "identical-results").summary


def test_equal_numbers_of_different_trainings_are_an_error():
    twins = [result("a", 0, (0.1, 0.4, 0.8)), result("b", 0, (0.1, 0.4, 0.8))]
    assert "the same weights were evaluated" in said(twins, "identical-results").summary
    standing = [result("a", 0, (0.1, 1.0, 1.0)), result("b", 0, (0.1, 1.0, 1.0))]
    assert told(standing, "identical-results") == []
    assert told(curvature((1, 2), seeds=(0,)), "identical-results") == []


def test_equal_numbers_of_a_coarse_metric_are_chance():
    coarse = [
        result(name, seed, (0.1, 0.8 + 0.1 * (seed % 2), 0.9 + 0.1 * (place % 2)))
        for place, name in enumerate("abcd")
        for seed in range(4)
    ]
    assert told(coarse, "identical-results") == []
    loss = "validation/loss"
    others = [
        result(name, 0, (0.1, 0.4, 0.8), others={loss: ((10, place), (20, 0.1))}) for place, name in enumerate("ab")
    ]
    assert told(others, "identical-results") == []


def test_an_arm_that_a_search_gave_up_has_no_unequal_seeds():
    results = [*arm("a", [0.8, 0.9]), result("b", 0, status="pruned")]
    assert told(results, "unequal-seeds") == []
    assert told([*arm("a", [0.8, 0.9]), result("b", 0)], "unequal-seeds") != []


def test_several_versions_failures_numbers_and_seeds_are_said():
    results = [
        *arm("a", [0.8, 0.9], code="abc"),
        result("b", 0, (0.1, NAN, NAN), code="def", barred=(0,)),
        failed("c", 0, error="ValueError: no weights"),
        result("d", 0, (0.1, NAN, 0.7)),
    ]
    assert "abc (3 runs), def (1 runs)" in said(results, "from-several-versions").summary
    assert "ValueError: no weights" in said(results, "trials-failed").summary
    not_finite = said(results, "metric-not-finite")
    assert (not_finite.severity, not_finite.evidence["without_score"]) == ("error", 1)
    assert said(results, "unequal-seeds").severity == "warning"
    assert told(arm("a", [0.8]), "from-several-versions") == []


def test_a_best_that_is_not_found_again_is_said():
    found = summarize([result("a", 0, (0.1, 0.816), evaluations_again=(0.74, 0.74))]).remarks
    assert [remark.code for remark in found] == ["best-not-repeatable"]
    assert "a 0.816, now 0.74, 0.74" in found[0].summary


def test_every_code_of_a_rule_is_the_name_of_the_rule():
    names = {rule.__name__.replace("_", "-") for rule in REMARKS}
    results = [
        *the_published_sweep(),
        failed("c=9", 0, phase="1"),
        result("z", 3, (0.1, NAN), phase="1", better="lower"),
    ]
    found = {remark.code for remark in summarize(results, phases=PUBLISHED, losses_of=losses_of).remarks}
    assert found <= names
    assert names >= THE_EIGHT

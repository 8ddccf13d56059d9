"""The arms of a sweep side by side: numbers, pairs and words, on made-up results."""

import dataclasses
import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest

from tests.compare.made_up import METRIC, arm, failed, healthy, losses_of, result
from trimtab.compare import PhaseFacts, check_arms, check_bands, summarize
from trimtab.compare.remarks import REMARKS
from trimtab.errors import UserError
from trimtab.run import safe_json

NAN = math.nan


def only_phase(results, **options):
    (phase,) = summarize(results, losses_of=losses_of, **options).phases
    return phase


def pair_of(phase, name, baseline):
    (pair,) = [pair for pair in phase.pairs if (pair.arm, pair.baseline) == (name, baseline)]
    return pair


# --- arms -----------------------------------------------------------------------------------------


def test_an_arm_has_its_numbers_and_counts_every_trial():
    results = [*arm("a", [0.8, 0.9, 1.0], fall=0.1), failed("a", 3), result("a", 4, status="waiting", values=())]
    one = only_phase(results).arm("a")
    assert (one.n, one.trials, one.failed) == (3, 5, 1)
    assert one.scores == ((0, 0.8), (1, 0.9), (2, 1.0))
    assert (one.mean, one.sd, one.median) == pytest.approx((0.9, 0.1, 0.9))
    assert (one.best, one.final, one.degradation) == pytest.approx((0.9, 0.8, 0.1))
    assert (one.start, one.best_step) == (pytest.approx(0.1), 20)
    assert one.interval.low == pytest.approx(0.9 - 4.3027 * 0.1 / math.sqrt(3), abs=1e-4)
    assert one.best_run.seed == 2
    assert "1 of 5 failed" in one.verdict
    assert "1 of 5 not done" in one.verdict
    assert one.cpu_seconds == pytest.approx(4.5)


def test_the_score_may_be_the_last_evaluation():
    results = arm("a", [0.8, 0.9], fall=0.3) + arm("b", [0.7, 0.8])
    assert only_phase(results).ranking == ("a", "b")
    assert only_phase(results, phases={"": PhaseFacts(score="final")}).ranking == ("b", "a")


def test_lower_may_be_better():
    results = [result(name, 0, (0.9, low), better="lower") for name, low in (("a", 0.2), ("b", 0.1))]
    assert only_phase(results).ranking == ("b", "a")


def test_runs_that_collapse_are_counted_with_an_interval():
    one = only_phase(arm("a", [0.9, 0.91, 0.92, 0.9, 0.89, 0.9, 0.91, 0.9, 0.11, 0.12])).arm("a")
    assert one.verdict.startswith("collapses in 2 of 10 (success 0.80 [0.49, 0.94]")
    assert one.median_of_successes == pytest.approx(0.9)


def test_a_run_without_a_number_is_no_success():
    results = [*arm("a", [0.9] * 5), result("a", 5, (0.1, NAN, NAN), barred=(0,))]
    one = only_phase(results).arm("a")
    assert (one.n, one.not_finite, one.split.collapsed) == (5, 1, 1)
    assert "1 of 6 ended without a number" in one.verdict


def test_a_declared_band_says_what_a_success_is():
    results = [
        result("a", seed, (0.1, value), others={"validation/coverage": ((0, 0.0), (10, cover))})
        for seed, (value, cover) in enumerate([(0.9, 1.0), (0.7, 1.0), (0.9, 0.5)])
    ]
    facts = PhaseFacts(bands={METRIC: (0.8, 1.0), "validation/coverage": (0.99, 1.0)})
    one = only_phase(results, phases={"": facts}).arm("a")
    assert [(check.inside, check.checked) for check in one.checks] == [(2, 3), (2, 3)]
    assert one.split.succeeded == (True, False, True)
    assert "validation/accuracy in [0.8, 1] in 2 of 3" in one.verdict


def test_the_best_weights_are_measured_anew_and_compared():
    again = {"right": (0.9, 0.9), "wrong": (0.3, 0.3)}
    results = [result(name, 0, (0.1, 0.9), evaluations_again=values) for name, values in again.items()]
    phase = only_phase([*results, result("unknown", 0, (0.1, 0.9))])
    assert [one.best_run.verified for one in phase.arms] == [True, False, None]


def test_the_best_of_noisy_evaluations_is_still_verified():
    noisy = [
        result("a", seed, (0.1, 0.905), evaluations_again=(0.9 - 0.001 * seed, 0.9 + 0.002 * seed)) for seed in range(4)
    ]
    assert only_phase(noisy).arm("a").best_run.verified is True


# --- pairs ----------------------------------------------------------------------------------------


def test_arms_are_paired_by_seed_and_claimed_only_when_both_tests_agree():
    phase = only_phase(healthy(), phases={"": PhaseFacts(baseline="a")})
    pair = pair_of(phase, "c", "a")
    a, c = dict(phase.arm("a").scores), dict(phase.arm("c").scores)
    differences = np.array([c[seed] - a[seed] for seed in range(10)])
    assert (pair.paired, pair.n, pair.declared) == (True, 10, True)
    assert pair.difference == pytest.approx(differences.mean())
    assert pair.test.p == pytest.approx(2 / 2**10)
    assert pair.p == pytest.approx(2 * 2 / 2**10)  # Holm, two comparisons with the baseline
    assert pair.better == "arm"
    assert pair.verdict.startswith("better by 0.4")
    assert "(Holm)" in pair.verdict
    # Which arm is the best is known afterwards only: three pairs to choose from.
    assert pair_of(phase, "b", "c").p == pytest.approx(3 * 2 / 2**10)
    assert phase.tied == ()


def test_few_seeds_are_never_called_better_and_plain_gaps_are_no_tie():
    phase = only_phase(healthy(n=3, difference=0.4), baseline="a")
    pair = pair_of(phase, "c", "a")
    assert not pair.interval.holds(0.0)
    assert (pair.better, pair.ahead) == ("", "arm")
    assert pair.verdict.startswith("better by 0.77 [0.71, 0.83] by the interval alone (it relies on normal scatter")
    assert pair.verdict.endswith("corrected for 2 comparisons, cannot give a p below 0.5: 7 seeds could settle it")
    assert set(phase.tied) == set(phase.behind) == {"a", "b"}
    assert "ahead of 2 by the interval alone" in phase.verdicts[0]


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (1, "not distinguishable with n=1 (worse by 0.21 on one seed, which says nothing about the spread"),
        (2, "by the interval alone (it relies on normal scatter, which 2 pairs cannot show); 2 pairs cannot give a p "
            "below 0.5: 6 seeds could settle it"),
        (5, "by the interval alone (it relies on normal scatter); 5 pairs cannot give a p below 0.062: 6 seeds could"),
        (6, "worse by 0.180 [0.160, 0.201], p = 0.031 (Holm)"),
    ],
)  # fmt: skip
def test_a_plain_gap_is_told_as_far_as_its_seeds_can(n, words):
    (pair,) = only_phase(healthy(n=n, arms=("a", "b"))).pairs
    assert words.replace("0.21 ", f"{abs(pair.difference):.4g} ") in pair.verdict


def test_six_seeds_are_too_few_for_many_comparisons_and_it_says_so():
    summary = summarize(healthy(n=6, arms="abcd"))
    (phase,) = summary.phases
    assert {(pair.better, pair.ahead, pair.seeds_to_tell) for pair in phase.pairs} == {("", "baseline", 8)}
    assert phase.pairs[0].lowest_p == pytest.approx(6 * 2 / 2**6)
    assert next(remark.summary for remark in summary.remarks if remark.code == "too-few-seeds").endswith(
        "6 pairs, corrected for 6 comparisons, cannot give a p below 0.19; 8 seeds an arm could"
    )


def test_arms_that_are_alike_are_rarely_ahead():
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(60):
        scores = {name: generator.normal(0.5, 0.02, 3).tolist() for name in "abcde"}
        results = [one for name, its in scores.items() for one in arm(name, its, trained=())]
        wrong += any(pair.ahead or pair.better for pair in summarize(results).phases[0].pairs)
    assert wrong <= 7


def test_no_scatter_is_no_certainty():
    pair = pair_of(only_phase(arm("a", [0.5, 0.5, 0.5]) + arm("b", [0.6, 0.6, 0.6]), baseline="a"), "b", "a")
    assert (pair.better, pair.ahead) == ("", "")
    assert "better by 0.1 on each of 3 pairs, without scatter to judge that by" in pair.verdict
    pair = pair_of(only_phase(arm("a", [0.5, 0.5]) + arm("b", [0.5, 0.5]), baseline="a"), "b", "a")
    assert pair.verdict == "not distinguishable with n=2 (the same score on every seed)"


def test_an_interval_alone_claims_nothing():
    # One wild pair makes Student's interval wide; many small ones make the sign test sure. Neither is enough.
    base = [0.5] * 8
    wild = [
        value + step for value, step in zip(base, [0.01, 0.012, 0.009, 0.011, 0.01, 0.013, 0.008, 0.3], strict=True)
    ]
    pair = pair_of(only_phase(arm("base", base) + arm("wild", wild), baseline="base"), "wild", "base")
    assert pair.test.p < 0.05
    assert pair.interval.holds(0.0)
    assert pair.better == ""


def test_one_seed_borrows_the_spread_of_a_phase_that_has_it():
    results = [
        *[result(name, 0, (0.1, value), phase="first") for name, value in (("a", 0.70), ("b", 0.714))],
        *[
            result("same", seed, (0.1, 0.7 + 0.038 * step), phase="stability")
            for seed, step in enumerate([-1.2, -0.9, -0.4, 0.0, 0.1, 0.3, 0.6, 1.1, 1.3, -1.0])
        ],
    ]
    first, stability = summarize(results).phases
    (pair,) = first.pairs
    assert (pair.n, pair.spread_from) == (1, "stability")
    assert pair.seeds_needed == pytest.approx(2 * 2.8**2 * (stability.spread / 0.014) ** 2, rel=0.03)
    assert pair.smallest_detectable == math.inf
    assert "by the spread of stability" in pair.verdict


def test_arms_without_a_common_seed_are_compared_unpaired():
    a = [result("a", seed, (0.1, 0.5 + 0.01 * seed)) for seed in range(8)]
    b = [result("b", seed, (0.1, 0.8 + 0.01 * seed)) for seed in range(20, 28)]
    pair = pair_of(only_phase(a + b, baseline="a"), "b", "a")
    assert (pair.paired, pair.better) == (False, "arm")
    assert pair.verdict.endswith("not paired")


def test_what_a_comparison_had_to_do_without_is_said():
    results = [*arm("a", [0.8, 0.9, 0.85, 0.9]), *arm("b", [0.8, 0.7, 0.9]), failed("b", 3)]
    pair = pair_of(only_phase(results, baseline="a"), "b", "a")
    assert pair.n == 3
    assert "without 1 of 4 trials of b and 1 of 4 trials of a" in pair.verdict


def test_an_arm_whose_runs_all_failed_has_no_result():
    phase = only_phase([*arm("a", [0.8, 0.9]), failed("b", 0), failed("b", 1)], baseline="a")
    assert pair_of(phase, "b", "a").verdict == "b has no result: 2 of 2 failed"
    assert phase.arm("b").rank == 0
    assert phase.ranking == ("a",)


def test_equal_trajectories_have_no_effect():
    results = [
        result(f"c={c}", seed, settings={"c": c}, trained=((f"same {seed}", 20),)) for c in (1, 2) for seed in range(3)
    ]
    pair = pair_of(only_phase(results, baseline="c=1"), "c=2", "c=1")
    assert pair.verdict == "no effect: same trajectories on 3 of 3 seeds"


def test_the_first_update_that_differs_is_exact():
    results = [
        result("a", 0, (0.1, 0.5, 0.6), trained=(("begin", 13), ("a", 7))),
        result("b", 0, (0.1, 0.5, 0.7), trained=(("begin", 13), ("b", 7))),
    ]
    pair = pair_of(only_phase(results, baseline="a"), "b", "a")
    assert pair.parts_at == {0: 13}
    assert "identical until update 13" in pair.verdict
    other = [
        dataclasses.replace(results[0], trial=result("c", 0).trial),
        result("d", 0, (0.1, 0.5, 0.7), trained=(("begin", 1), ("b", 7))),
    ]
    losses_differ_at_once = pair_of(only_phase(other, baseline="c"), "d", "c")
    assert "identical" not in losses_differ_at_once.verdict
    (blind,) = summarize(results, baseline="a").phases  # without the losses
    assert pair_of(blind, "b", "a").parts_at == {}


def test_a_run_that_ended_earlier_parts_where_it_ended():
    results = [
        result("short", 0, (0.1, 0.5), trained=(("x", 10),)),
        result("long", 0, (0.1, 0.5, 0.7), trained=(("x", 20),)),
    ]
    assert pair_of(only_phase(results, baseline="short"), "long", "short").parts_at == {0: 10}


def test_among_equals_the_baseline_stands_first():
    results = [result(name, seed, (0.1, 0.5 + 0.01 * seed)) for name in ("a", "b", "z") for seed in (0, 1)]
    phase = only_phase(results, baseline="z")
    assert phase.ranking == ("z", "a", "b")
    assert [(pair.arm, pair.baseline) for pair in phase.pairs] == [("a", "z"), ("b", "z")]


# --- the whole ------------------------------------------------------------------------------------


def test_settings_that_vary_and_those_that_do_not():
    results = [result(f"lr={lr}", 0, settings={"lr": lr, "width": 8}) for lr in (0.1, 1, 1.0)]
    phase = only_phase(results)
    assert phase.varied == ("lr",)
    assert phase.constant == {"width": 8}


def test_totals_count_everything():
    totals = summarize([*arm("a", [0.8, 0.9]), failed("a", 2), result("b", 0, status="pruned")]).totals
    assert (totals.trials, totals.counts) == (4, {"finished": 2, "failed": 1, "pruned": 1})
    assert totals.cpu_seconds == pytest.approx(3.5)


@pytest.mark.parametrize(
    "results",
    [
        [],
        [failed("a")],
        [result("a", 0, ())],
        [result("a", 0, (NAN,))],
        [result("a", 0, (0.5,))],
        [result("a", 0, status="waiting", values=())],
        [result("a", 0, status="pruned"), result("b", 0)],
        [result("a", 0, (NAN, math.inf, NAN)), result("b", 0, (0.1, 0.1, 0.1))],
    ],
)
def test_whatever_came_of_it_there_is_a_summary(results):
    summary = summarize(results, losses_of=losses_of)
    assert json.loads(safe_json(summary.as_dict()))["totals"]["trials"] == len(results)


def test_numbers_that_have_diverged_count_as_infinite_and_end_nothing():
    far = [
        result("a", seed, (0.1, value, 1e308), evaluations_again=(1e308,) * 2)
        for seed, value in enumerate((0.5, 1e200, -1e308))
    ]
    tiny = [result("b", seed, (0.1, 5e-324 * seed, 1e-320)) for seed in range(4)]
    summary = summarize(far + tiny, losses_of=losses_of, phases={"": PhaseFacts(score="final")})
    one = summary.phases[0].arm("a")
    assert (one.n, one.not_finite) == (0, 3)
    assert summary.phases[0].arm("b").mean == pytest.approx(1e-320)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_results_changes_nothing_but_the_order(seed):
    results = [*healthy(n=4, scatter=0.2), failed("a", 4), *arm("d", [0.9, 0.8, 0.1, 0.9], fall=0.2)]
    shuffled = list(results)
    random.Random(seed).shuffle(shuffled)

    def told(results):
        summary = summarize(results, baseline="b", losses_of=losses_of)
        (phase,) = summary.phases
        return (
            {one.name: dataclasses.replace(one, counts=sorted(one.counts.items())) for one in phase.arms},
            {(one.arm, one.baseline): one for one in phase.pairs},
            phase.ranking,
            {(remark.code, remark.severity, remark.phase) for remark in summary.remarks},
            {(one.arm, one.seed): one for one in summary.peak.runs},
        )

    assert repr(sorted_parts(told(results))) == repr(sorted_parts(told(shuffled)))


def sorted_parts(parts):
    return [
        sorted(part.items()) if isinstance(part, dict) else sorted(part) if isinstance(part, set) else part
        for part in parts
    ]


@pytest.mark.parametrize(
    ("results", "options", "message"),
    [
        ([result("a"), result("a")], {}, "stands 2 times"),
        (
            [result("a"), result("a", settings={"lr": 1})],
            {},
            "2 trials are arm 'a', seed 0 of phase '', with different",
        ),
        ([result("a")], {"phases": {"b": PhaseFacts()}}, "no trial is of phase 'b'"),
        ([result("a")], {"baseline": "b"}, "no arm is called 'b'; arms: 'a'"),
        ([result("a")], {"phases": {"": PhaseFacts(baseline="x")}}, "has no arm 'x'"),
        ([result("a"), result("b", metric="other")], {}, "judged by different metrics"),
        ([result("a")], {"metric": "other"}, "judged by 'validation/accuracy'"),
    ],
)
def test_what_cannot_be_summarized_is_said(results, options, message):
    with pytest.raises(UserError, match=message):
        summarize(results, **options)


# --- what is declared before ----------------------------------------------------------------------


def test_arms_that_do_not_differ_are_refused():
    check_arms({"a": {"lr": 1}, "b": {"lr": 1.5}, "c": {}})
    with pytest.raises(UserError, match=r"phase 'x': arms-do-not-differ: 'a' = 'c' have the same settings"):
        check_arms({"a": {"x": 1, "y": 2}, "b": {}, "c": {"y": 2, "x": 1}}, where="phase 'x'")


@pytest.mark.parametrize(
    ("bands", "possible", "message"),
    [
        ({"h": (2.0, 1.0)}, {}, r"h in \[2.0, 1.0\] is empty"),
        ({"h": (NAN, 1.0)}, {}, "is empty"),
        ([("h", (0.0, 1.0)), ("h", (2.0, 3.0))], {}, r"cannot be inside all of \[0, 1\], \[2, 3\]"),
        ({"h": (-1.0, -0.9)}, {"h": (-0.83205, 1.0)}, "cannot be reached; the metric lies between -0.83205 and 1"),
        ({"h": (2.0, 3.0)}, {"h": (-1.0, 1.0)}, "cannot be reached"),
    ],
)
def test_bands_that_nothing_can_be_inside_of_are_refused(bands, possible, message):
    with pytest.raises(UserError, match=f"bands-not-possible-together: .*{message}"):
        check_bands(bands, possible=possible)


def test_bands_that_overlap_are_fine():
    check_bands([("h", (-0.83206, -0.8315)), ("h", (-0.832, -0.5)), ("g", (0.0, 0.0))], possible={"h": (-0.8321, 1.0)})


def test_importing_compare_loads_neither_scipy_nor_torch():
    code = "import sys, trimtab.compare.arms; print([name for name in ('scipy', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_rule_says_what_would_be_a_false_alarm():
    for rule in REMARKS:
        assert "A false alarm:" in rule.__doc__, rule.__name__
    assert len({rule.__name__ for rule in REMARKS}) == len(REMARKS)

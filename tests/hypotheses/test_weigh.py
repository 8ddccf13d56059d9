"""The sum of a diagnosis can be redone by hand, and the order of causes follows from the sums and the gates."""

import random
from dataclasses import replace

import pytest

from trimtab.hypotheses import CONVINCING, HYPOTHESES, NONE_OF_THESE, Condition, Gate, Hypothesis, Weight, rank, weigh
from trimtab.hypotheses._weigh import SETTINGS_DECIBANS
from trimtab.records import Finding, Remedy, Severity


def finding(code, **evidence):
    return Finding(
        code=code, severity=Severity.ERROR, step=5, since_step=5, summary=code, measured=1.0, threshold=0.0,
        evidence=evidence,
    )  # fmt: skip


def cause(name, *weights, prior=-5.0, gate=Gate.REST, settings=()):
    return Hypothesis(
        cause=name, summary=f"It is {name}.", gate=gate, prior=prior, evidence=weights, probe=f"{name}-is-not-so",
        remedies=(Remedy(kind="text", text="mend it"),), settings=settings,
    )  # fmt: skip


SMOKE = Weight("smoke", 12.0, why="fire smokes")
COLD = Weight("cold", -8.0, why="fire is warm")


def test_score_is_prior_and_the_weights_of_what_is_present():
    findings, judged = [finding("smoke"), finding("other")], ["smoke", "cold", "other"]
    diagnosis = weigh(cause("fire", SMOKE, COLD), findings, judged)
    assert [(term.what, term.decibans) for term in diagnosis.terms] == [("prior", -5.0), ("smoke", 12.0)]
    assert diagnosis.score == 7.0
    assert diagnosis.explains == ("smoke",)


def test_what_contradicts_is_subtracted_and_not_explained():
    diagnosis = weigh(cause("fire", SMOKE, COLD), [finding("smoke"), finding("cold")], judged=["smoke", "cold"])
    assert diagnosis.score == -1.0
    assert diagnosis.explains == ("smoke",)


def test_two_findings_of_one_code_count_once():
    assert weigh(cause("fire", SMOKE), [finding("smoke"), finding("smoke")], judged=["smoke"]).score == 7.0


def test_a_weight_waits_for_its_conditions():
    thick = Weight("smoke", 9.0, when=(Condition("density", ">", 0.5), Condition("colour", "==", "black")), why="thick")
    fire = cause("fire", thick)
    assert weigh(fire, [finding("smoke", density=0.9, colour="black")], judged=["smoke"]).score == 4.0
    assert weigh(fire, [finding("smoke", density=0.9, colour="white")], judged=["smoke"]).score == -5.0
    two_halves = [finding("smoke", density=0.9), finding("smoke", colour="black")]
    assert weigh(fire, two_halves, judged=["smoke"]).score == -5.0


def test_absence_counts_only_where_the_rule_judged():
    fire = cause("fire", SMOKE, Weight("rain", 3.0, absent=True, why="nothing put it out"))
    assert weigh(fire, [finding("smoke")], judged=["smoke", "rain"]).score == 10.0
    assert weigh(fire, [finding("smoke")], judged=["smoke"]).score == 7.0
    assert weigh(fire, [finding("smoke"), finding("rain")], judged=["smoke", "rain"]).score == 7.0


def test_absence_of_a_certain_kind():
    heavy = Weight("rain", 3.0, when=(Condition("litres", ">", 10.0),), absent=True, why="no downpour")
    assert weigh(cause("fire", heavy), [finding("rain", litres=1.0)], judged=["rain"]).score == -2.0
    assert weigh(cause("fire", heavy), [finding("rain", litres=20.0)], judged=["rain"]).score == -5.0


def test_unknown_counts_zero_and_is_listed():
    unknown = {"cold": "no sensor", "rain": "no sensor"}
    diagnosis = weigh(cause("fire", SMOKE, COLD), [finding("smoke")], judged=["smoke"], unknown=unknown)
    assert diagnosis.score == 7.0
    assert diagnosis.unknown == ("cold",)


def test_of_one_family_the_strongest_counts_on_each_side():
    fire = cause(
        "fire",
        Weight("smoke", 6.0, family="seen", why=""),
        Weight("flame", 12.0, family="seen", why=""),
        Weight("glow", 4.0, family="seen", why=""),
        Weight("cold", -3.0, family="seen", why=""),
        Weight("wet", -7.0, family="seen", why=""),
        Weight("heat", 2.0, family="felt", why=""),
        Weight("crackle", 1.0, why=""),
        Weight("smell", 1.0, why=""),
    )
    codes = [weight.code for weight in fire.evidence]
    diagnosis = weigh(fire, [finding(code) for code in codes], judged=codes)
    assert [term.what for term in diagnosis.terms] == ["prior", "flame", "wet", "heat", "crackle", "smell"]
    assert diagnosis.score == -5.0 + 12.0 - 7.0 + 2.0 + 1.0 + 1.0


def test_a_setting_that_differs_from_the_good_run_counts_once():
    fire = cause("fire", SMOKE, settings=("*.lr", "*match*"))
    changed = {"arguments.lr": (0.001, 1.0), "config.matches": (0, 3), "arguments.name": ("a", "b")}
    diagnosis = weigh(fire, [finding("smoke")], judged=["smoke"], settings_changed=changed)
    assert diagnosis.score == 7.0 + SETTINGS_DECIBANS
    assert diagnosis.terms[-1].what == "setting arguments.lr and 1 more settings differ from the last good run"
    assert diagnosis.terms[-1].why == "0.001 there, 1.0 here"


def test_causes_stand_by_score_with_the_unnamed_cause_at_zero():
    ranked = rank(
        [cause("rust", Weight("smoke", 1.0, why="")), cause("fire", SMOKE), cause("flood", COLD)],
        [finding("smoke"), finding("cold")], judged=["smoke", "cold"],
    )  # fmt: skip
    assert [(diagnosis.cause, diagnosis.score) for diagnosis in ranked] == [
        ("fire", 7.0), (NONE_OF_THESE, 0.0), ("rust", -4.0),
    ]  # fmt: skip


def test_a_cause_that_only_absence_or_settings_speak_for_is_not_listed():
    calm = cause("calm", Weight("wind", 30.0, absent=True, why=""), settings=("*",))
    ranked = rank([calm], [finding("smoke")], judged=["smoke", "wind"], settings_changed={"lr": (1, 2)})
    assert [diagnosis.cause for diagnosis in ranked] == [NONE_OF_THESE]


def test_an_early_gate_goes_first_once_it_is_convincing():
    late = cause("late", Weight("smoke", 40.0, why=""), gate=Gate.BUDGET)
    early = cause("early", Weight("smoke", CONVINCING, why=""), prior=0.0, gate=Gate.DATA)
    findings, judged = [finding("smoke")], ["smoke"]
    assert [d.cause for d in rank([late, early], findings, judged)] == ["early", "late", NONE_OF_THESE]
    weaker = replace(early, prior=-0.1)
    assert [d.cause for d in rank([late, weaker], findings, judged)] == ["late", "early", NONE_OF_THESE]
    assert [d.cause for d in rank([late, weaker], findings, judged, convincing=9.0)] == ["early", "late", NONE_OF_THESE]


def test_gates_stand_in_the_order_of_the_design():
    words = ["metric", "data", "integrity", "settings", "budget", "rest"]
    assert [str(gate) for gate in sorted(Gate)] == words


def everything_conceivable(generator):
    """Random findings of every code with every evidence key that some condition reads, and random coverage."""
    keys = {c.name for h in HYPOTHESES for w in h.evidence for c in w.when} | {
        c.of for h in HYPOTHESES for w in h.evidence for c in w.when if c.of
    }
    codes = sorted({code for hypothesis in HYPOTHESES for code in hypothesis.codes})
    found = [
        replace(
            finding(code, **{key: generator.choice([0.0, 1.0, 50.0, float("nan"), float("inf")]) for key in keys}),
            severity=generator.choice(list(Severity)),
            since_step=generator.choice([0, 1, 40]),
        )
        for code in codes
        if generator.random() < 0.4
    ]
    covered = [code for code in codes if generator.random() < 0.8]
    return found, covered, [code for code in codes if code not in covered]


@pytest.mark.parametrize("seed", range(40))
def test_every_score_can_be_added_up_again_from_its_terms(seed):
    found, judged, unknown = everything_conceivable(random.Random(seed))
    changed = {"arguments.lr": (0.1, 10.0), "config.init": ("a", "b")} if seed % 2 else {}
    for hypothesis in HYPOTHESES:
        diagnosis = weigh(hypothesis, found, judged, unknown, changed)
        assert diagnosis.score == sum(term.decibans for term in diagnosis.terms)
        assert diagnosis.terms[0].what == "prior"
        present = {one.code for one in found}
        stated = {str(weight): weight for weight in hypothesis.evidence}
        for term in diagnosis.terms[1:]:
            if term.what.startswith("setting "):
                continue
            weight = stated[term.what]
            assert term.decibans == weight.decibans
            assert (weight.code in judged) if weight.absent else (weight.code in present)
        counted = [stated[term.what] for term in diagnosis.terms if term.what in stated]
        sides = [(weight.family, weight.decibans > 0) for weight in counted if weight.family]
        assert len(sides) == len(set(sides))

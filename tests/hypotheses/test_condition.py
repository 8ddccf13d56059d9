"""A condition reads one number or text of a finding and compares it."""

import math
from dataclasses import replace

import pytest

from trimtab.hypotheses import NONFINITE, Condition
from trimtab.hypotheses._hypothesis import OWN_FIELDS
from trimtab.records import Finding, Severity


def finding(**facts):
    plain = Finding(code="fault", severity=Severity.ERROR, step=7, summary="", measured=3.0, threshold=1.0)
    own = {name: facts.pop(name) for name in list(facts) if name in OWN_FIELDS}
    return replace(plain, **own, evidence=facts)


@pytest.mark.parametrize(
    ("condition", "facts", "holds"),
    [
        (Condition("loss", ">", 1.0), {"loss": 2.0}, True),
        (Condition("loss", ">", 1.0), {"loss": 1.0}, False),
        (Condition("loss", ">=", 1.0), {"loss": 1.0}, True),
        (Condition("loss", "<", 1.0), {"loss": 0.5}, True),
        (Condition("loss", "<=", 1.0), {"loss": 1.5}, False),
        (Condition("loss", "==", 1.0), {"loss": 1.0}, True),
        (Condition("loss", "!=", 1.0), {"loss": 1.0}, False),
        (Condition("by", "==", "targets"), {"by": "targets"}, True),
        (Condition("by", "!=", "targets"), {"by": "targets"}, False),
    ],
)
def test_compares(condition, facts, holds):
    assert condition.holds(finding(**facts)) is holds


@pytest.mark.parametrize("relation", [">", ">=", "<", "<=", "==", "!="])
@pytest.mark.parametrize("facts", [{}, {"loss": math.nan}, {"loss": "high"}])
def test_what_is_missing_nan_or_of_another_kind_never_holds(relation, facts):
    assert not Condition("loss", relation, 1.0).holds(finding(**facts))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite_is_a_relation_of_its_own(value):
    assert Condition("loss", "is", NONFINITE).holds(finding(loss=value))
    assert not Condition("loss", "is", NONFINITE).holds(finding(loss=2.0))
    assert not Condition("loss", "is", NONFINITE).holds(finding())


def test_less_than_infinity_means_finite():
    finite = Condition("loss", "<", math.inf)
    assert finite.holds(finding(loss=1e30))
    assert not finite.holds(finding(loss=math.nan))
    assert not finite.holds(finding(loss=math.inf))


def test_one_number_in_relation_to_another():
    some = Condition("tensors_broken", "<", 1.0, of="tensors")
    assert some.holds(finding(tensors_broken=2.0, tensors=4.0))
    assert not some.holds(finding(tensors_broken=4.0, tensors=4.0))
    assert not some.holds(finding(tensors_broken=0.0, tensors=0.0))
    assert not some.holds(finding(tensors_broken=2.0))


def test_a_list_counts_its_entries():
    assert Condition("no_gradient", ">=", 2.0).holds(finding(no_gradient=("a", "b")))
    assert not Condition("no_gradient", ">=", 3.0).holds(finding(no_gradient=("a", "b")))


def test_reads_the_finding_itself_before_its_evidence():
    one = finding(severity=Severity.WARNING, since_step=0, measured=5.0, subject="head")
    assert Condition("severity", ">=", Severity.WARNING).holds(one)
    assert not Condition("severity", ">=", Severity.ERROR).holds(one)
    assert Condition("since_step", "==", 0).holds(one)
    assert Condition("measured", ">", 4.0).holds(one)
    assert Condition("subject", "==", "head").holds(one)


def test_is_says_what_it_means_in_a_table():
    assert str(Condition("tensors_broken", "<", 1.0, of="tensors")) == "tensors_broken / tensors < 1"
    assert str(Condition("loss", "is", NONFINITE)) == "loss is not finite"
    assert str(Condition("severity", ">=", Severity.ERROR)) == "severity >= error"
    assert str(Condition("gradient_norm", "<", 1e9)) == "gradient_norm < 1e9"


@pytest.mark.parametrize(("relation", "value"), [("is", 1.0), ("==", NONFINITE)])
def test_is_goes_with_nonfinite_alone(relation, value):
    with pytest.raises(ValueError, match=r"'loss'.*goes with NONFINITE"):
        Condition("loss", relation, value)

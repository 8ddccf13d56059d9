"""Every hypothesis names what exists, says why, and is ranked first by its own signature and by no other's."""

import ast
import importlib
import inspect
import math
import pkgutil
import re
from fnmatch import fnmatchcase

import pytest

from tests.contracts.signature import CODES, JUDGED, Signature, elsewhere, found, missed
from trimtab import detectors, hypotheses
from trimtab.diagnose import ABOUT_TRIMTAB
from trimtab.hypotheses import HYPOTHESES, NONE_OF_THESE, Condition, rank
from trimtab.hypotheses._hypothesis import OWN_FIELDS
from trimtab.records import Severity

INFO, WARNING, ERROR, FATAL = Severity
NAN, INF = math.nan, math.inf
EVERY = pytest.mark.parametrize("hypothesis", HYPOTHESES, ids=lambda one: one.cause)


def module_of(hypothesis):
    return importlib.import_module(f"trimtab.hypotheses.{hypothesis.cause.replace('-', '_')}")


def files():
    return {one.name for one in pkgutil.iter_modules(hypotheses.__path__) if not one.name.startswith("_")}


def test_the_catalogue_is_the_folder():
    assert {hypothesis.cause.replace("-", "_") for hypothesis in HYPOTHESES} == files()
    assert len({hypothesis.cause for hypothesis in HYPOTHESES}) == len(HYPOTHESES) >= 16


@EVERY
def test_each_file_holds_its_hypothesis_and_explains_the_weights(hypothesis):
    module = module_of(hypothesis)
    assert module.HYPOTHESIS is hypothesis
    assert module.__doc__ is not None
    assert re.search(r"\n\nHow it shows\. .*\n\nWhy the weights\. ", module.__doc__, re.DOTALL)
    sizes = {f"{abs(weight.decibans):g}" for weight in hypothesis.evidence}
    unexplained = sorted(size for size in sizes if not re.search(rf"[+-]{size}\b", module.__doc__))
    assert unexplained == [], f"the docstring does not say why these weights have their size: {unexplained}"


@EVERY
def test_each_code_is_that_of_a_detector_about_the_training(hypothesis):
    assert hypothesis.codes <= CODES - ABOUT_TRIMTAB


def conditions(hypothesis):
    return [(weight.code, condition) for weight in hypothesis.evidence for condition in weight.when]


def evidence_keys(code):
    """Words in the source of a detector, among which are the keys of its evidence."""
    source = inspect.getsource(importlib.import_module(f"trimtab.detectors.{code.replace('-', '_')}"))
    return {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}


@EVERY
def test_each_condition_reads_what_the_detector_writes(hypothesis):
    for code, condition in conditions(hypothesis):
        for name in filter(None, (condition.name, condition.of)):
            written = name in OWN_FIELDS or name in evidence_keys(code) or name.replace("_", " ") in evidence_keys(code)
            assert written, f"{code} writes no evidence {name!r}"


@EVERY
def test_each_has_a_sentence_a_probe_and_remedies(hypothesis):
    assert re.fullmatch(r"[A-Z][^\n]*\.", hypothesis.summary)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", hypothesis.probe)
    assert hypothesis.remedies
    assert all(remedy.text and not remedy.text.endswith(".") for remedy in hypothesis.remedies)
    assert all(remedy.change for remedy in hypothesis.remedies if remedy.kind in ("config", "runtime"))


def test_no_two_share_a_probe():
    probes = [hypothesis.probe for hypothesis in HYPOTHESES]
    assert len(set(probes)) == len(probes)


@EVERY
def test_each_weight_says_why_and_some_speak_for_the_cause(hypothesis):
    assert all(weight.why for weight in hypothesis.evidence)
    assert all(weight.decibans != 0 for weight in hypothesis.evidence)
    assert any(weight.decibans > 0 and not weight.absent for weight in hypothesis.evidence)
    assert hypothesis.prior < 0, "before any finding a cause is less likely than all the others together"
    named = [str(weight) for weight in hypothesis.evidence]
    assert len(set(named)) == len(named), "a table with two rows of one name cannot be added up again"


OF_THE_RATE = {
    "learning-rate-too-high", "learning-rate-too-low", "learning-rate-too-noisy", "training-too-short",
    "frozen-by-mistake",
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "causes"),
    [
        ("arguments.lr", OF_THE_RATE),
        ("optimizers.main.groups.0.initial_lr", OF_THE_RATE),
        ("config.model.init_std", {"initial-weights-too-large"}),
        ("config.loss.reduction", {"loss-reduction-wrong"}),
        ("arguments.freeze_encoder", {"frozen-by-mistake"}),
        ("config.total_steps", {"learning-rate-schedule-ended", "training-too-short"}),
        ("arguments.label_column", {"data-has-no-signal"}),
        ("arguments.name", set()),
        ("arguments.seed", set()),
        ("models.0.fingerprint", set()),
    ],
)
def test_a_changed_setting_speaks_for_the_causes_that_it_belongs_to(key, causes):
    assert {h.cause for h in HYPOTHESES if any(fnmatchcase(key, pattern) for pattern in h.settings)} == causes


def test_runtime_remedies_name_findings_and_actions_that_exist():
    from trimtab.actions import ACTIONS

    actions = {action.name for action in ACTIONS}
    named = [r.change for h in HYPOTHESES for r in h.remedies if r.kind == "runtime"]
    assert named
    assert all(code in CODES and action in actions for change in named for code, action in change.items())


# --- signatures ---------------------------------------------------------------------------------------------


def loss_nan(**evidence):
    whole = {"loss": NAN, "gradient_norm": NAN, "nonfinite_weights": 0.0, "input_nonfinite": 0.0, "update_ratio": 0.005}
    return found("loss-not-finite", **whole | evidence)


def gradient_nan(**evidence):
    whole = {
        "loss": NAN, "nonfinite_weights": 0.0, "input_nonfinite": 0.0, "update_ratio": 0.005,
        "tensors": 8.0, "tensors_broken": 8.0, "first_tensor": "head.bias", "first_share": 1.0,
    }  # fmt: skip
    return found("gradient-not-finite", **whole | evidence)


def exploding(**evidence):
    usual = {"gradient_norm_first": 1.1, "gradient_norm": 300.0, "loss": 90.0, "loss_first": 2.3, "loss_terms": 1.0}
    return found("gradient-exploding", since=2, **usual | evidence)


NO_CHANCE = frozenset(JUDGED - {"loss-far-from-chance"})
WEIGHTS_GONE = loss_nan(nonfinite_weights=8.0)

SIGNATURES = (
    # a rate that Adam survives; one that ends in NaN; NaN at the second update, before anything could grow
    Signature(cause="learning-rate-too-high", found=(exploding(update_ratio=0.7),)),
    Signature(
        cause="learning-rate-too-high",
        found=(
            exploding(update_ratio=17.0),
            gradient_nan(loss=1e27, tensors_broken=4.0, first_share=0.0, update_ratio=1e5),
            loss_nan(update_ratio=1e6),
        ),
        judged=NO_CHANCE,
    ),
    Signature(
        cause="learning-rate-too-high",
        found=(loss_nan(update_ratio=0.9), gradient_nan(update_ratio=0.9)),
        judged=NO_CHANCE,
    ),
    # classifiers; a regression with a huge first gradient; an auto-encoder whose gradient is absurd at once
    Signature(
        cause="initial-weights-too-large",
        found=(found("loss-far-from-chance", WARNING, measured=36.0, since=0, loss_terms=1.0),),
    ),
    Signature(
        cause="initial-weights-too-large",
        found=(
            exploding(gradient_norm_first=1.7e4, loss_first=7.9e3, loss_terms=32.0, update_ratio=6e4),
            gradient_nan(loss=1e30, tensors_broken=5.0, first_share=0.0, update_ratio=6e4),
            WEIGHTS_GONE,
        ),
        judged=NO_CHANCE,
    ),
    Signature(
        cause="initial-weights-too-large",
        found=(exploding(gradient_norm_first=5e15, loss_first=1.4e14, loss_terms=4096.0),),
        judged=NO_CHANCE,
    ),
    Signature(
        cause="loss-reduction-wrong",
        found=(
            found("loss-far-from-chance", INFO, measured=1.1, since=0, loss_terms=32.0),
            exploding(gradient_norm_first=116.0, loss_first=81.0, loss_terms=32.0, update_ratio=1.3),
        ),
    ),
    Signature(
        cause="loss-reduction-wrong",
        found=(exploding(gradient_norm_first=36.0, loss_first=26.7, loss_terms=32.0, update_ratio=0.39),),
        judged=NO_CHANCE,
    ),
    Signature(cause="missing-zero-grad", found=(found("gradients-accumulate", since=1),)),
    Signature(cause="missing-zero-grad", found=(found("gradients-accumulate", since=1), exploding(update_ratio=0.2))),
    Signature(
        cause="optimizer-does-not-hold-parameters",
        found=(
            found("parameters-outside-optimizer", since=8, last_layer=1.0),
            found("parameters-never-changed", WARNING, since=0, no_gradient=("old.weight", "old.bias")),
        ),
    ),
    Signature(
        cause="optimizer-does-not-hold-parameters", found=(found("parameters-outside-optimizer", WARNING, since=8),)
    ),
    Signature(
        cause="graph-cut-by-detach", found=(found("parameters-never-changed", since=0, no_gradient=("a", "b", "c")),)
    ),
    Signature(
        cause="frozen-by-mistake",
        found=(
            found("learning-rate-zero", WARNING, subject="0", since=0, was_positive=0.0),
            found("parameters-never-changed", since=0, update_lost=("a", "b")),
        ),
    ),
    Signature(
        cause="frozen-by-mistake", found=(found("parameters-never-changed", WARNING, since=0, update_lost=("a",)),)
    ),
    Signature(
        cause="frozen-by-mistake", found=(found("parameters-never-changed", WARNING, since=0, gradient_zero=("a",)),)
    ),
    Signature(cause="frozen-by-mistake", found=(found("learning-rate-zero", since=0, was_positive=0.0),)),
    Signature(cause="learning-rate-schedule-ended", found=(found("learning-rate-zero", since=60, was_positive=1.0),)),
    Signature(
        cause="learning-rate-schedule-ended",
        found=(
            found("learning-rate-zero", since=60, was_positive=1.0),
            missed(improving=0.0, best_step=60.0, progress=0.5, travelled=0.6),
        ),
    ),
    Signature(cause="softmax-before-cross-entropy", found=(found("double-softmax", since=0, graphs=2.0),)),
    Signature(
        cause="loader-repeats-one-batch",
        found=(found("same-batch-repeated", WARNING, changed_before=1.0, updates=8.0),),
    ),
    Signature(
        cause="loader-repeats-one-batch",
        found=(
            found("same-batch-repeated", changed_before=0.0, updates=32.0),
            missed(improving=0.0, best_step=20.0, progress=0.1, travelled=1.2),
        ),
    ),
    # the logarithm of zero; the root of zero, whose value is finite
    Signature(
        cause="numerical-fault-in-loss",
        found=(loss_nan(loss=INF), gradient_nan(loss=INF)),
        judged=NO_CHANCE,
    ),
    Signature(cause="numerical-fault-in-loss", found=(gradient_nan(loss=0.8), WEIGHTS_GONE)),
    Signature(
        cause="non-finite-input",
        found=(loss_nan(input_nonfinite=0.002), gradient_nan(input_nonfinite=0.002)),
    ),
    Signature(
        cause="backward-fault-in-one-module",
        found=(gradient_nan(loss=0.8, tensors_broken=4.0, first_share=0.02), WEIGHTS_GONE),
    ),
    Signature(
        cause="only-the-logged-loss-is-broken",
        found=(found("logged-loss-not-finite", WARNING, loss=NAN, gradient_norm=0.7, updates=1.0),),
    ),
    Signature(cause="data-has-no-signal", found=(missed(improving=0.0, best_step=20.0, progress=0.05, travelled=0.8),)),
    Signature(cause="data-has-no-signal", found=(missed(improving=1.0, best_step=99.0, progress=0.08, travelled=0.7),)),
    Signature(cause="training-too-short", found=(missed(improving=1.0, best_step=99.0, progress=0.6, travelled=0.8),)),
    Signature(cause="training-too-short", found=(missed(improving=1.0, best_step=99.0, progress=0.1, travelled=0.03),)),
    Signature(cause="training-too-short", found=(missed(improving=0.0, best_step=99.0, progress=0.1, travelled=0.04),)),
    *elsewhere(),
)
EACH = pytest.mark.parametrize("signature", SIGNATURES, ids=[f"{i}-{s.cause}" for i, s in enumerate(SIGNATURES)])


def ranked(signature, among=HYPOTHESES):
    return rank(among, signature.found, signature.judged, CODES - signature.judged)


@EACH
def test_a_signature_ranks_its_cause_first(signature):
    first, *rest = ranked(signature)
    assert first.cause == signature.cause, [(d.cause, d.score) for d in (first, *rest)]
    assert first.score > 0


@EACH
def test_without_its_cause_a_signature_is_explained_by_no_other(signature):
    others = [hypothesis for hypothesis in HYPOTHESES if hypothesis.cause != signature.cause]
    first = ranked(signature, others)[0]
    assert first.cause == NONE_OF_THESE, (first.cause, first.score)


def test_every_cause_has_a_signature():
    assert {signature.cause for signature in SIGNATURES} == {hypothesis.cause for hypothesis in HYPOTHESES}


def test_the_signatures_use_evidence_that_detectors_write():
    """A signature with a misspelt key would test a condition that never holds."""
    for signature in SIGNATURES:
        for finding in signature.found:
            known = evidence_keys(finding.code)
            for key in finding.evidence:
                assert key in known or key.replace("_", " ") in known, f"{finding.code} writes no evidence {key!r}"


def test_every_weight_of_presence_can_apply():
    """Each weight for a cause applies in some signature: one that never does is a number nobody has looked at."""
    dead = []
    for hypothesis in HYPOTHESES:
        for weight in hypothesis.evidence:
            applies = any(weight.applies(signature.found, judged=True) for signature in SIGNATURES)
            if weight.decibans > 0 and not weight.absent and not applies:
                dead.append(f"{hypothesis.cause}: {weight}")
    assert dead == []


def test_conditions_are_checked_against_the_sources():
    """The check on evidence keys can fail."""
    assert "input_nonfinite" in evidence_keys("loss-not-finite")
    assert "input_nonfinit" not in evidence_keys("loss-not-finite")
    assert str(Condition("input_nonfinite", ">", 0.0)) == "input_nonfinite > 0"


def test_the_catalogue_loads_without_torch():
    import subprocess
    import sys

    code = "import sys, trimtab.hypotheses, trimtab.diagnose; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert detectors.DETECTORS

"""The write-up's metrics are what they say, come when they should, change nothing, and go on after a stop."""

from __future__ import annotations

import json
import math

import pytest
import torch

from trimtab import Judge, Signal
from trimtab.detectors import DETECTORS
from trimtab.hypotheses import HYPOTHESES as CATALOGUE
from trimtab.hypotheses import rank
from trimtab.records import Finding, Severity
from trimtab_systems.sci import view
from trimtab_systems.sci.data import EOS, FIRST_ACTION, PAD, WORDS, train_of
from trimtab_systems.sci.pairs import Pool
from trimtab_systems.sci.write_up import alarms, hypotheses, monitor
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.curriculum import Curriculum, Plan
from trimtab_systems.sci.write_up.milestones import milestones
from trimtab_systems.sci.write_up.monitor import DETECTORS as OWN
from trimtab_systems.sci.write_up.monitor import GradientNorms, Monitor
from trimtab_systems.sci.write_up.objective import Learner, Objective

SMALL = {"width": 16, "heads": 2, "binding_heads": 2, "slots": 4, "edge_dim": 4, "encoder_layers": 1,
         "decoder_layers": 1, "mlp_ratio": 1}  # fmt: skip


def numbers(*words):
    return [WORDS.index(word) + 1 for word in words]


# --- numbers ----------------------------------------------------------------------------------------------------


def test_scores_are_averaged_by_class_with_directions_and_turn_apart():
    words_BN = torch.tensor([numbers("turn", "left", "twice"), [*numbers("walk", "around"), 0]])
    found = monitor.score_metrics(words_BN, torch.tensor([[0.4, 0.2, 0.8], [0.25, 0.6, 5.0]]))
    assert found["content_word_avg_score"] == pytest.approx(0.25)
    assert found["structure_word_avg_score"] == pytest.approx(0.7)
    assert found["direction_word_avg_score"] == pytest.approx(0.2)
    assert found["turn_word_avg_score"] == pytest.approx(0.4)
    assert found["score_separation_ratio"] == pytest.approx(2.8, rel=1e-4)
    assert found["score_std"] == pytest.approx(torch.tensor([0.4, 0.2, 0.8, 0.25, 0.6]).std().item())
    alone = monitor.score_metrics(torch.tensor([numbers("walk")]), torch.tensor([[0.5]]))
    assert alone == {"content_word_avg_score": 0.5, "score_std": 0.0}
    assert set(monitor.ALIASES.values()) <= found.keys()


def test_slots_that_share_no_words_out_count_as_unused():
    mask_BN = torch.ones(1, 2, dtype=torch.bool)
    one_BKN = torch.tensor([[[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    same_BKD = torch.ones(1, 4, 3)
    found = monitor.slot_metrics(same_BKD, one_BKN, mask_BN)
    assert found == pytest.approx({"slot_utilization": 0.25, "slot_entropy": 0.0, "slot_cosine": 1.0}, abs=1e-5)
    spread = monitor.slot_metrics(torch.eye(4)[None], torch.full((1, 4, 2), 0.25), mask_BN)
    assert spread == pytest.approx({"slot_utilization": 1.0, "slot_entropy": 1.0, "slot_cosine": 0.0}, abs=1e-5)


def test_edges_of_a_slot_to_itself_do_not_count():
    edges_BKK = torch.tensor([[[0.0, 0.9], [0.2, 0.0]]])
    assert monitor.edge_metrics(edges_BKK) == pytest.approx({"edge_sparsity": 0.5, "edges_missing": 0.45})
    assert monitor.edge_metrics(torch.zeros(1, 1, 1)) == {}


def test_content_that_lies_along_the_slots_has_a_cosine_of_one():
    slots_BKD = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    content_BND = torch.tensor([[[-2.0, 0.0], [0.0, 9.0]]])
    first, both = torch.tensor([[True, False]]), torch.tensor([[True, True]])
    assert monitor.content_structure_cosine(slots_BKD, content_BND, first) == pytest.approx(1.0)
    assert monitor.content_structure_cosine(slots_BKD, content_BND, both) == pytest.approx(2 / math.sqrt(85))


def test_binding_that_reads_one_word_is_sure_and_one_that_reads_all_is_not():
    mask_BN = torch.tensor([[True, True, False], [True, False, False]])
    binding_BKN = torch.tensor([[[0.5, 0.5, 0.0]], [[1.0, 0.0, 0.0]]])
    found = monitor.binding_metrics(binding_BKN, mask_BN)
    assert found == pytest.approx({"binding_confidence": 0.75, "binding_entropy": 1.0}, abs=1e-6)
    assert "binding_entropy" not in monitor.binding_metrics(binding_BKN[1:], mask_BN[1:])


def test_eos_counts_when_it_comes_at_the_end_and_nowhere_before():
    a = FIRST_ACTION
    labels_BT = torch.tensor([[a, a, EOS], [a, EOS, PAD], [a, EOS, PAD], [a, a, EOS]])
    said_BT = torch.tensor([[a + 1, a, EOS], [a, EOS, EOS], [EOS, EOS, a], [a, a, a]])
    logits_BTV = torch.nn.functional.one_hot(said_BT, 9).float()
    assert monitor.eos_accuracy(logits_BTV, labels_BT) == 0.5
    assert monitor.eos_accuracy(logits_BTV, labels_BT, torch.where(labels_BT == EOS, 1.0, -1.0)) == 1.0


# --- the monitor ------------------------------------------------------------------------------------------------


class Recorded:
    """What a Guard would have been told."""

    def __init__(self):
        self.rows, self.panels = [], {}

    def record(self, *, split=None, better=None, **metrics):
        self.rows.append(metrics)

    def keep(self, name, tensor, *, every=1):
        raise AssertionError("nothing is kept")

    def show(self, name, panel):
        self.panels[name] = panel


class Small:
    """A training of a few updates, observed or not."""

    def __init__(self, observed=True, **more):
        torch.manual_seed(0)
        train = train_of("length")[600:664]
        config = WriteUpConfig(**SMALL, **more)
        self.plan = Plan(
            train, Pool(train), Curriculum(), epochs=3, batch=16, accumulate=1, seed=0,
            counterfactual_share=0.3 if config.sci else 0.0,
        )  # fmt: skip
        self.learner = Learner(config)
        self.objective = Objective(config=config, ramp_steps=4.0)
        base = list(self.learner.network.base.parameters())
        known = {id(one) for one in base}
        others = [one for one in self.learner.parameters() if id(one) not in known]
        groups = [{"params": base, "part": "base"}, {"params": others, "part": "new", "lr": 2e-3}]
        self.optimizer = torch.optim.SGD(groups, lr=1e-3)
        self.guard = Recorded()
        self.norms = {}
        self.monitor = None
        if observed:
            self.monitor = Monitor(
                self.learner, self.objective, self.optimizer, train, self.plan.epoch_of, interval=3, maps_every=6
            )

    def run(self, first, last):
        for step in range(first, last):
            self.objective.loss(self.learner, self.plan.make(step)).backward()
            norms = [one.grad.norm() for one in self.learner.parameters() if one.grad is not None]
            self.norms[step + 1] = torch.stack(norms).norm().item()
            torch.nn.utils.clip_grad_norm_(self.learner.parameters(), 0.1)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.monitor is not None:
                self.monitor.observe(self.guard, step + 1)
        return self


@pytest.fixture(scope="module")
def watched():
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(monitor, "EPOCH_AFTER", 4)
    run = Small().run(0, 7)
    monkeypatch.undo()
    return run


WRITE_UP = {
    "total_loss", "task_loss", "scl_loss", "orthogonality_loss", "eos_loss", "content_word_avg_score",
    "structure_word_avg_score", "score_separation_ratio", "slot_utilization", "slot_entropy", "edge_sparsity",
    "content_structure_cosine", "binding_entropy", "binding_confidence", "eos_accuracy",
}  # fmt: skip


def test_every_metric_of_the_write_up_is_recorded_at_each_interval(watched):
    assert len(watched.guard.rows) == 2
    for row in watched.guard.rows:
        assert row.keys() >= WRITE_UP | {"score_std", "slot_cosine", "same_structure_similarity", "memory_peak"}
        assert all(math.isfinite(value) for value in row.values())
        assert row["learning_rate/base"] == 1e-3
        assert row["learning_rate/new"] == 2e-3
        assert row["sci_parameters_without_gradient"] == 0.0


def test_gradient_norms_are_those_before_clipping_by_part(watched):
    for number, row in zip((3, 6), watched.guard.rows, strict=True):
        assert row["gradient_norm/all"] == pytest.approx(watched.norms[number], rel=1e-4)
        assert row["gradient_norm/all"] > 0.1
        parts = math.hypot(row["gradient_norm/base"], row["gradient_norm/new"])
        assert parts == pytest.approx(row["gradient_norm/all"])
        assert row["gradient_alert"] == 0.0


def test_terms_are_means_of_their_interval():
    run = Small()
    seen = []
    for step in range(3):
        run.run(step, step + 1)
        seen.append(float(run.objective.latest.terms["task_loss"]))
    (row,) = run.guard.rows
    assert row["task_loss"] == pytest.approx(sum(seen) / 3)
    assert row["task_loss_over_first"] == pytest.approx(sum(seen) / 3 / seen[0])


def test_maps_come_at_their_interval_and_slots_at_the_end_of_an_epoch(watched):
    maps = {"word-roles", "word-roles-over-time", "features", "feature-readings", "attention-1", "binding-2"}
    assert watched.guard.panels.keys() >= maps
    assert watched.guard.panels["word-roles-over-time"].columns == ("6",)
    ends = [step for step in range(1, 8) if watched.plan.epoch_of(step) != watched.plan.epoch_of(step - 1)]
    due = [step for step in ends if step >= 4]
    assert ("slots" in watched.guard.panels) is bool(due)
    assert watched.guard.panels["slots"].title == f"Slots after epoch {watched.plan.epoch_of(due[0] - 1) + 1}"


def test_watching_changes_nothing(watched):
    plain = Small(observed=False).run(0, 7)
    for one, other in zip(watched.learner.parameters(), plain.learner.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(module.training for module in watched.learner.modules())


def test_a_training_that_is_gone_on_with_tells_the_same():
    begun = Small().run(0, 4)
    state = json.loads(json.dumps(begun.monitor.state_dict()))
    again = Small()
    again.learner.load_state_dict(begun.learner.state_dict())
    again.monitor.load_state_dict(state)
    torch.manual_seed(1), begun.run(4, 6)
    torch.manual_seed(1), again.run(4, 6)
    for name in ("memory_peak", "gpu_memory_used"):
        for row in (begun.guard.rows[1], again.guard.rows[0]):
            row.pop(name, None)
    assert again.guard.rows[0] == pytest.approx(begun.guard.rows[1])


def test_answers_are_looked_at_when_an_epoch_is_over_and_at_the_end(monkeypatch):
    monkeypatch.setattr(monitor, "EPOCH_AFTER", 4)
    monkeypatch.setattr(view, "slots_scatter", lambda *_: "slots")
    run, asked = Small(), []
    run.monitor.answers, run.monitor.steps = asked.append, 7
    run.run(0, 7)
    ends = [step for step in run.plan.starts[1:] if 4 <= step < 7]
    assert len(asked) == len(ends) + 1
    monkeypatch.setattr(monitor, "EPOCH_AFTER", 1000)
    late = Small()
    late.monitor.answers, late.monitor.steps = asked.append, 2
    late.run(0, 3)
    assert len(asked) == len(ends) + 2
    assert "slots" not in late.guard.panels


def test_a_network_without_structure_is_watched_as_far_as_there_is_something():
    run = Small(sci=False).run(0, 6)
    assert run.guard.panels == {}
    assert {"task_loss", "eos_loss", "eos_accuracy", "gradient_norm/base"} <= run.guard.rows[0].keys()
    assert "slot_utilization" not in run.guard.rows[0]


def test_parameters_without_a_gradient_are_counted_outside_of_the_base():
    used, unused, base = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    groups = [{"params": [used, unused], "part": "cbm"}, {"params": [base], "part": "base"}]
    norms = GradientNorms(groups)
    (used.sum() + 0.0 * base.sum()).backward()
    assert norms.take() == {}  # nobody asked
    norms.wanted = True
    used.sum().backward()
    found = norms.take()
    assert found["sci_parameters_without_gradient"] == 1.0
    assert found["gradient_norm/cbm"] == pytest.approx(2 * 2**0.5)
    used.grad = None
    (1e3 * used.sum()).backward()
    assert norms.take()["gradient_alert"] == 1.0


def test_examples_for_maps_are_spread_over_the_lengths_and_always_the_same():
    train = train_of("length")[:500]
    some = monitor.chosen(train, 10)
    assert some == monitor.chosen(tuple(reversed(train)), 10)
    assert len(set(some)) == 10
    assert {len(one.words) for one in some} >= {1, max(len(one.words) for one in train)}
    assert len(monitor.chosen(train[:5])) == 5


# --- what is judged ---------------------------------------------------------------------------------------------


def judged(norms):
    judge = Judge(list(OWN))
    trace = judge.trace("main", [])
    found = []
    for step, norm in enumerate(norms):
        trace.append(Signal(step=step, update=step, time=float(step), values={"gradient_norm/all": norm}))
        found += [event for event in judge.step(trace) if isinstance(event, Finding)]
    return [(event.event, event.step) for event in found]


def test_two_norms_above_the_write_ups_threshold_are_alarming():
    assert judged([5.0, 120.0, 5.0, 99.0]) == []
    assert judged([5.0, 120.0, 130.0])[0] == ("opened", 2)
    assert judged([math.inf] * 3)[0] == ("opened", 1)


def test_the_checkpoints_are_those_of_the_write_up():
    ends = [60 * epoch for epoch in range(1, 13)]
    found = {(one.metric, one.comparison, one.value, one.by_step) for one in milestones(WriteUpConfig(), ends)}
    assert found >= {
        ("score_std", ">", 0.01, 100), ("sci_parameters_without_gradient", "<=", 0.0, 100),
        ("task_loss_over_first", "<", 1.0, 100), ("score_separation_ratio", ">", 1.2, 60),
        ("slot_utilization", ">", 0.5, 60), ("validation/exact_match", ">", 0.8, 300),
        ("structure_word_avg_score", ">", 0.7, 300), ("content_word_avg_score", "<", 0.3, 300),
        ("content_structure_cosine", "<", 0.2, 300), ("validation/exact_match", ">", 0.95, 600),
        ("same_structure_similarity", ">", 0.9, 600), ("validation/eos_accuracy", ">", 0.9, 600),
    }  # fmt: skip
    (finite,) = (one for one in milestones(WriteUpConfig(), ends) if one.metric == "scl_loss")
    assert finite.met_by(30.0)
    assert not finite.met_by(math.nan)
    assert not finite.met_by(math.inf)


def test_checkpoints_that_nothing_can_meet_or_that_never_come_are_left_out():
    assert milestones(WriteUpConfig(), []) == ()
    short = milestones(WriteUpConfig(), [20, 40])
    assert {one.by_step for one in short} == {20}
    flat = milestones(WriteUpConfig(sci=False), [60 * epoch for epoch in range(1, 13)])
    assert {one.metric for one in flat} == {"task_loss_over_first", "validation/exact_match", "validation/eos_accuracy"}
    assert "scl_loss" not in {one.metric for one in milestones(WriteUpConfig(scl_weight=0.0), [200])}
    proxy = milestones(WriteUpConfig(validation="proxy"), [100] * 12)
    assert {one.metric for one in proxy if one.metric.startswith("validation")} == {"validation/length_accuracy"}


def test_every_recorded_milestone_is_a_metric_that_exists(watched):
    names = watched.guard.rows[0].keys() | {"validation/exact_match", "validation/eos_accuracy"}
    assert {one.metric for one in milestones(WriteUpConfig(), [60 * epoch for epoch in range(1, 13)])} <= names


def test_the_tuning_guide_names_codes_settings_and_milestones_that_exist():
    codes = {one.code for one in (*DETECTORS, *OWN, *alarms.DETECTORS)}
    settings = {name for kind in WriteUpConfig.__mro__ for name in getattr(kind, "__annotations__", ())}
    missed = {one.metric for one in milestones(WriteUpConfig(), [60 * epoch for epoch in range(1, 13)])}
    missed.add("validation/length_accuracy")
    others = {one.cause for one in CATALOGUE}
    assert len({one.cause for one in hypotheses.HYPOTHESES} - others) == 5
    for one in hypotheses.HYPOTHESES:
        assert one.codes <= codes
        assert {key for remedy in one.remedies if remedy.kind == "config" for key in remedy.change} <= settings
        assert all(remedy.text and not remedy.text.endswith(".") for remedy in one.remedies)
        named = {c.value for weight in one.evidence for c in weight.when if c.name == "subject"}
        assert named <= missed
        assert len({str(weight) for weight in one.evidence}) == len(one.evidence)


def finding(code, subject=""):
    return Finding(
        code=code, subject=subject, severity=Severity.ERROR, step=100, since_step=100, summary="", measured=1.0,
        threshold=0.0, event="opened", id=f"{code}-{subject}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cause", "found"),
    [
        ("write-up-abstraction-does-not-separate", [finding("milestone-missed", "score_separation_ratio")]),
        ("write-up-length-generalisation-fails", [finding("milestone-missed", "validation/length_accuracy")]),
        ("write-up-unstable", [finding("gradient-norm-alarming"), finding("loss-spike")]),
    ],
)
def test_each_symptom_of_the_guide_leads_to_its_own_part(cause, found):
    every = (*CATALOGUE, *hypotheses.HYPOTHESES)
    known = frozenset(one.code for one in (*DETECTORS, *OWN))
    ranked = rank(every, found, known)
    own = [one.cause for one in ranked if one.cause.startswith("write-up")]
    assert own[0] == cause

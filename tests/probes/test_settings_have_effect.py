"""A setting is accused when nothing differs to the very end, and only then."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import pytest
import torch

from tests.probes import small
from tests.probes.small import FAMILIES, subject
from trimtab.errors import UserError
from trimtab.milestone import Milestone
from trimtab.probes import SettingsHaveEffect as Probe
from trimtab.probes import Subject
from trimtab.probes._settings import Reads, neighbours, settings_of, traced
from trimtab.records import Severity
from trimtab.system import System


@dataclass(frozen=True, kw_only=True)
class Radii:
    """A nested group of settings."""

    inner: float = 0.1
    outer: float = 0.9


@dataclass(frozen=True, kw_only=True)
class Config(small.Config):
    """More settings, most of which do nothing in some way or other."""

    unread: float = 1.0
    curvature: float = 1.0
    """Read, and used for nothing that matters."""
    in_ball: bool = False
    """A switch: the curvature acts."""
    penalty: float = 0.0
    penalty_power: int = 2
    """Acts with `penalty` above 0."""
    loss: Literal["plain", "smooth"] = "plain"
    smoothing: float = 0.1
    """Acts with `loss="smooth"`; read in any case."""
    late: float = 1.0
    """Weight of the loss from update 22 on."""
    radii: Radii = field(default_factory=Radii)
    path: str = "data"


def build(config, seed):
    """A small training that uses the settings in these ways."""
    training = small.build(config, seed)
    unit = 1 / config.curvature  # read, as a manifold would, and used only by the switch below
    smoothing = config.smoothing if config.loss == "smooth" else 0.0 * config.smoothing
    state = {"calls": 0}

    def loss(model, batch):
        x, y = batch
        value = torch.nn.functional.cross_entropy(model(x), y, label_smoothing=smoothing)
        if config.in_ball:
            value = value * unit
        if config.penalty:
            value = value + config.penalty * sum(p.abs().pow(config.penalty_power).sum() for p in model.parameters())
        state["calls"] += 1
        return value * (config.late if state["calls"] > 22 else 1.0) * (1 + config.radii.outer)

    training.loss = loss
    return training


EXTRA = [name for name in settings_of(Config()) if not hasattr(small.Config(), name)]


def probe(config=None, make=build, only=EXTRA, **changes):
    one = Subject(name="settings", make=make, config=config or Config())
    return Probe(only=tuple(only), **changes).run(one)


def accused(result):
    return {one.subject: one.severity for one in result.findings}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_setting_of_a_healthy_training_acts(family):
    result = Probe().run(subject(family=family))
    assert (result.verdict, result.findings) == ("holds", ())
    assert result.n == len(result.measured) == len(dataclasses.fields(small.Config))


def test_each_way_of_doing_nothing_is_told_apart():
    result = probe()
    assert result.verdict == "fails"
    assert accused(result) == {
        "unread": Severity.WARNING,
        "curvature": Severity.WARNING,
        "radii.inner": Severity.WARNING,
        "smoothing": Severity.INFO,
    }
    by_name = {one.subject: one for one in result.findings}
    assert "nothing reads it" in by_name["unread"].summary
    assert "it would act with in_ball=True" in by_name["curvature"].summary
    assert by_name["curvature"].evidence["read"] == 1.0
    assert by_name["unread"].evidence["read"] == 0.0
    assert result.measured["in_ball"] == "no effect here; acts with curvature=2.0"
    assert result.measured["penalty_power"] == "no effect here; acts with penalty=0.1"
    assert result.measured["late"] == "differs at update 23"
    assert result.measured["radii.outer"].startswith("differs")
    assert result.measured["path"].startswith("unknown")
    assert "curvature has no effect" in result.summary


def test_the_same_setting_connected_is_not_accused():
    assert probe(Config(in_ball=True), only=["curvature", "in_ball"]).verdict != "fails"
    assert accused(probe(Config(loss="smooth"), only=["smoothing", "loss"])) == {}
    assert accused(probe(Config(penalty=0.1), only=["penalty_power", "penalty"])) == {}


@pytest.mark.parametrize("steps", [24, 400])
def test_what_only_matters_late_is_not_accused(steps):
    names = ["steps", "warmup", "decay_from", "evaluate_every", "clip"]
    result = probe(Config(steps=steps, warmup=30), only=names)
    assert (result.verdict, accused(result)) == ("holds", {})
    assert not any(str(one).startswith("unknown") for one in result.measured.values())


def test_what_was_not_reached_is_unknown_and_never_accused():
    result = probe(budget=1e-9)
    assert (result.verdict, accused(result)) == ("unknown", {})
    assert all("budget" in result.measured[name] for name in EXTRA)


def test_a_training_too_long_for_the_budget_is_made_shorter_by_its_own_setting():
    result = probe(Config(steps=1_000_000, decay_from=1.0), only=["steps", "unread"], budget=2.0, schedule_steps=50)
    assert accused(result) == {"unread": Severity.WARNING}
    assert 20 <= result.findings[0].measured < 1_000_000
    assert "all" in result.findings[0].summary

    def endless(config, seed):
        training = build(config, seed)
        training.steps = 1_000_000
        return training

    result = probe(make=endless, only=["unread", "lr"], budget=2.0, schedule_steps=50)
    assert accused(result) == {}
    assert result.measured["unread"].startswith("unknown: no difference in")


def test_a_configuration_that_is_read_as_a_whole_is_judged_by_its_effect_alone():
    def whole(config, seed):
        plain = dataclasses.asdict(config)
        plain.pop("radii")
        return build(Config(**plain), seed)

    result = probe(make=whole, only=["unread", "penalty_power", "late"])
    assert accused(result) == {"unread": Severity.WARNING}
    assert "nothing reads it" not in result.findings[0].summary
    assert result.measured["penalty_power"].startswith("no effect here; acts with penalty=")


def test_a_milestone_is_an_effect():
    system = System(
        name="one", summary="", presets={"tiny": Config}, build=build,
        milestones=lambda c: (Milestone(metric="validation/loss", comparison="<=", value=c.unread, by_step=24),),
    )  # fmt: skip
    one = Subject(name="one", make=build, config=Config(), system=system)
    assert Probe(only=("unread",)).run(one).measured["unread"] == "differs in the milestones"


def test_a_training_that_does_not_repeat_says_nothing():
    calls = small.counting()

    def noisy(config, seed):
        training = build(config, seed)
        with torch.no_grad():
            training.model[1].weight.mul_(1 + 1e-3 * next(calls))
        return training

    result = probe(make=noisy, only=["unread"])
    assert result.verdict == "unknown"
    assert "same-seed-repeats-exactly" in result.reason


def test_without_settings_or_with_an_unknown_one_it_says_so():
    assert Probe().run(Subject(name="none", make=lambda config, seed: small.build(small.Config(), seed))).reason
    with pytest.raises(UserError, match=r"only='curvatur'.*Did you mean 'curvature'\?"):
        probe(only=["curvatur"])


def test_values_that_are_refused_are_unknown():
    @dataclass(frozen=True, kw_only=True)
    class Strict(Config):
        def __post_init__(self):
            if self.unread != 1.0:
                raise UserError("unread: expected 1")

    result = probe(Strict(), only=["unread"])
    assert result.verdict == "unknown"
    assert "refused" in result.measured["unread"]


def test_a_traced_configuration_says_what_is_read_and_by_whom():
    reads = Reads()
    config = Config(hidden=3)
    twin = traced(config, reads)
    assert isinstance(twin, Config)
    assert reads.used == set()
    assert (twin.hidden, twin.radii.inner) == (3, 0.1)
    assert reads.used == {"hidden", "radii", "radii.inner"}
    assert not reads.whole
    for read_all in (dataclasses.asdict, repr, lambda c: dataclasses.replace(c, hidden=4), vars):
        reads = Reads()
        read_all(traced(config, reads))
        assert reads.whole
        assert reads.used <= {"radii"}


@pytest.mark.parametrize(
    ("annotation", "value", "some"),
    [
        (bool, True, [False]),
        (int, 8, [16, 4, 9, 7]),
        (int, 0, [1]),
        (float, 0.5, [1.0, 0.25]),
        (float, 0.0, [0.1]),
        (Literal["a", "b", "c"], "b", ["a", "c"]),
        (int | None, None, [1, 8]),
        (tuple[float, float], (0.5, 0.25), [(1.0, 0.5), (0.25, 0.125)]),
        (str, "data", ["elsewhere"]),
        (str, "elsewhere", []),
    ],
)
def test_neighbours_are_other_values_of_the_same_kind(annotation, value, some):
    found = neighbours(annotation, value, ["elsewhere"] if annotation is str else [])
    assert found[: len(some)] == some
    assert value not in found

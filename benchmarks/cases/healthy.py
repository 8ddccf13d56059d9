"""The table of healthy trainings, which must raise no alarm, and the seeds to tune and to report on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.cases import healthy_loops as loops
from benchmarks.cases import healthy_models as models
from benchmarks.cases.faults import ALL_FAMILIES, FAULTS
from benchmarks.cases.second_injections import SECOND_INJECTIONS
from benchmarks.cases.training import Training

TUNE_SEEDS = range(100, 105)
"""Thresholds and weights are chosen on these."""
REPORT_SEEDS = range(5)
"""Figures are reported on these."""
MINIMUM_STEPS = 3 * max(case.delay_budget for case in (*FAULTS, *SECOND_INJECTIONS))
"""A healthy run is three times as long as the slowest fault may take to be found."""


@dataclass(frozen=True, kw_only=True)
class HealthyCase:
    """A healthy training that reaches its target with any seed, and what makes it look ill."""

    name: str
    build: Callable[[int], Training]

    @property
    def tricky(self) -> str:
        """What makes it look ill, from the docstring of its builder."""
        build = self.build.func if isinstance(self.build, partial) else self.build
        return (build.__doc__ or "").partition("\n")[0]


def family_with_milestone(name: str, seed: int) -> Training:
    """An ordinary training of a family that has declared its milestone, and meets it."""
    training = ALL_FAMILIES[name].build(seed)
    training.milestones = (ALL_FAMILIES[name].milestone,)
    return training


TRICKY: tuple[HealthyCase, ...] = (
    HealthyCase(name="warm-up-bump", build=loops.warm_up_bump),
    HealthyCase(name="cosine-restarts", build=loops.cosine_restarts),
    HealthyCase(name="gan", build=models.gan),
    HealthyCase(name="reinforce", build=models.reinforce),
    HealthyCase(name="batch-of-two", build=loops.batch_of_two),
    HealthyCase(name="mostly-unused-embeddings", build=partial(models.mostly_unused_embeddings, sparse=False)),
    HealthyCase(name="sparse-gradients", build=partial(models.mostly_unused_embeddings, sparse=True)),
    HealthyCase(name="idle-experts", build=models.idle_experts),
    HealthyCase(name="strong-dropout", build=loops.strong_dropout),
    HealthyCase(name="late-insight", build=models.late_insight),
    HealthyCase(name="loss-scale-search", build=loops.loss_scale_search),
    HealthyCase(name="loss-near-zero", build=loops.loss_near_zero),
    HealthyCase(name="frozen-backbone", build=partial(loops.frozen_backbone, hand_over_all=False)),
    HealthyCase(name="frozen-backbone-handed-over", build=partial(loops.frozen_backbone, hand_over_all=True)),
    HealthyCase(name="stop-gradient", build=models.stop_gradient),
    HealthyCase(name="accumulation", build=loops.accumulation),
    HealthyCase(name="two-optimizers", build=loops.two_optimizers),
    HealthyCase(name="fine-tuning", build=loops.fine_tuning),
    HealthyCase(name="stochastic-depth", build=models.stochastic_depth),
    HealthyCase(name="full-batch", build=loops.full_batch),
    HealthyCase(name="lbfgs", build=loops.lbfgs),
    HealthyCase(name="always-clipped", build=loops.always_clipped),
    HealthyCase(name="cleared-in-place-after-step", build=loops.cleared_in_place_after_step),
    HealthyCase(name="log-softmax-twice", build=loops.log_softmax_twice),
    HealthyCase(name="tied-weights", build=models.tied_weights),
)
"""Healthy, and easily taken for ill."""

HEALTHY: tuple[HealthyCase, ...] = TRICKY + tuple(
    HealthyCase(name=name, build=partial(family_with_milestone, name)) for name in ALL_FAMILIES
)
"""All healthy kinds: the tricky ones and each family as it is."""

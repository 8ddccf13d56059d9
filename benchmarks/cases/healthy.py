"""The table of healthy trainings, which must raise no alarm, and the seeds to tune and to report on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.cases import healthy_loops as loops
from benchmarks.cases import healthy_models as models
from benchmarks.cases import healthy_traps as traps
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
    """A healthy training that reaches its target with any seed, and what makes it look ill.

    `anchor` is its number in the anchors' list of healthy-but-tricky kinds (3.5), if it stands there.
    """

    name: str
    build: Callable[[int], Training]
    anchor: str = ""

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
    HealthyCase(name="warm-up-bump", anchor="H1", build=loops.warm_up_bump),
    HealthyCase(name="cosine-restarts", anchor="H2", build=loops.cosine_restarts),
    HealthyCase(name="gan", anchor="H3", build=models.gan),
    HealthyCase(name="reinforce", anchor="H4", build=models.reinforce),
    HealthyCase(name="batch-of-two", anchor="H5", build=loops.batch_of_two),
    HealthyCase(
        name="mostly-unused-embeddings", anchor="H7", build=partial(models.mostly_unused_embeddings, sparse=False)
    ),
    HealthyCase(name="sparse-gradients", anchor="H7", build=partial(models.mostly_unused_embeddings, sparse=True)),
    HealthyCase(name="idle-experts", anchor="H8", build=models.idle_experts),
    HealthyCase(name="strong-dropout", anchor="H9", build=loops.strong_dropout),
    HealthyCase(name="late-insight", anchor="H10", build=models.late_insight),
    HealthyCase(name="loss-scale-search", anchor="H11", build=loops.loss_scale_search),
    HealthyCase(name="loss-near-zero", anchor="H12", build=loops.loss_near_zero),
    HealthyCase(name="frozen-backbone", anchor="H13", build=partial(loops.frozen_backbone, hand_over_all=False)),
    HealthyCase(
        name="frozen-backbone-handed-over", anchor="H13", build=partial(loops.frozen_backbone, hand_over_all=True)
    ),
    HealthyCase(name="stop-gradient", anchor="H14", build=models.stop_gradient),
    HealthyCase(name="accumulation", anchor="H15", build=loops.accumulation),
    HealthyCase(name="two-optimizers", anchor="H15", build=loops.two_optimizers),
    HealthyCase(name="fine-tuning", anchor="H16", build=loops.fine_tuning),
    HealthyCase(name="stochastic-depth", anchor="H18", build=models.stochastic_depth),
    HealthyCase(name="full-batch", build=loops.full_batch),
    HealthyCase(name="lbfgs", build=loops.lbfgs),
    HealthyCase(name="always-clipped", build=loops.always_clipped),
    HealthyCase(name="cleared-in-place-after-step", build=loops.cleared_in_place_after_step),
    HealthyCase(name="log-softmax-twice", build=loops.log_softmax_twice),
    HealthyCase(name="tied-weights", build=models.tied_weights),
    HealthyCase(name="curriculum-announced", anchor="H6", build=partial(traps.curriculum_step, kind="curriculum")),
    HealthyCase(name="data-change-announced", anchor="H6", build=partial(traps.curriculum_step, kind="data-change")),
    HealthyCase(name="average-swapped-in", anchor="H17", build=partial(traps.averaged_weights_swapped, every=300)),
    HealthyCase(name="average-swapped-in-often", anchor="H17", build=partial(traps.averaged_weights_swapped, every=90)),
    HealthyCase(name="copying-head", build=traps.copying_head),
    HealthyCase(name="divergence-annealed", build=traps.divergence_annealed),
    HealthyCase(name="classes-collapse", build=traps.classes_collapse),
    HealthyCase(name="integer-images", build=traps.integer_images),
    HealthyCase(name="rare-class", build=traps.rare_class),
    HealthyCase(name="constant-in-the-loss", build=partial(traps.constant_in_the_loss, offset=100.0)),
    HealthyCase(name="negative-constant-in-the-loss", build=partial(traps.constant_in_the_loss, offset=-2.0)),
    HealthyCase(name="smoothed-labels", build=traps.smoothed_labels),
    HealthyCase(name="brain-float", build=traps.brain_float),
    HealthyCase(name="recomputed-activations", build=traps.recomputed_activations),
    HealthyCase(name="fixed-statistics", build=traps.fixed_statistics),
    HealthyCase(name="dropout-sampled-on-purpose", build=traps.dropout_sampled_on_purpose),
    HealthyCase(name="head-from-zero", build=traps.head_from_zero),
    HealthyCase(name="low-rank-adapters", build=traps.low_rank_adapters),
    HealthyCase(name="learning-rate-finder", build=traps.learning_rate_finder),
    HealthyCase(name="large-vocabulary", build=traps.large_vocabulary),
    HealthyCase(name="long-decay", build=traps.long_decay),
    HealthyCase(name="bounded-cache", build=traps.bounded_cache),
    HealthyCase(name="restart-announced", build=traps.restart_announced),
)
"""Healthy, and easily taken for ill."""

HEALTHY: tuple[HealthyCase, ...] = TRICKY + tuple(
    HealthyCase(name=name, build=partial(family_with_milestone, name)) for name in ALL_FAMILIES
)
"""All healthy kinds: the tricky ones and each family as it is."""

"""How the write-up's network is trained: the settings, and what is refused among them.

Rates and epochs are those of a training from scratch; `as_written.yaml` has the write-up's own, made for fine-tuning.
Phases of a curriculum are pairs (first epoch, limit): each holds until the next begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trimtab.errors import ConfigError, nearest
from trimtab_systems.sci.data import SPLITS
from trimtab_systems.sci.write_up.generate import Generation

Phases = tuple[tuple[int, int], ...]
Validation = Literal["carved", "proxy"]
Pairs = Literal["template", "wrong"]
EosMode = Literal["reweight", "additive", "bce"]
EntropyForm = Literal["least", "as_written"]
SpikeAction = Literal["rollback", "skip", "reduce_lr", "none"]
Scheduler = Literal["cosine_with_warmup", "constant"]
OrthogonalitySchedule = Literal["constant", "warmup"]

OPERATORS = 6
"""A command has at most so many operator words, so this limit of a structure curriculum takes all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """The half of `WriteUpConfig` that says how the network is trained."""

    # ---- data ----

    split: str = "length"
    """One of the splits of `sci.data`; only its training half is ever read here."""
    validation: str = "carved"
    """"carved": a share of the training examples, of the same distribution. "proxy": trained on up to 15 actions,
    validated on longer ones. "test", as upstream had it, is refused."""
    validation_share: float = 0.1
    """Share of the distinct training commands that "carved" sets aside."""
    examples: int = 0
    """Train on so many examples, drawn from the seed; 0 for all. Few of them are learned by heart."""
    split_seed: int = 0
    """Of the draws of examples and of the validation set, so that trainings of all seeds are measured on the same."""

    # ---- batches ----

    epochs: int = 10
    """Passes over what the curriculum admits."""
    batch: int = 32
    """Examples of which one loss is made; contrasts are drawn inside of it. 8 in the write-up."""
    accumulate: int = 1
    """Batches whose gradients one update averages. 4 in the write-up."""
    clip: float = 1.0
    """Largest global gradient norm; larger ones are scaled down to it."""

    # ---- rates ----

    base_lr: float = 2e-3
    """Peak rate of AdamW for embeddings, encoder, decoder and output; 2e-5 in the write-up."""
    sci_lr: float = 2e-3
    """Peak rate for everything that the write-up adds, times the multiplier of its part; 5e-5 in the write-up."""
    abstraction_rate: float = 2.0
    """Multiplier of the abstraction layers."""
    structural_rate: float = 1.0
    """Multiplier of the structural encoder without its slot queries."""
    content_rate: float = 1.0
    """Multiplier of the content encoder."""
    binding_rate: float = 1.0
    """Multiplier of binding, broadcast and injection."""
    slot_queries_rate: float = 0.5
    """Multiplier of the slot queries."""
    weight_decay: float = 0.01
    """Of AdamW; none on biases, norms, slot queries and temperatures."""
    scheduler: Scheduler = "cosine_with_warmup"
    """"constant" keeps the peak rate from the first update on."""
    warmup_ratio: float = 0.1
    """Share of the updates in which the rates rise, linearly, from `warmup_start` times the peak."""
    warmup_start: float = 0.1
    """Share of the peak at the first update."""
    min_lr_ratio: float = 0.01
    """Share of the peak at the last update."""
    boundary_rate: float = 1.0
    """Factor on the rates of the first update of each epoch but the first; more than 1 is a fault."""

    # ---- losses ----

    task_weight: float = 1.0
    """Of the mean cross-entropy of actions and EOS."""
    scl_weight: float = 0.3
    """Of the structural contrast, once its warm-up is over."""
    scl_initial: float = 0.0
    """Of the structural contrast, at the first update."""
    scl_warmup_epochs: float = 2.0
    """Epochs over which the weight goes from the one to the other, a little at each update."""
    scl_temperature: float = 0.1
    """Divides the cosines of the contrast; the write-up is silent."""
    pairs: Pairs = "template"
    """Which commands shall look alike: those of one template. "wrong", a fault: each is to look like a stranger."""
    partner_views: bool = True
    """Each example comes with another one of its template, so that it has a positive; without, hardly any has."""
    direction_is_content: bool = False
    """`left` and `right` are content as well, so that templates are fewer."""
    turn_is_content: bool = False
    """`turn` is content too, as upstream had it. It makes test commands out of training commands, and is refused."""
    orthogonality_weight: float = 0.1
    """Of the mean squared cosine of slots and content; nothing in the loss where content is projected."""
    orthogonality_schedule: OrthogonalitySchedule = "constant"
    """"warmup": from 0, over `scl_warmup_epochs`."""
    eos_mode: EosMode = "reweight"
    """"reweight": EOS counts `eos_weight` times inside the task loss. "additive": its cross-entropy is added, so that
    at 12 actions it counts 25 times. "bce": a stop head answers at each place."""
    eos_weight: float = 2.0
    """Of EOS, see `eos_mode`. With "reweight", 0 takes it out of the training."""
    teacher_forcing_eos: bool = True
    """The decoder is fed the true end. False: behind an end that it would have written itself it is fed that end."""
    length_weight: float = 0.05
    """Of the Huber loss of ln(1 + length), read from the slots."""
    eos_position_weight: float = 0.05
    """Of the cross-entropy of a pointer to the place of EOS."""
    slot_diversity_weight: float = 0.01
    """Of slots that share no words out, or that are alike."""
    slot_min_entropy: float = 1.0
    """Nats that the use of the slots is to have; ln 8 = 2.08 where all are used alike."""
    edge_sparsity_weight: float = 0.01
    """Of the squared distance of the share of missing edges from `edge_sparsity`."""
    edge_sparsity: float = 0.5
    """Share of the edges that shall be missing."""
    binding_entropy_weight: float = 0.01
    """Of content that gathers in few slots."""
    binding_entropy_form: EntropyForm = "least"
    """"least": the slots' shares of the content have at least `binding_min_entropy` nats, and a slot reads with at most
    `binding_max_entropy`. "as_written": the latter alone; with the write-up's 3.0 it never acts, as ln 9 = 2.2."""
    binding_min_entropy: float = 1.0
    """See `binding_entropy_form`."""
    binding_max_entropy: float = 1.5
    """See `binding_entropy_form`."""
    counterfactual_weight: float = 0.1
    """Of the task loss after an intervention: structure of a command, content of its partner, the partner's actions."""
    counterfactual_share: float = 0.3
    """Share of the examples that it is computed for."""

    # ---- curriculum and augmentation ----

    length_phases: Phases = ((0, 6), (1, 12), (3, 22))
    """Most actions of an example, by epoch. The write-up's 20, 50, 88 from epochs 0, 3, 8 leave nothing out."""
    structure_phases: Phases = ((0, 2), (1, 4), (4, OPERATORS))
    """Most operator words of an example (twice, thrice, and, after, around, opposite), by epoch: for the write-up's
    clauses, of which SCAN has no more than two."""
    oversampling: float = 2.0
    """Examples with fewer than `short` actions come so many times in an epoch."""
    short: int = 10
    """See `oversampling`."""
    swap_rate: float = 0.3
    """Share of the examples whose action words are exchanged for others, in command and actions."""
    structure_synonyms: bool = False
    """"two times" for "twice": refused, the commands have no such words."""

    # ---- stopping, spikes ----

    evaluate_every_epochs: int = 1
    """Epochs between two evaluations."""
    evaluate_examples: int = 500
    """Validation examples of an evaluation, the same each time; 0 for all."""
    generation: Generation = field(default_factory=Generation)
    """How answers are written, in evaluations as well."""
    patience: int = 5
    """Evaluations without a better exact match after which the training ends with its best weights; 0 for never. They
    count from the last phase of the curriculum on."""
    min_delta: float = 0.001
    """A gain up to this is none."""
    spike_action: SpikeAction = "rollback"
    """What answers a loss that is `spike_threshold` times the mean of the last `spike_window`."""
    spike_threshold: float = 3.0
    """See `spike_action`."""
    spike_window: int = 100
    """See `spike_action`."""
    spike_grace: int = 200
    """The first updates, in which nothing is a spike."""
    spike_grace_after_change: int = 100
    """... nor in so many after a phase of a curriculum or the warm-up of a weight ended."""
    spike_rollbacks: int = 3
    """So many returns at most."""


_WORDS: dict[str, Any] = {
    "pairs": Pairs,
    "scheduler": Scheduler,
    "orthogonality_schedule": OrthogonalitySchedule,
    "eos_mode": EosMode,
    "binding_entropy_form": EntropyForm,
    "spike_action": SpikeAction,
}
_NOT_NEGATIVE = (
    "task_weight", "scl_weight", "scl_initial", "scl_warmup_epochs", "orthogonality_weight", "eos_weight",
    "length_weight", "eos_position_weight", "slot_diversity_weight", "slot_min_entropy", "edge_sparsity_weight",
    "binding_entropy_weight", "binding_min_entropy", "binding_max_entropy", "counterfactual_weight", "base_lr",
    "sci_lr", "abstraction_rate", "structural_rate", "content_rate", "binding_rate", "slot_queries_rate",
    "weight_decay", "min_lr_ratio", "boundary_rate", "patience", "min_delta", "examples", "short", "evaluate_examples",
    "split_seed", "spike_grace", "spike_grace_after_change",
)  # fmt: skip
_LEAST: dict[str, float] = {
    **dict.fromkeys(_NOT_NEGATIVE, 0),
    **dict.fromkeys(("epochs", "batch", "accumulate", "evaluate_every_epochs", "spike_window", "oversampling"), 1),
    "spike_rollbacks": 1,
}
_SHARES = (
    "warmup_ratio", "warmup_start", "min_lr_ratio", "counterfactual_share", "swap_rate", "edge_sparsity",
    "validation_share",
)  # fmt: skip


def check_words(config: object, words: dict[str, Any]) -> None:
    """Raise ConfigError for a setting whose value is not among the words of its type."""
    for name, kind in words.items():
        value = getattr(config, name)
        if value not in get_args(kind):
            known = ", ".join(get_args(kind))
            raise ConfigError(f"{name}: expected one of {known}, got {value!r}.{nearest(str(value), get_args(kind))}")


def check_least(config: object, least: dict[str, float]) -> None:
    """Raise ConfigError for a setting below its least value."""
    for name, lowest in least.items():
        value = getattr(config, name)
        if not value >= lowest:
            raise ConfigError(f"{name}: expected at least {lowest:g}, got {value!r}")


def check_training(config: TrainingSettings) -> None:
    """Raise ConfigError for settings of the training that cannot be used, or that must not be."""
    if config.split not in SPLITS:
        raise ConfigError(
            f"split: expected one of {', '.join(SPLITS)}, got {config.split!r}.{nearest(config.split, SPLITS)}"
        )
    if config.validation == "test":
        raise ConfigError(
            "validation: 'test' would choose settings and the moment to stop on the test commands, so that no number "
            "of this training would be a test any more; use 'carved', or 'proxy' to look at longer outputs"
        )
    check_words(config, {"validation": Validation, **_WORDS})
    check_least(config, _LEAST)
    for name in _SHARES:
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"{name}: expected a share from 0 to 1, got {getattr(config, name)!r}")
    for name in ("clip", "scl_temperature"):
        if not getattr(config, name) > 0:
            raise ConfigError(f"{name}: expected more than 0, got {getattr(config, name)!r}")
    if not config.spike_threshold > 1:
        raise ConfigError(f"spike_threshold: expected a multiple of the mean above 1, got {config.spike_threshold!r}")
    for name in ("length_phases", "structure_phases"):
        _check_phases(name, getattr(config, name), config.epochs)
    if config.structure_synonyms:
        raise ConfigError(
            "structure_synonyms: 'two times' for 'twice' needs words that no command has, and would teach nothing that "
            "is measured; leave it off"
        )


def _check_phases(name: str, phases: Phases, epochs: int) -> None:
    firsts = [first for first, _ in phases]
    if not phases:
        return
    if firsts[0] != 0 or sorted(set(firsts)) != firsts or any(limit < 0 for _, limit in phases):
        raise ConfigError(
            f"{name}: expected pairs (first epoch, limit) with rising epochs from 0 on, such as [[0, 6], [3, 12]], or "
            f"none at all, got {phases!r}"
        )
    if firsts[-1] >= epochs:
        raise ConfigError(
            f"{name}: the last phase begins with epoch {firsts[-1]}, and there are {epochs} epochs from 0 on, so it "
            "would never come; let it begin earlier, or set more epochs"
        )

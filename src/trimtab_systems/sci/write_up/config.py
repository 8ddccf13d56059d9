"""The settings of the write-up's network and of its training; the defaults are its from-scratch form.

Where the write-up contradicts itself or cannot run, the text of the setting says what stands for it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from trimtab.errors import ConfigError
from trimtab_systems.sci.write_up.settings import TrainingSettings, check_least, check_training, check_words

Profile = Literal["from_scratch", "as_written"]
Base = Literal["own", "t5"]
Positions = Literal["rotary", "alibi", "relative_bias", "learned"]
SlotInit = Literal["xavier_uniform", "equal"]
SlotAttention = Literal["competition", "plain"]
TemperatureForm = Literal["sigmoid", "clamp"]
Aggregation = Literal["weighted_mean", "mean", "max", "attention"]
AbstractionNorm = Literal["before", "after"]
ContentContext = Literal["attention", "none"]
Orthogonality = Literal["projection", "penalty", "none"]
InterventionMethod = Literal["do_calculus", "soft_intervention"]
Broadcast = Literal["attention_weighted", "uniform", "learned"]
Injection = Literal["residual_add", "gated_add", "replace"]
InjectAt = Literal["decoder", "encoder", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteUpConfig(TrainingSettings):
    """The settings of one training of the write-up's network; how it is trained stands in `TrainingSettings`."""

    # ---- model ----

    profile: Profile = "from_scratch"
    """"as_written" also admits what the write-up asks for and what is known to harm; "from_scratch" does not."""

    sci: bool = True
    """The structure stream is there. False: the base alone, a flat Transformer without a parameter of it."""
    base: Base = "own"
    """"own": pre-LN Transformer. "t5": the T5 of `transformers`, with random weights or those of `t5_folder`."""
    t5_folder: str = ""
    """Folder of a T5 that `save_pretrained` wrote; empty for random weights of the widths below."""
    width: int = 128
    """d, of every stream. The write-up has 768 beside a T5 of 512."""
    heads: int = 4
    """Attention heads of the base and of the structural encoder; the write-up's 8 have 96 dimensions each."""
    encoder_layers: int = 2
    """Layers of the base's encoder."""
    decoder_layers: int = 3
    """Layers of the base's decoder; with 3, the injection at 25, 50 and 75 % of depth is after each."""
    mlp_ratio: int = 2
    """Hidden units of a feed-forward layer as a multiple of `width`; 4 in the write-up."""
    dropout: float = 0.1
    """Of embeddings, of what a layer adds, and of the attention of slots to words and to content."""
    tied_output: bool = False
    """The output layer is the embedding of the actions, scaled by 1 / sqrt(width); at first it then asks for the symbol
    that was just read, and has to unlearn that."""
    stop_head: bool = False
    """A second output says whether to stop before each action; needed by an EOS loss of mode "bce"."""
    gradient_checkpointing: bool = False
    """Layers of the base are computed again in the backward pass instead of keeping what they made."""

    positions: Positions = "rotary"
    """Of all self-attention. "learned" is the negative control: it knows no place beyond `max_length`."""
    rotary_width: int = 64
    """Dimensions of a head that are rotated; a narrower head is rotated whole."""
    rotary_base: float = 10000.0
    """The slowest rotation has a wave length of nearly 2 pi times this."""
    relative_buckets: int = 32
    """Buckets of distances with "relative_bias", in an encoder half of them for each direction."""
    relative_max_distance: int = 512
    """Distances from here on share the last bucket."""
    max_length: int = 512
    """Places that "learned" has a vector for, and among which `randomised_positions` draws."""
    position_noise: float = 0.01
    """Deviation of the noise on every position in training, in positions; nothing for "learned"."""
    randomised_positions: bool = False
    """In training the positions are an ascending random draw from `max_length`."""

    slots: int = 8
    """K, structure vectors of a command."""
    structural_layers: int = 2
    """Self-attention layers before the slots."""
    slot_init: SlotInit = "xavier_uniform"
    """Of the slot queries. "equal": all the same, a fault: slots that begin alike stay alike."""
    slot_scale: float = 0.02
    """Factor on the start of the slot queries."""
    slot_attention: SlotAttention = "competition"
    """"competition": the slots share out each word. "plain": each slot looks for itself, as in the write-up."""
    attention_bias: bool = True
    """The projections of the slot attention have bias terms; never a causal mask, a command has no future."""
    gnn_layers: int = 2
    """Rounds of messages between the slots."""
    edge_dim: int = 32
    """Dimensions of the vector on each edge; the write-up has 64."""
    message_dim: int = 32
    """Hidden units of a message along an edge; the write-up has `width`."""
    gnn_residual: bool = True
    """A round adds to a slot instead of replacing it."""
    gnn_norm: bool = True
    """A round ends with a layer norm."""

    features: int = 8
    """F, of the abstraction layer."""
    abstraction_at: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Depths of the structural encoder after which there is an abstraction layer: after layer ceil(depth x layers). The
    score of a word is that of the last one, which decides what of it the slots see."""
    abstraction_norm: AbstractionNorm = "before"
    """A word is normalised "before" it is weighted by its score. "after", as upstream has it, takes the weight out
    again: a norm does not see by what number its input was multiplied, and the score has no effect."""
    aggregation: Aggregation = "weighted_mean"
    """How the features make one score."""
    temperature: float = 1.0
    """Of the features' sigmoid, at the start."""
    learned_temperature: bool = True
    """The temperature learns."""
    temperature_min: float = 0.5
    """The lowest temperature."""
    temperature_max: float = 2.0
    """The highest temperature."""
    temperature_form: TemperatureForm = "sigmoid"
    """What holds it between the two. "clamp", as written, has no gradient once the bound is reached."""
    score_bias_init: float = 0.0
    """Bias of the features at the start; 0 makes every score 0.5."""

    content_layers: int = 2
    """Layers of the content encoder."""
    content_context: ContentContext = "attention"
    """"none": two position-wise layers instead, so that a word has the same content in any command."""
    content_gate: bool = False
    """A word enters the content encoder weighted by 1 - its score."""
    use_shared_embeddings: bool = True
    """Structure and content read the base's word embeddings; False: content has its own."""
    freeze_embeddings: bool = False
    """The word embeddings do not learn."""
    orthogonality: Orthogonality = "projection"
    """"projection": content is what is left beside the span of the slots. "penalty": only the loss asks for it."""
    projection_dim: int = 0
    """Hidden units of the layers before the projection; 0 for `width`."""
    num_projection_layers: int = 1
    """Linear layers before the projection."""

    binding_heads: int = 8
    """Heads of the attention of slots to content."""
    binding_iterations: int = 3
    """Rounds of binding and propagation, with the same weights."""
    intervention: InterventionMethod = "do_calculus"
    """How an intervention sets a slot. "soft_intervention" moves it by its strength."""
    intervention_strength: float = 1.0
    """Of a soft intervention; at 1 it is the hard one."""
    bound_above: float = 1.0
    """In evaluation, slots that are bound more surely than this are set to their content; 1 for never."""
    broadcast: Broadcast = "attention_weighted"
    """How a place of the base reads the slots."""
    injection: Injection = "residual_add"
    """How the base takes in what it reads."""
    injection_scale: float = 0.5
    """Factor on what is added; 0.3 in the write-up's advice for unstable trainings."""
    inject_at: InjectAt = "decoder"
    """Which half of the base is injected into."""
    injection_fractions: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Depths after which there is an injection: after layer ceil(depth x layers)."""

    def __post_init__(self) -> None:
        _check_model(self)
        check_training(self)


_WORDS: dict[str, Any] = {
    "profile": Profile,
    "base": Base,
    "positions": Positions,
    "slot_init": SlotInit,
    "slot_attention": SlotAttention,
    "aggregation": Aggregation,
    "temperature_form": TemperatureForm,
    "abstraction_norm": AbstractionNorm,
    "content_context": ContentContext,
    "orthogonality": Orthogonality,
    "intervention": InterventionMethod,
    "broadcast": Broadcast,
    "injection": Injection,
    "inject_at": InjectAt,
}
_LEAST: dict[str, float] = {
    **dict.fromkeys(("width", "heads", "encoder_layers", "decoder_layers", "mlp_ratio"), 1),
    **dict.fromkeys(
        ("slots", "features", "edge_dim", "message_dim", "num_projection_layers", "binding_heads", "max_length"), 1
    ),
    **dict.fromkeys(("structural_layers", "gnn_layers", "content_layers", "binding_iterations"), 1),
    **dict.fromkeys(("dropout", "position_noise", "injection_scale", "slot_scale", "projection_dim"), 0),
    **dict.fromkeys(("intervention_strength", "bound_above"), 0),
    "relative_buckets": 4,
    "rotary_width": 2,
}


def _check_model(config: WriteUpConfig) -> None:
    check_words(config, _WORDS)
    check_least(config, _LEAST)
    if not config.dropout < 1:
        raise ConfigError(f"dropout: expected a share from 0 to below 1, got {config.dropout!r}")
    for name in ("intervention_strength", "bound_above"):
        if not getattr(config, name) <= 1:
            raise ConfigError(f"{name}: expected a number from 0 to 1, got {getattr(config, name)!r}")
    for name in ("abstraction_at", "injection_fractions"):
        depths = getattr(config, name)
        if not depths or not all(0 < depth <= 1 for depth in depths):
            raise ConfigError(f"{name}: expected depths above 0 and up to 1, such as 0.25, 0.5, got {depths!r}")
    _check_widths(config)
    low, start, high = config.temperature_min, config.temperature, config.temperature_max
    if not 0 < low < high:
        raise ConfigError(f"temperature_min: expected more than 0 and less than temperature_max {high}, got {low!r}")
    inside = low <= start <= high if config.temperature_form == "clamp" else low < start < high
    if not inside:
        raise ConfigError(f"temperature: expected one between {low} and {high}, got {start!r}; move the bounds")
    if config.temperature_form == "clamp" and config.profile != "as_written":
        raise ConfigError(
            "temperature_form: a clamped temperature stops to learn at its bound; use 'sigmoid', or set "
            "profile='as_written' to see it happen"
        )
    if config.abstraction_norm == "after" and config.profile != "as_written":
        raise ConfigError(
            "abstraction_norm: a norm after the weight takes it out again, and no loss reaches a score; use 'before', "
            "or set profile='as_written' to see it happen"
        )
    _check_base(config)


def _check_widths(config: WriteUpConfig) -> None:
    for name in ("heads", "binding_heads"):
        if name == "binding_heads" and not config.sci:
            continue
        if config.width % getattr(config, name):
            raise ConfigError(f"{name}: expected a divisor of width {config.width}, got {getattr(config, name)!r}")
    if config.positions == "rotary":
        head = config.width // config.heads
        for name, value in (("rotary_width", config.rotary_width), ("width per head", head)):
            if value % 2:
                raise ConfigError(
                    f"{name}: rotary positions turn pairs of dimensions; expected an even number, {value=}"
                )
    if config.relative_buckets % 4:
        raise ConfigError(f"relative_buckets: expected a multiple of 4, got {config.relative_buckets!r}")
    if config.relative_max_distance <= config.relative_buckets // 2:
        raise ConfigError(
            f"relative_max_distance: expected more than half of relative_buckets {config.relative_buckets}, "
            f"got {config.relative_max_distance!r}"
        )
    if config.sci and config.orthogonality == "projection" and config.width <= config.slots:
        raise ConfigError(
            f"width: {config.slots} slots span all {config.width} dimensions, and a projection would leave no content; "
            "make width larger than slots, or set orthogonality='penalty'"
        )
    if config.num_projection_layers == 1 and config.projection_dim not in (0, config.width):
        raise ConfigError(
            f"projection_dim: a single layer leads from width to width {config.width}, got {config.projection_dim!r}; "
            "leave it out, or set num_projection_layers=2"
        )


def _check_base(config: WriteUpConfig) -> None:
    if config.t5_folder and config.base != "t5":
        raise ConfigError(f"t5_folder: base={config.base!r} loads nothing; set base='t5' or leave the folder out")
    if config.base == "t5" and config.positions != "relative_bias":
        raise ConfigError(
            f"positions: a T5 has relative_bias built in, and its attention is trained with it, got "
            f"{config.positions!r}; set positions='relative_bias', or base='own'"
        )
    for name in ("randomised_positions", "gradient_checkpointing"):
        if config.base == "t5" and getattr(config, name):
            raise ConfigError(f"{name}: the own base alone has it, a T5 has not; set base='own', or leave it out")
    if config.eos_mode == "bce" and not config.stop_head:
        raise ConfigError("eos_mode: 'bce' trains a stop head, and there is none; set stop_head=true")

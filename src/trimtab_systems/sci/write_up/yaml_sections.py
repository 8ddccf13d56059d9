"""The keys of the blocks in sections 2 to 4 of the write-up, and what becomes of each; its file has few of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab_systems.sci.write_up.generate import LONGEST_OUTPUT
from trimtab_systems.sci.write_up.settings import OPERATORS
from trimtab_systems.sci.write_up.yaml_key import GENERATION, PHASE, Key, mapped, nothing, same

_HEADS = "as many heads everywhere, so that each has width / heads dimensions"
_ON = (True,)


def _off(setting: str, because: str) -> Key:
    """Return a key that switches something off by a weight of 0."""

    def made(value: Any) -> dict[str, Any]:
        return {} if value else {setting: 0.0}

    return Key(fate="mapped", settings=made, because=because, allowed=(True, False))


def _phases(setting: str, block: str, limit: str, unlimited: int) -> Mapping[str, Key]:
    """Return the keys of a curriculum of three phases, which are one setting here."""
    found = {f"curriculum_learning.{block}.description": nothing("kept in the file; it changes nothing")}
    because = f"a pair (first epoch, limit) of {setting}; a phase ends where the next begins"
    for place in range(3):
        above, phase = f"curriculum_learning.{block}.phase{place + 1}", f"{setting}{PHASE}{place}{PHASE}"
        begins: dict[str, Any] = {f"{phase}0": lambda value: int(value[0])}
        admits: dict[str, Any] = {f"{phase}1": lambda value: unlimited if value is None else int(value)}
        found[f"{above}.epochs"] = mapped(because, **begins)
        found[f"{above}.{limit}"] = mapped(because, **admits)
        found[f"{above}.description"] = nothing("kept in the file; it changes nothing")
    return found


SECTION_KEYS: Mapping[str, Key] = {
    "positional_encoding.type": same("positions"),
    "positional_encoding.rotary_config.dim": same("rotary_width"),
    "positional_encoding.rotary_config.base": same("rotary_base"),
    "positional_encoding.alibi_config.slopes": nothing("a geometric sequence is the only one", ("geometric",)),
    "positional_encoding.relative_config.max_distance": same("relative_max_distance"),
    "positional_encoding.relative_config.num_buckets": same("relative_buckets"),
    "structural_encoder.num_slots": same("slots"),
    "structural_encoder.slot_init": same("slot_init"),
    "structural_encoder.slot_init_scale": same("slot_scale"),
    "structural_encoder.cross_attention.num_heads": mapped(_HEADS, heads=lambda value: value),
    "structural_encoder.cross_attention.head_dim": nothing(_HEADS),
    "structural_encoder.cross_attention.dropout": mapped("one dropout for the whole network", dropout=float),
    "structural_encoder.cross_attention.attention_bias": mapped(
        "bias terms of the projections; a causal mask over a command that is there as a whole would hide half of it",
        attention_bias=lambda value: value,
    ),
    "structural_encoder.gnn.num_layers": same("gnn_layers"),
    "structural_encoder.gnn.hidden_dim": nothing("every stream has one width, sci.structural_encoder.hidden_dim"),
    "structural_encoder.gnn.edge_dim": same("edge_dim"),
    "structural_encoder.gnn.residual": same("gnn_residual"),
    "structural_encoder.gnn.layer_norm": same("gnn_norm"),
    "abstraction_layer.num_features": same("features"),
    "abstraction_layer.temperature": same("temperature"),
    "abstraction_layer.learned_temperature": same("learned_temperature"),
    "abstraction_layer.temperature_min": same("temperature_min"),
    "abstraction_layer.temperature_max": same("temperature_max"),
    "abstraction_layer.aggregation": same("aggregation"),
    "abstraction_layer.score_bias_init": same("score_bias_init"),
    "content_encoder.num_layers": same("content_layers"),
    "content_encoder.layer_config.hidden_dim": nothing("every stream has one width"),
    "content_encoder.layer_config.num_heads": mapped(_HEADS, heads=lambda value: value),
    "content_encoder.layer_config.mlp_ratio": mapped("the same in every layer", mlp_ratio=lambda value: value),
    "content_encoder.layer_config.dropout": mapped("one dropout for the whole network", dropout=float),
    "content_encoder.use_shared_embeddings": same("use_shared_embeddings"),
    "content_encoder.freeze_embeddings": same("freeze_embeddings"),
    "content_encoder.orthogonality.method": same("orthogonality"),
    "content_encoder.orthogonality.projection_dim": same("projection_dim"),
    "content_encoder.orthogonality.num_projection_layers": same("num_projection_layers"),
    "content_encoder.orthogonality.penalty_weight": same("orthogonality_weight"),
    "content_encoder.orthogonality.penalty_schedule": same("orthogonality_schedule"),
    "cbm.binding_attention.num_heads": same("binding_heads"),
    "cbm.binding_attention.head_dim": nothing("width / binding_heads"),
    "cbm.binding_attention.dropout": mapped("one dropout for the whole network", dropout=float),
    "cbm.causal_intervention.enabled": _off("counterfactual_weight", "interventions are what it trains with"),
    "cbm.causal_intervention.method": same("intervention"),
    "cbm.causal_intervention.intervention_strength": same("intervention_strength"),
    "cbm.num_iterations": same("binding_iterations"),
    "cbm.broadcast.method": same("broadcast"),
    "cbm.injection_scale": same("injection_scale"),
    "cbm.injection_method": same("injection"),
    "loss_weights.task": same("task_weight"),
    "loss_weights.scl.initial": same("scl_initial"),
    "loss_weights.scl.final": same("scl_weight"),
    "loss_weights.scl.warmup_epochs": same("scl_warmup_epochs"),
    "loss_weights.scl.warmup_schedule": nothing("linear is the only one", ("linear",)),
    "loss_weights.orthogonality.weight": same("orthogonality_weight"),
    "loss_weights.orthogonality.warmup_epochs": nothing("from the start; penalty_schedule: warmup is the other", (0,)),
    "loss_weights.eos.weight": same("eos_weight"),
    "loss_weights.length_prediction.enabled": _off("length_weight", "a weight of 0 is off"),
    "loss_weights.length_prediction.weight": same("length_weight"),
    "learning_rate.base_lr": same("base_lr"),
    "learning_rate.sci_lr": same("sci_lr"),
    "learning_rate.component_lr_multipliers.abstraction_layer": same("abstraction_rate"),
    "learning_rate.component_lr_multipliers.structural_encoder": same("structural_rate"),
    "learning_rate.component_lr_multipliers.content_encoder": same("content_rate"),
    "learning_rate.component_lr_multipliers.cbm": same("binding_rate"),
    "learning_rate.component_lr_multipliers.slot_queries": same("slot_queries_rate"),
    "learning_rate.scheduler": same("scheduler"),
    "learning_rate.warmup_ratio": same("warmup_ratio"),
    "learning_rate.min_lr_ratio": same("min_lr_ratio"),
    "learning_rate.warmup.type": nothing("linear is the only one", ("linear",)),
    "learning_rate.warmup.start_factor": same("warmup_start"),
    "batch_config.batch_size": same("batch"),
    "batch_config.gradient_accumulation_steps": same("accumulate"),
    "batch_config.max_grad_norm": same("clip"),
    "gradient_checkpointing.enabled": same("gradient_checkpointing"),
    "anti_collapse_measures.min_temperature": same("temperature_min"),
    "anti_collapse_measures.max_temperature": same("temperature_max"),
    "anti_collapse_measures.slot_diversity.enabled": _off("slot_diversity_weight", "a weight of 0 is off"),
    "anti_collapse_measures.slot_diversity.weight": same("slot_diversity_weight"),
    "anti_collapse_measures.slot_diversity.min_entropy": same("slot_min_entropy"),
    "anti_collapse_measures.edge_sparsity.enabled": _off("edge_sparsity_weight", "a weight of 0 is off"),
    "anti_collapse_measures.edge_sparsity.weight": same("edge_sparsity_weight"),
    "anti_collapse_measures.edge_sparsity.target_sparsity": same("edge_sparsity"),
    "anti_collapse_measures.binding_entropy.enabled": _off("binding_entropy_weight", "a weight of 0 is off"),
    "anti_collapse_measures.binding_entropy.weight": same("binding_entropy_weight"),
    "anti_collapse_measures.binding_entropy.max_entropy": same("binding_max_entropy"),
    "anti_collapse_measures.gradient_monitoring.enabled": nothing("norms are always recorded", _ON),
    "anti_collapse_measures.gradient_monitoring.log_norms": nothing("norms are always recorded", _ON),
    "anti_collapse_measures.gradient_monitoring.alert_threshold": nothing(
        "the rule gradient-norm-alarming has it", (100.0,)
    ),
    "anti_collapse_measures.loss_spike_detection.enabled": Key(
        fate="mapped", settings=lambda value: {} if value else {"spike_action": "none"}, because="no action is off",
        allowed=(True, False),
    ),
    "anti_collapse_measures.loss_spike_detection.spike_threshold": same("spike_threshold"),
    "anti_collapse_measures.loss_spike_detection.action": same("spike_action"),
    **_phases("length_phases", "length_curriculum", "max_output_length", LONGEST_OUTPUT),
    **_phases("structure_phases", "structure_curriculum", "max_clauses", OPERATORS),
    "curriculum_learning.enabled": Key(
        fate="mapped", because="no phases are off", allowed=(True, False),
        settings=lambda value: {} if value else {"length_phases": (), "structure_phases": ()},
    ),
    "data_augmentation.length_augmentation.enabled": Key(
        fate="mapped", because="each example once, at its place, is off", allowed=(True, False),
        settings=lambda value: {} if value else {"oversampling": 1.0, "position_noise": 0.0},
    ),
    "data_augmentation.length_augmentation.short_sequence_oversampling": same("oversampling"),
    "data_augmentation.length_augmentation.positional_noise.enabled": _off("position_noise", "noise of 0 is off"),
    "data_augmentation.length_augmentation.positional_noise.noise_std": same("position_noise"),
    "data_augmentation.structure_augmentation.enabled": _off("swap_rate", "a rate of 0 is off"),
    "data_augmentation.structure_augmentation.content_swapping.enabled": _off("swap_rate", "a rate of 0 is off"),
    "data_augmentation.structure_augmentation.content_swapping.swap_rate": same("swap_rate"),
    "data_augmentation.structure_augmentation.structure_synonyms.enabled": same("structure_synonyms"),
    "eos_training.eos_token_id": nothing("read from the vocabulary: data.EOS"),
    "eos_training.target_format": nothing("the only one", ("output<eos>",)),
    "eos_training.eos_loss_weight": same("eos_weight"),
    "eos_training.eos_position_auxiliary.enabled": _off("eos_position_weight", "a weight of 0 is off"),
    "eos_training.eos_position_auxiliary.predict_length": nothing(
        "the same number as the place of EOS; the length that is read from the slots is loss_weights.length_prediction"
    ),
    "eos_training.eos_position_auxiliary.predict_eos_position": nothing("what eos_position_auxiliary is", _ON),
    "eos_training.eos_position_auxiliary.auxiliary_weight": same("eos_position_weight"),
    "eos_training.teacher_forcing_eos.enabled": same("teacher_forcing_eos"),
    "eos_training.generation.enforce_eos": same(GENERATION + "enforce_eos"),
    "eos_training.generation.eos_threshold": same(GENERATION + "eos_threshold"),
    "eos_training.generation.max_length_buffer": same(GENERATION + "max_length_buffer"),
}  # fmt: skip
"""Every key of those blocks, below the name that the block begins with."""

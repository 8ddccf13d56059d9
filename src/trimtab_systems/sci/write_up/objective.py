"""What the write-up's training minimises: its terms, their weights at each update, and what was made on the way.

Letters in names: B examples, T places of the decoder, V symbols, N words, P views, X examples that are intervened on.

Source: the write-up, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.curriculum import Batch, Micro
from trimtab_systems.sci.write_up.losses import (
    Heads,
    binding_entropy_loss,
    contrastive_loss,
    edge_sparsity_loss,
    eos_position_loss,
    length_loss,
    orthogonality_loss,
    own_ends,
    slot_diversity_loss,
    task_loss,
)
from trimtab_systems.sci.write_up.model import Decoded, Encoding, SCITransformer
from trimtab_systems.sci.write_up.schedule import ramp


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What the network made of the examples of one loss.

    Attributes:
        encoding: of the commands, and below them of their partners where those were asked for.
        decoded: of the commands.
        swapped: what was decoded after the interventions, (X, T, V); None without any.
    """

    encoding: Encoding
    decoded: Decoded
    swapped: torch.Tensor | None


class Learner(nn.Module):
    """The write-up's network with the heads of its auxiliary losses.

    Attributes:
        network: all that is needed to write actions.
        heads: what is trained on the way and not used afterwards.
        teacher_forcing_eos: the decoder is fed the true ends; otherwise its own where they come too early.
    """

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        self.network = SCITransformer(config)
        self.heads = Heads(config.width, config.slots if config.sci else 0)
        self.teacher_forcing_eos = config.teacher_forcing_eos

    def forward(self, micro: Micro, partners: bool, intervene: bool) -> Passed:
        """Pass the examples of one loss.

        Args:
            micro: the examples.
            partners: encode their partners as well.
            intervene: decode the interventions that the examples name; needs the partners.
        """
        network = self.network
        words_BS, inputs_BT = micro.words_BS, micro.inputs_BT
        encoding = network.encode(torch.cat([words_BS, micro.partner_BS]) if partners else words_BS)
        first_B = torch.arange(len(words_BS), device=words_BS.device)
        own = encoding.select(first_B) if partners else encoding
        if self.training and not self.teacher_forcing_eos:
            with torch.no_grad():
                ahead = network.decode(own, inputs_BT)
            inputs_BT = own_ends(ahead.logits_BTV, inputs_BT, micro.labels_BT)
        decoded = network.decode(own, inputs_BT)
        swapped = None
        if intervene and len(micro.swapped_X):
            kept, given = (encoding.select(micro.swapped_X + behind) for behind in (0, len(words_BS)))
            swapped = network.decode(network.swap(kept, given), micro.other_inputs_XT).logits_BTV
        return Passed(encoding=encoding, decoded=decoded, swapped=swapped)


@dataclass(kw_only=True)
class Latest:
    """The latest update, for those who watch.

    Attributes:
        step: its number.
        batch: its examples.
        passed: what the network made of the last of its micro-batches.
        terms: each term of the loss, unweighted, mean over the micro-batches, "total_loss" among them.
        weights: of the terms at this update.
    """

    step: int
    batch: Batch
    passed: Passed
    terms: Mapping[str, torch.Tensor]
    weights: Mapping[str, float]


@dataclass(kw_only=True)
class Objective:
    """The loss of an update, as a function of the network and the examples.

    Attributes:
        config: weights and forms of the terms.
        ramp_steps: updates over which the weights that grow do so.
        latest: what happened in the latest call.
    """

    config: WriteUpConfig
    ramp_steps: float
    latest: Latest | None = field(default=None, init=False)

    def weights(self, step: int) -> dict[str, float]:
        """Return the weight of each term at an update; one that is not there has none."""
        c = self.config
        weights = {"task_loss": c.task_weight, "eos_position_loss": c.eos_position_weight}
        if c.sci:
            penalised = c.orthogonality == "penalty"
            grown = ramp(step, 0.0, c.orthogonality_weight, self.ramp_steps)
            orthogonality = grown if c.orthogonality_schedule == "warmup" else c.orthogonality_weight
            weights |= {
                "scl_loss": ramp(step, c.scl_initial, c.scl_weight, self.ramp_steps),
                "orthogonality_loss": orthogonality if penalised else 0.0,
                "length_loss": c.length_weight,
                "slot_diversity_loss": c.slot_diversity_weight,
                "edge_sparsity_loss": c.edge_sparsity_weight,
                "binding_entropy_loss": c.binding_entropy_weight,
                "counterfactual_loss": c.counterfactual_weight if c.counterfactual_share else 0.0,
            }
        return weights

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the weighted sum of the terms, its mean over the micro-batches.

        Args:
            model: a `Learner`.
            batch: of one update.
        """
        assert isinstance(model, Learner)
        weights = self.weights(batch.step)
        totals: list[torch.Tensor] = []
        seen: dict[str, list[torch.Tensor]] = {}
        passed: Passed | None = None
        for micro in batch.micros:
            passed = self._pass(model, micro, weights)
            optimised, shown = self._terms(model.heads, micro, passed, weights)
            total = torch.stack([weights[name] * term for name, term in optimised.items() if weights[name]]).sum()
            totals.append(total)
            for name, term in {**optimised, **shown, "total_loss": total}.items():
                seen.setdefault(name, []).append(term.detach())
        assert passed is not None
        terms = {name: torch.stack(found).mean() for name, found in seen.items()}
        self.latest = Latest(step=batch.step, batch=batch, passed=passed, terms=terms, weights=weights)
        return torch.stack(totals).mean() if len(totals) > 1 else totals[0]

    def _pass(self, model: Learner, micro: Micro, weights: Mapping[str, float]) -> Passed:
        c = self.config
        intervene = weights.get("counterfactual_loss", 0.0) > 0
        contrast = c.sci and c.partner_views and max(c.scl_weight, c.scl_initial) > 0
        passed: Passed = model(micro, partners=contrast or intervene, intervene=intervene)
        return passed

    def _terms(
        self, heads: Heads, micro: Micro, passed: Passed, weights: Mapping[str, float]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return the terms of the sum by the name of their weight, and what is shown in place of, or beside, them."""
        c = self.config
        task = task_loss(passed.decoded.logits_BTV, micro.labels_BT, passed.decoded.stop_BT, c.eos_mode, c.eos_weight)
        terms = {"task_loss": task.optimised}
        shown = {"task_loss": task.task, "eos_loss": task.eos}
        if c.eos_position_weight:
            pointer_BT = heads.pointer(passed.decoded.hidden_BTD).squeeze(-1)
            terms["eos_position_loss"] = eos_position_loss(pointer_BT, micro.labels_BT)
        if not c.sci:
            return terms, shown
        encoding, rows = passed.encoding, len(micro.words_BS)
        slots_BKD, mask_BN = encoding.slots_BKD[:rows], encoding.mask_BN[:rows]
        if max(c.scl_weight, c.scl_initial):
            views = len(encoding.slots_BKD) if c.partner_views else rows
            template_P = torch.cat([micro.template_B, micro.template_partner_B])[:views]
            structure_PC = heads.structure(encoding.slots_BKD[:views])
            terms["scl_loss"] = contrastive_loss(structure_PC, template_P, c.scl_temperature)
        terms["orthogonality_loss"] = orthogonality_loss(slots_BKD, encoding.content_BND[:rows], mask_BN)
        if c.length_weight:
            terms["length_loss"] = length_loss(heads.log_length(encoding.slots_bound_BKD[:rows]), micro.lengths_B)
        attention_BKN, binding_BKN = encoding.slot_attention_BKN[:rows], encoding.binding_BKN[:rows]
        terms["slot_diversity_loss"] = slot_diversity_loss(slots_BKD, attention_BKN, mask_BN, c.slot_min_entropy)
        terms["edge_sparsity_loss"] = edge_sparsity_loss(encoding.edges_BKK[:rows], c.edge_sparsity)
        terms["binding_entropy_loss"] = binding_entropy_loss(
            binding_BKN, mask_BN, c.binding_entropy_form, c.binding_min_entropy, c.binding_max_entropy
        )
        if passed.swapped is not None:
            stop_XT = None
            other = task_loss(passed.swapped, micro.other_labels_XT, stop_XT, "reweight", max(c.eos_weight, 1.0))
            terms["counterfactual_loss"] = other.optimised
            shown["counterfactual_loss"] = other.task
        return terms, shown

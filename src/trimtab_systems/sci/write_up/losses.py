"""The terms of the write-up's loss, each as a function of what the network made of a batch, unweighted.

Where the write-up gives a weight and no formula, or a formula that does nothing, the text of the function says which
one stands for it.

Letters in names: B examples, T places of the decoder, V symbols of the output, K slots, N words, D dimensions, P views
(examples and their partners one below the other).

Source: the write-up, sections 3.1, 3.4 and 4.3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from trimtab_systems.sci.data import EOS, OUTPUT, PAD
from trimtab_systems.sci.write_up.settings import EntropyForm, EosMode

SMALL = 1e-8
"""Added where a share or a logarithm would divide by nothing."""
CONTRAST = 128
"""Dimensions in which structures are compared."""


class Heads(nn.Module):
    """What the auxiliary losses read the network with; nothing of it is used to write actions.

    Args:
        width: D.
        slots: K; 0 for a network without a structure stream, which has only the pointer to EOS.
    """

    def __init__(self, width: int, slots: int):
        super().__init__()
        self.pointer = nn.Linear(width, 1, bias=False)
        self.contrast = nn.Linear(slots * width, CONTRAST) if slots else None
        self.length = nn.Sequential(nn.Linear(slots * width, width), nn.GELU(), nn.Linear(width, 1)) if slots else None

    def structure(self, slots_BKD: torch.Tensor) -> torch.Tensor:
        """Return a unit vector for each example, (B, C): a projection of all slots in their order, not of their mean.

        A mean would hide which role is filled by what.
        """
        assert self.contrast is not None
        return F.normalize(self.contrast(slots_BKD.flatten(1)), dim=-1)

    def log_length(self, bound_BKD: torch.Tensor) -> torch.Tensor:
        """Return a guess of ln(1 + actions) for each example, (B,)."""
        assert self.length is not None
        length_B1: torch.Tensor = self.length(bound_BKD.flatten(1))
        return length_B1.squeeze(-1)


class Task(NamedTuple):
    """The cross-entropy of actions and EOS.

    Attributes:
        optimised: what is minimised, EOS weighted in it.
        task: the mean over all symbols, EOS like any other; without a gradient.
        eos: the mean over EOS alone; without a gradient.
    """

    optimised: torch.Tensor
    task: torch.Tensor
    eos: torch.Tensor


def task_loss(
    logits_BTV: torch.Tensor,
    labels_BT: torch.Tensor,
    stop_BT: torch.Tensor | None,
    mode: EosMode,
    eos_weight: float,
) -> Task:
    """Return the cross-entropy of the labels, `PAD` left out, with EOS weighted as `mode` says.

    Args:
        logits_BTV: of the symbols.
        labels_BT: actions and EOS, `PAD` behind.
        stop_BT: logits of a stop head, which "bce" needs.
        mode: "reweight": a weighted mean in which EOS counts `eos_weight` times. "additive": the plain mean, and
            `eos_weight` times the mean over EOS; the share of EOS in the gradient is then `eos_weight` times the number
            of actions larger, and an EOS that comes too early costs no more than before. "bce": the plain mean, and
            `eos_weight` times the binary cross-entropy of the stop head at each place.
        eos_weight: see `mode`.
    """
    flat_XV, flat_X = logits_BTV.flatten(0, 1), labels_BT.flatten()
    ends_BT = labels_BT == EOS
    with torch.no_grad():
        surprise_BT = -logits_BTV.log_softmax(-1).gather(-1, labels_BT[..., None]).squeeze(-1)
        task = surprise_BT[labels_BT != PAD].mean()
        eos = surprise_BT[ends_BT].mean()
    if mode == "reweight":
        weight_V = logits_BTV.new_ones(len(OUTPUT))
        weight_V[EOS] = eos_weight
        return Task(F.cross_entropy(flat_XV, flat_X, weight_V, ignore_index=PAD), task, eos)
    optimised = F.cross_entropy(flat_XV, flat_X, ignore_index=PAD)
    if mode == "additive":
        optimised = optimised + eos_weight * F.cross_entropy(logits_BTV[ends_BT], labels_BT[ends_BT])
    else:
        assert stop_BT is not None
        there_BT = labels_BT != PAD
        optimised = optimised + eos_weight * F.binary_cross_entropy_with_logits(
            stop_BT[there_BT], ends_BT[there_BT].to(stop_BT.dtype)
        )
    return Task(optimised, task, eos)


def own_ends(logits_BTV: torch.Tensor, inputs_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """Return the inputs of a decoder that meets its own ends: behind the first EOS that it prefers, EOS goes on.

    Where it prefers none before the true end, the inputs stay as they are.
    """
    early_BT = (logits_BTV.argmax(-1) == EOS) & (labels_BT != EOS) & (labels_BT != PAD)
    ended_BT = early_BT.cummax(dim=1).values
    behind_BT = torch.cat([torch.zeros_like(ended_BT[:, :1]), ended_BT[:, :-1]], dim=1)
    return inputs_BT.masked_fill(behind_BT, EOS)


def contrastive_loss(structure_PC: torch.Tensor, template_P: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the structural contrast: views of one template shall be nearer to each other than to all others.

    The mean over the pairs (i, j) of one template of -log of the share that j has of the similarities of i to all
    others; 0, with a graph, where there is no pair.

    Args:
        structure_PC: unit vectors.
        template_P: a number for each template.
        temperature: divides the cosines.
    """
    cosine_PP = structure_PC @ structure_PC.T / temperature
    same_PP = torch.eye(len(template_P), dtype=torch.bool)
    log_share_PP = cosine_PP - cosine_PP.masked_fill(same_PP, -math.inf).logsumexp(dim=1, keepdim=True)
    positive_PP = (template_P[:, None] == template_P[None, :]) & ~same_PP
    if not positive_PP.any():
        return structure_PC.sum() * 0.0
    return -log_share_PP[positive_PP].mean()


def orthogonality_loss(slots_BKD: torch.Tensor, content_BND: torch.Tensor, mask_BN: torch.Tensor) -> torch.Tensor:
    """Return the mean squared cosine of slots and words of one command."""
    cosine_BKN = F.normalize(slots_BKD, dim=-1) @ F.normalize(content_BND, dim=-1).transpose(1, 2)
    there_B1N = mask_BN[:, None].to(cosine_BKN.dtype)
    return (cosine_BKN.square() * there_B1N).sum() / (there_B1N.sum() * cosine_BKN.shape[1])


def length_loss(log_length_B: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """Return the Huber loss of ln(1 + actions): a regression, for a class for each length would know none beyond."""
    return F.huber_loss(log_length_B, torch.log1p(lengths_B.to(log_length_B.dtype)))


def eos_position_loss(pointer_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of a pointer over the places of the decoder, which shall find that of EOS."""
    return F.cross_entropy(pointer_BT, (labels_BT == EOS).int().argmax(dim=1))


def slot_diversity_loss(
    slots_BKD: torch.Tensor, attention_BKN: torch.Tensor, mask_BN: torch.Tensor, min_entropy: float
) -> torch.Tensor:
    """Return what slots lack that share out few words, or that are alike.

    The first part is the write-up's least entropy, in nats, of the slots' shares of all words of the batch. Entropy
    does not notice two equal slots, so the mean squared cosine of two slots of a command is added.

    Args:
        slots_BKD: of the commands.
        attention_BKN: how much of word n slot k has.
        mask_BN: where there is a word.
        min_entropy: that the shares are to have.
    """
    slots = slots_BKD.shape[1]
    if slots == 1:
        return slots_BKD.sum() * 0.0
    missing = F.relu(min_entropy - entropy(slot_shares(attention_BKN, mask_BN)))
    unit_BKD = F.normalize(slots_BKD, dim=-1)
    cosine_BKK = unit_BKD @ unit_BKD.transpose(1, 2)
    alike = (cosine_BKK.square().sum((1, 2)) - slots).mean() / (slots * (slots - 1))
    return missing + alike


def slot_shares(attention_BKN: torch.Tensor, mask_BN: torch.Tensor) -> torch.Tensor:
    """Return the share of all words that each slot has, (K,), adding up to 1."""
    taken_BKN = attention_BKN / (attention_BKN.sum(dim=1, keepdim=True) + SMALL) * mask_BN[:, None]
    return taken_BKN.sum((0, 2)) / mask_BN.sum()


def entropy(share_X: torch.Tensor) -> torch.Tensor:
    """Return the entropy along the last dimension, in nats."""
    return -(share_X * (share_X + SMALL).log()).sum(-1)


def edge_sparsity_loss(edges_BKK: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Return the squared distance of the mean share of missing edges between two slots from `sparsity`."""
    slots = edges_BKK.shape[1]
    if slots == 1:
        return edges_BKK.sum() * 0.0
    kept = (edges_BKK.sum((1, 2)) - edges_BKK.diagonal(dim1=1, dim2=2).sum(1)).mean() / (slots * (slots - 1))
    return (1 - kept - sparsity).square()


def binding_entropy_loss(
    binding_BKN: torch.Tensor, mask_BN: torch.Tensor, form: EntropyForm, least: float, most: float
) -> torch.Tensor:
    """Return what a binding lacks that gathers content in few slots.

    The write-up caps the entropy with which a slot reads the words ("as_written"); at its 3.0 that is never reached,
    and a cap works against the aim. "least" asks that the slots' shares of the content have an entropy of at least
    `least`, and caps the other at `most`.

    Args:
        binding_BKN: attention of slot k to word n, adding up to 1 over the words.
        mask_BN: where there is a word.
        form, least, most: see above, in nats.
    """
    capped = F.relu(entropy(binding_BKN).mean() - most)
    return capped if form == "as_written" else capped + F.relu(least - entropy(slot_shares(binding_BKN, mask_BN)))

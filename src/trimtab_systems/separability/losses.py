"""How the predictions of the stream model are scored."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def next_token_loss(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy over all places, in nats; chance is ln V."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def accuracy_by_place(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Return the share of rows whose most likely token is the target, for each of the T places."""
    hits_BT = logits_BTV.argmax(dim=-1) == targets_BT
    return hits_BT.double().mean(dim=0)

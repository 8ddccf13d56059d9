"""The content stream: what each word says, kept token by token and, by projection, apart from the structure.

Letters in names: B rows, N words, K slots, D width.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.layers import Dropout, EncoderLayer, encoder_mask, feed_forward
from trimtab_systems.sci.write_up.positions import PositionEncoding


def beside(content_BND: torch.Tensor, slot_BKD: torch.Tensor) -> torch.Tensor:
    """Return what is left of each content vector beside the span of the slots of its command.

    The basis of the span is orthonormal, so that the order of the slots plays no part; no gradient flows into it, or
    the structure would turn away to let content pass.

    Args:
        content_BND: (B, N, D).
        slot_BKD: (B, K, D), K < D.
    """
    with torch.no_grad():
        basis_BDK: torch.Tensor = torch.linalg.qr(slot_BKD.transpose(1, 2)).Q
    return content_BND - (content_BND @ basis_BDK) @ basis_BDK.transpose(1, 2)


class ContentEncoder(nn.Module):
    """Two light layers over the word embeddings, then the projection away from structure.

    Source: write-up, section 2.4. The content stays one vector a word: pooled to one a command, as upstream did,
    binding would have nothing to choose from.
    """

    def __init__(self, config: WriteUpConfig):
        super().__init__()
        width, self.contextual = config.width, config.content_context == "attention"
        self.gated, self.projecting = config.content_gate, config.orthogonality == "projection"
        self.drop = Dropout(config.dropout)
        if self.contextual:
            self.positions = PositionEncoding(config, both_sides=True)
            self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.content_layers))
        else:
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.content_layers))
            hidden = config.mlp_ratio * width
            self.layers = nn.ModuleList(feed_forward(width, hidden) for _ in range(config.content_layers))
        self.before = _linear_layers(width, config.projection_dim or width, config.num_projection_layers)

    def forward(
        self,
        embedded_BND: torch.Tensor,
        mask_BN: torch.Tensor,
        score_BN: torch.Tensor,
        slot_BKD: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Return the content of each word, (B, N, D), 0 at padding.

        Args:
            embedded_BND: the words.
            mask_BN: True for words, False for padding.
            score_BN: how structural they are; read with `content_gate` alone.
            slot_BKD: the structure to stay apart from; read with projection alone.
            generator: draws the noise of the positions in training.
        """
        x_BND = embedded_BND * (1 - score_BN).unsqueeze(-1) if self.gated else embedded_BND
        if self.contextual:
            places_N = self.positions.places(x_BND.shape[1], generator=generator)
            x_BND, where = self.positions.embed(x_BND, places_N), self.positions.where(places_N)
            attend = encoder_mask(mask_BN, where)
            for layer in self.layers:
                x_BND = layer(x_BND, where, attend)
        else:
            for norm, layer in zip(self.norms, self.layers, strict=True):
                x_BND = x_BND + self.drop(layer(norm(x_BND)))
        content_BND: torch.Tensor = self.before(x_BND) * mask_BN.unsqueeze(-1)
        return self.apart(content_BND, slot_BKD)

    def apart(self, content_BND: torch.Tensor, slot_BKD: torch.Tensor) -> torch.Tensor:
        """Return the content without what lies in the span of the slots, where the settings ask for that."""
        return beside(content_BND, slot_BKD) if self.projecting else content_BND


def _linear_layers(width: int, hidden: int, count: int) -> nn.Sequential:
    """Return `count` linear layers with GELU between them, from width to width."""
    widths = [width, *[hidden] * (count - 1), width]
    layers: list[nn.Module] = []
    for read, written in pairwise(widths):
        layers += [nn.Linear(read, written), nn.GELU()]
    return nn.Sequential(*layers[:-1])

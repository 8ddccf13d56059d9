"""An LSTM encoder-decoder with attention: what SCAN was first tried with.

Letters in names: B commands, N words, T symbols, D width, V symbols to choose from, L layers of each LSTM.

Source: Lake & Baroni (2018) for the task and the kind of model; Luong et al. (2015) for the attention, a dot product of
the decoder's state with what the encoder made of each word.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from trimtab_systems.sci.data import OUTPUT, WORDS

State = tuple[torch.Tensor, torch.Tensor]
"""Hidden state and cell, (L, B, D) each."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the encoder makes of commands.

    Attributes:
        memory_BND: of each word.
        mask_BN: True for words.
        state: what the decoder begins with.
    """

    memory_BND: torch.Tensor
    mask_BN: torch.Tensor
    state: State


class Cache:
    """The commands, and the state behind what was written so far."""

    def __init__(self, encoding: Encoding):
        self.encoding, self.state = encoding, encoding.state

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows alone, in this order; a row may come more than once."""
        memory_BND, mask_BN = self.encoding.memory_BND[rows], self.encoding.mask_BN[rows]
        self.state = self.state[0][:, rows], self.state[1][:, rows]
        self.encoding = Encoding(memory_BND, mask_BN, self.state)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the decoder says.

    Attributes:
        logits_BTV: of the next symbol behind each input, in the order of `data.OUTPUT`.
        hidden_BTD: the states behind them.
        stop_BT: None; EOS is a symbol like the others.
    """

    logits_BTV: torch.Tensor
    hidden_BTD: torch.Tensor
    stop_BT: None = None


class LstmNetwork(nn.Module):
    """Reads a command in both directions, writes symbol by symbol, and looks at the words before each.

    Args:
        width: D, of words, symbols and states; even, half of it reads in each direction.
        layers: L, of encoder and of decoder.
        dropout: of embeddings and states.
    """

    def __init__(self, width: int, layers: int = 1, dropout: float = 0.1):
        super().__init__()
        between = dropout if layers > 1 else 0.0  # torch warns of a dropout that has no layer to stand behind
        self.words = nn.Embedding(len(WORDS) + 1, width, padding_idx=0)
        self.symbols = nn.Embedding(len(OUTPUT), width)
        self.reader = nn.LSTM(width, width // 2, layers, batch_first=True, dropout=between, bidirectional=True)
        self.writer = nn.LSTM(width, width, layers, batch_first=True, dropout=between)
        self.begin = nn.Linear(width, width)
        self.query = nn.Linear(width, width, bias=False)
        self.join = nn.Linear(2 * width, width)
        self.output = nn.Linear(width, len(OUTPUT))
        self.drop = nn.Dropout(dropout)

    def encode(self, words_BN: torch.Tensor) -> Encoding:
        """Return what the encoder makes of commands, words numbered from 1 and 0 behind each."""
        mask_BN = words_BN != 0
        packed = pack_padded_sequence(
            self.drop(self.words(words_BN)), mask_BN.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        read, (hidden, cell) = self.reader(packed)
        memory_BND, _ = pad_packed_sequence(read, batch_first=True, total_length=words_BN.shape[1])
        both_LBD, cells_LBD = (_side_by_side(one) for one in (hidden, cell))
        return Encoding(memory_BND, mask_BN, (torch.tanh(self.begin(both_LBD)), cells_LBD))

    def start(self, encoding: Encoding, longest: int) -> Cache:
        """Return the state before the first symbol; `longest` is not needed, a state does not grow."""
        return Cache(encoding)

    def decode(self, encoding: Encoding, inputs_BT: torch.Tensor, cache: Cache | None = None) -> Decoded:
        """Return what may follow each input; with a cache the inputs are the new symbols alone."""
        if cache is not None:
            encoding = cache.encoding
        state = encoding.state if cache is None else cache.state
        states_BTD, state = self.writer(self.drop(self.symbols(inputs_BT)), state)
        if cache is not None:
            cache.state = state
        scores_BTN = self.query(states_BTD) @ encoding.memory_BND.mT
        shares_BTN = scores_BTN.masked_fill(~encoding.mask_BN[:, None], -torch.inf).softmax(-1)
        joined_BTD = torch.cat([states_BTD, shares_BTN @ encoding.memory_BND], dim=-1)
        hidden_BTD = self.drop(torch.tanh(self.join(joined_BTD)))
        return Decoded(self.output(hidden_BTD), hidden_BTD)

    def forward(self, words_BN: torch.Tensor, inputs_BT: torch.Tensor) -> tuple[Encoding, Decoded]:
        """Return encoding and decoding of commands with their targets as inputs."""
        encoding = self.encode(words_BN)
        return encoding, self.decode(encoding, inputs_BT)


def _side_by_side(states: torch.Tensor) -> torch.Tensor:
    """Return (L, B, D) of the last states of both directions, (2 L, B, D / 2), layer by layer."""
    return torch.cat([states[0::2], states[1::2]], dim=-1)

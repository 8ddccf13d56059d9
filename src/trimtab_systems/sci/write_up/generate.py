"""Writing actions symbol by symbol: greedy, sampled or by beams, in batches, with the keys of the write-up.

    commands = encode_words([("walk", "left", "twice")])
    generate(model, commands, Generation())  # [(4, 0, 4, 0)], numbers in `sci.data.ACTIONS`

Any model that can encode commands and go on from a cache will do: the write-up's network, the baselines, a T5. What
costs time is spent once: commands are sorted by length so that hardly any place is padding, a row whose output has
ended leaves the batch, and each step decodes one symbol from the cache.

Letters in names: B commands, K beams, N words, T symbols written, V symbols to choose from.

Source: write-up, sections 4 ("EOS generation strategy") and 6 (its final settings), and the appendix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

import torch
import torch.nn.functional as F
from torch import nn

from trimtab.errors import ConfigError, UserError
from trimtab_systems.sci.data import BOS, EOS, FIRST_ACTION, PAD

LONGEST_OUTPUT = 48
"""Actions of SCAN's longest answer, `... around ... thrice and ... around ... thrice`."""

ExpectedLength = Literal["grammar", "learned", "train"]


class Cache(Protocol):
    """What a decoder keeps of the commands and of what was written so far, so that each symbol can come alone."""

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows alone, in this order; a row may come more than once."""


class Decoded(Protocol):
    """What a model says about the symbols that may follow."""

    @property
    def logits_BTV(self) -> torch.Tensor:  # noqa: N802 (the shape stands in the name)
        """Logits of the next symbol behind each input, V numbers in `sci.data.OUTPUT`."""

    @property
    def stop_BT(self) -> torch.Tensor | None:  # noqa: N802 (the shape stands in the name)
        """Logit of ending behind each input, or None where EOS is a symbol like the others."""


class Decoder(Protocol):
    """What can be generated from: a module that reads commands and says what may follow a beginning of the answer."""

    def encode(self, words_BN: torch.Tensor) -> Any:
        """Return what the commands are to the decoder."""

    def start(self, encoding: Any, longest: int) -> Cache:
        """Return a cache with room for so many symbols, which holds all that decoding needs of the commands."""

    def decode(self, encoding: Any, inputs_BT: torch.Tensor, cache: Any = None) -> Decoded:
        """Return what may follow; with a cache the inputs are the new symbols alone, and the encoding is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How an answer is written. The defaults are the write-up's, but for a limit that fits words instead of pieces."""

    enforce_eos: bool = True
    """The answer ends with the first EOS. False: EOS is never written, and each answer has `max_new_tokens` actions."""
    eos_threshold: float | None = 0.5
    """The answer ends where its end is surer than this, and nowhere else; sureness is that of the model's stop head, or
    else the probability of EOS. From 0.5 on this only forbids an unsure EOS. None: EOS is a symbol like the others."""
    max_length_buffer: int | None = None
    """At most so many symbols more than the longest expected answer; None for `max_new_tokens` alone."""
    expected_length: ExpectedLength = "grammar"
    """What `max_length_buffer` is added to: the 48 actions of the grammar's longest answer. "learned" and "train" are
    refused: with the training's 22 actions and the write-up's buffer of 10, 18 % of the test could not be written."""
    max_new_tokens: int = 64
    """Symbols that are written at most, EOS included; 49 are enough. The write-up's 300 counts pieces of words."""
    num_beams: int = 1
    """Beginnings that are followed at once; 1 is greedy."""
    do_sample: bool = False
    """Symbols are drawn instead of the likeliest being taken."""
    temperature: float = 1.0
    """Divides the logits before symbols are drawn."""
    length_penalty: float = 1.0
    """Beams are compared by log-probability / symbols ** this; 0 compares the log-probabilities themselves."""
    repetition_penalty: float = 1.0
    """Logits of symbols that were written before are divided by this where positive, multiplied where negative. SCAN's
    answers are repetitions, so only 1 lets a good model be right."""
    seed: int = 0
    """Of the draws of `do_sample`."""
    batch: int = 256
    """Commands decoded at a time; more of them do not fit the cache of a processor any more."""

    def __post_init__(self) -> None:
        if self.expected_length not in get_args(ExpectedLength):
            known = ", ".join(get_args(ExpectedLength))
            raise ConfigError(f"expected_length: expected one of {known}, got {self.expected_length!r}")
        for name in ("max_new_tokens", "num_beams", "batch"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)!r}")
        for name in ("temperature", "repetition_penalty"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected a number above 0, got {getattr(self, name)!r}")
        if self.eos_threshold is not None and not 0 <= self.eos_threshold < 1:
            raise ConfigError(
                "eos_threshold: expected a probability from 0 to below 1, or none at all for the likeliest symbol, "
                f"got {self.eos_threshold!r}"
            )
        self._refuse_what_does_nothing()
        self._refuse_short_limits()

    def _refuse_what_does_nothing(self) -> None:
        if self.do_sample and self.num_beams > 1:
            raise ConfigError(
                f"num_beams: {self.num_beams} beams look for the likeliest answer and do_sample=True draws one; "
                "set num_beams=1 or do_sample=False"
            )
        if self.temperature != 1 and not self.do_sample:
            raise ConfigError(
                f"temperature: {self.temperature!r} does not change which symbol is likeliest; set do_sample=True, or "
                "leave it at 1"
            )
        if self.length_penalty != 1 and self.num_beams == 1:
            raise ConfigError(
                f"length_penalty: {self.length_penalty!r} compares beams, and there is one; set num_beams, or leave it "
                "at 1"
            )

    def _refuse_short_limits(self) -> None:
        if self.max_length_buffer is None:
            return
        if self.expected_length != "grammar":
            raise ConfigError(
                f"max_length_buffer: the longest answer expected from {self.expected_length!r} lengths is one of the "
                f"training, 22 actions, and 22 + {self.max_length_buffer} cuts answers of the test short (with 10, "
                "18 % of them) whatever the model has learned; set expected_length='grammar', or leave the buffer out"
            )
        if self.max_length_buffer < 1:
            raise ConfigError(
                f"max_length_buffer: expected at least 1, the place of EOS behind {LONGEST_OUTPUT} actions, got "
                f"{self.max_length_buffer!r}"
            )

    @property
    def limit(self) -> int:
        """Symbols that are written at most."""
        if self.max_length_buffer is None:
            return self.max_new_tokens
        return min(self.max_new_tokens, LONGEST_OUTPUT + self.max_length_buffer)


def generate(model: nn.Module, words_BN: torch.Tensor, options: Generation | None = None) -> list[tuple[int, ...]]:
    """Return the actions that a model writes for each command, numbers in `sci.data.ACTIONS`, without EOS.

    The model decodes in evaluation mode and without gradients; its mode is put back.

    Args:
        model: a module that is a `Decoder`.
        words_BN: commands, word i as i + 1, and 0 behind each.
        options: how; the defaults when None.

    Raises:
        UserError: the commands are no (B, N) numbers, or one has no word.
    """
    options = options or Generation()
    if words_BN.dim() != 2 or words_BN.is_floating_point():
        raise UserError(
            f"generate: expected commands as whole numbers (B, N), got {words_BN.dtype} of shape "
            f"{tuple(words_BN.shape)}; `sci.data.encode_words` makes them"
        )
    lengths_B = (words_BN != 0).sum(1)
    if not len(words_BN):
        return []
    if not lengths_B.all():
        raise UserError(f"generate: command {int((lengths_B == 0).nonzero()[0])} has no word")
    decoder = cast(Decoder, model)
    generator = torch.Generator(words_BN.device).manual_seed(options.seed) if options.do_sample else None
    answers: list[tuple[int, ...]] = [()] * len(words_BN)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for rows_B in lengths_B.argsort(stable=True).split(options.batch):
                part_BN = words_BN[rows_B, : int(lengths_B[rows_B].max())]
                if options.num_beams > 1:
                    symbols_BT = _by_beams(decoder, part_BN, options)
                else:
                    symbols_BT = _one_by_one(decoder, part_BN, options, generator)
                for row, symbols in zip(rows_B.tolist(), symbols_BT.tolist(), strict=True):
                    answers[row] = _actions(symbols)
    finally:
        model.train(was_training)
    return answers


def _actions(symbols: list[int]) -> tuple[int, ...]:
    end = symbols.index(EOS) if EOS in symbols else len(symbols)
    return tuple(symbol - FIRST_ACTION for symbol in symbols[:end])


def _one_by_one(
    model: Decoder, words_BN: torch.Tensor, options: Generation, generator: torch.Generator | None
) -> torch.Tensor:
    """Return the symbols written, (B, T); what stands behind EOS means nothing."""
    encoding = model.encode(words_BN)
    cache = model.start(encoding, options.limit)
    written_BT = words_BN.new_full((len(words_BN), options.limit), EOS)
    place_B = torch.arange(len(words_BN), device=words_BN.device)  # of each row that is still decoded
    ended_B = torch.zeros_like(place_B, dtype=torch.bool)
    symbols_B1 = torch.full_like(place_B, BOS)[:, None]
    for step in range(options.limit):
        decoded = model.decode(encoding, symbols_B1, cache)
        symbols_B = _next(decoded, written_BT[place_B, :step], options, generator)
        written_BT[place_B, step] = symbols_B
        ended_B |= symbols_B == EOS
        ended = int(ended_B.sum())
        if ended == len(place_B):
            break
        symbols_B1 = symbols_B[:, None]
        if ended * _LEAVE >= len(place_B):
            kept_B = (~ended_B).nonzero()[:, 0]
            cache.select(kept_B)
            place_B, symbols_B1, ended_B = place_B[kept_B], symbols_B1[kept_B], ended_B[kept_B]
    return written_BT


_LEAVE = 8
"""Rows that have ended leave once they are an eighth of the batch: leaving copies the cache of those that stay."""


def _next(
    decoded: Decoded, written_BT: torch.Tensor, options: Generation, generator: torch.Generator | None
) -> torch.Tensor:
    """Return the next symbol of each row, (B,)."""
    logits_BV = _penalised(decoded.logits_BTV[:, -1], written_BT, options)
    stop_B = None if decoded.stop_BT is None else decoded.stop_BT[:, -1]
    if generator is None:
        actions_BV = logits_BV[:, FIRST_ACTION:]
        likeliest_B = actions_BV.argmax(-1) + FIRST_ACTION
        if not options.enforce_eos:
            return likeliest_B
        if options.eos_threshold is None and stop_B is None:
            ends_B = logits_BV[:, EOS] > actions_BV.amax(-1)
        else:
            sure_B = logits_BV[:, EOS:].softmax(-1)[:, 0] if stop_B is None else stop_B.sigmoid()
            ends_B = sure_B > (0.5 if options.eos_threshold is None else options.eos_threshold)
        return torch.where(ends_B, EOS, likeliest_B)
    logs_BV = _log_probabilities(logits_BV / options.temperature, stop_B, options)
    return torch.multinomial(logs_BV.exp(), 1, generator=generator)[:, 0]


def _log_probabilities(logits_BV: torch.Tensor, stop_B: torch.Tensor | None, options: Generation) -> torch.Tensor:
    """Return log-probabilities of the symbols that may follow, (B, V); the others have -inf."""
    logs_BV = torch.full_like(logits_BV, -torch.inf)
    if stop_B is None:
        logs_BV[:, EOS:] = logits_BV[:, EOS:].log_softmax(-1)
        sure_B = logs_BV[:, EOS].exp()
    else:
        goes_on_B1 = F.logsigmoid(-stop_B)[:, None]
        logs_BV[:, EOS], sure_B = F.logsigmoid(stop_B), stop_B.sigmoid()
        logs_BV[:, FIRST_ACTION:] = logits_BV[:, FIRST_ACTION:].log_softmax(-1) + goes_on_B1
    if not options.enforce_eos:
        logs_BV[:, EOS] = -torch.inf
    elif options.eos_threshold is not None:
        logs_BV[:, EOS].masked_fill_(sure_B <= options.eos_threshold, -torch.inf)
    return logs_BV


def _penalised(logits_BV: torch.Tensor, written_BT: torch.Tensor, options: Generation) -> torch.Tensor:
    penalty = options.repetition_penalty
    if penalty == 1 or not written_BT.shape[1]:
        return logits_BV
    seen_BT = logits_BV.gather(1, written_BT)
    return logits_BV.scatter(1, written_BT, torch.where(seen_BT > 0, seen_BT / penalty, seen_BT * penalty))


def _by_beams(model: Decoder, words_BN: torch.Tensor, options: Generation) -> torch.Tensor:
    """Return the symbols of the best answer that was found, (B, T).

    An answer that reached the limit without an end is returned only where none ended.
    """
    beams, limit, penalty = options.num_beams, options.limit, options.length_penalty
    count, device = len(words_BN), words_BN.device
    best_BT = words_BN.new_full((count, limit), EOS)
    best_B = torch.full((count,), -torch.inf, device=device)
    place_B = torch.arange(count, device=device)
    encoding = model.encode(words_BN)
    cache = model.start(encoding, limit)
    cache.select(place_B.repeat_interleave(beams))
    total_BK = torch.full((count, beams), -torch.inf, device=device)
    total_BK[:, 0] = 0.0  # all beams begin alike, so that only one may be followed
    written_BKT = words_BN.new_full((count, beams, limit), EOS)
    symbols_R1 = torch.full((count * beams, 1), BOS, device=device)
    for step in range(limit):
        decoded = model.decode(encoding, symbols_R1, cache)
        stop_R = None if decoded.stop_BT is None else decoded.stop_BT[:, -1]
        logits_RV = _penalised(decoded.logits_BTV[:, -1], written_BKT.flatten(0, 1)[:, :step], options)
        logs_BKV = _log_probabilities(logits_RV, stop_R, options).unflatten(0, (-1, beams))
        logs_BKV = total_BK[:, :, None] + logs_BKV

        ending_B, beam_B = (logs_BKV[:, :, EOS] / (step + 1) ** penalty).max(1)
        better_B = (ending_B > best_B[place_B]).nonzero()[:, 0]
        best_B[place_B[better_B]] = ending_B[better_B]
        best_BT[place_B[better_B]] = written_BKT[better_B, beam_B[better_B]]
        best_BT[place_B[better_B], step] = EOS

        symbols = logs_BKV.shape[2] - FIRST_ACTION
        total_BK, chosen_BK = logs_BKV[:, :, FIRST_ACTION:].flatten(1).topk(beams, dim=1)
        from_BK, symbol_BK = chosen_BK // symbols, chosen_BK % symbols + FIRST_ACTION
        written_BKT = written_BKT.gather(1, from_BK[:, :, None].expand(-1, -1, limit))
        written_BKT[:, :, step] = symbol_BK
        # Of what a beam can still become, the best divides by the least or by the most symbols: more only cost.
        hope_B = torch.maximum(total_BK[:, 0] / (step + 2) ** penalty, total_BK[:, 0] / limit**penalty)
        kept_B = (hope_B > best_B[place_B]).nonzero()[:, 0]
        if not len(kept_B):
            break
        rows_R = (torch.arange(len(place_B), device=device)[:, None] * beams + from_BK)[kept_B].flatten()
        cache.select(rows_R)
        symbols_R1 = symbol_BK[kept_B].view(-1, 1)
        if len(kept_B) < len(place_B):
            place_B, total_BK, written_BKT = place_B[kept_B], total_BK[kept_B], written_BKT[kept_B]
    else:
        unended_B = best_B[place_B].isneginf().nonzero()[:, 0]
        best_BT[place_B[unended_B]] = written_BKT[unended_B, 0]
    return best_BT


assert max(PAD, BOS) < EOS < FIRST_ACTION  # what may be written are the symbols from EOS on

"""How probable a list of actions is when it is made of calls: exact, over all ways to cut it into phrases.

A command calls its spans in some order, at most K times; each call emits the phrase of its span, at most L actions, and
then the caller goes on or stops. Which call emitted which actions is not known, so all ways are summed by a forward
recursion over (calls made, actions emitted). R rows (a command with one choice of roles), J spans, T actions, U
distinct spans. Probabilities are plain doubles: 8 calls of 8 actions stay far above the smallest double.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

SMALLEST = 1e-80
"""The likelihood of an impossible list of actions, so that it has a large loss and not an infinite one."""
POSSIBLE = 1e-60
"""What is less likely is held to be impossible, and teaches nothing; untrained models are far above it."""


class Calls(NamedTuple):
    """The outer loop: which span is called, and whether the caller stops after it."""

    pointer_RKJ: torch.Tensor
    """Probability that call k is of span j; rows sum to 1, or are 0 where a command has no span."""
    stop_RK: torch.Tensor
    """Probability to stop after call k."""


class Phrases(NamedTuple):
    """The inner loop: what each distinct span emits, step by step."""

    action_ULA: torch.Tensor
    """Probability of each action at step l, given that the phrase goes on; rows sum to 1, or are 0."""
    end_UL: torch.Tensor
    """Probability that the phrase ends after step l."""

    def greedy(self) -> list[tuple[int, ...]]:
        """Return of each span the likelier actions, up to the first step after which the phrase rather ends.

        A span that has no action to say, as none of its words is content, says nothing.
        """
        ends_UL = self.end_UL > 0.5
        ends_UL[:, -1] = True
        lengths_U = (ends_UL.long().argmax(-1) + 1) * self.action_ULA.any(-1).any(-1)
        lengths, actions = lengths_U.tolist(), self.action_ULA.argmax(-1).tolist()
        return [tuple(row[:length]) for row, length in zip(actions, lengths, strict=True)]


def log_likelihood(
    calls: Calls,
    phrases: Phrases,
    span_RJ: torch.Tensor,
    actions_RT: torch.Tensor,
    length_R: torch.Tensor,
    subsidy: float = 1.0,
) -> torch.Tensor:
    """Return the log probability of each row's actions, summed over all cuts into phrases and all sequences of calls.

    Args:
        calls: for each row.
        phrases: for each distinct span.
        span_RJ: which distinct span the j-th span of a row is.
        actions_RT: actions, -1 beyond the end.
        length_R: actions of each row.
        subsidy: each call multiplies the likelihood by this; above 1 many short calls are preferred.
    """
    segment_RJTL = _emitted(phrases, span_RJ, actions_RT) * _lengths(phrases)[span_RJ][:, :, None]
    (rows, total), most = actions_RT.shape, segment_RJTL.shape[3]
    # segments by their end: those that end before action t, as the sum over their lengths needs them
    end_T = torch.arange(1, total + 1)[:, None]
    start_TL = end_T - torch.arange(1, most + 1)[None] + most
    by_end_RJTL = functional.pad(segment_RJTL, (0, 0, most, 0))[:, :, start_TL, torch.arange(most)[None]]
    pointer_RKJ, stop_RK = calls.pointer_RKJ.double(), calls.stop_RK.double()
    segment_RKTL = torch.einsum("rkj,rjtl->rktl", pointer_RKJ, by_end_RJTL)
    alpha_RT = functional.pad(segment_RJTL.new_ones(rows, 1), (most, total))
    last_R1 = (length_R + most)[:, None]
    likelihood_R = segment_RJTL.new_zeros(rows)
    for k in range(stop_RK.shape[1]):
        new_RT = (alpha_RT[:, start_TL] * segment_RKTL[:, k]).sum(-1) * subsidy
        alpha_RT = functional.pad(new_RT, (most + 1, 0))
        likelihood_R = likelihood_R + alpha_RT.gather(1, last_R1)[:, 0] * stop_RK[:, k]
        alpha_RT = alpha_RT * (1.0 - stop_RK[:, k : k + 1])
    return _log(likelihood_R)


def steady_log_likelihood(
    calls: Calls,
    phrases: Phrases,
    span_RJ: torch.Tensor,
    count_R: torch.Tensor,
    actions_RT: torch.Tensor,
    length_R: torch.Tensor,
    lengths: int,
) -> torch.Tensor:
    """Return the same without subsidy where the length of a span's phrase is drawn once a command, not at each call.

    A span whose phrase is now one action and now two can say by chance what takes three; the plain likelihood gets
    stuck there. Only the likeliest lengths of each span are tried; rows of more than three spans count as impossible.

    Args:
        calls, phrases, span_RJ, actions_RT, length_R: see `log_likelihood`.
        count_R: spans of each row.
        lengths: how many lengths of each span are tried.
    """
    emitted_RJTL, length_UL = _emitted(phrases, span_RJ, actions_RT), _lengths(phrases)
    likely_UI = length_UL.detach().topk(min(lengths, length_UL.shape[1]), -1).indices
    likelihood_R = emitted_RJTL.new_zeros(len(actions_RT))
    for spans in range(1, 4):
        row_S = (count_R == spans).nonzero()[:, 0]
        if not len(row_S):
            continue
        length_SJI = likely_UI[span_RJ[row_S, :spans]]
        chosen = torch.cartesian_prod(*[torch.arange(length_SJI.shape[2])] * spans).view(-1, spans).T
        length_SJC = length_SJI.gather(2, chosen.expand(len(row_S), -1, -1))
        emitted_SJCT = (
            emitted_RJTL[row_S, :spans]
            .transpose(2, 3)
            .gather(2, length_SJC[..., None].expand(-1, -1, -1, actions_RT.shape[1]))
        )
        drawn_SC = length_UL[span_RJ[row_S, :spans]].gather(2, length_SJC).prod(1)
        # a phrase of length l that begins at t ends at t + l
        end = torch.arange(actions_RT.shape[1] + 1)
        start_SJCT = end - length_SJC[..., None] - 1
        inside_SJCT = start_SJCT >= 0
        by_end_SJCT = emitted_SJCT.gather(3, start_SJCT.clamp(min=0)) * inside_SJCT
        start_SJCT = start_SJCT.clamp(min=0)
        pointer_SKJ, stop_SK = calls.pointer_RKJ[row_S].double(), calls.stop_RK[row_S].double()
        alpha_SCT = functional.pad(drawn_SC[..., None], (0, actions_RT.shape[1]))
        last_SC1 = length_R[row_S][:, None, None].expand(-1, alpha_SCT.shape[1], 1)
        total_S = emitted_SJCT.new_zeros(len(row_S))
        for k in range(stop_SK.shape[1]):
            each_SCT = [
                pointer_SKJ[:, k, j, None, None] * by_end_SJCT[:, j] * alpha_SCT.gather(2, start_SJCT[:, j])
                for j in range(spans)
            ]
            alpha_SCT = torch.stack(each_SCT).sum(0)
            total_S = total_S + alpha_SCT.gather(2, last_SC1)[..., 0].sum(1) * stop_SK[:, k]
            alpha_SCT = alpha_SCT * (1.0 - stop_SK[:, k])[:, None, None]
        likelihood_R = likelihood_R.index_put((row_S,), total_S)
    return _log(likelihood_R)


def _log(likelihood_R: torch.Tensor) -> torch.Tensor:
    return torch.where(likelihood_R > POSSIBLE, likelihood_R, SMALLEST).log()


def _lengths(phrases: Phrases) -> torch.Tensor:
    """Return the probability that a phrase has l + 1 actions: [U, L]."""
    end_UL = phrases.end_UL.double()
    return functional.pad(1.0 - end_UL[:, :-1], (1, 0), value=1.0).cumprod(-1) * end_UL


def _emitted(phrases: Phrases, span_RJ: torch.Tensor, actions_RT: torch.Tensor) -> torch.Tensor:
    """Return the probability that span j emits the l + 1 actions from t on, given that many: [R, J, T, L]."""
    _, most, kinds = phrases.action_ULA.shape
    window_RTL = functional.pad(actions_RT, (0, most), value=-1).unfold(1, most, 1)[:, : actions_RT.shape[1]]
    at_RJTL = (span_RJ[:, :, None, None] * most + torch.arange(most)) * kinds + window_RTL.clamp(min=0)[:, None]
    log_RJTL = phrases.action_ULA.reshape(-1).index_select(0, at_RJTL.reshape(-1)).view(at_RJTL.shape)
    log_RJTL = log_RJTL.double().clamp(min=SMALLEST).log().cumsum(-1)
    return log_RJTL.exp() * (window_RTL >= 0)[:, None]

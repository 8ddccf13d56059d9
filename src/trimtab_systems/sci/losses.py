"""The loss of SCI-Loop: exact for given roles, and sampled over roles.

For given roles the likelihood is exact (likelihood.py). Roles are guessed M times for each command, the first time as
the likelier ones, and each guess is tried again with one word in its other role. The loss is -log of the mean
likelihood of these 2 M choices; it teaches the loops, and not the scores. A score gets its gradient from the pairs
alone: its logit moves by sigmoid(l' - l) - 1/2, where l and l' are the log likelihoods of a guess and of its changed
twin. No baseline and no straight-through estimate are needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from trimtab_systems.sci.data import Encoded
from trimtab_systems.sci.likelihood import Calls, Phrases, log_likelihood, steady_log_likelihood
from trimtab_systems.sci.model import CONTENT, HOLE, LONGEST, PATTERN, STRUCTURE, SCILoop, cut
from trimtab_systems.sci.variants import PLAIN, Added, by_call, contrast, overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class Aids:
    """What helps the search at the start and is gone at its end: all zero is the plain likelihood."""

    structure: float = 0.0
    """Least probability of being structure, and of not being it."""
    pattern: float = 0.0
    """The same for being pattern."""
    end: float = 0.0
    """Least probability that a phrase ends, and that it goes on, at each of its steps."""
    stop: float = 0.0
    """Least probability that the caller stops, and that it goes on, after each call."""
    call: float = 0.0
    """Nats that each call earns."""
    scaffold: bool = False
    """Whether phrases are those of the scaffold."""
    steady: int = 0
    """Lengths that are tried for each span where its phrases must all have one length; 0 leaves them free."""


class Loss(NamedTuple):
    """The parts of one loss."""

    task: torch.Tensor
    """What has to become small; scalar, in nats a command or a span."""
    roles: torch.Tensor
    """What gives the scores their gradient; its value means nothing."""
    rows: int
    """Likelihoods that were computed."""


def loop_loss(
    model: SCILoop,
    batch: Encoded,
    aids: Aids,
    guesses: int,
    generator: torch.Generator,
    added: Added = PLAIN,
    partners_BN: torch.Tensor | None = None,
) -> Loss:
    """Return the loss of a batch: each guess of the roles, and the same with one word in its other role.

    What a pair says about its word is the share of its likelihood that lies with one role, less a half: it does not
    matter how sure the score is already, so that a role that was taken too early can be left again.

    Args:
        model: what is trained.
        batch: commands and their actions.
        aids: how much of each aid is left.
        guesses: of the roles of each command.
        generator: of the guesses.
        added: weights of terms that the loss has not by itself.
        partners_BN: words of commands with the templates of the batch, for the contrast.
    """
    words_BN = batch.words_BN
    word_BN = words_BN > 0
    commands, places = words_BN.shape
    typed = model.context is None
    first_BN, new_BN = _first_places(words_BN)
    structure_BN, pattern_BN = model.scores(words_BN)

    uniform_MBN = torch.rand(guesses, commands, places, generator=generator)
    if typed:
        uniform_MBN = uniform_MBN.gather(2, first_BN.expand(guesses, -1, -1))
    mine_MBN = (uniform_MBN < between(structure_BN.detach(), aids.structure)) & word_BN
    mine_MBN[0] = (structure_BN > 0.5) & word_BN
    place_MB = _any_place(new_BN & word_BN, guesses, generator)
    if typed:
        changed_MBN = words_BN == words_BN.gather(1, place_MB.T).T[..., None]
    else:
        changed_MBN = torch.arange(places) == place_MB[..., None]
    structure_MBN = torch.cat([mine_MBN, mine_MBN ^ changed_MBN])

    place = 2 ** torch.arange(places)
    code = (structure_MBN * place).sum(-1) + torch.arange(commands) * 2**LONGEST
    distinct, which = code.reshape(-1).unique(return_inverse=True)
    command_R = distinct // 2**LONGEST
    structure_RN = (distinct[:, None] // place % 2).bool()
    free_BN = torch.where(pattern_BN > 0.5, PATTERN, CONTENT)
    roles_RN = torch.where(structure_RN, STRUCTURE, free_BN[command_R]) * word_BN[command_R]
    log_likelihood_MB = _of_rows(model, batch, command_R, roles_RN, aids)[which].view(2 * guesses, commands)
    task = math.log(2 * guesses) - torch.logsumexp(log_likelihood_MB, 0).mean()
    roles = _role_term(log_likelihood_MB.detach(), _at(structure_BN, place_MB), _at(mine_MBN, place_MB))

    task = task.float()
    if added.scl_weight:
        views_PN = words_BN if partners_BN is None else torch.cat([words_BN, partners_BN])
        task = task + added.scl_weight * contrast(model.slots_of(views_PN), views_PN)
    if added.orthogonality:
        content_BN = word_BN & (model.hard_roles(words_BN) != STRUCTURE)
        task = task + added.orthogonality * overlap(model.slots_of(words_BN), model.embedding(words_BN), content_BN)
    return Loss(task, roles, len(distinct))


def copy_loss(
    model: SCILoop, batch: Encoded, aids: Aids, guesses: int, content_cost: float, generator: torch.Generator
) -> Loss:
    """Return what the inner loop lacks against the scaffold's phrases, on the distinct spans of a batch.

    Which words are pattern is guessed, and changed in one word of each guess, as `loop_loss` does with structure.
    Embeddings, and with them the scaffold and the outer loop, stay as they are.

    Args:
        model: what is trained.
        batch: whose spans are taken; its actions are not.
        aids: how much of each aid is left.
        guesses: of the roles of each span.
        content_cost: nats that each content word costs, so that a word is content only where it has to be copied.
        generator: of the guesses.
    """
    with torch.no_grad():
        structure_BN, _ = model.scores(batch.words_BN)
        roles_BN = torch.where(structure_BN > 0.5, STRUCTURE, PATTERN) * (batch.words_BN > 0)
        spans = cut(batch.words_BN, roles_BN)
        words_UN = spans.words_UN[(spans.words_UN > 0).any(-1)]
    if not len(words_UN):  # every word is structure: nothing can be copied, nothing learnt
        nothing = 0.0 * model.lexicon.weight.sum()
        return Loss(nothing, nothing, 0)
    with torch.no_grad():
        taught = model.taught(words_UN)
    words_UN, taught = words_UN.repeat(guesses, 1), _copies(taught, guesses, model.calls)
    word_UN = words_UN > 0
    pattern_UN = model.pattern(model.embedding.weight.detach())[1][words_UN]
    uniform_UN = torch.rand(words_UN.shape, generator=generator)
    mine_UN = (uniform_UN < between(pattern_UN.detach(), aids.pattern)) & word_UN
    place_U = _any_place(word_UN, 1, generator)
    other_UN = mine_UN ^ (torch.arange(words_UN.shape[1]) == place_U[0][:, None])
    patterns_MUN = torch.where(torch.stack([mine_UN, other_UN]), words_UN, HOLE) * word_UN
    said, _ = model.phrases(patterns_MUN.flatten(0, 1), words_UN.repeat(2, 1), learn_words=False)
    log_likelihood_MU = _expected(_copies(taught, 2, model.calls), said).view(model.calls, 2, -1).mean(0)
    cost_MU = content_cost * ((patterns_MUN == HOLE) & word_UN).sum(-1)
    roles = _role_term(log_likelihood_MU.detach() - cost_MU, _at(pattern_UN, place_U), _at(mine_UN, place_U))
    if aids.pattern >= 0.5:  # while all choices are equally likely, what they are worth is not known yet
        roles = roles.new_zeros(())
    return Loss(-log_likelihood_MU.mean(), roles, patterns_MUN[..., 0].numel())


def _copies(phrases: Phrases, times: int, calls: int) -> Phrases:
    """Return the phrases of spans that stand so many times one behind the other, in each of the calls."""
    action_ULA, end_UL = (part.unflatten(0, (calls, -1)) for part in phrases)
    return Phrases(action_ULA.repeat(1, times, 1, 1).flatten(0, 1), end_UL.repeat(1, times, 1).flatten(0, 1))


def _expected(taught: Phrases, said: Phrases) -> torch.Tensor:
    """Return the log likelihood of what is taught under what is said, expected over the taught phrases."""
    action_ULA, end_UL = taught
    reach_UL = torch.cat([torch.ones_like(end_UL[:, :1]), (1.0 - end_UL).cumprod(-1)[:, :-1]], -1)
    floor = 1e-6
    action_UL = (action_ULA * said.action_ULA.clamp(min=floor).log()).sum(-1)
    end = said.end_UL.clamp(floor, 1.0 - floor)
    stop_UL = end_UL * end.log() + (1.0 - end_UL) * (1.0 - end).log()
    return (reach_UL * (action_UL + stop_UL)).sum(-1)


def _role_term(log_likelihood_MB: torch.Tensor, score_MB: torch.Tensor, was_MB: torch.Tensor) -> torch.Tensor:
    """Return the term whose gradient moves a word's score to the role under which more is explained."""
    mine_MB, other_MB = log_likelihood_MB.chunk(2)
    share_MB = (other_MB - mine_MB).sigmoid() - 0.5
    logit_MB = torch.logit(score_MB, eps=1e-4) * torch.where(was_MB, -1.0, 1.0)
    return -(share_MB.float() * logit_MB).mean()


def _any_place(open_BN: torch.Tensor, draws: int, generator: torch.Generator) -> torch.Tensor:
    """Return one of the open places of each row, drawn evenly, [draws, B]."""
    number_BN = open_BN.long().cumsum(-1)
    picked_MB = (torch.rand(draws, len(open_BN), generator=generator) * number_BN[:, -1]).long() + 1
    return (number_BN == picked_MB[..., None]).long().argmax(-1)


def _at(values_BN: torch.Tensor, place_MB: torch.Tensor) -> torch.Tensor:
    """Return the value at a place of each command."""
    if values_BN.dim() == 2:
        values_BN = values_BN.expand(len(place_MB), -1, -1)
    return values_BN.gather(2, place_MB[..., None])[..., 0]


def _of_rows(
    model: SCILoop, batch: Encoded, command_R: torch.Tensor, roles_RN: torch.Tensor, aids: Aids
) -> torch.Tensor:
    words_RN = batch.words_BN[command_R][:, : roles_RN.shape[1]]
    spans = cut(words_RN, roles_RN)
    calls, phrases = model.programs(spans, scaffold=aids.scaffold)
    most = spans.span_RJ.shape[1]
    pointer_RKJ = calls.pointer_RKJ[spans.skeleton_R][:, :, :most]
    span_RJ = spans.span_RJ
    if model.calls > 1:
        pointer_RKJ, span_RJ = by_call(pointer_RKJ, span_RJ, len(spans.words_UN))
    stop_RK = between(calls.stop_RK, aids.stop)[spans.skeleton_R]
    end_UL = between(phrases.end_UL, aids.end)
    length_R = batch.lengths_B[command_R]
    actions_RT = batch.actions_BT[command_R][:, : int(length_R.max())]
    calls, phrases = Calls(pointer_RKJ, stop_RK), Phrases(phrases.action_ULA, end_UL)
    if aids.steady and model.calls == 1:
        return steady_log_likelihood(calls, phrases, spans.span_RJ, spans.count_R, actions_RT, length_R, aids.steady)
    return log_likelihood(calls, phrases, span_RJ, actions_RT, length_R, math.exp(aids.call))


def between(probability: torch.Tensor, floor: float) -> torch.Tensor:
    """Return the probability kept `floor` away from 0 and 1."""
    return floor + (1.0 - 2.0 * floor) * probability if floor else probability


def _first_places(words_BN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each place the first place of the same word, and whether it is that one."""
    same_BNN = words_BN[:, :, None] == words_BN[:, None, :]
    first_BN = same_BNN.long().argmax(-1)
    return first_BN, first_BN == torch.arange(words_BN.shape[1])

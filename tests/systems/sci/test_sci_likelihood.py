"""The likelihood of SCI-Loop, next to the sum over all cuts and calls, one by one."""

from itertools import product
from math import isclose, log, prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_systems.sci.likelihood import SMALLEST, Calls, Phrases, log_likelihood, steady_log_likelihood

ROWS, SPANS, DISTINCT, CALLS, LONGEST, KINDS, MOST = 3, 2, 3, 3, 3, 2, 4


def drawn(seed):
    torch.manual_seed(seed)
    calls = Calls(torch.rand(ROWS, CALLS, SPANS).softmax(-1), torch.rand(ROWS, CALLS))
    phrases = Phrases(torch.rand(DISTINCT, LONGEST, KINDS).softmax(-1), torch.rand(DISTINCT, LONGEST))
    first_R = torch.randint(DISTINCT, (ROWS,))
    span_RJ = torch.stack([first_R, (first_R + 1) % DISTINCT], 1)
    length_R = torch.randint(1, MOST + 1, (ROWS,))
    actions_RT = torch.randint(KINDS, (ROWS, MOST)).where(torch.arange(MOST) < length_R[:, None], -1)
    return calls, phrases, span_RJ, actions_RT, length_R


def of_length(phrases, span, length):
    ends = phrases.end_UL[span].tolist()
    return prod(1 - end for end in ends[: length - 1]) * ends[length - 1]


def said(phrases, span, actions):
    return prod(float(phrases.action_ULA[span, step, action]) for step, action in enumerate(actions))


def ways(count, spans, actions, lengths_of):
    """Yield each sequence of so many calls, and lengths of their phrases, that gives so many actions."""
    for order in product(range(spans), repeat=count):
        for lengths in product(*(lengths_of(span) for span in order)):
            if sum(lengths) == actions:
                yield order, lengths


def slow(calls, phrases, spans, actions, row, subsidy=1.0, drawn_once=None):
    """Return the likelihood of one row; `drawn_once` is one length for each of its spans."""
    total = 0.0
    for count in range(1, CALLS + 1):
        chain = prod(1 - float(calls.stop_RK[row, k]) for k in range(count - 1)) * float(calls.stop_RK[row, count - 1])
        lengths_of = (lambda _: range(1, LONGEST + 1)) if drawn_once is None else (lambda j: (drawn_once[j],))
        for order, lengths in ways(count, len(spans), len(actions), lengths_of):
            place, one = 0, chain * subsidy**count
            for k, (j, length) in enumerate(zip(order, lengths, strict=True)):
                one *= float(calls.pointer_RKJ[row, k, j])
                one *= said(phrases, spans[j], actions[place : place + length])
                one *= of_length(phrases, spans[j], length) if drawn_once is None else 1.0
                place += length
            total += one
    return total


def slow_steady(calls, phrases, spans, actions, row, tried):
    """Return the likelihood of one row whose spans each draw a length out of those tried."""
    return sum(
        prod(of_length(phrases, span, length) for span, length in zip(spans, lengths, strict=True))
        * slow(calls, phrases, spans, actions, row, drawn_once=lengths)
        for lengths in product(*(tried(span) for span in spans))
    )


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 1.7]))
def test_the_recursion_sums_all_cuts_and_all_calls(seed, subsidy):
    calls, phrases, span_RJ, actions_RT, length_R = drawn(seed)
    found = log_likelihood(calls, phrases, span_RJ, actions_RT, length_R, subsidy).exp().tolist()
    for row, length in enumerate(length_R.tolist()):
        expected = slow(calls, phrases, span_RJ[row].tolist(), actions_RT[row, :length].tolist(), row, subsidy)
        assert isclose(found[row], expected, rel_tol=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, LONGEST))
def test_steady_phrases_have_one_length_in_a_command(seed, lengths):
    calls, phrases, span_RJ, actions_RT, length_R = drawn(seed)
    count_R = torch.tensor([2, 1, 2])
    calls.pointer_RKJ[1] = torch.tensor([1.0, 0.0])

    def tried(span):
        every = sorted(range(1, LONGEST + 1), key=lambda length: -of_length(phrases, span, length))
        return every[:lengths]

    found = steady_log_likelihood(calls, phrases, span_RJ, count_R, actions_RT, length_R, lengths).exp().tolist()
    for row, (length, count) in enumerate(zip(length_R.tolist(), count_R.tolist(), strict=True)):
        spans = span_RJ[row, :count].tolist()
        expected = slow_steady(calls, phrases, spans, actions_RT[row, :length].tolist(), row, tried)
        assert isclose(found[row], expected + SMALLEST, rel_tol=1e-5)


def test_all_lists_of_actions_together_have_no_more_than_all_probability():
    calls, phrases, span_RJ, _, _ = drawn(0)
    phrases.end_UL[:, -1] = 1.0
    calls.stop_RK[:, -1] = 1.0
    total = 0.0
    for length in range(1, CALLS * LONGEST + 1):
        actions_RT = torch.tensor(list(product(range(KINDS), repeat=length)))
        rows = len(actions_RT)
        of_all = Calls(*(part[:1].expand(rows, *part.shape[1:]) for part in calls))
        found = log_likelihood(of_all, phrases, span_RJ[:1].expand(rows, -1), actions_RT, torch.full((rows,), length))
        total += float(found.exp().sum())
    assert total == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("steady", [False, True])
def test_gradients_are_finite_for_impossible_actions_too(steady):
    action_ULA = torch.zeros(2, 2, 2)
    action_ULA[:, :, 0] = 1.0
    leaves = [
        torch.tensor([[[1.0, 0.0]] * 2, [[0.0, 0.0]] * 2]), torch.tensor([[0.0, 1.0], [0.5, 0.5]]),
        action_ULA, torch.tensor([[0.0, 1.0], [1.0, 1.0]]),
    ]  # fmt: skip
    for leaf in leaves:
        leaf.requires_grad_()
    calls, phrases = Calls(*leaves[:2]), Phrases(*leaves[2:])
    actions_RT, length_R, span_RJ = (
        torch.tensor([[1, 1, 1], [0, 0, -1]]),
        torch.tensor([3, 2]),
        torch.tensor([[0, 1]] * 2),
    )
    if steady:
        found = steady_log_likelihood(calls, phrases, span_RJ, torch.tensor([2, 0]), actions_RT, length_R, 2)
    else:
        found = log_likelihood(calls, phrases, span_RJ, actions_RT, length_R)
    assert found.tolist() == pytest.approx([log(SMALLEST)] * 2)
    found.sum().backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_more_than_three_spans_are_impossible_where_phrases_are_steady():
    calls = Calls(torch.full((1, 4, 4), 0.25), torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    phrases = Phrases(torch.ones(1, 1, 1), torch.ones(1, 1))
    given_ = (torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long), torch.tensor([4]))
    assert log_likelihood(calls, phrases, *given_).exp().item() == pytest.approx(1.0)
    steady = steady_log_likelihood(calls, phrases, given_[0], torch.tensor([4]), *given_[1:], 1)
    assert steady.item() == pytest.approx(log(SMALLEST))


def test_the_greedy_phrase_ends_after_the_first_likely_end_or_at_the_last_step():
    phrases = Phrases(
        torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]] * 2), torch.tensor([[0.4, 0.6, 0.9], [0.1, 0.1, 0.1]])
    )
    assert phrases.greedy() == [(0, 1), (0, 1, 0)]

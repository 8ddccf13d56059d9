"""The stream model never looks ahead, agrees with an obvious twin and starts at chance."""

import math

import pytest
import torch

from trimtab_systems.separability.losses import accuracy_by_place, next_token_loss
from trimtab_systems.separability.model import Attention, Head, StreamModel, Taps


def small(**changes):
    torch.manual_seed(0)
    settings = {"vocabulary": 11, "length": 12, "width": 8, "heads": 2, "blocks": 2, "taps": 3, **changes}
    return StreamModel(**settings)


def shaken(model):
    """The same model with every weight moved at random, so that nothing is zero by initialisation."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("taps", [0, 3])
@pytest.mark.parametrize("blocks", [1, 2])
def test_what_comes_later_changes_nothing_before(taps, blocks):
    model = shaken(small(taps=taps, blocks=blocks))
    tokens = torch.randint(11, (5, 12))
    with torch.no_grad():
        before = model(tokens)
        for cut in range(12):
            other = tokens.clone()
            other[:, cut:] = (other[:, cut:] + torch.randint(1, 11, other[:, cut:].shape)) % 11
            after = model(other)
            assert torch.equal(after[:, :cut], before[:, :cut])
            assert not torch.allclose(after[:, cut], before[:, cut])


def test_a_model_that_looks_ahead_is_caught_by_the_same_check():
    model = shaken(small())
    for block in model.blocks:
        block.attention.ahead.fill_(False)
    tokens = torch.randint(11, (5, 12))
    other = tokens.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 11
    with torch.no_grad():
        assert not torch.allclose(model(other)[:, :6], model(tokens)[:, :6])


def test_each_place_can_read_every_place_before_it():
    model = shaken(small(blocks=1, taps=0))
    tokens = torch.randint(11, (1, 12))
    embedded = model.embedding(tokens).detach().requires_grad_()
    model.blocks(embedded)[0, 11].sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad[0].norm(dim=-1) > 1e-6).all()


def test_attention_agrees_with_a_loop_over_places():
    torch.manual_seed(1)
    attention = Attention(width=6, heads=3, length=9)
    heads = [head for head in attention.heads if isinstance(head, Head)]
    assert len(heads) == 3
    for head in heads:
        torch.nn.init.normal_(head.lag)
    x_BTD = torch.randn(2, 7, 6)
    expected = torch.zeros_like(x_BTD)
    for head in heads:
        for row in range(2):
            query, key, value = (linear(x_BTD[row]) for linear in (head.query, head.key, head.value))
            for here in range(7):
                scores = torch.stack(
                    [query[here] @ key[there] / math.sqrt(2) + head.lag[here - there] for there in range(here + 1)]
                )
                read = sum(weight * value[there] for there, weight in enumerate(scores.softmax(dim=0)))
                expected[row, here] += head.output(read)
    assert torch.allclose(attention(x_BTD), expected, atol=1e-6)


def test_taps_agree_with_torchs_depthwise_convolution():
    torch.manual_seed(2)
    taps = Taps(width=5, taps=3)
    convolution = torch.nn.Conv1d(5, 5, kernel_size=3, groups=5, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(taps.weight.flip(0).T[:, None, :])
    x_BTD = torch.randn(2, 9, 5)
    padded = torch.nn.functional.pad(x_BTD.transpose(1, 2), (2, 0))
    assert torch.allclose(taps(x_BTD), x_BTD + convolution(padded).transpose(1, 2), atol=1e-6)


def test_a_fresh_model_guesses_nearly_blindly():
    model = small(vocabulary=64, width=32, heads=4, blocks=1)
    tokens, targets = torch.randint(64, (2, 64, 12))
    with torch.no_grad():
        assert next_token_loss(model(tokens), targets).item() == pytest.approx(math.log(64), abs=0.5)


def test_accuracy_by_place_counts_hits_place_by_place():
    targets_BT = torch.tensor([[1, 2, 0], [1, 0, 0]])
    logits_BTV = torch.nn.functional.one_hot(torch.tensor([[1, 1, 2], [1, 0, 0]]), 3).float()
    assert accuracy_by_place(logits_BTV, targets_BT).tolist() == [1.0, 0.5, 0.5]


def test_the_loss_of_equal_logits_is_chance():
    logits_BTV = torch.full((2, 5, 7), 0.3)
    assert next_token_loss(logits_BTV, torch.randint(7, (2, 5))).item() == pytest.approx(math.log(7))

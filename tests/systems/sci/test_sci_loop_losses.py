"""The losses of SCI-Loop: where roles are moved to, what is left alone, and what variants add."""

import pytest
import torch

from trimtab_systems.sci.data import ACTIONS, WORDS, Example, encode, interpret
from trimtab_systems.sci.likelihood import Phrases
from trimtab_systems.sci.losses import Aids, between, copy_loss, loop_loss
from trimtab_systems.sci.model import SCILoop
from trimtab_systems.sci.variants import Added

TOY = encode([Example(words, interpret(words)) for words in (("walk",), ("walk", "twice"))])


def made(**changed):
    torch.manual_seed(0)
    return SCILoop(**{"width": 8, "heads": 2, "features": 4, "slots": 3, "longest": 3, **changed})


def drawing():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("structural", [True, False])
def test_a_score_moves_to_the_role_under_which_more_is_explained(structural):
    model = made(abstraction="free")
    twice, walk = WORDS.index("twice") + 1, WORDS.index("walk") + 1
    programs = model.programs

    def fixed(spans, scaffold=False):
        """Say walk twice only where `twice` has the right role: by two calls, or by a phrase of two actions."""
        calls, phrases = programs(spans, scaffold)
        said_S = 1 + ((spans.skeletons_SN == twice).any(1) & structural).long()
        long_U = 1 + ((spans.words_UN == twice).any(1) & (not structural)).long()
        action_ULA = torch.zeros_like(phrases.action_ULA)
        action_ULA[..., ACTIONS.index("I_WALK")] = 1.0
        step = torch.arange(1, 4)
        return calls._replace(stop_RK=(step >= said_S[:, None]).float()), Phrases(
            action_ULA, (step >= long_U[:, None]).float()
        )

    model.programs = fixed
    loop_loss(model, TOY, Aids(), 8, drawing()).roles.backward()
    uphill_V = -model.structure.logit_V.grad
    assert (uphill_V[twice] > 0) == structural
    assert uphill_V[walk] < 0


def test_the_copy_loss_leaves_embeddings_scaffold_and_outer_loop_alone():
    model = made()
    torch.nn.init.constant_(model.structure.features.bias, -1.0)  # so that there are spans
    loss = copy_loss(model, TOY, Aids(pattern=0.3), 2, 0.3, drawing())
    (loss.task + loss.roles).backward()
    touched = {name.split(".")[0] for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    assert touched == {"pattern", "inner", "lexicon"}


@pytest.mark.parametrize(
    "aids", [Aids(), Aids(scaffold=True, steady=2), Aids(structure=0.1, end=0.1, stop=0.1, call=0.3)]
)
@pytest.mark.parametrize("changed", [{}, {"contextual": True}, {"reset": False}, {"competition": True, "gnn": True}])
def test_every_gradient_is_finite(aids, changed):
    model = made(**changed)
    loss = loop_loss(model, TOY, aids, 2, drawing())
    (loss.task + loss.roles).backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in model.parameters())
    assert any(one.grad is not None and one.grad.any() for one in model.structure.parameters())


def test_probabilities_are_kept_away_from_both_ends():
    assert between(torch.tensor([0.0, 0.5, 1.0]), 0.1).tolist() == pytest.approx([0.1, 0.5, 0.9])
    assert between(torch.tensor([0.0, 1.0]), 0.0).tolist() == [0.0, 1.0]


def test_a_call_that_earns_makes_the_loss_smaller():
    model = made()
    torch.nn.init.constant_(model.structure.features.bias, -1.0)  # so that there are spans
    plain, helped = (
        loop_loss(model, TOY, Aids(end=0.3, stop=0.1, call=call, scaffold=True), 1, drawing()).task
        for call in (0.0, 0.5)
    )
    assert helped < plain


def test_added_terms_come_on_top_of_the_same_loss():
    model = made()
    torch.nn.init.constant_(model.structure.features.bias, -1.0)  # so that there are spans
    plain = loop_loss(model, TOY, Aids(), 2, drawing())
    nothing = loop_loss(model, TOY, Aids(), 2, drawing(), Added(), TOY.words_BN)
    assert torch.equal(plain.task, nothing.task)
    for added in (Added(scl_weight=1.0), Added(orthogonality=1.0)):
        doubled = Added(scl_weight=2 * added.scl_weight, orthogonality=2 * added.orthogonality)
        one, two = (loop_loss(model, TOY, Aids(), 2, drawing(), more, TOY.words_BN) for more in (added, doubled))
        assert one.task > plain.task
        more, twice = ((found.task - plain.task).item() for found in (one, two))
        assert twice == pytest.approx(2 * more, rel=1e-3)

"""SCI-Loop: how commands are cut, what each loop cannot see, what is drawn anew, and its variants."""

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab_systems.sci import variants
from trimtab_systems.sci.data import WORDS, encode, encode_words, train_of
from trimtab_systems.sci.model import CONTENT, HOLE, PATTERN, STRUCTURE, SCILoop, cut
from trimtab_systems.sci.program import explain

TABLE = dict.fromkeys(("and", "after", "twice", "thrice"), STRUCTURE) | dict.fromkeys(("around", "turn"), PATTERN)
ROLES = torch.tensor([0, *(TABLE.get(word, CONTENT) for word in WORDS)])
VARIANTS = [{}, {"competition": True}, {"gnn": True}, {"reset": False}, {"abstraction": "free"}]


def number(word):
    return WORDS.index(word) + 1


def made(seed=0, **changed):
    torch.manual_seed(seed)
    return SCILoop(**{"width": 8, "heads": 2, "features": 4, "slots": 4, "longest": 3, **changed})


def commands(*texts):
    return encode_words([text.split() for text in texts])


def spans_of(*texts):
    words_BN = commands(*texts)
    return cut(words_BN, ROLES[words_BN])


@pytest.fixture(scope="module")
def some():
    return encode(train_of("length")[::500]).words_BN


# cutting


def test_a_command_is_cut_at_its_structure_words():
    spans = spans_of("walk around left twice and jump")
    assert spans.skeletons_SN.tolist() == [[HOLE, number("twice"), number("and"), HOLE]]
    assert spans.count_R.tolist() == [2]
    first, second = spans.span_RJ[0, :2].tolist()
    assert spans.patterns_UN[first].tolist() == [HOLE, number("around"), HOLE]
    assert spans.words_UN[first].tolist() == [number(word) for word in ("walk", "around", "left")]
    assert spans.patterns_UN[second].tolist() == [HOLE, 0, 0]
    assert spans.words_UN[second].tolist() == [number("jump"), 0, 0]


def test_a_span_that_is_said_again_is_held_once_and_padding_is_no_word():
    spans = spans_of("jump and jump", "jump", "twice")
    assert spans.span_RJ[0, 0] == spans.span_RJ[0, 1] == spans.span_RJ[1, 0]
    assert spans.count_R.tolist() == [2, 1, 0]
    assert not spans.words_UN[spans.span_RJ[2, 0]].any()
    assert spans.skeletons_SN[spans.skeleton_R[1]].tolist() == [HOLE, 0, 0]


# what the loops cannot see


def test_the_outer_loop_does_not_see_which_content_words_there_are():
    model = made()
    spans = spans_of("walk left twice and jump", "run right twice and look")
    assert spans.skeleton_R[0] == spans.skeleton_R[1]
    assert len(spans.skeletons_SN) == 1
    calls, _ = model.programs(spans)
    assert len(calls.pointer_RKJ) == 1


def test_a_phrase_does_not_change_with_what_is_around_it():
    model = made()
    words_BN = commands("walk around left", "jump thrice after walk around left", "walk around left twice and run")
    told = []
    for row, place in zip(words_BN, (0, 1, 0), strict=True):
        spans = cut(row[None], ROLES[row[None]])
        _, phrases = model.programs(spans)
        told.append((phrases.action_ULA[spans.span_RJ[0, place]], phrases.end_UL[spans.span_RJ[0, place]]))
    for other in told[1:]:
        torch.testing.assert_close(other, told[0], rtol=0, atol=1e-6)


def test_scores_of_a_word_are_the_same_wherever_it_stands(some):
    model = made()
    with torch.no_grad():
        model.structure.features.weight.normal_()
        for score_BN in model.scores(some):
            for word in range(1, len(WORDS) + 1):
                assert len(score_BN[some == word].unique()) == 1
            assert not score_BN[some == 0].any()
    assert len(model.scores(some)[0].unique()) > len(WORDS)


# scores


@pytest.mark.parametrize("changed", [{}, {"contextual": True}, {"abstraction": "free"}])
def test_nobody_has_a_role_at_first(some, changed):
    for score_BN in made(**changed).scores(some):
        torch.testing.assert_close(score_BN[some > 0], torch.full_like(score_BN[some > 0], 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize("raw", [-8.0, 0.0, 8.0])
def test_the_temperature_has_a_gradient_everywhere(raw):
    layer = made().structure
    torch.nn.init.constant_(layer.temperature, raw)
    _, score_W = layer(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    score_W[0].backward()
    assert layer.temperature.grad != 0
    assert 0.5 <= float(layer.tau().detach()) <= 2.0


# answers


@pytest.mark.parametrize("changed", VARIANTS)
def test_an_answer_is_what_the_explained_calls_say(some, changed):
    model = made(**changed)
    model.hard_roles = lambda words_BN: ROLES[words_BN]
    torch.nn.init.constant_(model.outer.stop.bias, -1.0)
    told = [tuple(action for phrase in one.phrases for action, _ in phrase) for one in explain(model, some)]
    assert model.predict(some) == told
    assert any(told)


@pytest.mark.parametrize("changed", [{}, {"gnn": True, "abstraction": "free"}])
@pytest.mark.parametrize("inner", [False, True])
def test_what_is_forgotten_is_drawn_anew_and_nothing_else(inner, changed):
    model = made(**changed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    drawn = {id(parameter) for parameter in model.forget(inner=inner)}
    anew = {name.split(".")[0] for name, parameter in model.named_parameters() if id(parameter) in drawn}
    every = {name for name, _ in model.named_children()}
    assert anew == ({"pattern", "inner", "lexicon"} if inner else every - {"embedding"})
    for name, parameter in model.named_parameters():
        assert (id(parameter) in drawn) != bool((parameter == 7.0).all()), name


# variants


def test_without_variants_there_is_nothing_of_them():
    plain, reset = made(), made(reset=False)
    assert plain.state_dict().keys() == reset.state_dict().keys() - {"call_KD"}
    for name, value in plain.state_dict().items():
        assert torch.equal(value, reset.state_dict()[name])
    wanted = set(made(gnn=True).state_dict()) - set(plain.state_dict())
    assert all(name.startswith("outer.graph.") for name in wanted)


def test_competing_slots_share_out_each_word():
    query, key = (torch.randn(1, 2, n, 4, generator=torch.Generator().manual_seed(n)) for n in (3, 5))
    pad_BN = torch.tensor([[False, False, False, True, True]])
    read = variants.shared_out(query, key, torch.eye(5)[None, None].expand(1, 2, -1, -1), pad_BN)
    share = (query @ key.transpose(-1, -2) / 2.0).softmax(2) * ~pad_BN
    torch.testing.assert_close(read, share / share.sum(-1, keepdim=True))


def test_without_reset_a_phrase_depends_on_the_call():
    spans = spans_of("walk around left twice")
    for scaffold in (False, True):
        _, phrases = made(reset=False).programs(spans, scaffold)
        assert len(phrases.end_UL) == 4 * len(spans.words_UN)
        by_call = phrases.end_UL.unflatten(0, (4, -1))[:, spans.span_RJ[0, 0]]
        assert len(by_call.unique(dim=0)) == 4


def test_each_call_points_to_its_own_phrases():
    pointer_RKJ = torch.tensor([[[0.2, 0.8], [0.6, 0.4]]])
    wide, span = variants.by_call(pointer_RKJ, torch.tensor([[2, 0]]), 3)
    assert wide.tolist() == [[pytest.approx([0.2, 0.8, 0, 0]), pytest.approx([0, 0, 0.6, 0.4])]]
    assert span.tolist() == [[2, 0, 5, 3]]


def test_templates_differ_in_all_but_action_words():
    found = variants.templates(commands("walk left", "jump left", "jump right", "turn left")).tolist()
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_overlap_is_the_squared_cosine_with_content_words_alone():
    slots_BKD = torch.tensor([[[2.0, 0.0]]])
    embedded_BND = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    for content, expected in (([True, False], 1.0), ([False, True], 0.0), ([True, True], 0.5), ([False, False], 0.0)):
        assert variants.overlap(slots_BKD, embedded_BND, torch.tensor([content])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changed", "contextual", "says"),
    [
        ({"abstraction": "none"}, False, "expected one of features, free"),
        ({"abstraction": "free"}, True, "leave one of the two out"),
        ({"scl_weight": -1.0}, False, "scl_weight: expected"),
        ({"orthogonality": float("nan")}, False, "orthogonality: expected"),
    ],
)
def test_variants_that_cannot_be_are_refused(changed, contextual, says):
    with pytest.raises(ConfigError, match=says):
        variants.Variations(**changed).check_variations(contextual)


def test_scores_and_features_of_each_occurrence_do_not_change_with_the_place_of_the_command():
    model = made(contextual=True)
    for block in (model.context, *model.outer.encoder):
        torch.nn.init.normal_(block.distance)
    words_BN = commands("walk around left thrice after run opposite right twice")
    moved_BN = torch.nn.functional.pad(words_BN, (5, 0))
    for one_BN, other_BN in zip(model.scores(words_BN), model.scores(moved_BN), strict=True):
        torch.testing.assert_close(other_BN[:, 5:], one_BN)
    torch.testing.assert_close(model.features_of(moved_BN)[:, 5:], model.features_of(words_BN))


@pytest.mark.parametrize("changed", [{}, {"contextual": True}, {"abstraction": "free"}])
def test_features_are_those_that_the_scores_are_made_of(changed):
    model = made(**changed)
    for parameter in model.structure.parameters():
        torch.nn.init.normal_(parameter)
    words_BN = commands("walk around left twice and jump", "jump twice")
    weight_F = torch.ones(1) if "abstraction" in changed else model.structure.weight.softmax(-1)
    expected_BN = model.features_of(words_BN) @ weight_F * (words_BN > 0)
    torch.testing.assert_close(model.scores(words_BN)[0], expected_BN)


def test_a_span_without_a_word_to_copy_says_nothing(some):
    """Its pointers are all zero; the first action would else be said, and be right for `walk` by accident."""
    model = made()
    model.hard_roles = lambda words_BN: torch.where(words_BN > 0, PATTERN, 0)
    assert model.predict(some) == [()] * len(some)
    assert all(one.calls and not any(one.phrases) for one in explain(model, some))
    assert any(model.predict(some, scaffold=True))

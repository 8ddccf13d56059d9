"""What a person sees of one command: the words typed, the calls, where each action came from, what the grammar says."""

import pytest
import torch

from trimtab.errors import UserError
from trimtab_systems.sci import program as shown
from trimtab_systems.sci.data import ACTIONS, WORDS, encode_words, interpret
from trimtab_systems.sci.model import CONTENT, PATTERN, STRUCTURE, SCILoop

LEFT, WALK = ACTIONS.index("I_TURN_LEFT"), ACTIONS.index("I_WALK")


def walking_left(*calls, words="walk left twice"):
    """Return a program that calls `walk left` with these (probability, stop)."""
    said = shown.Explained(
        roles=(CONTENT, CONTENT, STRUCTURE),
        scores=((0.1, 0.1, 0.8), (0.1, 0.1, 0.8), (0.9, 0.05, 0.05)),
        spans=((0, 2),),
        calls=tuple((0, *call) for call in calls),
        phrases=(((LEFT, 1), (WALK, 0)),) * len(calls),
    )
    return shown.assembled(tuple(words.split()), said)


@pytest.fixture(scope="module")
def model():
    """Small, untrained; the first command below has two spans and the second none."""
    torch.manual_seed(1)
    made = SCILoop(width=8, heads=2, features=4, slots=5, longest=3).eval()
    table = {"and": STRUCTURE, "twice": STRUCTURE, "after": STRUCTURE, "around": PATTERN}
    roles = torch.tensor([STRUCTURE, *(table.get(word, CONTENT) for word in WORDS)])

    def scores(words_BN):
        return tuple(0.1 + 0.8 * (roles[words_BN] == role) for role in (STRUCTURE, PATTERN))

    made.scores = scores
    return made


# reading a model


def test_words_that_are_not_structure_form_the_longest_spans(model):
    (said,) = shown.explain(model, encode_words([["walk", "around", "left", "and", "jump", "twice"]]))
    assert said.spans == ((0, 3), (4, 5))
    assert said.roles == (CONTENT, PATTERN, CONTENT, STRUCTURE, CONTENT, STRUCTURE)
    assert said.scores[1] == pytest.approx((0.1, 0.81, 0.09))


def test_calls_go_on_until_the_stop_is_above_a_half_or_the_slots_are_used(model):
    words_BN = encode_words([["jump", "and", "walk", "left"]])
    for bias, calls in ((-50.0, 5), (50.0, 1)):
        with torch.no_grad():
            model.outer.stop.bias.fill_(bias)
            (said,) = shown.explain(model, words_BN)
            model.outer.stop.bias.zero_()
        assert len(said.calls) == calls


def test_a_phrase_ends_where_its_end_is_above_a_half_and_points_into_its_own_span(model):
    words_BN = encode_words([["walk", "around", "left", "and", "jump", "twice"]])
    for bias, length in ((-50.0, 3), (50.0, 1)):
        with torch.no_grad():
            model.inner.end.bias.fill_(bias)
            (said,) = shown.explain(model, words_BN)
            model.inner.end.bias.zero_()
        assert {len(phrase) for phrase in said.phrases} == {length}
        for (span, _, _), phrase in zip(said.calls, said.phrases, strict=True):
            first, end = said.spans[span]
            assert all(first <= place < end for _, place in phrase)


def test_a_phrase_does_not_depend_on_what_stands_around_its_span(model):
    commands = ["walk around left", "walk around left twice", "twice and walk around left after"]
    found = shown.explain(model, encode_words([command.split() for command in commands]))
    first = [said.spans[0][0] for said in found]
    phrases = [
        [(action, place - at) for action, place in said.phrases[0]] for said, at in zip(found, first, strict=True)
    ]
    assert first == [0, 0, 2]
    assert phrases[0] == phrases[1] == phrases[2]


def test_commands_are_read_alike_alone_and_among_others(model):
    commands = [["walk", "around", "left", "and", "jump", "twice"], ["and", "twice"], ["look"]]
    together = shown.explain(model, encode_words(commands))
    for words, said in zip(commands, together, strict=True):
        (alone,) = shown.explain(model, encode_words([words]))
        assert alone.phrases == said.phrases
        assert [call[0] for call in alone.calls] == [call[0] for call in said.calls]


def test_where_all_is_structure_nothing_is_called(model):
    program = shown.program_of(model, ["and", "twice"])
    assert not program.actions
    assert not program.calls
    assert not program.spans
    assert "0 actions: none" in shown.text(program)


# what is shown


def test_a_program_has_the_actions_of_its_calls_in_order_and_the_word_of_each():
    program = walking_left((1.0, 0.1), (0.75, 0.9))
    assert program.actions == interpret(["walk", "left", "twice"])
    assert program.right is True
    first = program.calls[0].phrase
    assert [program.words[action.copied_from].text for action in first] == ["left", "walk"]
    assert [word.role for word in program.words] == ["content", "content", "structure"]
    assert program.calls[1].probability == 0.75
    assert program.spans[0].end == 2


def test_a_wrong_answer_is_said_to_be_wrong_with_what_the_grammar_says():
    program = walking_left((1.0, 0.1), (0.75, 0.9), words="walk left thrice")
    assert program.right is False
    said = "\n".join(shown.text(program))
    assert "wrong" in said
    assert " ".join(interpret(["walk", "left", "thrice"])) in said


def test_words_that_are_no_command_are_answered_and_said_to_be_none():
    program = walking_left((1.0, 0.1), words="walk left left")
    assert program.expected is None
    assert program.right is None
    assert program.actions
    assert "no SCAN command" in "\n".join(shown.text(program))
    assert "word 3" in program.remark


def test_the_text_shows_each_call_with_its_span_probability_and_sources():
    lines = shown.text(walking_left((1.0, 0.1), (0.75, 0.9)))
    calls = [line for line in lines if "TURN_LEFT(left) WALK(walk)" in line]
    assert [line.split()[:5] for line in calls] == [
        ["1", "walk", "left", "1.000", "0.100"],
        ["2", "walk", "left", "0.750", "0.900"],
    ]
    assert any(line.split()[:2] == ["twice", "structure"] for line in lines)


def test_a_model_without_calls_shows_its_actions_alone():
    program = shown.answer_of(lambda words_BN: [(LEFT, WALK)], ["walk", "left"])
    assert program.actions == ("I_TURN_LEFT", "I_WALK")
    assert program.right
    assert shown.text(program)[0].startswith("2 actions")


def test_a_program_becomes_plain_values():
    plain = walking_left((1.0, 0.1), (0.75, 0.9)).as_dict()
    assert plain["command"] == "walk left twice"
    assert plain["right"] is True
    assert plain["calls"][0]["phrase"][0] == {"name": "I_TURN_LEFT", "copied_from": 1}


@pytest.mark.parametrize(
    ("typed", "said"),
    [("walk lfet", "Did you mean 'left'"), ("", "1 to 9 words"), ("walk " * 10, "1 to 9 words"), ("xqzv", "'xqzv'")],
)
def test_what_cannot_be_read_is_said(typed, said):
    with pytest.raises(UserError, match=said):
        shown.words_of(typed)


def test_words_may_be_typed_apart_together_and_in_capitals():
    assert shown.words_of("Walk  LEFT") == shown.words_of(["walk", "left"]) == shown.words_of(["walk left"])

"""Lengths in pieces are those that were measured, and no tokenizer has the write-up's."""

import sys
from itertools import combinations_with_replacement, product
from types import SimpleNamespace

import numpy as np
import pytest

from trimtab.errors import UserError
from trimtab_systems.sci.data import ACTIONS, OUTPUT, WORDS, all_examples, open_test, train_of
from trimtab_systems.sci.tokens import (
    LLAMA,
    T5_ACTS,
    T5_TURNS,
    WORD,
    Lengths,
    WordTokenizer,
    from_folder,
    in_some_order,
    lengths,
    main,
    report,
)

T5 = in_some_order(T5_ACTS, T5_TURNS)


# ---- words


def test_what_is_encoded_is_decoded():
    tokenizer = WordTokenizer()
    for example in all_examples()[::499]:
        numbers = tokenizer.encode(" ".join(example.words))
        assert tokenizer.decode((*numbers, 0, 0)) == " ".join(example.words)
        assert min(numbers) >= 1
    assert WordTokenizer(OUTPUT).encode("<eos> I_WALK") == (3, 4)


def test_an_unknown_word_is_refused_with_its_place():
    with pytest.raises(UserError, match=r"word 2 of 'walk twyce' is 'twyce'.* Did you mean 'twice'"):
        WordTokenizer().encode("walk twyce")


@pytest.mark.parametrize("number", [-1, len(WORDS) + 1])
def test_a_number_that_stands_for_no_word_is_refused(number):
    with pytest.raises(UserError, match=f"to 13, got {number}"):
        WordTokenizer().decode([1, number])


# ---- pieces


@pytest.mark.parametrize(
    ("pieces", "train", "test"),
    [
        (WORD, (1, 10.80, 22), (24, 29.58, 48)),
        (LLAMA, (4, 61.6, 141), (120, 164.2, 288)),
        (T5, (4, 75.8, 180), (144, 198.7, 336)),
    ],
    ids=["word", "llama", "t5"],
)
def test_lengths_are_those_that_were_measured_on_the_published_files(pieces, train, test):
    for examples, expected in ((train_of("length"), train), (open_test("length"), test)):
        least, mean, most = lengths(pieces, examples)
        assert (least, most) == (expected[0], expected[2])
        assert mean == pytest.approx(expected[1], abs=0.0501)


def test_110_test_outputs_are_longer_than_the_write_up_lets_t5_write():
    over = [one for one in open_test("length") if sum(T5[action] for action in one.actions) > 300]
    assert len(over) == 110


def test_no_other_pieces_give_the_measured_lengths():
    train, test = (
        np.unique([[one.actions.count(action) for action in ACTIONS] for one in examples], axis=0, return_counts=True)
        for examples in (train_of("length"), open_test("length"))
    )

    def fitting(candidates, *measured):
        found = np.array(candidates)
        for (counts, often), (least, mean, most) in zip((train, test), measured, strict=True):
            means = found @ np.average(counts, axis=0, weights=often)
            found = found[abs(means - mean) < 0.0501]
            outputs = counts @ found.T
            found = found[(outputs.min(0) == least) & (outputs.max(0) == most)]
        return [tuple(row) for row in found.tolist()]

    llama = [(5, look, run, 5, left, 7) for look, run, left in product(range(1, 12), repeat=3)]
    assert fitting(llama, (4, 61.6, 141), (120, 164.2, 288)) == [tuple(LLAMA.values())]
    t5 = [
        acts + turns
        for acts in combinations_with_replacement(range(1, 12), 4)
        for turns in combinations_with_replacement(range(1, 12), 2)
    ]
    assert fitting(t5, (4, 75.8, 180), (144, 198.7, 336)) == [T5_ACTS + T5_TURNS]


def test_the_order_in_which_pieces_belong_to_words_changes_no_length():
    turned = in_some_order(T5_ACTS[::-1], T5_TURNS[::-1])
    for examples in (train_of("length"), open_test("length")):
        assert lengths(turned, examples) == lengths(T5, examples)


def test_pieces_that_are_missing_and_outputs_that_are_not_there_are_refused():
    with pytest.raises(UserError, match="nothing is given for I_JUMP"):
        lengths({action: 1 for action in ACTIONS if action != "I_JUMP"}, all_examples()[:3])
    with pytest.raises(UserError, match="at least one example"):
        lengths(WORD, [])


# ---- a tokenizer of the user's


class Pairs:
    """A tokenizer that cuts a text into pieces of two letters; `joins` lets a piece reach over a space."""

    joins = False

    @classmethod
    def from_pretrained(cls, folder, local_files_only):
        assert local_files_only
        return cls()

    def tokenize(self, text):
        parts = [text] if self.joins else [f" {word}" for word in text.split()]
        return [part[start : start + 2] for part in parts for start in range(0, len(part), 2)]


def test_pieces_are_counted_per_word_behind_another_word(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=Pairs))
    pieces = {"I_WALK": 4, "I_LOOK": 4, "I_RUN": 3, "I_JUMP": 4, "I_TURN_LEFT": 6, "I_TURN_RIGHT": 7}
    assert from_folder(tmp_path) == pieces
    least, _, most = lengths(pieces, open_test("length"))
    row = report(tmp_path).splitlines()[-2].split()
    assert (row[-3], row[-1]) == (str(least), str(most))


def test_a_tokenizer_that_joins_words_is_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=Pairs))
    monkeypatch.setattr(Pairs, "joins", True)
    with pytest.raises(UserError, match="it joins words"):
        from_folder(tmp_path)


@pytest.mark.slow
def test_a_tokenizer_that_transformers_saved_is_read(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    vocabulary = ["▁I_", "▁I_WALK", "LOOK", "R", "UN", "JUMP", "TURN_", "LEFT", "RIGHT"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.Unigram([("<unk>", 0.0), *((piece, -1.0) for piece in vocabulary)], unk_id=0)
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    saved = tmp_path / "own"
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(str(saved))

    assert list(from_folder(saved).values()) == [1, 2, 3, 2, 3, 3]
    with pytest.raises(UserError, match="is none"):
        from_folder(tmp_path / "absent")
    with pytest.raises(UserError, match="no tokenizer that transformers can read"):
        from_folder(tmp_path)


def test_without_transformers_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        from_folder(tmp_path)


# ---- the command


def test_the_command_prints_the_measured_lengths_beside_the_write_up_s(capsys):
    main([])
    rows = {line[:22].strip(): line[22:].split() for line in capsys.readouterr().out.splitlines()}
    assert rows["actions"] == ["1", "10.8", "22", "24", "29.6", "48"]
    assert rows["pieces of Llama"][-1] == "288"
    assert rows["as the write-up says"] == ["1", "12.0", "88", "92", "150.0", "288"]
    assert Lengths(1, 12.0, 88) != lengths(WORD, train_of("length"))


def test_the_command_ends_with_what_is_wrong(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=Pairs))
    with pytest.raises(SystemExit):
        main([str(tmp_path / "absent")])
    assert "is none" in capsys.readouterr().err

"""SCAN out of its grammar is the published SCAN, and nothing of a test gets out by another door than `open_test`."""

import ast
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import trimtab_systems.sci
from trimtab.errors import ConfigError, UserError
from trimtab_systems.sci.data import (
    ACTION_WORDS,
    ACTIONS,
    BOS,
    EOS,
    FIRST_ACTION,
    JOIN_WORDS,
    PAD,
    REPEAT_WORDS,
    SPLITS,
    WORDS,
    Example,
    all_examples,
    carve,
    clauses,
    digest,
    encode,
    encode_words,
    interpret,
    open_test,
    proxy_of,
    seen_clauses,
    targets,
    train_of,
)

LENGTH_HISTOGRAM = (
    "1:6 2:88 3:398 4:860 5:1184 6:1178 7:1104 8:1450 9:1256 10:1696 11:1072 12:1578 13:432 14:848 15:688 16:304 17:512"
    " 18:784 19:448 20:464 21:64 22:576",
    "24:336 25:448 26:512 27:448 28:448 30:576 32:448 33:256 36:64 40:256 48:128",
)
"""Outputs of each length in the published files of the length split."""

few = settings(max_examples=25, deadline=None)
command = st.sampled_from(all_examples())


def text(example):
    return " ".join(example.words)


# ---- the published files


@pytest.mark.parametrize(
    ("examples", "published"),
    [
        (all_examples(), "6be4b39bc8bf3a20be810b6991250d0493e608560609db6765dd679e1ed1c98e"),
        (train_of("length"), "7ffb97f45029871c94bede7e723f7a4aa179eb99fe2b977a18283310422c719d"),
        (open_test("length"), "3297fd0b676c391f7bc3a7385aa66a7fdf64f6f8e81ad584810c1d4ebd0eaa2c"),
    ],
    ids=["all", "length-train", "length-test"],
)
def test_the_sorted_lines_are_those_of_the_published_file(examples, published):
    assert digest(reversed(examples)) == published


@pytest.mark.parametrize(
    ("split", "lines", "distinct", "test", "test_shortest", "test_mean"),
    [
        ("length", 16_990, 16_990, 3_920, 24, 29.58),
        ("addprim-jump", 14_670, 13_204, 7_706, 2, 14.81),
        ("addprim-turn-left", 21_890, 19_702, 1_208, 2, 9.24),
        ("template-right", 15_225, 15_225, 4_476, 2, None),
        ("template-opposite-right", 15_225, 15_225, 4_476, 3, None),
        ("template-around-right", 15_225, 15_225, 4_476, 8, 22.56),
        ("template-jump-around-right", 18_528, 18_528, 1_173, 8, 23.00),
        ("simple", 16_728, 16_728, 4_182, None, None),
    ],
)
def test_a_split_has_the_published_counts_and_no_command_on_both_sides(
    split, lines, distinct, test, test_shortest, test_mean
):
    train, held = train_of(split), open_test(split)
    seen = {example.words for example in train}

    assert (len(train), len(seen), len(held)) == (lines, distinct, test)
    assert seen.isdisjoint(example.words for example in held)
    assert len({example.words for example in held}) == test
    lengths = [len(example.actions) for example in held]
    assert test_shortest in (None, min(lengths))
    assert test_mean in (None, round(sum(lengths) / len(lengths), 2))


@pytest.mark.parametrize(
    ("examples", "characters"),
    [
        (train_of("template-right"), 3_173_282),
        (open_test("template-right"), 729_823),
        (open_test("template-opposite-right"), 871_363),
    ],
    ids=["right-train", "right-test", "opposite-right-test"],
)
def test_a_template_split_has_as_many_characters_as_the_published_file(examples, characters):
    line = len("IN: ") + len(" OUT: ") + len("\n")
    assert sum(line + len(" ".join(words)) + len(" ".join(actions)) for words, actions in examples) == characters


def test_every_split_is_named_in_the_counts_above_and_another_name_is_refused():
    assert len(SPLITS) == 8
    with pytest.raises(ConfigError, match=r"got 'lenght'\. Did you mean 'length'"):
        train_of("lenght")


@pytest.mark.parametrize(("split", "primitive", "times"), [("jump", "jump", 1_467), ("turn-left", "turn left", 2_189)])
def test_the_added_primitive_is_all_that_training_has_of_it_and_a_tenth_of_the_lines(split, primitive, times):
    train = train_of(f"addprim-{split}")
    assert {text(example) for example in train if f" {primitive} " in f" {text(example)} "} == {primitive}
    assert sum(text(example) == primitive for example in train) == times
    assert round(times / len(train), 3) == 0.1


def test_the_length_split_has_the_published_histogram():
    for examples, histogram in zip((train_of("length"), open_test("length")), LENGTH_HISTOGRAM, strict=True):
        counted = sorted(Counter(len(example.actions) for example in examples).items())
        assert " ".join(f"{length}:{count}" for length, count in counted) == histogram


def test_the_draw_of_simple_is_the_seed_s_and_other_splits_have_none():
    assert train_of("simple", seed=1) != train_of("simple", seed=2)
    assert set(train_of("simple", seed=1)).isdisjoint(open_test("simple", seed=1))
    assert train_of("length", seed=1) is train_of("length", seed=2)


# ---- what the length split asks for


def test_every_fifth_test_command_is_made_of_clauses_seen_in_training():
    seen = seen_clauses(train_of("length"))
    unseen = [example for example in open_test("length") if not seen.issuperset(clauses(example.words))]
    new = {" ".join(clause) for example in unseen for clause in clauses(example.words) if clause not in seen}

    assert (len(open_test("length")) - len(unseen), len(unseen)) == (776, 3_144)
    assert new == {f"{word} around {side} thrice" for word in ACTION_WORDS for side in ("left", "right")}
    assert all("around" in example.words for example in open_test("length"))


@pytest.mark.parametrize(
    ("kind", "train", "test"),
    [
        ("walk", (1508, 1508, 1508), (128, 128, 128)),
        ("walk left", (3016, 3016, 3016), (256, 256, 256)),
        ("walk opposite left", (3016, 3016, 2760), (256, 256, 512)),
        ("walk around left", (2760, 2120, 0), (512, 1152, 3272)),
        ("turn left", (754, 754, 754), (64, 64, 64)),
        ("turn opposite left", (754, 754, 754), (64, 64, 64)),
        ("turn around left", (754, 690, 674), (64, 128, 144)),
    ],
)
def test_each_kind_of_clause_occurs_as_often_as_in_the_published_files(kind, train, test):
    kinds = dict.fromkeys(ACTION_WORDS, "walk") | {"right": "left"}
    for examples, expected in ((train_of("length"), train), (open_test("length"), test)):
        count = Counter(
            " ".join(kinds.get(word, word) for word in clause)
            for example in examples
            for clause in clauses(example.words)
        )
        assert (count[kind], count[f"{kind} twice"], count[f"{kind} thrice"]) == expected


def test_the_proxy_split_poses_the_same_task_inside_training():
    train, dev = proxy_of(train_of("length"))
    seen = seen_clauses(train)
    unseen = [example for example in dev if not seen.issuperset(clauses(example.words))]
    assert (len(train), len(dev)) == (13_838, 3_152)
    assert round(len(unseen) / len(dev), 3) == 0.673
    assert [len(part) for part in proxy_of(train_of("length"), longest=12)] == [11_870, 5_120]


def test_carving_takes_a_tenth_of_the_distinct_commands_and_keeps_the_rest_in_order():
    whole = train_of("length")
    train, validation = carve(whole, seed=3)
    assert (len(train), len(validation)) == (15_291, 1_699)
    chosen = set(validation)
    assert train == tuple(example for example in whole if example not in chosen)
    assert carve(whole, seed=3) == (train, validation)
    assert carve(whole, seed=4)[1] != validation


def test_carving_leaves_a_repeated_primitive_in_training():
    jump = Example(("jump",), ("I_JUMP",))
    few = (*train_of("addprim-jump")[:5], jump, jump)
    for seed in range(20):
        train, validation = carve(few, share=0.5, seed=seed)
        assert train.count(jump) == 2
        assert len(validation) == 3


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), 1e-9])
def test_a_share_that_leaves_nothing_to_train_or_to_validate_with_is_refused(share):
    with pytest.raises(ConfigError, match="share"):
        carve(all_examples()[:10], share=share)


# ---- the interpreter


@pytest.fixture(scope="module")
def known():
    return {example.words: example.actions for example in all_examples()}


def test_the_interpreter_agrees_with_the_grammar_on_all_commands():
    assert len({example.words for example in all_examples()}) == len(all_examples()) == 20_910
    assert all(interpret(example.words) == example.actions for example in all_examples())


@pytest.mark.parametrize(
    ("words", "actions"),
    [
        ("turn left", "L"),
        ("turn opposite right", "R R"),
        ("turn around left twice", "L L L L L L L L"),
        ("jump around right", "R JUMP R JUMP R JUMP R JUMP"),
        ("look opposite left thrice", "L L LOOK L L LOOK L L LOOK"),
        ("walk after run left twice", "L RUN L RUN WALK"),
        ("walk twice and turn right", "WALK WALK R"),
    ],
)
def test_a_command_means_what_the_paper_says(words, actions):
    names = {"L": "I_TURN_LEFT", "R": "I_TURN_RIGHT"}
    assert interpret(words.split()) == tuple(names.get(name, f"I_{name}") for name in actions.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "ends too early: expected one of 'walk', .*'turn' as word 1"),
        ("walk and", "ends too early: .* as word 3"),
        ("turn", "expected one of 'opposite', 'around', 'left', 'right' as word 2"),
        ("walk around", "'walk around' ends too early: expected one of 'left', 'right' as word 3"),
        ("jumpp twice", "word 1 .*'jumpp'.* It is no word of this grammar. Did you mean 'jump'"),
        ("walk twice twice", "word 3 .* is 'twice', expected: 'and', 'after', the end.$"),
        ("walk left around", "word 3 .* is 'around', expected: 'twice', 'thrice', 'and', 'after', the end"),
        ("walk walk", "word 2 .* is 'walk', expected: 'opposite', 'around', 'left'"),
        ("walk and jump left and run", "word 5 .* is 'and', expected: 'twice', 'thrice', the end"),
        ("walk and jump twice run", "word 5 .* is 'run', expected: the end"),
        ("twice", "word 1 .* is 'twice', expected: 'walk'"),
    ],
)
def test_what_is_no_command_is_refused_with_the_word_and_its_place(words, message):
    with pytest.raises(UserError, match=message):
        interpret(words.split())


def test_a_text_in_place_of_its_words_is_refused():
    with pytest.raises(UserError, match="'walk left'; pass "):
        interpret("walk left")


@settings(max_examples=200, deadline=None)
@given(command, st.integers(0, 9), st.integers(0, 1), st.lists(st.sampled_from(WORDS), max_size=2))
def test_a_command_with_words_changed_means_something_exactly_if_the_grammar_makes_it(known, example, at, gone, new):
    words = (*example.words[:at], *new, *example.words[at + gone :])
    try:
        assert interpret(words) == known[words]
    except UserError:
        assert words not in known


@few
@given(st.sampled_from([e for e in all_examples() if not {*REPEAT_WORDS, *JOIN_WORDS} & set(e.words)]))
def test_twice_and_thrice_repeat_the_whole_phrase(phrase):
    assert interpret((*phrase.words, "twice")) == phrase.actions * 2
    assert interpret((*phrase.words, "thrice")) == phrase.actions * 3


single = st.sampled_from([example for example in all_examples() if len(clauses(example.words)) == 1])


@few
@given(single, single)
def test_and_keeps_the_order_of_two_clauses_and_after_turns_it_round(one, two):
    assert interpret((*one.words, "and", *two.words)) == one.actions + two.actions
    assert interpret((*one.words, "after", *two.words)) == two.actions + one.actions
    assert clauses((*one.words, "after", *two.words)) == (one.words, two.words)


@few
@given(command)
def test_left_and_right_are_mirror_images(example):
    mirror = {"left": "right", "right": "left", "I_TURN_LEFT": "I_TURN_RIGHT", "I_TURN_RIGHT": "I_TURN_LEFT"}
    words = [mirror.get(word, word) for word in example.words]
    assert interpret(words) == tuple(mirror.get(action, action) for action in example.actions)


# ---- numbers


@few
@given(st.lists(command, min_size=1, max_size=5))
def test_numbers_name_the_words_and_the_actions(examples):
    words_BN, actions_BT, lengths_B = encode(examples)
    assert words_BN.shape == (len(examples), 9)
    assert actions_BT.shape == (len(examples), max(len(example.actions) for example in examples))
    assert {tensor.dtype for tensor in (words_BN, actions_BT, lengths_B)} == {torch.int64}
    for row, example in enumerate(examples):
        assert tuple(WORDS[number - 1] for number in words_BN[row] if number) == example.words
        assert tuple(ACTIONS[number] for number in actions_BT[row] if number >= 0) == example.actions
        assert lengths_B[row] == len(example.actions)
        assert (actions_BT[row, lengths_B[row] :] == -1).all()


def test_targets_are_the_actions_behind_bos_and_before_eos():
    short, long = Example(("jump",), ("I_JUMP",)), Example(("turn", "left", "twice"), ("I_TURN_LEFT",) * 2)
    inputs_BT, labels_BT = targets(encode([short, long]))
    jump, left = FIRST_ACTION + 3, FIRST_ACTION + 4
    assert inputs_BT.tolist() == [[BOS, jump, PAD], [BOS, left, left]]
    assert labels_BT.tolist() == [[jump, EOS, PAD], [left, left, EOS]]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Example(("hop",), ("I_JUMP",)), "'hop' is no word of the commands"),
        (Example(("jump",), ("JUMP",)), "got 'JUMP'. Did you mean 'I_JUMP'"),
        (Example(("jump",) * 10, ("I_JUMP",)), "1 to 9 words, got 10"),
        (Example((), ("I_JUMP",)), "1 to 9 words, got 0"),
    ],
)
def test_what_is_not_scan_has_no_numbers(example, message):
    with pytest.raises(UserError, match=message):
        encode([all_examples()[0], example])


def test_nothing_has_no_numbers():
    with pytest.raises(UserError, match="at least one"):
        encode_words([])


# ---- the test stays closed

ROOT = Path(trimtab_systems.sci.__file__).parent
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
MAY_OPEN = {"data.py", "pairs.py:LeakGuard", "evaluate.py", "__main__.py", "tokens.py:report"}
"""Files, or single functions and classes of a file, that may meet test commands: those that measure a finished model,
the guard that keeps them out, and the table of lengths."""
CLOSED = {"open_test", "all_examples", "_divide"}
"""The names that give test commands away."""


def openings(source, name):
    """Return where a file uses what gives test commands away, as `file:outermost function or class`."""
    found = set()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in statement.names}
            if "*" in names or any(alias.asname for alias in statement.names if alias.name in CLOSED):
                found.add(f"{name}:import")
            continue
        for node in ast.walk(statement):
            used = {
                ast.Name: lambda n: n.id,
                ast.Attribute: lambda n: n.attr,
                ast.alias: lambda n: n.name,
                ast.Constant: lambda n: n.value,  # getattr(data, "open_test")
            }.get(type(node), lambda _: None)(node)
            if isinstance(used, str) and used in CLOSED:
                found.add(f"{name}:{getattr(statement, 'name', 'module')}")
    return found


def test_nothing_but_the_final_measurement_and_the_guard_opens_the_test():
    files = sorted(ROOT.rglob("*.py"))
    found = {place for file in files for place in openings(file.read_text(), str(file.relative_to(ROOT)))}

    assert {"data.py:open_test", "pairs.py:LeakGuard"} <= found
    assert {place for place in found if place not in MAY_OPEN and place.split(":")[0] not in MAY_OPEN} == set()


def test_among_the_benchmarks_only_those_of_this_system_open_the_test():
    files = [file for file in BENCHMARKS.rglob("*.py") if "trimtab_systems.sci" in file.read_text()]
    found = {file.name for file in files if openings(file.read_text(), file.name)}
    assert {name for name in found if not name.startswith("sci")} == set()


@pytest.mark.parametrize(
    "source",
    [
        "def train(): return open_test('length')",
        "class Run:\n    def go(self): return data.open_test('length')",
        "from trimtab_systems.sci.data import open_test as harmless",
        "from trimtab_systems.sci.data import *",
        "test = getattr(data, 'open_test')",
        "def train():\n    from trimtab_systems.sci.data import all_examples as e",
    ],
)
def test_a_file_that_opens_the_test_is_found(source):
    assert openings(source, "train.py")

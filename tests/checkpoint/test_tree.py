import json
import math
import random
from collections import Counter, OrderedDict, deque, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trimtab.checkpoint.tree import flatten, place, unflatten
from trimtab.errors import UserError


def alike(one, other) -> bool:
    """Equal, of the same types all the way down, NaN like NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=False)
        return len(one) == len(other) and all(alike(a, c) and alike(b, d) for (a, b), (c, d) in pairs)
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def there_and_back(tree):
    tensors, plain = flatten(tree)
    return unflatten(json.loads(json.dumps(plain, allow_nan=False)), tensors)


TREES = [
    {"lr": 1e-3, "betas": (0.9, 0.999), "foreach": None, "amsgrad": False},
    {0: "zero", "0": "text", (1, "a"): [True], None: b"\x00\xff", 2.5: set(), True: frozenset({1, 2})},
    [float("nan"), float("inf"), -float("inf"), -0.0, 10**40, 1e-320],
    Counter({30: 1, 80: 2}),
    OrderedDict([("b", 1), ("a", OrderedDict())]),
    deque([1, (2,)], maxlen=5),
    {"~tuple": [1], "~": "tilde", "a/b": {"c": 1}},
    {"~float": "nan"},
    [torch.float32, torch.device("cpu"), torch.Size([2, 3]), 3 + 4j],
    [np.float32(1.5), np.int64(-3), np.bool_(True), np.float64("nan"), np.str_("word")],
    np.random.default_rng(3).bit_generator.state,
    np.random.RandomState(3).get_state(legacy=False),
    random.Random(3).getstate(),
    {"x": np.arange(6, dtype=">i4").reshape(2, 3), "y": np.zeros((0, 3)), "z": np.array(["ab", "c"])},
    {"a": {"w": torch.arange(3.0)}, "a/w": torch.ones(2, dtype=torch.bfloat16), 0: torch.tensor(1), "0": torch.ones(1)},
    {"empty": torch.empty(0, 3), "bool": torch.tensor([True]), "complex": torch.tensor([1j])},
    torch.optim.lr_scheduler.MultiStepLR(torch.optim.SGD([nn.Parameter(torch.ones(1))]), [3, 7]).state_dict(),
]


@pytest.mark.parametrize("tree", TREES, ids=range(len(TREES)))
def test_a_nest_comes_back_with_the_same_types_and_values(tree):
    assert alike(tree, there_and_back(tree))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(PLAIN)
@settings(max_examples=150, deadline=None)
def test_any_nest_comes_back(tree):
    assert alike(tree, there_and_back(tree))


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "odd",
    [object(), lambda: 0, Pair(1, 2), np.array([object()]), nn.Linear(1, 1), range(3), torch.ones(2).to_sparse()],
    ids=["object", "function", "namedtuple", "objects", "module", "range", "sparse"],
)
def test_what_cannot_be_stored_is_named_with_its_path(odd):
    with pytest.raises(UserError, match="outer/1/inner"):
        flatten({"outer": [0, {"inner": odd}]})


def test_a_tree_that_is_part_of_itself_is_refused():
    tree: list[object] = []
    tree.append(tree)
    with pytest.raises(UserError, match="part of itself"):
        flatten(tree)


@pytest.mark.parametrize(
    "plain",
    [
        {"~pickle": "gASVCg=="}, {"~float": "1"}, {"~tensor": "gone"}, {"~array": 3}, {"~dict": [[[], 1]]},
        {"~dict": 3}, {"~dtype": "float33"}, {"~bytes": "?"}, {"~raw": ["|O", [1], ""]}, {"~raw": ["<f8", [99], ""]},
        {"~set": [[]]}, {"~complex": []}, {"~device": "moon"}, {"~Size": ["a"]}, {"~deque": [-1, []]}, {"~raw": 3},
        {"~tuple": "abc"},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_value_is_refused(plain):
    with pytest.raises(UserError):
        unflatten({"a": [plain]}, {})


def test_keys_stay_apart_in_a_path():
    assert place("a/b", "c") != place("a", "b/c")
    tensors, _ = flatten({"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}})
    assert len(tensors) == 2

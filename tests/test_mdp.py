"""TextMDP, the transition and model_inputs against hand values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.mdp import TextMDP, append, first_observation, model_inputs


def make(**kwargs):
    return TextMDP(**{"vocab_size": 5, "max_prompt_tokens": 2, "max_new_tokens": 3, "eos_token_ids": (4,), **kwargs})


def test_spaces_and_pad():
    mdp = make()
    assert mdp.pad_id == 5
    assert mdp.observation_space.shape == (5,) and mdp.observation_space.dtype == np.int64
    assert mdp.observation_space.low.min() == 0 and mdp.observation_space.high.max() == 5
    assert mdp.action_space.n == 5


def test_append_one_row_and_many_rows_alike():
    mdp = make()
    row = np.array([5, 0, 5, 5, 5])
    assert append(mdp, row, 2, 0, 3) == (1, False)
    assert append(mdp, row, 2, 1, 4) == (2, True)
    assert row.tolist() == [5, 0, 3, 4, 5]
    cells = np.array([[5, 0, 1, 1, 5], [5, 0, 1, 5, 5], [5, 0, 5, 5, 5]])
    lengths, ended = append(mdp, cells.reshape(-1), np.array([2, 7, 12]), np.array([2, 1, 0]), np.array([0, 2, 4]))
    assert cells.tolist() == [[5, 0, 1, 1, 0], [5, 0, 1, 2, 5], [5, 0, 4, 5, 5]]
    assert lengths.tolist() == [3, 2, 1] and ended.tolist() == [True, False, True]


def test_every_eos_id_ends():
    mdp = make(eos_token_ids=(1, 4))
    assert [bool(append(mdp, first_observation(mdp, [0]), 2, 0, a)[1]) for a in range(5)] == [
        False,
        True,
        False,
        False,
        True,
    ]


def test_action_masks():
    mdp = make(min_new_tokens=1, banned_tokens=(0,), allowed_tokens=(0, 1, 4))
    assert mdp.restricted and not make().restricted
    assert mdp.action_masks(np.array([0, 1])).tolist() == [
        [False, True, False, False, False],
        [False, True, False, False, True],
    ]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"eos_token_ids": ()}, "no EOS token"),
        ({"eos_token_ids": (5,)}, r"eos_token_ids contains \[5\]"),
        ({"bos_token_id": -1}, "bos_token_id"),
        ({"banned_tokens": (9,)}, "banned_tokens"),
        ({"allowed_tokens": ()}, "leave no token"),
        ({"min_new_tokens": 4}, "min_new_tokens is 4"),
        ({"min_new_tokens": 1, "allowed_tokens": (4,)}, "min_new_tokens forbids EOS"),
    ],
)
def test_bad_facts_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.lists(st.integers(0, 4), max_size=4)),
        min_size=1,
        max_size=5,
    )
)
def test_model_inputs_keep_the_tokens_in_order(rows):
    mdp = make(max_prompt_tokens=3, max_new_tokens=4)
    observations = np.stack([first_observation(mdp, p) for p, _ in rows])
    for observation, (_, completion) in zip(observations, rows, strict=True):
        observation[3 : 3 + len(completion)] = completion
    inputs = model_inputs(observations, mdp.pad_id)
    width = max(len(p) + len(c) for p, c in rows)
    for (prompt, completion), ids, mask, positions in zip(rows, *inputs.values(), strict=True):
        n = len(prompt + completion)
        assert ids.tolist() == [0] * (width - n) + prompt + completion
        assert mask.tolist() == [0] * (width - n) + [1] * n
        assert positions.tolist() == [0] * (width - n) + list(range(n))


def test_model_inputs_of_one_observation():
    assert model_inputs(np.array([5, 0, 3, 5, 5]), 5)["input_ids"].tolist() == [[0, 3]]

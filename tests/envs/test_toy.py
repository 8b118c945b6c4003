"""The toy env: its contexts, rewards, reference and errors, against hand values and enumeration."""

import itertools

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401 (registers the ids)
from textgym.contexts import context_indices, table_shape
from textgym.testing import check_env
from textgym.tokenizers import make_tokenizer


def make(**kwargs):
    return gym.make("TextGenToy-v0", **kwargs)


def play(env, tokens):
    """Observations, the last reward, whether the episode ended, and the last info."""
    observations = [env.reset()[0]]
    for token in tokens:
        obs, reward, terminated, truncated, info = env.step(token)
        observations.append(obs)
        assert not truncated
    return observations, reward, terminated, info


@pytest.mark.parametrize("kwargs", [{}, {"num_tokens": 1, "max_new_tokens": 1}])
def test_conformance(kwargs):
    check_env(make(**kwargs))


def test_the_facts_of_the_mdp():
    env = make(num_tokens=3, max_new_tokens=2)
    mdp = env.unwrapped.mdp
    assert (mdp.vocab_size, mdp.pad_id, mdp.bos_token_id, mdp.eos_token_ids) == (4, 4, 3, (3,))
    assert (mdp.max_prompt_tokens, mdp.max_new_tokens, env.unwrapped.num_tokens) == (1, 2, 3)
    assert env.reset()[0].tolist() == [3, 4, 4]


@pytest.mark.parametrize(
    ("tokens", "reward", "eos"),
    [
        ([4], 0.0, True),
        ([1, 4], 1.0, True),
        ([3, 1, 3, 4], 0.0, True),
        ([1, 1, 1, 1], 4.0, False),
        ([3, 3, 3, 3], -2.0, False),
        ([0, 2, 1, 4], 1.0, True),
    ],
)
def test_rewards_by_hand(tokens, reward, eos):
    _, paid, terminated, info = play(make(), tokens)
    assert paid == reward and terminated and info["eos"] is eos and info["token_counts"] == reward


def test_eos_is_not_one_of_the_rewarded_tokens():
    assert play(make(num_tokens=3), [1, 2, 3])[1] == 1.0
    assert play(make(num_tokens=2), [1, 1, 2])[1] == 2.0
    assert play(make(num_tokens=1), [0, 1])[1] == 0.0


def test_contexts_are_ordered_by_length_and_then_as_numbers():
    env = make(num_tokens=3, max_new_tokens=3)
    contexts = [c for d in range(3) for c in itertools.product(range(3), repeat=d)]
    assert table_shape(3, 3) == (len(contexts), 4) == (13, 4)
    for index, context in enumerate(contexts):
        observations, *_ = play(env, context) if context else ([env.reset()[0]],)
        assert env.unwrapped.context_index(observations[-1]) == index
    for ended in ([3], [2, 3], [0, 1, 3], [0, 1, 2]):
        assert env.unwrapped.context_index(play(env, ended)[0][-1]) == 13


def test_contexts_of_one_token_are_lengths():
    mdp = make(num_tokens=1, max_new_tokens=3).unwrapped.mdp
    rows = np.array([[1, 2, 2, 2], [1, 0, 2, 2], [1, 0, 0, 2], [1, 0, 0, 0], [1, 1, 2, 2]])
    assert context_indices(mdp, rows).tolist() == [0, 1, 2, 3, 3]


def test_reference_by_seed_and_by_table():
    expected = np.random.default_rng(3).normal(size=(85, 5))
    assert np.array_equal(make(reference_seed=3).unwrapped.reference_logits, expected)
    assert not np.array_equal(make().unwrapped.reference_logits, expected)
    given = make(num_tokens=2, max_new_tokens=2, reference_logits=[[0, 1, 2]] * 3)
    assert given.unwrapped.reference_logits.tolist() == [[0, 1, 2]] * 3
    again = gym.make(gym.envs.registration.EnvSpec.from_json(given.spec.to_json()))
    assert again.unwrapped.reference_logits.tolist() == [[0, 1, 2]] * 3
    vector = gym.make_vec("TextGenToy-v0", num_envs=2, reference_seed=3)
    assert np.array_equal(vector.unwrapped.reference_logits, expected)


def test_the_reference_model_is_the_table_and_not_shared():
    env = make(reference_seed=3).unwrapped
    first, second = env.reference_model(), env.reference_model()
    assert np.array_equal(first.table.detach().numpy(), env.reference_logits.astype(np.float32))
    first.table.data += 1
    assert np.array_equal(second.table.detach().numpy(), env.reference_logits.astype(np.float32))


def test_single_and_vector_env_agree():
    rng = np.random.default_rng(0)
    plans = rng.integers(0, 5, size=(8, 4))
    vector = gym.make_vec("TextGenToy-v0", num_envs=8, autoreset_mode="Disabled")
    vector.reset()
    rewards, ended = np.zeros(8), np.zeros(8, bool)
    for step in range(4):
        if not ended.all():
            obs, reward, terminated, _, _ = vector.step(plans[:, step])
            rewards, ended = rewards + reward, ended | terminated
    assert ended.all()
    for row, plan in enumerate(plans.tolist()):
        observations, reward, _, _ = play(make(), plan[: plan.index(4) + 1] if 4 in plan else plan)
        assert np.array_equal(observations[-1], obs[row]) and reward == rewards[row]


def test_words_read_as_a_review():
    env = gym.make("TextGenWords-v0")
    assert env.unwrapped.encode("the film plot acting is was") == [0, 1, 2, 3, 4, 5]
    observations, reward, terminated, _ = play(env, env.unwrapped.encode("the film was not good"))
    assert env.unwrapped.decode(observations[-1]) == "the film was not good"
    assert terminated and reward == -0.3412  # -0.74 x 1.9 = -1.406; -1.406 / sqrt(1.406² + 15)
    assert env.unwrapped.reference_logits.shape == ((12**5 - 1) // 11, 13)


def test_the_word_tokenizer():
    tokenizer = make_tokenizer({"name": "words", "words": ["bad", "good", "c++"]})
    assert (tokenizer.vocab_size, tokenizer.eos_token_id, tokenizer.bos_token_id) == (4, 3, 3)
    assert tokenizer.encode(" good  bad\ngood c++") == [1, 0, 1, 2] and tokenizer.encode("") == []
    assert tokenizer.decode([3, 1, 0, 2, 3]) == "good bad c++" and tokenizer.decode([3]) == ""
    with pytest.raises(ValueError, match="cannot encode 'good film'"):
        tokenizer.encode("good film")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "at least one, and each named only once"),
        (["a", "b", "a"], "each named only once"),
        (["a", "b c"], r"contain \['b c'\]; a word is not empty, has no whitespace"),
        (["a", ""], r"contain \[''\]"),
        (["<eos>"], "is not '<eos>'"),
        ("abc", "words is 'abc'; it must be a list of strings"),
        ([1, 2], "it must be a list of strings"),
    ],
)
def test_words_that_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        make_tokenizer({"name": "words", "words": words})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_tokens": 0}, "num_tokens is 0; it must be at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"num_tokens": 6, "max_new_tokens": 10}, "more than 16777216 entries .*too large to enumerate; lower one"),
        ({"num_tokens": 2, "max_new_tokens": 10**9}, "too large to enumerate"),
        ({"num_tokens": 3, "words": ["a", "b"]}, "num_tokens is 3, but there are 2 words"),
        ({"words": []}, "num_tokens is 0"),
        ({"reference_seed": 0, "reference_logits": [[0.0]]}, "leave one of them out"),
        ({"reference_logits": [[0.0] * 5] * 84}, r"has shape \(84, 5\); wanted is \(85, 5\), one row per context"),
        ({"reference_logits": [[0.0] * 4] * 85}, r"has shape \(85, 4\); wanted is \(85, 5\)"),
        ({"reference_logits": [[0.0] * 5] * 84 + [[0.0, float("inf")] + [0.0] * 3]}, r"\[84\]\[1\] is inf; .* finite"),
        ({"reference_logits": [[0.0], [0.0, 1.0]]}, r"must be numbers of shape \(85, 5\)"),
        ({"num_tokens": 2, "scorer": {"name": "token_counts", "weights": {"3": 1}}}, "weights name token 3; ids run"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        env = make(**kwargs)
        play(env, [2])


def test_arguments_of_other_envs_are_refused():
    with pytest.raises(TypeError, match="min_new_tokens"):
        make(min_new_tokens=2)

"""A copy of an env, by `copy.deepcopy` or pickle, goes on as the original does, and the two do not touch each other."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest

from tests.conftest import CHARACTERS, checksum
from textgym.scorers import FunctionScorer, Scorer, WeightedSum
from textgym.tokenizers import byte_tokenizer
from textgym.wrappers import DiscreteContexts, VectorDiscreteContexts

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}
TEXTS = {**CHARACTERS, "scorer": checksum}
SINGLE = {
    "texts": lambda: gym.make("TextGen-v0", **TEXTS),
    "restricted": lambda: gym.make("TextGen-v0", min_new_tokens=2, banned_tokens=[1], **TEXTS),
    "human": lambda: gym.make("TextGen-v0", render_mode="human", **TEXTS),
    "default": lambda: gym.make("TextGen-v0", max_new_tokens=5),
    "toy": lambda: gym.make("TextGenToy-v0"),
    "wrapped": lambda: DiscreteContexts(gym.make("TextGenToy-v0")),
}
VECTOR = {
    "texts": lambda mode: gym.make_vec("TextGen-v0", num_envs=4, autoreset_mode=mode, **TEXTS),
    "groups": lambda mode: gym.make_vec("TextGen-v0", num_envs=4, autoreset_mode=mode, num_generations=2, **TEXTS),
    "sampler": lambda mode: gym.make_vec(
        "TextGen-v0", num_envs=4, autoreset_mode=mode, **{**TEXTS, "prompts": "tests.envs.test_copies:draw"}
    ),
    "toy": lambda mode: gym.make_vec("TextGenToy-v0", num_envs=4, autoreset_mode=mode),
    "wrapped": lambda mode: VectorDiscreteContexts(gym.make_vec("TextGenToy-v0", num_envs=4, autoreset_mode=mode)),
}


def draw(rng):
    """A sampler of prompts."""
    return "".join(rng.choice(list("abcd"), size=rng.integers(1, 4)))


def assert_same(first, second):
    """Equality of what `reset` and `step` return, infos within infos included."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        first, second = list(first.values()), list(second.values())
    if isinstance(first, tuple | list):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    else:
        np.testing.assert_array_equal(first, second)


def play_single(env, actions):
    """What a single env returns to `actions`, and a reset wherever an episode ends."""
    seen = []
    for action in actions:
        seen.append(env.step(action))
        if seen[-1][2]:
            seen.append(env.reset())
    return seen


def play_vector(env, actions):
    """What a vector env returns to `actions`, and a reset of all rows once they have ended."""
    seen = []
    for row in actions:
        if not env.unwrapped._num_live:
            seen.append(env.reset())
        seen.append(env.step(row))
    return seen


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("env", SINGLE)
def test_single(env, how):
    original = SINGLE[env]()
    original.reset(seed=3)
    play_single(original, [2, 3])
    clone = COPIES[how](original)
    actions = [2, 3, 0, 2, 3, 3, 2, 4, 2, 0, 3, 4, 2, 3]
    expected = play_single(copy.deepcopy(original), actions)
    assert_same(play_single(clone, actions), expected)  # and what the clone did does not show in the original
    assert_same(play_single(original, actions), expected)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
@pytest.mark.parametrize("env", VECTOR)
@pytest.mark.parametrize("pinned", [False, True])
def test_vector(env, mode, how, pinned, rng):
    original = VECTOR[env](mode)
    texts = env in ("texts", "groups", "sampler")
    original.reset(seed=3, options={"prompts": ["a", "ab", "d", "a"] if texts else [""] * 4} if pinned else None)
    play_vector(original, rng.integers(4, size=(2, 4)))
    clone = COPIES[how](original)
    actions = rng.integers(5, size=(16, 4))
    tokens = [row[0][..., -6:] for row in play_vector(clone, actions) if row[0].ndim == 2]
    assert all((t != original.unwrapped.mdp.pad_id).any() for t in tokens[:1])  # what it writes is seen
    clone = COPIES[how](original)
    expected = play_vector(copy.deepcopy(original), actions)
    assert_same(play_vector(clone, actions), expected)
    assert_same(play_vector(original, actions), expected)
    assert_same(clone.unwrapped.render() or (), original.unwrapped.render() or ())


def dialogue(prompts, completions, completion_ids, answers):
    """A reward function that changes all that it is given; what it pays depends on what it is given."""
    paid = [
        float(len(p) + 10 * len(a) + 100 * len(i)) for p, a, i in zip(prompts, answers, completion_ids, strict=True)
    ]
    for prompt, completion, ids, answer in zip(prompts, completions, completion_ids, answers, strict=True):
        prompt[0]["content"] += "!"
        prompt.extend(completion)
        ids.pop()
        answer.append("used")
    for whole in (prompts, completions, completion_ids, answers):
        whole.clear()
    return paid


class Overwrites(Scorer):
    """A scorer that writes into the rows that it is given."""

    name = "overwrites"

    def score(self, generations):
        generations.observations[:], generations.lengths[:], generations.prompt_ids[:] = 0, 1, 0
        generations.rows[:], generations.ended[:] = 0, False
        return [1.0] * len(generations)


def test_what_a_scorer_does_to_its_arguments_reaches_nobody_else():
    tokenizer = byte_tokenizer().to_pretrained()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}"
    task = {
        "tokenizer": tokenizer,
        "prompts": [{"prompt": [{"role": "user", "content": "hi"}], "answers": ["a"]}],
        "max_new_tokens": 2,
        "scorer": WeightedSum([FunctionScorer(dialogue, name=n, conversational=True) for n in "ab"]),
    }
    env = gym.make("TextGen-v0", **task)
    for _ in range(3):
        first, _ = env.reset(seed=0)
        assert env.unwrapped.decode(first) == "user:hi\n"
        env.step(65)
        info = env.step(256)[-1]
        assert info["a"] == info["b"] == 1 + 10 + 200
    vector = gym.make_vec("TextGen-v0", num_envs=2, **task)
    vector.reset(seed=0)
    for _ in range(3):
        vector.step([65, 65])
        final = vector.step([256, 256])[-1]["final_info"]
        assert final["a"].tolist() == final["b"].tolist() == [211, 211]


def test_a_scorer_that_writes_does_not_write_into_the_env():
    env = gym.make("TextGen-v0", **{**CHARACTERS, "scorer": Overwrites()})
    env.reset(options={"prompt": "ab"})
    row, *_, info = env.step(4)
    assert row.tolist()[:4] == [5, 0, 1, 4] and info["prompt_id"] == 2
    vector = gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled", **{**CHARACTERS, "scorer": Overwrites()})
    vector.reset(options={"prompts": ["ab", "a"]})
    rows, *_, info = vector.step([4, 3])
    assert rows[:, :4].tolist() == [[5, 0, 1, 4], [5, 5, 0, 3]] and info["prompt_id"].tolist() == [2, 1]
    assert vector.step([4, 4])[1].tolist() == [0.0, 1.0]  # the second row's reward stays in its place


def test_an_envs_own_copy_shares_what_is_costly_and_nothing_that_changes():
    """`env.copy()`: no episode, own prompts, random numbers and messages; the same tokenizer and scorer."""
    env = gym.make("TextGen-v0", **TEXTS).unwrapped
    start, _ = env.reset(seed=3)
    env.reset(options={"prompt": "dd"})
    env.step(0)
    other = env.copy()
    with pytest.raises(gym.error.ResetNeeded):
        other.step(0)
    assert other.scorer is env.scorer and other.tokenizer is env.tokenizer
    assert np.array_equal(other.reset(seed=3)[0], start)
    other.reset(options={"prompt": "cba"})
    assert len(other.task.prompts) == len(env.task.prompts) + 1
    assert env.step(1)[0][env.mdp.max_prompt_tokens :][:2].tolist() == [0, 1]
    env.reset(options={"prompt": {"prompt": "aba"}})
    pinned = [e.task.prompts.texts([e._prompt_id]) for e in (env, other)]
    assert pinned == [["aba"], ["cba"]]
    env.task.trainer.log_metric("told", 1.0)
    assert not other.task.trainer._metrics

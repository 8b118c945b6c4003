"""Vectors that stand for the token whose embedding is nearest."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import InvalidAction
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise

from tests.conftest import CHARACTERS, count_tokens, small_llama
from tests.helpers.wrappers import assert_vector_is_many_singles
from textgym.sb3 import TextVecEnv
from textgym.wrappers import EmbeddingActions, VectorEmbeddingActions, VectorPotentialShaping

PLANE = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [0.25, 0.25]]
"""d = 2 for five tokens; the mean is (0.05, 0.05)."""


def token_of(env, action, prefix=()):
    """The token that an action writes."""
    env.reset(seed=0)
    for token in prefix:
        env.step(env.embeddings[token])
    row = env.step(np.asarray(action, np.float32))[0]
    return int(row[env.unwrapped.mdp.max_prompt_tokens + len(prefix)])


def toy(embeddings=PLANE, **kwargs):
    return EmbeddingActions(gym.make("TextGenToy-v0"), embeddings, **kwargs)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_nearest_by_hand(metric, rng):
    env = toy(np.random.default_rng(1).normal(size=(5, 3)), metric=metric)
    assert env.action_space == spaces.Box(-1, 1, (3,), np.float32) and np.abs(env.embeddings).max() == 1
    for action in rng.uniform(-1, 1, size=(200, 3)):
        if metric == "l2":
            distances = [sum((a - e) ** 2 for a, e in zip(action, row, strict=True)) for row in env.embeddings]
        else:
            distances = [-(action @ row) / np.linalg.norm(action) / np.linalg.norm(row) for row in env.embeddings]
        assert env.action(action) == min(range(5), key=distances.__getitem__)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_every_token_is_nearest_to_its_own_embedding_whatever_the_scale(metric):
    given = 100 + 30 * np.random.default_rng(0).normal(size=(5, 4))
    env = toy(given, metric=metric)
    assert [token_of(env, row) for row in env.embeddings] == [0, 1, 2, 3, 4]
    distances = [((m[:, None] - m) ** 2).sum(-1) for m in (given, env.embeddings)]
    if metric == "l2":  # one factor for all of them
        np.testing.assert_allclose(distances[1] * distances[0].max() / distances[1].max(), distances[0], rtol=1e-9)


def test_ties_and_masks():
    env = toy(np.eye(5))
    assert token_of(env, np.zeros(5)) == 0 and token_of(env, [0, 0, 0.5, 0.5, 0]) == 2
    equal = toy([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]], metric="cosine")
    assert token_of(equal, [1, 0]) == 0 and token_of(equal, [0, 0]) == 0
    kwargs = {**CHARACTERS, "scorer": count_tokens, "banned_tokens": [0], "min_new_tokens": 1}
    env = EmbeddingActions(gym.make("TextGen-v0", **kwargs), np.eye(5))
    assert token_of(env, np.zeros(5)) == 1
    assert token_of(env, np.eye(5)[4]) == 1  # EOS is forbidden at first: the others are equally far
    assert token_of(env, np.eye(5)[4], prefix=[2]) == 4
    vector = VectorEmbeddingActions(gym.make_vec("TextGen-v0", num_envs=2, **kwargs), np.eye(5))
    vector.reset(seed=0)
    rows = vector.step(np.stack([np.zeros(5), np.eye(5)[3]]).astype(np.float32))[0]
    assert rows[:, 3].tolist() == [1, 3]


def test_a_model_s_embeddings_and_their_principal_components():
    model = small_llama()
    weight = model.get_input_embeddings().weight.detach().double().numpy()
    whole = toy(model)
    centred = weight - weight.mean(0)
    np.testing.assert_allclose(whole.embeddings, centred / np.abs(centred).max())
    assert whole.action_space.shape == (32,)
    few = toy(model, dimensions=4)  # five points span four dimensions, so no distance changes
    assert few.action_space.shape == (4,)
    distances = [((m[:, None] - m) ** 2).sum(-1) for m in (centred, few.embeddings)]
    np.testing.assert_allclose(distances[1] / distances[1].max(), distances[0] / distances[0].max(), atol=1e-9)
    one = toy([[0.0, 0.1], [3.0, 0.0], [6.0, 0.1], [9.0, 0.0], [12.0, 0.0]], dimensions=1)
    assert np.abs(one.embeddings[:, 0]).tolist() == pytest.approx([1, 0.5, 0, 0.5, 1], abs=1e-3)
    assert EmbeddingActions(gym.make("TextGen-v0"), "tiny", dimensions=8).embeddings.shape[1] == 8


@pytest.mark.parametrize(
    ("embeddings", "kwargs", "message"),
    [
        (np.eye(4), {}, r"shape \(4, 4\); the env has 5 tokens"),
        (np.zeros(5), {}, r"shape \(5,\)"),
        ([[1.0], [2.0, 3.0]], {}, "they must be numbers"),
        (np.ones((5, 2)), {}, "all embeddings are equal"),
        ([*PLANE[:4], [np.nan, 0.0]], {}, "the embedding of token 4 is not finite"),
        ([*PLANE[:4], [0.0, 0.0]], {"metric": "cosine"}, "the embedding of token 4 is zero"),
        (PLANE, {"metric": "dot"}, "metric is 'dot'; accepted are"),
        (PLANE, {"dimensions": 3}, "dimensions is 3; the embeddings, .*, have 2"),
        (PLANE, {"dimensions": 0}, "dimensions is 0"),
        ("tiny-model", {}, "unknown model|no directory"),
    ],
)
def test_bad_embeddings(embeddings, kwargs, message):
    with pytest.raises(ValueError, match=message):
        toy(embeddings, **kwargs)


@pytest.mark.parametrize("action", [np.zeros(3), [np.nan, 0.0], [np.inf, 0.0], 1, "ab", np.zeros((1, 2))])
def test_bad_actions(action):
    env = toy()
    env.reset()
    with pytest.raises(InvalidAction, match="an action is"):
        env.action(action)


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_a_vector_env_is_many_single_ones(mode, rng):
    kwargs = {**CHARACTERS, "scorer": count_tokens}
    vector = VectorEmbeddingActions(gym.make_vec("TextGen-v0", num_envs=3, autoreset_mode=mode, **kwargs), PLANE)
    assert vector.action_space.shape == (3, 2) and vector.single_action_space.shape == (2,)
    single = EmbeddingActions(gym.make("TextGen-v0", **kwargs), PLANE)
    assert_vector_is_many_singles(vector, single, 50, rng, lambda rng, n: rng.uniform(-1, 1, (n, 2)).astype("f4"))


def test_spec_as_json():
    env = toy(PLANE, metric="cosine")
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, EmbeddingActions) and (again.embeddings == env.embeddings).all()


EMBEDDINGS = {
    "one-hot": np.eye(5),
    "random": np.random.default_rng(0).normal(size=(5, 8)),
    "plane": PLANE,
}


COUNT = {"name": "token_counts", "weights": {"0": 1.0}}
"""Every "a" is worth 1, and eight fit."""


@pytest.mark.slow
@pytest.mark.parametrize("cls", [DDPG, TD3, SAC])
@pytest.mark.parametrize("name", EMBEDDINGS)
def test_stock_agents_learn(cls, name):
    """From random actions, which earn about 0.6; shaping pays at every token, without which they learn nothing."""

    def make(count):
        env = gym.make_vec("TextGenChars-v0", num_envs=count, scorer=COUNT)
        return TextVecEnv(VectorEmbeddingActions(VectorPotentialShaping(env, COUNT, gamma=0.99), EMBEDDINGS[name]))

    def returns(choose):
        env, found = make(64), []
        rows = env.reset()
        while len(found) < 200:
            rows, _, dones, infos = env.step(choose(rows))
            found += [info["unshaped_return"] for info, done in zip(infos, dones, strict=True) if done]
        return np.mean(found), np.std(found) / np.sqrt(len(found))

    env = make(8)
    dimensions = env.action_space.shape[0]
    noise = NormalActionNoise(np.zeros(dimensions), np.full(dimensions, 0.5))
    exploration = {"ent_coef": "auto_0.1"} if cls is SAC else {"action_noise": noise}
    sizes = {"learning_starts": 400, "gradient_steps": 4, "batch_size": 64, "policy_kwargs": {"net_arch": [64, 64]}}
    agent = cls("MlpPolicy", env, learning_rate=1e-3, seed=0, device="cpu", **sizes, **exploration)
    rng = np.random.default_rng(0)
    before, error = returns(lambda rows: rng.uniform(-1, 1, (len(rows), dimensions)).astype("f4"))
    agent.learn(3000)
    after, _ = returns(lambda rows: agent.predict(rows, deterministic=True)[0])
    assert after > before + 5 * error and after > 2

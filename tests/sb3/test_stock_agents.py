"""Stock SB3 agents on our envs, and the VecEnv adapter against SB3's own DummyVecEnv."""

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from tests.conftest import CHARACTERS, count_tokens
from textgym.sb3 import TextVecEnv, TokenFeatures
from textgym.sb3.episodic import EpisodicAlgorithm

ID = "TextGenChars-v0"


@pytest.mark.parametrize(
    ("algorithm", "kwargs"), [(PPO, {"n_steps": 64}), (A2C, {}), (DQN, {"learning_starts": 50, "buffer_size": 500})]
)
def test_stock_agents_run_unchanged(algorithm, kwargs):
    model = algorithm("MlpPolicy", ID, device="cpu", **kwargs)
    model.learn(200)
    assert model.num_timesteps >= 200
    env = gym.make(ID)
    obs, _ = env.reset()
    assert env.action_space.contains(int(model.predict(obs)[0]))


@pytest.mark.parametrize("vector", [False, True])
def test_maskable_ppo_keeps_to_the_masks(vector):
    kwargs = {"min_new_tokens": 4, "banned_tokens": [2]}  # the env raises on a forbidden token
    env = TextVecEnv(gym.make_vec(ID, num_envs=4, **kwargs)) if vector else gym.make(ID, **kwargs)
    model = MaskablePPO("MlpPolicy", env, n_steps=64, device="cpu", seed=0)
    model.learn(256)
    assert model.num_timesteps >= 256


def test_stock_ppo_with_token_features_learns():
    """Random play earns 0.13 (mean of 4,000 episodes); "abab..." earns 1."""
    env = VecMonitor(TextVecEnv(gym.make_vec(ID, num_envs=32)))
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=32,
        batch_size=256,
        n_epochs=4,
        learning_rate=3e-3,
        gamma=1.0,
        seed=0,
        device="cpu",
        policy_kwargs={"features_extractor_class": TokenFeatures, "net_arch": []},
    )
    model.learn(32 * 32 * 25)
    assert np.mean([episode["r"] for episode in model.ep_info_buffer]) >= 0.8


def test_the_adapter_is_the_dummy_vec_env_faster():
    kwargs = {**CHARACTERS, "scorer": count_tokens, "prompts": ["ab"]}  # one prompt: seeds do not matter
    ours = TextVecEnv(gym.make_vec("TextGen-v0", num_envs=3, **kwargs))
    theirs = DummyVecEnv([lambda: gym.make("TextGen-v0", **kwargs)] * 3)
    assert np.array_equal(ours.reset(), theirs.reset())
    rng = np.random.default_rng(0)
    for _ in range(60):
        actions = rng.integers(0, 5, 3)
        a, b = ours.step(actions), theirs.step(actions)
        for x, y in zip(a[:3], b[:3], strict=True):
            assert np.array_equal(x, y) and x.dtype == y.dtype
        for ours_info, theirs_info in zip(a[3], b[3], strict=True):
            theirs_info.pop("TimeLimit.truncated"), ours_info.pop("TimeLimit.truncated", None)
            assert set(ours_info) == set(theirs_info)
            for key in ours_info:
                assert np.array_equal(ours_info[key], theirs_info[key])


def test_disabled_rows_wait_for_the_next_reset_where_the_plan_says_so():
    env = TextVecEnv(
        gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled", **CHARACTERS, scorer=count_tokens)
    )
    env.plan(1)
    env.reset()
    obs, _, dones, infos = env.step(np.array([4, 0]))
    assert dones.tolist() == [True, False] and np.array_equal(infos[0]["terminal_observation"], obs[0])
    again, rewards, dones, _ = env.step(np.array([1, 0]))
    assert np.array_equal(again[0], obs[0]) and rewards.tolist() == [0, 0] and not dones.any()


def test_seed_and_options_go_through():
    env = TextVecEnv(gym.make_vec("TextGen-v0", num_envs=2, **CHARACTERS, scorer=count_tokens))
    env.seed(3)
    first = env.reset()
    env.seed(3)
    assert np.array_equal(first, env.reset())
    env.set_options([{"prompt": "a"}, {"prompt": "cad"}])
    assert env.reset()[:, :3].tolist() == [[5, 5, 0], [2, 0, 3]]
    assert [info["prompt_id"] for info in env.reset_infos] == [1, 3]


def make_single(count):
    return DummyVecEnv([lambda: gym.make("TextGen-v0", **CHARACTERS, scorer=count_tokens)] * count)


@pytest.mark.parametrize(
    "env", ["TextGenChars-v0", "single", "same step", "disabled", "DummyVecEnv"], ids=lambda e: e.replace(" ", "-")
)
def test_the_base_takes_every_kind_of_env(env):
    from tests.conftest import small_llama

    kwargs = {**CHARACTERS, "scorer": count_tokens}
    made = {
        "TextGenChars-v0": lambda: "TextGenChars-v0",
        "single": lambda: gym.make("TextGen-v0", **kwargs),
        "same step": lambda: gym.make_vec("TextGen-v0", num_envs=4, **kwargs),
        "disabled": lambda: gym.make_vec("TextGen-v0", num_envs=4, autoreset_mode="Disabled", **kwargs),
        "DummyVecEnv": lambda: make_single(4),
    }[env]()
    algorithm = EpisodicAlgorithm("TokenPolicy", made, small_llama(), n_envs=4, num_generations=2, device="cpu", seed=0)
    episodes = algorithm.sample_episodes(24)
    # Complete episodes only: each ends with EOS or at the limit, wherever its row's neighbours ended.
    last = episodes.actions.gather(1, episodes.lengths[:, None] - 1).squeeze(1)
    assert ((last == 4) | (episodes.lengths == algorithm.mdp.max_new_tokens)).all()
    assert (episodes.lengths > 0).all() and episodes.lengths.unique().numel() > 1
    if env != "TextGenChars-v0":
        assert (episodes.rewards.sum(-1) == episodes.lengths).all() and (
            episodes.components[:, 0] == episodes.lengths
        ).all()
    paid = episodes.rewards.gather(1, episodes.lengths[:, None] - 1).squeeze(1)
    assert (paid == episodes.rewards.sum(-1)).all()  # on the last token itself

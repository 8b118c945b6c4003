"""PPO: its step is stable-baselines3's own, and none of the field's known mistakes is in it."""

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch

from agents import PPO
from tests.conftest import CHARACTERS, count_tokens, episodes_of, small_llama
from tests.helpers.agents import Log, agent, assert_same, randomize_values, stale_episodes, weights
from textgym.sb3 import TokenPolicy


def test_one_step_is_that_of_stable_baselines3():
    """Its own `train()`, on its own buffer, which holds the same tokens as transitions one by one."""
    sgd = {"optimizer_class": torch.optim.SGD}
    kwargs = {"gamma": 0.9, "gae_lambda": 0.8, "clip_range_vf": 0.2, "ent_coef": 0.05, "vf_coef": 0.7, "n_epochs": 1}
    kwargs |= {"learning_rate": 0.1, "max_grad_norm": 1e9, "clip_range": 0.2, "normalize_advantage": True}
    made = agent(PPO, 16, kl_coef=0.0, batch_size=None, policy_kwargs=sgd, **kwargs)
    randomize_values(made)
    made.rollout_buffer.episodes = episodes = stale_episodes(made, 16)

    n, mdp = int(episodes.mask.sum()), made.mdp
    single = gym.make("TextGen-v0", **CHARACTERS, scorer=count_tokens)
    policy_kwargs = TokenPolicy.kwargs_for(single, small_llama(), **sgd)
    stock = stable_baselines3.PPO(
        TokenPolicy, single, n_steps=n, batch_size=n, policy_kwargs=policy_kwargs, device="cpu", **kwargs
    )
    stock.set_logger(Log())
    stock.policy.load_state_dict(made.policy.state_dict())
    for e in range(16):
        for t in range(int(episodes.lengths[e])):
            state = episodes.rows[e].numpy().copy()
            state[mdp.max_prompt_tokens + t :] = mdp.pad_id
            action, reward = episodes.actions[e, t].numpy(), episodes.rewards[e, t].numpy()
            value, log_prob = episodes.values[e, t : t + 1], episodes.log_probs[e, t : t + 1]
            stock.rollout_buffer.add(state[None], action[None], reward[None], np.array([t == 0]), value, log_prob)
    stock.rollout_buffer.compute_returns_and_advantage(torch.zeros(1), np.array([1.0]))

    before = weights(made)
    made.train()
    stock.train()
    after = weights(made)
    assert_same(after, weights(stock), atol=1e-6)
    moved = {name: (after[name] - before[name]).abs().max().item() for name in after}
    assert moved["token_model.model.lm_head.weight"] > 1e-3 and moved["token_model.value_net.weight"] > 1e-3
    for name in ("approx_kl", "clip_fraction", "policy_gradient_loss", "value_loss", "loss"):
        theirs = stock.logger.all[f"train/{name}"][0]
        np.testing.assert_allclose(made.logger.all[f"train/{name}"], [theirs], rtol=1e-4, err_msg=name)
    assert made.logger.all["train/clip_fraction"][0] > 0.1


def test_the_ratio_is_one_before_the_first_step():
    made = agent(PPO, 16, batch_size=None, n_epochs=2, micro_batch_size=5, learning_rate=1e-2)
    sampled, used, compute = [], [], made.loss

    def loss(episodes, terms):
        sampled.append((terms.log_probs - episodes.sampled_log_probs).exp()[episodes.mask].detach())
        used.append((terms.log_probs - episodes.log_probs).exp()[episodes.mask].detach())
        return compute(episodes, terms)

    made.loss = loss
    made.learn(1)
    first = len(used) // 2  # micro-batches of the first epoch
    assert (torch.cat(sampled[:first]) - 1).abs().max() < 1e-4
    assert (torch.cat(used[:first]) == 1).all() and (torch.cat(used[first:]) != 1).any()


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_at_learning_rate_zero_nothing_seems_to_change(dtype):
    env = CHARACTERS | {"max_new_tokens": 24, "min_new_tokens": 20}  # so long that bfloat16 shows
    made = agent(PPO, 16, env=env, batch_size=None, n_epochs=3, micro_batch_size=5, learning_rate=0.0, dtype=dtype)
    made.learn(1)
    assert made.logger.all["train/approx_kl"] == made.logger.all["train/clip_fraction"] == [0, 0, 0]


def test_at_learning_rate_zero_minibatches_differ_by_rounding_only():
    made = agent(PPO, 16, batch_size=5, n_epochs=3, learning_rate=0.0)
    made.learn(1)
    log = made.logger.all
    assert len(log["train/approx_kl"]) == 3 * 4  # minibatches of 5, 5, 5 and 1
    assert max(map(abs, log["train/approx_kl"])) < 1e-9 and set(log["train/clip_fraction"]) == {0}


def test_the_reward_falls_on_the_step_that_chooses_eos():
    """With values 0 and lambda 0 a step's advantage is its own reward."""
    made = agent(PPO, 32, gae_lambda=0.0, kl_coef=0.0)
    episodes = made.sample_episodes(32)
    advantages = made.with_advantages(episodes, made.rewards(episodes)).advantages
    by_eos = episodes.actions == 4
    assert by_eos.any(-1).sum() > 10
    for e, t in by_eos.nonzero().tolist():
        assert t == episodes.lengths[e] - 1 and advantages[e, t] == t + 1 == advantages[e].sum()  # it pays the length


def test_a_value_head_alone_is_nothing_to_train():
    with pytest.raises(ValueError, match="no trainable parameter"):
        agent(PPO, model=small_llama().requires_grad_(False))


def test_advantages_and_returns_by_hand():
    made = agent(PPO, kl_coef=0.5, gamma=0.5, gae_lambda=0.5)
    batch = episodes_of(
        [[0.0, 4.0, None], [0.0, 0.0, 1.0]],
        [[1.0, -2.0, 0.0], [0.0, 2.0, 1.0]],
        prompt_ids=[5, 5],
        values=[[1.0, 2.0, 0.0], [0.0, 4.0, 0.0]],
    )
    # log pi - log a is the log-probability here: rewards -0.5, 5 and 0, -1, 0.5; errors -0.5, 3 and 2, -5, 0.5
    rewards = made.rewards(batch)
    assert rewards.tolist() == [[-0.5, 5, 0], [0, -1, 0.5]]
    done = made.with_advantages(batch, rewards)
    assert done.advantages.tolist() == [[0.25, 3, 0], [0.78125, -4.875, 0.5]]
    assert done.returns.tolist() == [[1.25, 5, 0], [0.78125, -0.875, 0.5]]


def test_it_is_used_as_stable_baselines3s(tmp_path):
    made = agent(PPO)
    assert isinstance(made, stable_baselines3.PPO) and made.learn(30) is made and made.num_timesteps >= 30
    obs, _ = gym.make("TextGen-v0", **CHARACTERS, scorer=count_tokens).reset(seed=0)
    action, state = made.predict(obs, deterministic=True)
    assert made.action_space.contains(int(action)) and state is None
    made.save(tmp_path / "m")
    loaded = PPO.load(tmp_path / "m", device="cpu")
    assert loaded.predict(obs, deterministic=True)[0] == action
    steps = loaded.num_timesteps
    loaded.set_env(made.env)
    loaded.learn(30, reset_num_timesteps=False)
    assert steps + 30 <= loaded.num_timesteps and loaded.get_env() is made.env
    with pytest.raises(AssertionError, match="different from the number of environments"):
        loaded.set_env(agent(n=4).env)


def test_set_env_refuses_another_mdp():
    """The spaces are the same, the end of an episode is not."""
    made = agent(PPO)
    with pytest.raises(ValueError, match="MDP"):
        made.set_env(agent(env=CHARACTERS | {"eos_token_ids": [0]}).env)

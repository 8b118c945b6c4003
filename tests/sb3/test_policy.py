"""TokenPolicy: sampling and training agree; masks, deterministic, stock SB3 algorithms."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import REINFORCE
from tests.conftest import CHARACTERS, count_tokens, small_gpt2, small_llama
from textgym.sb3 import TextVecEnv, TokenPolicy


def vector_env(n=16, **kwargs):
    return gym.make_vec("TextGen-v0", num_envs=n, **{**CHARACTERS, "scorer": count_tokens, **kwargs})


def agent(model=None, n=16, seed=0, **kwargs):
    env = vector_env(n, autoreset_mode="Disabled", num_generations=4, **kwargs)
    return REINFORCE("TokenPolicy", env, model or small_llama(), seed=seed, device="cpu")


@pytest.mark.parametrize("model", [small_llama, small_gpt2])
@pytest.mark.parametrize("restrictions", [{}, {"min_new_tokens": 2, "banned_tokens": [1]}])
def test_sampling_and_training_log_probs_agree(model, restrictions):
    made = agent(model(), **restrictions)
    episodes = made.sample_episodes(64)
    made.policy.set_training_mode(True)  # GPT-2's dropout must stay off
    _, log_probs, _ = made.policy.evaluate_actions(episodes.rows, episodes.actions)
    assert episodes.lengths.float().std() > 0.5  # ragged
    torch.testing.assert_close(log_probs[episodes.mask], episodes.log_probs[episodes.mask], atol=1e-4, rtol=0)
    assert (log_probs[~episodes.mask] == 0).all()


def stock_samples(episodes, mdp):
    """The same data as SB3's buffer would hold it: one state and one action per token."""
    states, actions, weights = [], [], []
    for row, mask, advantage in zip(episodes.rows, episodes.mask, episodes.advantages, strict=True):
        for t in range(int(mask.sum())):
            state = row.clone()
            state[mdp.max_prompt_tokens + t :] = mdp.pad_id
            states.append(state)
            actions.append(row[mdp.max_prompt_tokens + t])
            weights.append(advantage[t])
    return torch.stack(states), torch.stack(actions), torch.stack(weights)


@pytest.mark.parametrize("micro_batch_size", [None, 5])
def test_an_sgd_step_on_packed_episodes_equals_the_step_on_stock_transitions(micro_batch_size):
    def make():
        env = vector_env(16, autoreset_mode="Disabled", num_generations=4, min_new_tokens=1)
        return REINFORCE(
            "TokenPolicy",
            env,
            small_llama(),
            seed=0,
            device="cpu",
            ent_coef=0.1,
            learning_rate=0.5,
            max_grad_norm=1e9,
            micro_batch_size=micro_batch_size,
            policy_kwargs={"optimizer_class": torch.optim.SGD},
        )

    packed, stock = make(), make()
    packed.learn(1)  # one rollout, one step
    episodes = packed.rollout_buffer.episodes
    episodes = packed.with_advantages(episodes, packed.rewards(episodes))

    states, actions, weights = stock_samples(episodes, packed.mdp)
    _, log_probs, entropies = stock.policy.evaluate_actions(states, actions)
    loss = -(weights * log_probs).mean() - 0.1 * entropies.mean()
    stock.policy.optimizer.zero_grad()
    loss.backward()
    stock.policy.optimizer.step()

    moved = 0.0
    for (name, a), b in zip(packed.policy.named_parameters(), stock.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0, msg=name)
    for a, b in zip(packed.policy.model.parameters(), packed.reference.model.parameters(), strict=True):
        moved = max(moved, (a - b).abs().max().item())
    assert moved > 1e-3


def test_micro_batches_do_not_change_the_gradient():
    made = agent(n=16)
    episodes = made.sample_episodes(48)
    episodes = episodes.replace(advantages=torch.randn(48, 6) * episodes.mask)

    def gradient(size):
        made.micro_batch_size, made.policy.optimizer.step = size, lambda: None
        made.gradient_step(episodes, lambda piece, v, log_probs, e: (-piece.advantages * log_probs, {}))
        return [p.grad.clone() for p in made.policy.model.parameters()]

    made.set_logger(__import__("stable_baselines3").common.logger.configure(None, []))
    made.max_grad_norm = 1e9
    whole = gradient(None)
    for size in (1, 7, 16):
        for a, b in zip(whole, gradient(size), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_masked_tokens_are_never_sampled_and_have_no_probability():
    made = agent(min_new_tokens=3, banned_tokens=[2])
    episodes = made.sample_episodes(64)
    assert not (episodes.actions == 2).any()
    assert episodes.lengths.min() >= 3 + 0 and (episodes.actions[:, :3] < 4).all()
    obs, _ = vector_env(2, min_new_tokens=3, banned_tokens=[2]).reset(seed=0)
    probs = made.policy.get_distribution(torch.from_numpy(obs)).distribution.probs
    assert (probs[:, [2, 4]] == 0).all() and torch.allclose(probs.sum(-1), torch.ones(2))


def test_deterministic_is_the_most_likely_token():
    made = agent()
    obs, _ = vector_env(8).reset(seed=0)
    best = made.policy.get_distribution(torch.from_numpy(obs)).distribution.probs.argmax(-1)
    for _ in range(3):
        assert np.array_equal(made.predict(obs, deterministic=True)[0], best.numpy())
    assert len({tuple(made.predict(obs, deterministic=False)[0]) for _ in range(20)}) > 1
    assert made.predict(obs[0], deterministic=True)[0].shape == ()


def test_decoding_notices_changed_weights():
    made = agent()
    obs = torch.from_numpy(vector_env(4).reset(seed=0)[0])
    before = made.policy.get_distribution(obs).distribution.probs
    with torch.no_grad():
        made.policy.model.lm_head.weight.mul_(-1.0)
    after = made.policy.get_distribution(obs).distribution.probs
    assert (before - after).abs().max() > 0.01


def test_stock_ppo_trains_a_token_policy():
    from stable_baselines3 import PPO

    env = TextVecEnv(vector_env(8))
    model = PPO(
        TokenPolicy,
        env,
        n_steps=16,
        batch_size=32,
        n_epochs=1,
        policy_kwargs=TokenPolicy.kwargs_for(env, small_llama()),
        device="cpu",
    )
    before = [p.detach().clone() for p in model.policy.model.parameters()]
    model.learn(128)
    assert any((a != b).any() for a, b in zip(before, model.policy.model.parameters(), strict=True))


def test_kwargs_for_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="not a TextGym env"):
        TokenPolicy.kwargs_for(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="the env's tokenizer .5 tokens. is not that of model 'tiny'"):
        TokenPolicy.kwargs_for(vector_env())


def test_a_frozen_model_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        agent(small_llama().requires_grad_(False))


def test_pretrained_weights_are_untouched_and_values_start_at_zero():
    model = small_llama()
    before = [p.clone() for p in model.parameters()]
    made = agent(model)
    assert all(torch.equal(a, b) for a, b in zip(before, made.policy.model.parameters(), strict=True))
    obs, _ = vector_env(4).reset(seed=0)
    assert (made.policy.predict_values(torch.from_numpy(obs)) == 0).all()


def test_bfloat16_trains_against_the_training_forward():
    env = vector_env(16, autoreset_mode="Disabled", num_generations=4)
    made = REINFORCE("TokenPolicy", env, small_llama(), seed=0, device="cpu", dtype="bfloat16")
    made.learn(1)
    assert all(p.dtype == torch.float32 for p in made.policy.parameters())
    fresh = made.sample_episodes(32)
    _, log_probs, _ = made.policy.evaluate_actions(fresh.rows, fresh.actions)
    assert torch.equal(log_probs[fresh.mask], fresh.log_probs[fresh.mask])


def test_the_buffer_hands_out_each_episode_once():
    made = agent(n=16)
    made.learn(1)
    rows = made.rollout_buffer.episodes.rows
    batches = list(made.rollout_buffer.get(5))
    assert [len(batch) for batch in batches] == [5, 5, 5, 1]
    handed_out = torch.cat([batch.rows for batch in batches])
    assert sorted(handed_out.tolist()) == sorted(rows.tolist()) and not torch.equal(handed_out, rows)
    made.rollout_buffer.reset()
    with pytest.raises(RuntimeError, match="the buffer is empty"):
        made.rollout_buffer.episodes  # noqa: B018

"""TokenPolicy as a policy of stable-baselines3, and the updates of an agent: steps, precision, errors."""

import gymnasium as gym
import pytest
import torch

from agents import PPO, REINFORCE
from tests.conftest import small_llama
from tests.helpers.policies import agent_of, close, policy, random_episodes, vector_env
from textgym.sb3 import TextVecEnv, TokenPolicy
from textgym.training.updates import apply_gradients


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
    made = agent_of(n=16)
    episodes = made.sample_episodes(48)
    episodes = episodes.replace(advantages=torch.randn(48, 6) * episodes.mask)

    def gradient(size):
        made.micro_batch_size, made.policy.optimizer.step = size, lambda: None
        made.gradient_step(episodes, lambda batch, terms: (-batch.advantages * terms.log_probs, {}))
        return [p.grad.clone() for p in made.policy.model.parameters()]

    made.set_logger(__import__("stable_baselines3").common.logger.configure(None, []))
    made.max_grad_norm = 1e9
    whole = gradient(None)
    for size in (1, 7, 16):
        for a, b in zip(whole, gradient(size), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


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
        agent_of(small_llama().requires_grad_(False))


def test_pretrained_weights_are_untouched_and_values_start_at_zero():
    model = small_llama()
    before = [p.clone() for p in model.parameters()]
    made = agent_of(model)
    assert all(torch.equal(a, b) for a, b in zip(before, made.policy.model.parameters(), strict=True))
    obs, _ = vector_env(4).reset(seed=0)
    assert (made.policy.predict_values(torch.from_numpy(obs)) == 0).all()


def test_bfloat16_trains_against_the_training_forward():
    env = vector_env(16, autoreset_mode="Disabled", num_generations=4)
    made = REINFORCE("TokenPolicy", env, small_llama(), seed=0, device="cpu", dtype="bfloat16")
    made.learn(1)
    assert all(p.dtype == torch.float32 for p in made.policy.parameters())
    fresh, plain = made.sample_episodes(32), policy(made.policy.model)
    # In the micro-batches that training runs, because a bfloat16 product may depend on the shape of its batch.
    for index in fresh.micro_batches():
        rows, actions = fresh.rows[index], fresh.actions[index]
        with torch.no_grad():
            assert torch.equal(made.policy.evaluate_actions(rows, actions)[1], fresh.log_probs[index])
            close(plain.evaluate_actions(rows, actions)[1], fresh.log_probs[index], 0.1)


def test_the_buffer_hands_out_each_episode_once():
    made = agent_of(n=16)
    made.learn(1)
    rows = made.rollout_buffer.episodes.rows
    batches = list(made.rollout_buffer.get(5))
    assert [len(batch) for batch in batches] == [5, 5, 5, 1]
    handed_out = torch.cat([batch.rows for batch in batches])
    assert sorted(handed_out.tolist()) == sorted(rows.tolist()) and not torch.equal(handed_out, rows)
    made.rollout_buffer.reset()
    with pytest.raises(RuntimeError, match="the buffer is empty"):
        made.rollout_buffer.episodes  # noqa: B018


# ---- the separate value function ----


def test_a_separate_value_function_is_saved_and_loaded(tmp_path):
    made = agent_of(algorithm=PPO, policy_kwargs={"value_function": "separate"})
    made.learn(200)
    made.save(tmp_path / "m")
    loaded = PPO.load(tmp_path / "m", device="cpu")
    obs = torch.from_numpy(vector_env(8).reset(seed=0)[0])
    (actions, values, log_probs), again = (m.policy(obs, deterministic=True) for m in (made, loaded))
    assert torch.equal(actions, again[0]) and torch.equal(values, again[1]) and torch.equal(log_probs, again[2])
    assert (values != 0).any()


# ---- errors ----


def weights_of(made):
    return [p.detach().clone() for p in made.policy.parameters()]


def unchanged(made, weights):
    return all(torch.equal(a, b) for a, b in zip(weights, made.policy.parameters(), strict=True))


def test_weights_that_are_not_finite_are_named_with_timestep_and_update():
    made = agent_of()
    made.learn(1)
    with torch.no_grad():
        made.policy.model.lm_head.weight[2] = float("nan")
    message = f"the policy's logits are not finite, at timestep {made.num_timesteps}, update 1$"
    with pytest.raises(FloatingPointError, match=message):
        made.learn(1, reset_num_timesteps=False)


@pytest.mark.parametrize("options", [{}, {"policy_kwargs": {"top_k": 2, "top_p": 0.9, "temperature": 0.5}}], ids=str)
def test_a_loss_that_is_not_finite_stops_the_training_before_the_step(options):
    made = agent_of(**options)
    made.learn(1)
    weights, done = weights_of(made), made.num_timesteps
    made.with_advantages = lambda episodes, rewards: episodes.replace(advantages=torch.full_like(rewards, float("nan")))
    with pytest.raises(FloatingPointError, match=r"the loss is nan, at timestep \d+, update 1$") as caught:
        made.learn(1, reset_num_timesteps=False)
    assert f"timestep {made.num_timesteps}," in str(caught.value) and made.num_timesteps > done
    assert unchanged(made, weights)


def test_a_gradient_that_is_not_finite_is_not_applied():
    made = agent_of()
    made.policy.evaluate_actions(*random_episodes())[1].sum().backward()
    weights = weights_of(made)
    next(made.policy.parameters()).grad[0] = float("inf")
    with pytest.raises(FloatingPointError, match="the norm of the gradient is"):
        apply_gradients(made.token_model, made.policy.optimizer, 1.0)
    assert unchanged(made, weights)


def fail(*args, **kwargs):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_an_exhausted_memory_says_what_to_lower(monkeypatch):
    made, (rows, actions) = agent_of(), random_episodes()
    monkeypatch.setattr(made.policy.model.base_model, "forward", fail)
    for message, call in {
        "n_envs": lambda: made.sample_episodes(16),
        "lower micro_batch_size": lambda: made.policy.evaluate_actions(rows, actions),
        "lower micro_batch_size$": lambda: made.policy.token_model.terms_under(made.policy.model, rows, actions),
        "lower batch_size": lambda: made.policy.evaluate_actions(rows, actions[:, 0]),
    }.items():
        with pytest.raises(torch.OutOfMemoryError, match=f"does not fit into memory; .*{message}"):
            call()


def test_a_memory_exhausted_in_the_backward_pass_says_what_to_lower():
    made = agent_of()
    made.policy.model.lm_head.register_full_backward_hook(fail)
    with pytest.raises(torch.OutOfMemoryError, match="lower micro_batch_size"):
        made.learn(1)


def test_senseless_arguments_are_refused():
    with pytest.raises(ValueError, match="value_function is 'both'; accepted are ..shared., .separate.."):
        policy(value_function="both")
    with pytest.raises(ValueError, match="dtype is 'float16'; accepted are .'float32', 'bfloat16', None."):
        policy(dtype="float16")
    with pytest.raises(ValueError, match="use_sde is for continuous actions"):
        policy(use_sde=True)
    with pytest.raises(TypeError, match="net_arch"):
        policy(net_arch=[64])

"""What the whole family shares: the update by hand, penalties, KL, exact gradients, learning, and what stops it."""

import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import GRPO, PPO, REINFORCE, RLOO
from tests.conftest import CHARACTERS, episodes_of, share_of_a, small_llama
from tests.helpers.agents import Log, agent, assert_same, gradients, randomize_values, stale_episodes, weights
from textgym.exact import TokenTree
from textgym.language_models.shared_prompts import episode_logits

BINARY = {
    "tokenizer": {"name": "characters", "alphabet": "ab"},
    "prompts": [""],
    "max_prompt_tokens": 1,
    "max_new_tokens": 3,
    "allowed_tokens": [0, 1],  # EOS never: all texts have three tokens, eight in all
}


def update_by_hand(made, episodes):
    """The loss of one PPO update and what is logged, episode by episode and token by token."""
    lengths, tokens = episodes.lengths.tolist(), int(episodes.mask.sum())
    advantages, returns = [], []
    for e, n in enumerate(lengths):
        rewards = episodes.rewards[e, :n].tolist()
        if episodes.actions[e, n - 1] != 4:
            rewards[-1] -= made.missing_eos_penalty
        if made.kl_penalty == "reward":
            log_ratios = (episodes.log_probs[e] - episodes.reference_log_probs[e]).tolist()
            rewards = [r - made.kl_coef * k for r, k in zip(rewards, log_ratios, strict=False)]
        v = [*episodes.values[e, :n].tolist(), 0.0]
        errors = [rewards[t] + made.gamma * v[t + 1] - v[t] for t in range(n)]
        decay = made.gamma * made.gae_lambda
        advantages.append([sum(decay ** (s - t) * errors[s] for s in range(t, n)) for t in range(n)])
        returns.append([a + value for a, value in zip(advantages[-1], v, strict=False)])
    flat = torch.tensor(sum(advantages, []))
    loss, sums = 0.0, dict.fromkeys(("approx_kl", "clip_fraction", "entropy", "value_loss", "kl_loss"), 0.0)
    for e, n in enumerate(lengths):
        terms = made.policy.evaluate_actions(episodes.rows[e : e + 1], episodes.actions[e : e + 1])
        values, log_probs, entropies = (term[0, :n] for term in terms)
        old, old_values, reference = (
            x[e, :n] for x in (episodes.log_probs, episodes.values, episodes.reference_log_probs)
        )
        weight = torch.tensor(1 / (n * len(lengths)) if made.loss_normalization == "sequence" else 1 / tokens)
        for t in range(n):
            ratio = torch.exp(log_probs[t] - old[t])
            advantage = (advantages[e][t] - flat.mean()) / flat.std()
            clipped = torch.clamp(ratio, 0.8, 1.2)
            value = old_values[t] + torch.clamp(values[t] - old_values[t], -0.2, 0.2)
            value_loss = (returns[e][t] - value) ** 2
            k = log_probs[t] - reference[t]
            kl = {"reward": torch.zeros(()), "k2": k**2 / 2, "k3": ratio * (torch.exp(-k) - 1 + k)}[made.kl_penalty]
            policy_loss = -torch.min(ratio * advantage, clipped * advantage)
            loss += weight * (policy_loss + made.vf_coef * value_loss + made.kl_coef * kl)
            loss -= made.ent_coef * entropies[t] / tokens
            for name, x in {
                "approx_kl": ratio - 1 - ratio.log(),
                "clip_fraction": (ratio != clipped).float(),
                "entropy": entropies[t],
                "value_loss": value_loss,
                "kl_loss": kl,
            }.items():
                sums[name] += x.item() / tokens
    return loss, sums


@pytest.mark.parametrize(
    ("kl_penalty", "loss_normalization", "micro_batch_size"),
    [("reward", "token", None), ("k2", "token", 3), ("k3", "sequence", None), ("k2", "sequence", 1)],
)
def test_an_update_is_the_sum_over_real_tokens_by_hand(kl_penalty, loss_normalization, micro_batch_size):
    made = agent(
        PPO,
        16,
        kl_coef=0.3,
        kl_penalty=kl_penalty,
        loss_normalization=loss_normalization,
        micro_batch_size=micro_batch_size,
        reference=small_llama(seed=1),
        missing_eos_penalty=0.5,
        gamma=0.9,
        gae_lambda=0.8,
        clip_range_vf=0.2,
        ent_coef=0.1,
        batch_size=None,
        n_epochs=1,
        max_grad_norm=1e9,
    )
    randomize_values(made)
    made.policy.optimizer.step = lambda: None
    made.rollout_buffer.episodes = episodes = stale_episodes(made, 16)
    made.train()
    ours, log = gradients(made), made.logger.all
    made.policy.optimizer.zero_grad()
    loss, sums = update_by_hand(made, episodes)
    loss.backward()
    assert_same(ours, gradients(made), atol=1e-5)
    assert max(g.abs().max() for g in ours.values()) > 0.1
    np.testing.assert_allclose(log["train/loss"], [loss.item()], rtol=1e-4)
    assert 0.1 < sums["clip_fraction"] < 0.9
    for name, by_hand in sums.items():
        if name != "kl_loss" or kl_penalty != "reward":
            np.testing.assert_allclose(log[f"train/{name}"], [by_hand], rtol=1e-4, err_msg=name)


def test_an_episode_that_ended_by_length_pays_for_the_missing_eos():
    made = agent(env=CHARACTERS | {"eos_token_ids": [3, 4]}, kl_coef=0.0, missing_eos_penalty=0.5)
    rows = [[5, 5, 0, 5, 5, 5, *completion] for completion in ([0, 4, 5], [0, 1, 3], [0, 1, 2], [4, 5, 5])]
    rewards = [[0.0, 4.0, None], [0.0, 0.0, 1.0], [0.0, 2.0, 1.0], [3.0, None, None]]
    batch = episodes_of(rewards, [[0.0] * 3] * 4, [0] * 4, rows)
    assert made.rewards(batch).tolist() == [[0, 4, 0], [0, 0, 1], [0, 2, 0.5], [3, 0, 0]]
    assert batch.rewards[2].tolist() == [0, 2, 1]  # what the env paid stays


@pytest.mark.parametrize(("kl", "factor"), [(4.4, 1.01), (8.0, 1.02), (3.8, 0.995), (1.0, 0.98), (-1.0, 0.98)])
def test_kl_coef_follows_its_target(kl, factor):
    """Ziegler et al. 2019: beta (1 + 0.1 e), e = KL / target - 1 within 0.2 of 0."""
    made = agent(PPO, kl_coef=0.5, reference_kl_target=4.0, learning_rate=0.0)
    episodes = made.sample_episodes(8)
    per_sequence = torch.linspace(0.5, 1.5, 8)[:, None] * kl  # mean kl, spread over each episode's tokens
    per_token = per_sequence * episodes.mask / episodes.lengths[:, None]
    made.rollout_buffer.episodes = episodes.replace(reference_log_probs=episodes.log_probs - per_token)
    made.train()
    assert made.logger.all["train/kl_coef"] == [0.5] and made.kl_coef == pytest.approx(0.5 * factor, rel=1e-6)


@pytest.mark.parametrize("kl_penalty", ["reward", "k2"])
@pytest.mark.parametrize("remaining", [1.0, 0.25, 0.0])
def test_kl_coef_may_be_a_function_of_the_remaining_progress(remaining, kl_penalty):
    ends = []
    for kl_coef in (lambda left: 0.4 * left, 0.4 * remaining):
        made = agent(PPO, kl_coef=kl_coef, kl_penalty=kl_penalty)
        made._current_progress_remaining = remaining
        made.rollout_buffer.episodes = stale_episodes(made, 8)
        made.train()
        assert made.logger.all["train/kl_coef"] == [pytest.approx(0.4 * remaining)]
        ends.append(weights(made))
    assert_same(*ends, atol=0)


@pytest.mark.parametrize(("entropy", "expected"), [(0.9, 0.015), (1.0, 0.015), (1.1, 0.005)])
def test_ent_coef_follows_its_target(entropy, expected):
    made = agent(PPO, ent_coef=0.01, target_entropy=1.0, learning_rate=0.0)
    assert made.adapted_arguments({"target_entropy": 1.0, "ent_coef": 0.01}) == ("ent_coef",)
    episodes = made.sample_episodes(8)
    mean = entropy * episodes.mask.sum() / episodes.mask[:, 0].sum()
    log_probs = torch.zeros_like(episodes.log_probs)
    log_probs[:, 0] = -mean  # all of it on the first tokens
    made.rollout_buffer.episodes = episodes.replace(log_probs=log_probs)
    made._finish_update()
    assert made.logger.all["train/ent_coef"] == [0.01] and made.ent_coef == pytest.approx(expected)
    for _ in range(3):
        made._finish_update()
    assert made.ent_coef == pytest.approx(expected + (0.015 if entropy <= 1 else -expected))  # never below 0


def test_truncated_texts_are_left_out_of_the_steps_alone():
    env = CHARACTERS | {"eos_token_ids": [3, 4]}
    made = agent(GRPO, env=env, kl_coef=0.0, mask_truncated_completions=True)
    rows = [[5, 5, 0, 5, 5, 5, *completion] for completion in ([0, 4, 5], [0, 1, 3], [0, 1, 2], [4, 5, 5])]
    rewards = [[0.0, 4.0, None], [0.0, 0.0, 1.0], [0.0, 2.0, 1.0], [3.0, None, None]]
    batch = episodes_of(rewards, [[-1.0, -1.0, -1.0]] * 4, [0] * 4, rows)
    assert made.trained_on(batch, batch.rewards).tolist() == [True, True, False, True]
    seen = []
    made.gradient_step = lambda episodes, *_: seen.append(episodes)
    made.rollout_buffer.episodes = batch
    made.train()
    assert len(seen[0]) == 3 and seen[0].advantages[0, 0] > seen[0].advantages[2, 0] > 0  # about the mean of all, 2.75
    made.rollout_buffer.episodes = batch.select(torch.tensor([2, 2]))
    made.train()
    assert len(seen) == 1  # nothing to train on, and no step


@pytest.mark.parametrize("cls", [PPO, GRPO, RLOO])
def test_without_a_kl_penalty_no_reference_is_kept_unless_given(cls):
    made = agent(cls, kl_coef=0.0)
    made.learn(1)
    assert made.reference is None and not [name for name in made.logger.all if "kl_to_reference" in name]
    reference = small_llama(seed=1)
    made = agent(cls, kl_coef=0.0, reference=reference)
    made.learn(1)
    episodes = made.rollout_buffer.episodes
    log_probs = episode_logits(reference, made.mdp, episodes.rows).log_softmax(-1)
    log_probs = log_probs.gather(-1, episodes.actions.clamp(max=4)[..., None]).squeeze(-1)
    kl = ((episodes.log_probs - log_probs) * episodes.mask).sum() / len(episodes)
    np.testing.assert_allclose(made.logger.all["rollout/kl_to_reference"], [kl.item()], rtol=1e-4)


def test_target_kl_stops_before_the_step_that_would_be_too_much():
    kwargs = {"batch_size": None, "learning_rate": 1e-3}
    once = agent(PPO, n_epochs=1, **kwargs)
    once.learn(1)
    stopped = agent(PPO, n_epochs=5, target_kl=1e-9, **kwargs)
    stopped.learn(1)
    first, second = stopped.logger.all["train/approx_kl"]
    assert first == 0 and second > 1.5e-9 and stopped._n_updates == 1
    assert_same(weights(stopped), weights(once), atol=0)
    patient = agent(PPO, n_epochs=5, target_kl=1e9, **kwargs)
    patient.learn(1)
    assert patient._n_updates == 5


def rewards_of(completion_ids):
    """A reward that every token and its place change."""
    return [float(ids[0] + 2 * ids[1] * ids[2] - ids[2]) for ids in completion_ids]


def exact_gradient(algorithm, kl_coef):
    """The gradient of E[r] - kl_coef KL(pi || a), over all eight texts."""
    outcomes = [list(ids) for ids in itertools.product([0, 1], repeat=3)]
    rows = torch.tensor([[2, *ids] for ids in outcomes])
    log_probs = []
    for model in (algorithm.policy.model, algorithm.reference.model):
        logits = episode_logits(model, algorithm.mdp, rows)[..., :2]  # EOS is not allowed
        log_probs.append(logits.log_softmax(-1).gather(-1, rows[:, 1:, None]).squeeze(-1).sum(-1))
    ours, reference = log_probs
    value = (ours.exp() * (torch.tensor(rewards_of(outcomes)) - kl_coef * (ours - reference.detach()))).sum()
    return torch.autograd.grad(value, list(algorithm.policy.model.parameters()))


PLAIN_PPO = {"gae_lambda": 1.0, "normalize_advantage": False, "n_epochs": 1, "batch_size": None, "vf_coef": 0.0}


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [(RLOO, {}), (REINFORCE, {"baseline": "none"}), (REINFORCE, {"reward_to_go": True}), (PPO, PLAIN_PPO)],
    ids=["RLOO", "no-baseline", "reward-to-go", "PPO"],
)
def test_the_mean_gradient_is_the_exact_one(cls, kwargs):
    """Along 20 fixed random directions, 100 gradients of 64 episodes each; 5 standard errors.

    Tried: with the KL's sign turned (kl_coef=-0.5 in the agent) all four fail.
    """
    algorithm = agent(cls, 64, small_llama(3), BINARY, rewards_of, k=64, kl_coef=0.5, max_grad_norm=1e9, **kwargs)
    with torch.no_grad():
        for p in algorithm.policy.model.parameters():  # away from the reference, so that KL has a gradient
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    randomize_values(algorithm)  # any baseline that reads the state alone leaves the mean as it is
    parameters = list(algorithm.policy.model.parameters())
    generator = torch.Generator().manual_seed(0)
    directions = [[torch.randn(p.shape, generator=generator) for p in parameters] for _ in range(20)]

    def project(gradient):
        return torch.stack([sum((g * d).sum() for g, d in zip(gradient, ds, strict=True)) for ds in directions])

    exact = project(exact_gradient(algorithm, 0.5)) / 3  # the loss is the mean over three tokens
    algorithm.policy.optimizer.step = lambda: None
    samples = []
    for _ in range(100):
        algorithm.rollout_buffer.episodes = algorithm.sample_episodes(64)
        algorithm.train()
        samples.append(-project([p.grad for p in parameters]))
    samples = torch.stack(samples)  # (100, 20)
    errors = samples.std(0) / 10
    assert (exact.abs() > 5 * errors).any()  # the test can see the gradient
    assert ((samples.mean(0) - exact).abs() < 5 * errors).all()


OPTIONS = {cls: {"learning_rate": 2e-3} for cls in (REINFORCE, RLOO, GRPO)}
OPTIONS[PPO] = {"learning_rate": 5e-4, "batch_size": None, "n_epochs": 2}
RUNS = [(cls, seed, options) for cls, options in OPTIONS.items() for seed in range(3)]
RUNS.append((PPO, 0, OPTIONS[PPO] | {"policy_kwargs": {"value_function": "separate"}}))


def rewards_before_and_after(cls, seed, kwargs, **env):
    """Mean rewards of an untrained and of a trained agent on `TextGenChars-v0`."""
    made = gym.make_vec("TextGenChars-v0", num_envs=64, num_generations=64, autoreset_mode="Disabled", **env)
    algorithm = cls(
        "TokenPolicy", made, small_llama(5, seed), kl_coef=0.0, ent_coef=0.01, seed=seed, device="cpu", **kwargs
    )
    before = algorithm.sample_episodes(256).rewards.sum(-1).mean()
    algorithm.learn(20_000)
    return before, algorithm.sample_episodes(256).rewards.sum(-1).mean()


@pytest.mark.parametrize(
    ("cls", "seed", "kwargs"),
    RUNS,
    ids=lambda value: getattr(value, "__name__", None) or ("separate" if "policy_kwargs" in str(value) else None),
)
def test_it_learns_a_task_whose_optimum_is_known(cls, seed, kwargs):
    """To at least 0.9 of the optimum 1; of 12 seeds each, the least was 0.98, so that rounding decides nothing."""
    before, after = rewards_before_and_after(cls, seed, kwargs, scorer=share_of_a)
    assert before < 0.3 and after >= 0.9, (before, after)


@pytest.mark.parametrize("cls", OPTIONS)
def test_it_learns_what_depends_on_the_context(cls):
    """The id's own task, "abab...": tokens drawn without regard to the context earn 0.44 at best (enumerated).

    Not all runs find the optimum 1: of 12 seeds or more of each, the least ended at 0.74.
    """
    before, after = rewards_before_and_after(cls, 0, OPTIONS[cls])
    assert before < 0.3 and after >= 0.6, (before, after)


def test_a_low_temperature_trains_under_masks():
    """A forbidden token stays so where logits are divided by a temperature below 1; its entropy is 0, not NaN."""
    env = CHARACTERS | {"min_new_tokens": 2, "banned_tokens": [1]}
    made = agent(PPO, env=env, ent_coef=0.01, policy_kwargs={"temperature": 0.5})
    episodes = made.sample_episodes(8)
    _, _, entropies = made.policy.evaluate_actions(episodes.rows, episodes.actions)
    first = episode_logits(made.policy.model, made.mdp, episodes.rows)[:, 0, [0, 2, 3]] / 0.5  # neither "b" nor EOS
    torch.testing.assert_close(entropies[:, 0], torch.distributions.Categorical(logits=first).entropy())
    made.learn(1)


LONG = CHARACTERS | {"max_new_tokens": 24, "min_new_tokens": 20}  # so long that bfloat16 shows in every rollout


@pytest.mark.parametrize("cls", [PPO, GRPO])
def test_log_prob_mismatch_is_logged_in_both_precisions(cls):
    for dtype, least, most in ((None, 0.0, 1e-4), ("bfloat16", 1e-4, 0.1)):
        made = agent(cls, 16, env=LONG, dtype=dtype, batch_size=None)
        made.learn(1)
        episodes, (mismatch,) = made.rollout_buffer.episodes, made.logger.all["train/log_prob_mismatch"]
        assert least <= mismatch < most, (dtype, mismatch)
        if dtype is not None:  # log_probs are the training forward's
            by_hand = (episodes.log_probs - episodes.sampled_log_probs).abs().sum() / episodes.mask.sum()
            assert mismatch == pytest.approx(by_hand.item(), rel=1e-5)


def test_bfloat16_takes_old_log_probs_from_the_training_forward():
    made = agent(PPO, 16, env=LONG, dtype="bfloat16")
    episodes = made.sample_episodes(16)
    for index in episodes.micro_batches():
        _, log_probs, _ = made.policy.evaluate_actions(episodes.rows[index], episodes.actions[index])
        assert torch.equal(log_probs, episodes.log_probs[index])
    assert not torch.equal(episodes.log_probs, episodes.sampled_log_probs)


@pytest.mark.parametrize("where", ["the loss", "the policy's logits"])
def test_a_number_that_is_not_finite_stops_the_training_before_the_weights_change(where):
    made = agent(PPO, 8, n_epochs=2)
    made.learn(1)
    steps, updates = made.num_timesteps, made._n_updates
    broken = made.policy.token_model.value_net.bias if where == "the loss" else made.policy.model.lm_head.weight
    with torch.no_grad():
        broken.fill_(float("nan"))
    before = weights(made)
    with pytest.raises(FloatingPointError, match=f"{where}.*, at timestep .*, update {updates}$") as error:
        made.learn(1, reset_num_timesteps=False)
    assert f"at timestep {made.num_timesteps}," in str(error.value) and made._n_updates == updates == 2
    assert made.num_timesteps > steps if where == "the loss" else made.num_timesteps == steps
    for name, weight in weights(made).items():
        torch.testing.assert_close(weight, before[name], atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("truncation", [{"top_k": 2}, {"top_p": 0.8}], ids=str)
def test_k3_is_neither_a_penalty_nor_logged_where_the_policy_is_truncated(truncation):
    ((name, value),) = truncation.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; kl_penalty 'k3' is no estimate of the KL"):
        agent(GRPO, kl_penalty="k3", policy_kwargs=truncation)
    for kwargs in ({"kl_penalty": "reward"}, {"kl_penalty": "k2"}, {"kl_coef": 0.0, "reference": small_llama(seed=1)}):
        made = agent(GRPO, policy_kwargs=truncation, **kwargs)
        made.learn(1)
        assert "rollout/kl_to_reference" in made.logger.all and "rollout/kl_to_reference_k3" not in made.logger.all
    made = agent(GRPO, policy_kwargs={"temperature": 0.5})
    made.learn(1)
    assert "rollout/kl_to_reference_k3" in made.logger.all


def test_the_logged_kl_of_a_truncated_policy_is_the_exact_one_and_k3_would_not_be():
    env = gym.make_vec("TextGenToy-v0", num_envs=4096, num_generations=4096, autoreset_mode="Disabled", num_tokens=5)
    tree, reference = TokenTree.of(env), torch.tensor(env.unwrapped.reference_logits)
    truncated = reference.masked_fill(reference < reference.topk(2).values[:, -1:], -math.inf)
    exact = tree.kl(truncated, reference).item()
    made = RLOO("TokenPolicy", env, kl_coef=0.1, seed=0, device="cpu", policy_kwargs={"top_k": 2})
    made.set_logger(Log())
    made.learn(1)
    episodes = made.rollout_buffer.episodes
    k1 = (episodes.log_probs - episodes.reference_log_probs).double()
    error = k1.sum(-1).std().item() / 64
    assert made.logger.all["rollout/kl_to_reference"][0] == pytest.approx(exact, abs=5 * error)
    assert abs((torch.expm1(-k1) + k1).sum(-1).mean().item() - exact) > 20 * error

"""REINFORCE: its weights by hand, its gradient against the exact one, and that it learns."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import configure

from agents import REINFORCE
from tests.conftest import CHARACTERS, count_tokens, episodes_of, small_llama
from textgym.language_models.forward import episode_logits

BINARY = {
    "tokenizer": {"name": "characters", "alphabet": "ab"},
    "prompts": [""],
    "max_prompt_tokens": 1,
    "max_new_tokens": 3,
    "allowed_tokens": [0, 1],  # EOS never: all texts have three tokens, eight in all
}


def agent(n=8, model=None, env=CHARACTERS, scorer=count_tokens, k=4, **kwargs):
    made = gym.make_vec("TextGen-v0", num_envs=n, num_generations=k, autoreset_mode="Disabled", scorer=scorer, **env)
    algorithm = REINFORCE("TokenPolicy", made, model or small_llama(), seed=0, device="cpu", **kwargs)
    algorithm.set_logger(configure(None, []))
    return algorithm


def test_weights_by_hand():
    batch = episodes_of(
        [[0.0, 4.0, None], [0.0, 0.0, 1.0]], [[1.0, -2.0, 0.0], [0.0, 3.0, 1.0]], prompt_ids=[5, 5]
    )  # returns with kl_coef 0.5: 4 - 0.5 (1 - 2) = 4.5 and 1 - 0.5 (3 + 1) = -1

    def advantages(**kwargs):
        made = agent(kl_coef=0.5, **kwargs)
        return made.with_advantages(batch, made.rewards(batch)).advantages

    whole = advantages()
    assert whole.tolist() == [[5.5, 5.5, 0.0], [-5.5, -5.5, -5.5]]
    to_go = advantages(reward_to_go=True, baseline="none")
    assert to_go.tolist() == [[4.5, 5.0, 0.0], [-1.0, -1.0, 0.5]]
    mean = advantages(baseline="mean")
    assert mean.tolist() == [[2.75, 2.75, 0.0], [-2.75, -2.75, -2.75]]


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


@pytest.mark.parametrize(
    "kwargs", [{"baseline": "leave_one_out"}, {"baseline": "none"}, {"reward_to_go": True}], ids=lambda k: str(k)
)
def test_the_mean_gradient_is_the_exact_one(kwargs):
    """Along 20 fixed random directions, 100 gradients of 64 episodes each; 5 standard errors."""
    algorithm = agent(64, small_llama(3), BINARY, rewards_of, k=64, kl_coef=0.5, max_grad_norm=1e9, **kwargs)
    with torch.no_grad():
        for p in algorithm.policy.model.parameters():  # away from the reference, so that KL has a gradient
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_a_task_whose_optimum_is_known(seed):
    """From about 0.1 to at least 0.9 of the optimum 1 ("abab...")."""
    algorithm = REINFORCE(
        "TokenPolicy",
        "TextGenChars-v0",
        small_llama(5, seed),
        n_envs=64,
        num_generations=64,
        learning_rate=2e-3,
        kl_coef=0.0,
        ent_coef=0.01,
        seed=seed,
        device="cpu",
    )
    before = algorithm.sample_episodes(256).rewards.sum(-1).mean()
    algorithm.learn(20_000)
    after = algorithm.sample_episodes(256).rewards.sum(-1).mean()
    assert before < 0.3 and after >= 0.9, (before, after)


def test_the_kl_penalty_holds_the_policy_back():
    def distance(kl_coef):
        env = CHARACTERS | {"prompts": ["a"]}
        algorithm = agent(32, k=32, env=env, kl_coef=kl_coef, learning_rate=3e-3, reference=small_llama())
        algorithm.learn(6_000)
        episodes = algorithm.sample_episodes(256)
        return (episodes.log_probs - episodes.reference_log_probs).sum(-1).mean()

    # four seeds gave 0.09 to 0.18, the noise of Adam at this step size, and 2.9 to 6.9
    assert distance(10.0) < 0.3 < 1.5 < distance(0.0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="accepted are"):
        agent(baseline="critic")
    with pytest.raises(ValueError, match="episodes_per_update=12 is not a multiple of the number of envs, 8"):
        agent(episodes_per_update=12)
    model = small_llama()
    with pytest.raises(ValueError, match="the very model that is trained"):
        agent(model=model, reference=model)
    with pytest.raises(ValueError, match="at least two episodes of every prompt"):
        agent(k=1, env=CHARACTERS | {"prompts": [a + b for a in "abcd" for b in "abcd"]}).learn(1)


def test_two_rounds_make_an_update():
    algorithm = agent(8, episodes_per_update=24)
    algorithm.learn(1)
    assert len(algorithm.rollout_buffer.episodes) == 24 and algorithm._n_updates == 1
    assert algorithm.num_timesteps == int(algorithm.rollout_buffer.episodes.mask.sum())
    assert np.isclose(algorithm.rollout_buffer.episodes.rewards.sum(), algorithm.num_timesteps)  # pays the length

"""What must hold on a CUDA device; skipped where there is none."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import PPO, REINFORCE, DistributionMatching, SoftQLearning
from tests.conftest import CHARACTERS, count_tokens, share_of_a, small_gpt2, small_llama
from textgym.exact import TokenTree
from textgym.language_models.decoder import Decoder
from textgym.language_models.forward import logits_of, state_hidden
from textgym.scorers import LogProb

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def agent(**kwargs):
    env = gym.make_vec(
        "TextGen-v0", num_envs=16, num_generations=4, autoreset_mode="Disabled", **CHARACTERS, scorer=count_tokens
    )
    return REINFORCE("TokenPolicy", env, small_llama(), seed=0, device="cuda", **kwargs)


def test_sampling_and_training_log_probs_agree():
    made = agent()
    episodes = made.sample_episodes(64)
    _, log_probs, _ = made.policy.evaluate_actions(episodes.rows, episodes.actions)
    assert episodes.rows.is_cuda
    torch.testing.assert_close(log_probs[episodes.mask], episodes.log_probs[episodes.mask], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_trains_saves_and_resumes(dtype, tmp_path):
    made = agent(dtype=dtype, learning_rate=1e-3)
    made.learn(2_000)
    made.save(tmp_path / "m")
    loaded = REINFORCE.load(tmp_path / "m", made.env, device="cuda")
    loaded.learn(500, reset_num_timesteps=False)
    assert loaded.num_timesteps > made.num_timesteps
    assert all(p.is_cuda and p.dtype == torch.float32 for p in loaded.policy.parameters())


@pytest.mark.parametrize("make", [small_llama, small_gpt2])
def test_graphed_decoding_gives_the_logits_of_a_plain_forward(make, recwarn):
    """Through rows that end, wait and are replaced; capturing must have worked, so nothing is warned of."""
    env = gym.make_vec("TextGen-v0", num_envs=24, num_generations=4, **CHARACTERS, scorer=count_tokens)
    decoder = Decoder(make().cuda(), env.unwrapped.mdp)
    obs, rng = env.reset(seed=0)[0], np.random.default_rng(0)
    for _ in range(60):
        rows = torch.from_numpy(obs).cuda()
        plain = logits_of(decoder.model, state_hidden(decoder.model, decoder.mdp, rows), 5)
        torch.testing.assert_close(decoder.logits(rows), plain, atol=1e-4, rtol=1e-4)
        obs = env.step(rng.integers(0, 5, 24))[0]
    assert not [w for w in recwarn if "CUDA graph" in str(w.message)]


@pytest.mark.parametrize("kwargs", [{}, {"dtype": "bfloat16"}, {"lora": {"r": 4}, "dtype": "bfloat16"}])
def test_ppo_trains(kwargs):
    env = gym.make_vec(
        "TextGen-v0", num_envs=16, num_generations=4, autoreset_mode="Disabled", **CHARACTERS, scorer=count_tokens
    )
    made = PPO("TokenPolicy", env, small_llama(), seed=0, device="cuda", learning_rate=1e-3, **kwargs)
    made.learn(2_000)
    assert made.num_timesteps >= 2_000
    assert made.reference is not None and (made.reference.model is None) == ("lora" in kwargs)


def test_graphs_follow_the_biases_under_autocast():
    """GPT-2's biases are cast in every step; a graph that read an earlier cast would sample from another policy."""
    env = gym.make_vec(
        "TextGen-v0", num_envs=16, num_generations=4, autoreset_mode="Disabled", **CHARACTERS, scorer=count_tokens
    )
    made = REINFORCE("TokenPolicy", env, small_gpt2(), dtype="bfloat16", learning_rate=1e-2, seed=0, device="cuda")
    made.learn(2_000)
    episodes = made.sample_episodes(64)
    assert (episodes.log_probs - episodes.sampled_log_probs).abs()[episodes.mask].mean() < 0.05


def test_it_learns():
    env = gym.make_vec("TextGenChars-v0", num_envs=64, num_generations=64, autoreset_mode="Disabled", scorer=share_of_a)
    made = REINFORCE(
        "TokenPolicy", env, small_llama(), learning_rate=2e-3, kl_coef=0.0, ent_coef=0.01, seed=0, device="cuda"
    )
    made.learn(20_000)
    assert made.sample_episodes(256).rewards.sum(-1).mean() >= 0.9


def test_a_token_scorer_on_the_device():
    rewards = []
    for device in ("cpu", "cuda"):
        scorer = LogProb(small_llama(), device=device)
        env = gym.make_vec("TextGen-v0", num_envs=2, **CHARACTERS, scorer=scorer)
        env.reset(options={"prompts": ["ab", "c"]})
        rewards.append([env.step(torch.tensor([1, 2]).numpy())[1].tolist() for _ in range(3)])
    assert torch.tensor(rewards[0]).allclose(torch.tensor(rewards[1]), atol=1e-4)


def test_f_dpg_and_soft_q_learning_find_the_exact_optimum_of_the_toy():
    """The RLHF target with beta is the soft-optimal policy, so both have the same answer."""
    for cls, kwargs in (
        (DistributionMatching, {"target": {"name": "rlhf", "beta": 0.5}}),
        (SoftQLearning, {"beta": 0.5}),
    ):
        env = gym.make_vec("TextGenToy-v0", num_envs=256, num_generations=256, autoreset_mode="Disabled")
        made = cls("TokenPolicy", env, learning_rate=lambda p: 0.1 * p, seed=0, device="cuda", **kwargs)
        made.learn(150_000)
        tree = TokenTree.of(env)
        log_p = (tree.log_probs(env.unwrapped.reference_logits) + tree.scores(env)["reward"] / 0.5).log_softmax(0)
        log_pi = tree.log_probs(made.policy.model.table.detach().cpu())
        assert (log_pi.exp() - log_p.exp()).abs().sum() / 2 <= 0.02


@pytest.mark.parametrize("proposal", ["on_policy", "mixture", "adaptive"])
@pytest.mark.parametrize("kwargs", [{}, {"lora": {"r": 4}, "dtype": "bfloat16"}])
def test_f_dpg_trains(proposal, kwargs, tmp_path):
    env = gym.make_vec(
        "TextGen-v0", num_envs=16, num_generations=4, autoreset_mode="Disabled", **CHARACTERS, scorer=count_tokens
    )
    made = DistributionMatching(
        "TokenPolicy", env, small_llama(), proposal=proposal, initial_episodes=64, seed=0, device="cuda", **kwargs
    )
    made.learn(1_000)
    made.save(tmp_path / "m")
    loaded = DistributionMatching.load(tmp_path / "m", env, device="cuda")
    loaded.learn(500, reset_num_timesteps=False)
    assert loaded.num_timesteps > made.num_timesteps

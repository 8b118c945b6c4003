"""Best-of-n and quasi-rejection sampling on the toy, against enumeration."""

import math

import gymnasium as gym
import pytest
import torch

import textgym  # noqa: F401 (registers the ids)
from tests.conftest import episodes_of
from textgym.evaluation.sampling import best_of_n, quasi_rejection
from textgym.exact import TokenTree
from textgym.language_models.tabular import TabularLM
from textgym.matching import RLHF, Distributional, Pointwise
from textgym.sb3 import EpisodicAlgorithm

TARGET = RLHF(0.5)


@pytest.fixture(scope="module")
def toy():
    """The toy's tree, rewards and reference, and an agent near the target RLHF(0.5): its policy with noise."""
    env = gym.make("TextGenToy-v0")
    tree = TokenTree.of(env)
    rewards, log_a = tree.scores(env)["reward"], tree.log_probs(env.unwrapped.reference_logits)
    logits = tree.policy_of(log_a + rewards / 0.5)[0]
    logits = logits + 0.5 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    agent = EpisodicAlgorithm(
        "TokenPolicy",
        gym.make_vec("TextGenToy-v0", num_envs=500, autoreset_mode="Disabled"),
        TabularLM.from_logits(logits.numpy(), 4),
        reference=env.unwrapped.reference_model(),
        seed=0,
        device="cpu",
    )
    return tree, rewards, log_a, tree.log_probs(logits), agent


def test_accepted_episodes_follow_p_beta(toy):
    tree, rewards, log_a, log_q, agent = toy
    log_mass = log_a + rewards / 0.5
    episodes, found, used = quasi_rejection(agent, TARGET, 4000, acceptance=0.25)
    assert len(episodes) == 4000 and found.proposals > 12_000 and used is TARGET
    log_p, log_p_beta = (x - x.logsumexp(0) for x in (log_mass, torch.minimum(log_mass - found.log_beta, log_q)))
    rate = torch.minimum(log_mass - found.log_beta, log_q).logsumexp(0).exp().item()
    assert rate == pytest.approx(0.25, abs=5 * 0.5 / math.sqrt(1000))  # beta is a pilot sample's
    assert found.rate.value == pytest.approx(rate, abs=5 * found.rate.standard_error)
    tv = {name: (log_p.exp() - x.exp()).abs().sum().item() / 2 for name, x in (("q", log_q), ("p_beta", log_p_beta))}
    assert tv["p_beta"] < tv["q"] / 2
    assert found.before["tv"].value == pytest.approx(tv["q"], abs=5 * found.before["tv"].standard_error)
    assert found.after["tv"].value == pytest.approx(tv["p_beta"], abs=5 * found.after["tv"].standard_error)
    counts = torch.bincount(tree.index(episodes.actions), minlength=tree.num_outcomes).double()
    expected = 4000 * log_p_beta.exp()
    common = expected > 10
    deviations = (counts - expected)[common] / (expected * (1 - expected / 4000)).sqrt()[common]
    assert common.sum() > 30 and (deviations.abs() < 5).all()


def test_a_filter_and_a_given_beta():
    scorer = {
        "name": "threshold",
        "scorer": {"name": "token_counts", "weights": {"1": 1}},
        "at": 1,
        "component_name": "1",
    }
    env = gym.make_vec("TextGenToy-v0", num_envs=100, autoreset_mode="Disabled", scorer=scorer)
    agent = EpisodicAlgorithm("TokenPolicy", env, seed=0, device="cpu")
    episodes, found, _ = quasi_rejection(agent, Pointwise("1"), 300, log_beta=-1.0)
    assert len(episodes) == 300 and (episodes.rewards.sum(-1) == 1).all()
    # q is the reference, so P / q is 0 or 1: all that passes the filter is accepted, and that is p itself
    tree = TokenTree.of(gym.make("TextGenToy-v0"))
    passes = (tree.outcomes == 1).any(-1)
    z = tree.log_probs(gym.make("TextGenToy-v0").unwrapped.reference_logits).exp()[passes].sum().item()
    assert found.log_beta == -1.0 and found.rate.value == pytest.approx(z, abs=5 * found.rate.standard_error)
    assert found.before["tv"].value == pytest.approx(1 - z, abs=5 * found.before["tv"].standard_error)
    assert found.before["kl_p_pi"].value == pytest.approx(-math.log(z), abs=5 * found.before["kl_p_pi"].standard_error)
    assert found.before["kl_pi_p"].value == math.inf
    assert all(abs(number.value) < 1e-6 for number in found.after.values())


def test_a_distributional_target_is_fitted_on_the_pilot(toy):
    tree, rewards, log_a, log_q, agent = toy
    wanted = Distributional({"token_counts": 2.0})
    episodes, found, target = quasi_rejection(agent, wanted, 2000, pilot=8000)
    assert not wanted.fitted and target.means == wanted.means
    log_mass = log_a + target.coefficients["token_counts"] * rewards
    assert (log_mass.softmax(0) @ rewards).item() == pytest.approx(2.0, abs=0.1)
    p_beta = torch.minimum(log_mass - found.log_beta, log_q).softmax(0)
    mean = (p_beta @ rewards).item()
    error = math.sqrt((p_beta @ (rewards - mean).square()).item() / 2000)
    assert episodes.rewards.sum(-1).mean().item() == pytest.approx(mean, abs=5 * error)


def test_mistakes_are_named(toy):
    *_, agent = toy
    with pytest.raises(ValueError, match=r"the target reads the feature 'keyword'; the env reports"):
        quasi_rejection(agent, Pointwise("keyword"), 10)
    with pytest.raises(ValueError, match="the target reads"):
        quasi_rejection(agent, Distributional({"keyword": 0.5}), 10)
    with pytest.raises(ValueError, match="log_beta=50 accepts a share of .*, less than one of 1500 proposals"):
        quasi_rejection(agent, TARGET, 10, log_beta=50)
    with pytest.raises(ValueError, match="episodes=0 and pilot=1024 must be at least 1"):
        quasi_rejection(agent, TARGET, 0)
    env = gym.make_vec("TextGenToy-v0", num_envs=8, autoreset_mode="Disabled")
    for name, value in (("top_k", 2), ("top_p", 0.9)):
        agent = EpisodicAlgorithm("TokenPolicy", env, device="cpu", policy_kwargs={name: value})
        with pytest.raises(ValueError, match=f"{name} is {value}; the target has texts that a truncated policy never"):
            quasi_rejection(agent, TARGET, 10)


def test_several_prompts_and_no_reference_are_refused():
    from agents import REINFORCE
    from tests.conftest import CHARACTERS, count_tokens, small_llama

    env = gym.make_vec("TextGen-v0", num_envs=8, autoreset_mode="Disabled", scorer=count_tokens, **CHARACTERS)
    agent = EpisodicAlgorithm("TokenPolicy", env, small_llama(), seed=0, device="cpu")
    with pytest.raises(ValueError, match="make the env with a single prompt"):
        quasi_rejection(agent, TARGET, 8, pilot=64)
    agent = REINFORCE("TokenPolicy", env, small_llama(), kl_coef=0.0, seed=0, device="cpu")
    with pytest.raises(ValueError, match="this policy has none"):
        quasi_rejection(agent, TARGET, 8)


def test_best_of_n_by_hand():
    episodes = episodes_of([[1.0, 0.0], [0.0, 3.0], [2.0, None], [-1.0, 0.0]], [[0.0, 0.0]] * 4, [7, 7, 5, 5])
    assert best_of_n(episodes, 2).rewards.tolist() == [[0, 3], [2, 0]]
    assert best_of_n(episodes, 1).rewards.tolist() == episodes.rewards.tolist()
    with pytest.raises(ValueError, match="several prompts; make the env with num_generations=4"):
        best_of_n(episodes, 4)
    for n in (0, 3):
        with pytest.raises(ValueError, match=f"4 episodes cannot be parted into groups of n={n}"):
            best_of_n(episodes, n)


def test_best_of_n_has_the_distribution_of_a_maximum(toy):
    _, rewards, _, log_q, agent = toy
    best = best_of_n(agent.sample_episodes(8000), 4).rewards.sum(-1)
    for level in rewards.unique().tolist():
        exact = log_q.exp()[rewards <= level].sum().item() ** 4  # all four are at most this
        margin = 5 * math.sqrt(exact * (1 - exact) / len(best)) + 1e-6
        assert (best <= level).double().mean().item() == pytest.approx(exact, abs=margin)

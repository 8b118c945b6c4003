"""Potential-based shaping: it telescopes, leaves the best policy as it is, and both envs pay the same."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import REINFORCE
from tests.conftest import CHARACTERS, checksum, count_tokens, small_llama
from tests.helpers.wrappers import assert_vector_is_many_singles, reward_table
from textgym.exact import hard_optimal, soft_optimal
from textgym.scorers import ScorerError
from textgym.wrappers import PotentialShaping, VectorPotentialShaping

LETTERS = {"name": "token_counts", "weights": {"0": 1.0, "1": -2.0}}


def digest(observations):
    """A potential that depends on everything, and on the empty completion too."""
    return np.sin(observations @ np.arange(1, observations.shape[1] + 1))


def tokens(rng, n):
    return rng.integers(5, size=n)


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
def test_returns_telescope(gamma, rng):
    plain, shaped = (gym.make("TextGen-v0", **CHARACTERS, scorer=checksum) for _ in range(2))
    shaped = PotentialShaping(shaped, digest, gamma)
    for seed in range(20):
        first, _ = plain.reset(seed=seed)
        assert (shaped.reset(seed=seed)[0] == first).all()
        difference, paid, discount, ended = 0.0, 0.0, 1.0, False
        while not ended:
            action = int(rng.integers(5))
            reward, ended = plain.step(action)[1:3]
            *_, info = after = shaped.step(action)
            difference, paid, discount = difference + discount * (after[1] - reward), paid + reward, discount * gamma
        assert difference == pytest.approx(-digest(first[None])[0])
        assert info["unshaped_return"] == pytest.approx(paid)


def test_hand_values():
    env = PotentialShaping(gym.make("TextGen-v0", **CHARACTERS, scorer=LETTERS), LETTERS, gamma=0.5)
    env.reset(options={"prompt": "a"})
    # Phi: "" 0, "a" 1, "ab" -1; gamma Phi(s') - Phi(s), and the score of "ab" at the end
    assert [env.step(token)[1] for token in (0, 1, 4)] == [0.5, -0.5 - 1, -1 + 1]


def test_with_the_env_s_own_scorer_each_token_is_paid_its_change_of_the_score():
    env = PotentialShaping(gym.make("TextGen-v0", max_new_tokens=4, prompts=["A"]), "sentiment")
    env.reset(seed=0)
    words = [env.unwrapped.encode(word)[0] for word in (" the", " film", " is", " great")]
    rewards = [env.step(word)[1] for word in words]
    assert rewards[:3] == [0, 0, 0] and rewards[3] > 0.5


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("env_id", ["TextGenToy-v0", "TextGenWords-v0"])
def test_the_optimal_policy_stays(env_id, gamma):
    kwargs = {"max_new_tokens": 3}
    tree, plain = reward_table(lambda env: env, env_id, **kwargs)
    _, shaped = reward_table(lambda env: VectorPotentialShaping(env, digest, gamma), env_id, **kwargs)
    assert not torch.allclose(plain, shaped)
    before, after = (hard_optimal(tree, table, gamma) for table in (plain, shaped))
    potentials = torch.from_numpy(digest(tree.observations.numpy()))
    torch.testing.assert_close(after.q_values, before.q_values - potentials[:, None])  # Ng et al. 1999, Corollary 2
    best = before.q_values >= before.values[:, None] - 1e-9  # ties are broken by rounding
    assert ((after.q_values >= after.values[:, None] - 1e-9) == best).all()
    if gamma == 1:
        soft = [soft_optimal(tree, torch.zeros_like(plain), table, 0.5).policy for table in (plain, shaped)]
        torch.testing.assert_close(*soft)
    unlike = hard_optimal(tree, shaped, gamma=0.3)  # another discount than the shaping's
    assert ((unlike.q_values >= unlike.values[:, None] - 1e-9) != best).any()


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
@pytest.mark.parametrize("potential", [digest, LETTERS])
def test_a_vector_env_is_many_single_ones(mode, potential, rng):
    kwargs = {**CHARACTERS, "scorer": checksum}
    vector = gym.make_vec("TextGen-v0", num_envs=5, autoreset_mode=mode, **kwargs)
    single = PotentialShaping(gym.make("TextGen-v0", **kwargs), potential, 0.9)
    assert_vector_is_many_singles(VectorPotentialShaping(vector, potential, 0.9), single, 60, rng, tokens)


def test_a_token_scorer_s_rewards_are_kept(rng):
    kwargs = {"max_new_tokens": 3, "scorer": "tests.wrappers.test_potential_shaping:PaysPerToken"}
    vector = VectorPotentialShaping(gym.make_vec("TextGenChars-v0", num_envs=3, **kwargs), digest)
    single = PotentialShaping(gym.make("TextGenChars-v0", **kwargs), digest)
    assert_vector_is_many_singles(vector, single, 20, rng, lambda rng, n: rng.integers(4, size=n))


def test_two_of_them_report_what_the_env_paid():
    env = gym.make_vec("TextGenToy-v0", num_envs=2, autoreset_mode="Disabled")
    env = VectorPotentialShaping(VectorPotentialShaping(env, digest), digest)
    env.reset(seed=0)
    env.step(np.array([1, 3]))
    info = env.step(np.array([4, 4]))[-1]
    assert info["unshaped_return"].tolist() == [1, -0.5] and info["_unshaped_return"].all()


def test_groups_and_pins_reach_the_env():
    env = gym.make_vec("TextGen-v0", num_envs=4, num_generations=2, autoreset_mode="Disabled", **CHARACTERS)
    env = VectorPotentialShaping(env, digest)
    rows = env.reset(seed=3)[0]
    assert (rows[0] == rows[1]).all() and (rows[2] == rows[3]).all()
    rows = env.reset(options={"prompts": ["a", "ab", "", "b"]})[0]
    assert rows[:, :3].tolist() == [[5, 5, 0], [5, 0, 1], [5, 5, 4], [5, 5, 1]]


def test_spec_as_json():
    env = PotentialShaping(gym.make("TextGen-v0", max_new_tokens=4), "sentiment", gamma=0.9)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, PotentialShaping) and again._term.gamma == 0.9
    named = PotentialShaping(gym.make("TextGenToy-v0"), f"{__name__}:digest")
    assert named.reset()[0] in named.observation_space


class PaysPerToken(__import__("textgym").Scorer):
    name, per_token = "pays", True

    def score(self, generations):
        return generations.lengths * 0.5


@pytest.mark.parametrize(
    ("potential", "gamma", "message"),
    [
        (digest, 1.1, "gamma is 1.1; it must be .*1"),
        (digest, "1", "gamma is '1'"),
        ("nothing", 1.0, "unknown scorer 'nothing'"),
        (f"{__name__}:nothing", 1.0, "has no 'nothing'"),
        (PaysPerToken(), 1.0, "the potential 'pays' pays per token"),
    ],
)
def test_bad_arguments(potential, gamma, message):
    with pytest.raises(ValueError, match=message):
        PotentialShaping(gym.make("TextGenToy-v0"), potential, gamma)
    with pytest.raises(ValueError, match=message):
        VectorPotentialShaping(gym.make_vec("TextGenToy-v0"), potential, gamma)


def test_other_envs_are_refused():
    with pytest.raises(ValueError, match="CartPole.* is not a TextGym env"):
        PotentialShaping(gym.make("CartPole-v1"), digest)
    singles = gym.make_vec("TextGenToy-v0", num_envs=2, vectorization_mode="sync")
    with pytest.raises(ValueError, match="need the native one, which gym.make_vec gives"):
        VectorPotentialShaping(singles, digest)


@pytest.mark.parametrize("bad", [lambda observations: [1.0], lambda observations: [np.nan] * len(observations)])
def test_a_potential_that_is_none_is_named(bad):
    with pytest.raises(ScorerError, match="scorer '<lambda>' returned"):
        VectorPotentialShaping(gym.make_vec("TextGenToy-v0", num_envs=2), bad).reset()


def test_reinforce_learns_the_same_from_shaped_rewards():
    """Whole returns shift by Phi(s_0), which a baseline per prompt takes away: the very same updates."""

    def trained(wrap):
        kwargs = {**CHARACTERS, "scorer": count_tokens}
        env = gym.make_vec("TextGen-v0", num_envs=8, num_generations=4, autoreset_mode="Disabled", **kwargs)
        learner = REINFORCE("TokenPolicy", wrap(env), small_llama(), seed=0, device="cpu", kl_coef=0.0)
        learner.learn(150)
        rewards = learner.sample_episodes(8).rewards
        return learner._n_updates, torch.cat([p.detach().flatten() for p in learner.policy.parameters()]), rewards

    updates, weights, rewards = trained(lambda env: env)
    again, same, shaped = trained(lambda env: VectorPotentialShaping(env, lambda rows: 1 + digest(rows)))
    assert again == updates > 3
    torch.testing.assert_close(same, weights, atol=1e-5, rtol=0)
    assert ((rewards != 0).sum(-1) == 1).all() and ((shaped != 0).sum(-1) > 1).any()

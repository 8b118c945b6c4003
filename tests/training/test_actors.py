"""Which actor chooses in which row, and that a actor's tokens and log-probabilities are those of its distribution."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import REINFORCE
from tests.conftest import small_gpt2, small_llama
from tests.helpers.policies import plain_batch, policy, random_episodes, vector_env
from textgym.exact import TokenTree
from textgym.language_models.tabular import TabularLM
from textgym.sb3 import TextVecEnv, TokenPolicy
from textgym.sb3.collection import collect
from textgym.training.actors import Alternating, ModelActor


class Constant:
    """A actor whose tokens, values and log-probabilities say which actor chose; it keeps what it was shown."""

    def __init__(self, number):
        self.number, self.mdp, self.device = number, f"mdp {number}", f"device {number}"

    def __call__(self, obs):
        self.shown, n = obs, len(obs)
        tokens = torch.full((n,), self.number)
        return tokens, torch.full((n, 1), 10.0 * self.number), -torch.arange(n) - 100.0 * self.number


def episodes(actor, env, rounds):
    """Last observations (E, P + T), sampled log-probabilities (E, T) and the row of the env that played each, (E,)."""
    played = collect(TextVecEnv(env), actor, rounds, ())
    rows = np.arange(rounds * env.num_envs) % env.num_envs
    return torch.from_numpy(played["rows"]), torch.from_numpy(played["sampled_log_probs"]), torch.from_numpy(rows)


def small_env(n=16, **kwargs):
    return vector_env(n, autoreset_mode="Disabled", **kwargs)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_rows_belong_to_actors_in_turn(n):
    actors = [Constant(1), Constant(2), Constant(3)][: min(n, 3)]
    alternating, obs = Alternating(actors), torch.arange(4 * n).view(n, 4)
    tokens, values, log_probs = alternating(obs)
    for i in range(n):
        actor, nth = actors[i % len(actors)], i // len(actors)
        assert tokens[i] == actor.number and values[i].tolist() == [10.0 * actor.number]
        assert log_probs[i] == -nth - 100.0 * actor.number and torch.equal(actor.shown[nth], obs[i])
    assert tokens.dtype == torch.int64 and values.shape == (n, 1)
    assert (alternating.mdp, alternating.device) == ("mdp 1", "device 1")


@pytest.mark.parametrize("make", [small_llama, small_gpt2])
def test_log_probs_are_those_of_a_plain_forward(make):
    made, model = policy(make()), make(seed=1)
    rows, log_probs, _ = episodes(ModelActor(made.token_model, model), small_env(), 4)
    with torch.no_grad():
        expected, of_policy = (plain_batch(made, m, rows)[1] for m in (model, made.model))
    torch.testing.assert_close(log_probs, expected, atol=1e-4, rtol=0)
    assert (log_probs - of_policy).abs().max() > 0.1


def test_masks_and_temperature_are_the_policys_and_truncation_is_not():
    env = small_env(min_new_tokens=2, banned_tokens=[1])
    made = policy(mdp=env.unwrapped.mdp, temperature=0.7, top_k=1)
    model = small_llama(seed=1)
    rows, log_probs, _ = episodes(ModelActor(made.token_model, model), env, 8)
    for row, got in zip(rows, log_probs, strict=True):
        ids, completion = row[row != 5], row[3:][row[3:] != 5]
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, -len(completion) - 1 : -1] / 0.7
        logits[:, 1] = -torch.inf
        logits[:2, 4] = -torch.inf  # EOS
        expected = logits.log_softmax(-1).gather(-1, completion[:, None])[:, 0]
        torch.testing.assert_close(got[: len(completion)], expected, atol=1e-4, rtol=0)
    assert len(rows[:, 3].unique()) == 3  # every first token that the masks allow, not the best one alone


def test_ended_rows_get_zeros():
    made, rows = policy(), random_episodes()[0]
    ended = torch.from_numpy(made.token_model.mdp.ended(rows.numpy()))
    rows[::2, 3:] = 5
    live = ~ended
    live[::2] = True
    tokens, values, log_probs = ModelActor(made.token_model, small_llama(seed=1))(rows)
    assert values.shape == (len(rows), 1) and not values.any() and live.any() and not live.all()
    assert (log_probs[live] < 0).all() and not log_probs[~live].any() and not tokens[~live].any()


def test_a_mixture_of_policy_and_model_side_by_side():
    made, model = policy(small_llama()), small_llama(seed=1)
    both = Alternating([made.token_model, ModelActor(made.token_model, model)])
    rows, log_probs, index = episodes(both, small_env(), 4)
    for parity, actor in enumerate((made.model, model)):
        own = index % 2 == parity
        with torch.no_grad():
            expected = plain_batch(made, actor, rows[own])[1]
        torch.testing.assert_close(log_probs[own], expected, atol=1e-4, rtol=0)


def test_frequencies_on_the_toy_are_the_exact_probabilities():
    env = gym.make_vec("TextGenToy-v0", num_envs=256, autoreset_mode="Disabled")
    tree, reference = TokenTree.of(env), env.unwrapped.reference_logits
    logits = np.random.default_rng(5).normal(size=reference.shape)
    made = TokenPolicy(
        env.single_observation_space,
        env.single_action_space,
        lambda _: 0.0,
        **TokenPolicy.kwargs_for(env, TabularLM.from_logits(logits, 4)),
    )
    torch.manual_seed(0)
    actor = Alternating([made.token_model, ModelActor(made.token_model, env.unwrapped.reference_model())])
    rows, log_probs, index = episodes(actor, env, 80)
    outcomes = tree.index(rows[:, 1:])
    for parity, table in enumerate((logits, reference)):
        exact, own = tree.log_probs(table), index % 2 == parity
        torch.testing.assert_close(log_probs[own].double().sum(-1), exact[outcomes[own]], atol=1e-5, rtol=0)
        p, n = exact.exp(), int(own.sum())
        counts = torch.bincount(outcomes[own], minlength=tree.num_outcomes).double()
        common = n * p > 25  # where a binomial is near a normal
        z = (counts - n * p) / (n * p * (1 - p)).sqrt()
        assert common.sum() > 30 and z[common].abs().max() < 5
        rare = p[~common].sum()
        assert abs(counts[~common].sum() - n * rare) < 5 * (n * rare * (1 - rare)).sqrt()
    assert (tree.log_probs(logits).exp() - tree.log_probs(reference).exp()).abs().sum() / 2 > 0.3


def test_without_its_adapters_the_policys_model_plays_as_the_untrained_one():
    made = REINFORCE(
        "TokenPolicy",
        small_env(8, num_generations=4),
        small_llama(),
        lora={"r": 4},
        learning_rate=0.05,
        seed=0,
        device="cpu",
        kl_coef=0.1,
    )
    actors = made.reference.actor(), ModelActor(policy(small_llama()).token_model, small_llama())
    for _ in range(2):  # the second time with decoders that remember
        made.learn(60)
        played = []
        for actor in actors:
            torch.manual_seed(1)
            env = small_env()
            env.reset(seed=0)
            played.append(episodes(actor, env, 3))
        (rows, log_probs, _), (untrained_rows, untrained, _) = played
        assert torch.equal(rows, untrained_rows) and torch.equal(log_probs, untrained) and untrained.any()
        with torch.no_grad():
            trained = made.policy.evaluate_actions(rows, rows[:, 3:])[1]
        assert (trained - untrained).abs().max() > 0.05  # its adapters are on again

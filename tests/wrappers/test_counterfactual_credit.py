"""Counterfactual credits against enumeration."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from agents import REINFORCE
from tests.conftest import CHARACTERS, checksum, small_llama
from textgym.exact import TokenTree, evaluate_policy
from textgym.wrappers import CounterfactualCredit, VectorCounterfactualCredit, counterfactual_credit

TOY = {"num_tokens": 3, "max_new_tokens": 3}
SCORER = {"name": "token_counts", "weights": {"0": -2.0, "1": 1.0}}


@pytest.fixture(scope="module")
def toy():
    """The env, its reference, its tree, the finished rows (X, 1 + L), and their rewards (X,)."""
    env = gym.make("TextGenToy-v0", **TOY, scorer=SCORER)
    tree = TokenTree.of(env)
    rows = F.pad(tree.outcomes, (1, 0), value=tree.num_tokens).numpy()
    return env, env.unwrapped.reference_model(), tree, rows, tree.scores(env)["reward"]


def token_advantages(tree, table):
    """(X, L) the entries of a table (S, K + 1) along every outcome; 0 behind its end."""
    along, so_far = torch.zeros(tree.outcomes.shape, dtype=torch.float64), torch.full_like(tree.outcomes, tree.pad_id)
    for step, actions in enumerate(tree.outcomes.T):
        real = actions != tree.pad_id
        along[real, step] = table[tree.index(so_far[real]), actions[real]]
        so_far[:, step] = actions
    return along


def held_by_hand(toy):
    """(X, L) R(x) - E_{x'_t} R(x with x'_t), by a loop over the tokens."""
    _, model, tree, rows, rewards = toy
    log_probs, worth = model.table.detach().double().log_softmax(-1), {0: -2.0, 1: 1.0}
    credits = np.zeros((len(rows), 3))
    for i, x in enumerate(tree.outcomes.tolist()):
        x = [token for token in x if token != tree.pad_id]
        for t in range(len(x)):
            context = torch.tensor([x[:t] + [tree.pad_id] * (3 - t)])
            probabilities = log_probs[int(tree.index(context)[0])].exp()
            for other in range(4):
                text = x[:t] + [other] + ([] if other == 3 else x[t + 1 :])
                credits[i, t] -= float(probabilities[other]) * sum(worth.get(token, 0.0) for token in text)
            credits[i, t] += float(rewards[i])
    return credits


def mean_and_error(toy, rest, repeats):
    env, model, _, rows, _ = toy
    found = [
        counterfactual_credit(env, model, rows, np.zeros(len(rows), int), samples=8, rest=rest, seed=seed)
        for seed in range(repeats)
    ]
    return np.mean(found, 0), np.std(found, 0) / np.sqrt(repeats)


def test_held(toy):
    mean, error = mean_and_error(toy, "held", 100)
    assert (np.abs(mean - held_by_hand(toy)) <= 5 * error + 1e-9).all()  # 300 entries; 5 is beyond their largest
    assert (mean[toy[3][:, 1:] == 4] == 0).all()  # behind the end


def test_redrawn(toy):
    """Its mean is the score minus the reference's exact value of the context."""
    env, model, tree, rows, rewards = toy
    solution = evaluate_policy(tree, model.table.detach(), rewards)
    values = token_advantages(tree, solution.values[:, None].expand_as(solution.q_values))
    real = torch.from_numpy(rows[:, 1:] != 4)
    expected = (rewards[:, None] - values) * real
    mean, error = mean_and_error(toy, "redrawn", 100)
    assert (np.abs(mean - expected.numpy()) <= 5 * error + 1e-9).all()
    # of the reference's own texts the mean given a context and a token is the advantage, Q - V
    mass = tree.log_probs(model.table.detach()).exp()
    advantages = token_advantages(tree, solution.q_values - solution.values[:, None])
    first = tree.outcomes[:, 0]
    for token in range(4):
        of = first == token
        exact = (mass * expected[:, 0])[of].sum() / mass[of].sum()
        assert exact == pytest.approx(float(advantages[of, 0][0]))


@pytest.mark.parametrize("rest", ["held", "redrawn"])
@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_the_wrappers_give_what_the_function_gives(mode, rest, rng):
    """A reference that is sure of itself draws the same tokens always."""
    kwargs = {**CHARACTERS, "scorer": checksum}
    model = small_llama()
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)
    options = {"samples": 1, "rest": rest}
    vector = gym.make_vec("TextGen-v0", num_envs=4, autoreset_mode=mode, **kwargs)
    env = VectorCounterfactualCredit(vector, model, **options)
    single = CounterfactualCredit(gym.make("TextGen-v0", **kwargs), model, **options)
    env.reset(seed=1)
    compared = 0
    for _ in range(30):
        if not vector._num_live:
            env.reset()
        actions = rng.integers(5, size=4)
        observations, _, terminations, _, info = env.step(actions)
        if not terminations.any():
            continue
        last, ends = info.get("final_obs", observations), info.get("final_info", info)
        assert (ends["_credits"] == terminations).all() and ends["credits"].shape == (4, 6)
        for row in np.flatnonzero(terminations):
            ids = last[row]
            single.reset(options={"prompt_ids": ids[:3]}, seed=0)
            for token in ids[3:][ids[3:] != 5]:
                *_, end = single.step(int(token))
            np.testing.assert_allclose(ends["credits"][row], end["credits"], atol=1e-9)
            prompt_ids = np.array([end["prompt_id"]])
            direct = counterfactual_credit(single, model, ids[None], prompt_ids, **options, seed=0)
            np.testing.assert_allclose(direct[0], end["credits"], atol=1e-9)
            compared += 1
        assert (ends["credits"][~terminations] == 0).all()
    assert compared > 10


def test_seeds():
    env = CounterfactualCredit(gym.make("TextGenToy-v0"), gym.make("TextGenToy-v0").unwrapped.reference_model())

    def credits(seed):
        env.reset(seed=seed)
        for token in (1, 3, 0):
            env.step(token)
        return env.step(1)[-1]["credits"].tolist()

    first = credits(0)
    assert credits(None) != first and credits(0) == first


def test_masks_are_the_env_s(rng):
    env = gym.make("TextGen-v0", **CHARACTERS, scorer=checksum, banned_tokens=[2], min_new_tokens=2)
    seen = []
    env.unwrapped.task.scorer.score = lambda generations: (
        seen.append(generations.completion_ids) or [0.0] * len(generations)
    )
    rows = np.array([[5, 5, 0, 0, 1, 3, 0, 1, 0]])
    counterfactual_credit(env, small_llama(), rows, np.array([1]), samples=50, seed=0)
    assert not any(2 in ids for ids in seen[0]) and min(map(len, seen[0])) == 3  # EOS is the third token at the soonest


def test_errors(toy):
    env, model, _, rows, _ = toy
    with pytest.raises(ValueError, match="episode 1 has not ended"):
        counterfactual_credit(env, model, [[3, 0, 3, 4], [3, 0, 4, 4]], [0, 0])
    with pytest.raises(ValueError, match="rest is 'kept'; accepted are"):
        CounterfactualCredit(env, model, rest="kept")
    with pytest.raises(ValueError, match="samples is 0"):
        CounterfactualCredit(env, model, samples=0)
    with pytest.raises(ValueError, match="'log_prob' pays per token"):
        CounterfactualCredit(gym.make("TextGen-v0", scorer="log_prob"), "tiny")


class Credited(REINFORCE):
    """REINFORCE with counterfactual credits as its advantages."""

    def with_advantages(self, episodes, rewards):
        credits = counterfactual_credit(
            self.task,
            self.reference.model,
            episodes.rows,
            episodes.prompt_ids,
            samples=8,
            rest=self.rest,
            seed=self._n_updates,
        )
        return episodes.replace(advantages=torch.from_numpy(credits).float())


@pytest.mark.parametrize("rest", ["held", "redrawn"])
def test_an_agent_learns_from_credits(rest):
    env = gym.make("TextGenToy-v0")
    agent = Credited(
        "TokenPolicy", "TextGenToy-v0", kl_coef=1e-6, learning_rate=0.1, n_envs=16, num_generations=16, seed=0
    )
    agent.rest = rest
    agent.learn(5000)
    tree = TokenTree.of(env)
    reached = tree.expectation(agent.policy.model.table.detach(), tree.scores(env)["reward"])
    assert reached > 3  # of 4; the reference has 0.3

"""pass@k from samples, against hand values, subsets and the exact tree; and scorers that training never sees."""

import math
from itertools import combinations

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.conftest import CHARACTERS, small_llama
from textgym.evaluation import ModelPolicy, Success, describe, evaluate, pass_at_k
from textgym.evaluation.other_scorers import make_scorers, score_episodes
from textgym.exact import AnswerTree, pass_at
from textgym.training import TokenModel


def begins_with_a(completions):
    return [float(text.startswith("a")) for text in completions]


def policy_of(n=64, group=8, scorer=begins_with_a, seed=0, **kwargs):
    arguments = {**CHARACTERS, "max_new_tokens": 3, **kwargs}
    env = gym.make_vec(
        "TextGen-v0", num_envs=n, num_generations=group, autoreset_mode="Disabled", scorer=scorer, **arguments
    )
    return ModelPolicy(env, TokenModel(env.unwrapped.mdp, small_llama(seed=4)), seed=seed)


def test_the_estimator_is_the_share_of_subsets():
    assert pass_at_k(4, 1, 2) == pytest.approx(1 / 2) and pass_at_k(5, 2, 3) == pytest.approx(9 / 10)
    for n, c in ((1, 0), (4, 0), (4, 2), (5, 5), (6, 1)):
        right = [i < c for i in range(n)]
        for k in range(1, n + 1):
            share = np.mean([any(chosen) for chosen in combinations(right, k)])
            assert pass_at_k(n, c, k) == pytest.approx(share)
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(1 / 2)
    for wrong in ((4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1)):
        with pytest.raises(ValueError, match="k and right must lie within them"):
            pass_at_k(*wrong)


def test_pass_at_k_agrees_with_the_exact_tree():
    policy = policy_of(512)
    tree = AnswerTree(policy.env)
    log_pi, right = tree.log_probs(policy), tree.scores()["reward"] >= 1
    found = evaluate(policy, 8192, success=Success((1, 3, 8), 8))
    assert list(found.pass_at) == [1, 3, 8]
    for k, sampled in found.pass_at.items():
        exact = pass_at(k, log_pi, right).mean().item()
        assert 0.05 < exact < 0.95 and 0 < sampled.standard_error < 0.02
        assert abs(sampled.value - exact) < 4 * sampled.standard_error, k
    assert found.pass_at[1].value == pytest.approx(found.reward.value)
    assert found.pass_at[1].standard_error == pytest.approx(found.reward.standard_error)


def test_mates_are_not_counted_as_independent():
    """Standard errors are those of means over groups, whose prompts differ in difficulty."""
    policy = policy_of()
    episodes = policy.sample_episodes(256)
    found = describe(policy, episodes, success=Success((2,), 8))
    rewards = episodes.rewards.sum(-1).double().view(-1, 8)
    assert found.reward.standard_error == pytest.approx((rewards.mean(-1).std() / math.sqrt(32)).item())
    counts = rewards.sum(-1).tolist()
    per_prompt = [1 - math.comb(8 - int(c), 2) / math.comb(8, 2) for c in counts]
    assert found.pass_at[2].value == pytest.approx(np.mean(per_prompt))
    assert found.pass_at[2].standard_error == pytest.approx(np.std(per_prompt, ddof=1) / math.sqrt(32))
    alone = describe(policy, episodes)  # mates are known by their prompts, whether or not pass@k is asked
    assert alone.reward == found.reward and alone.entropy == found.entropy and alone.pass_at == {}
    fours = describe(policy, episodes, success=Success((2,), 4)).pass_at[2]  # two estimates from each prompt's eight
    halves = rewards.view(-1, 2, 4).sum(-1)
    each = [[1 - math.comb(4 - int(c), 2) / math.comb(4, 2) for c in pair] for pair in halves]
    assert fours.standard_error == pytest.approx(np.std(np.mean(each, 1), ddof=1) / math.sqrt(32))
    assert found.to_json()["pass_at"]["2"]["value"] == found.pass_at[2].value


def test_success_is_told_by_any_component():
    scorer = {
        "name": "weighted_sum",
        "scorers": [{"name": "regex", "pattern": "a"}, {"name": "keyword", "words": "ab"}],
        "weights": [1.0, 1.0],
    }
    policy = policy_of(scorer=scorer)
    episodes = policy.sample_episodes(64)
    found = describe(policy, episodes, success=Success((1,), 8, "regex", 0.5))
    texts = [policy.task.decode_parts(row)[1] for row in episodes.rows.numpy()]
    share = np.mean([text.count("a") >= len(text) / 2 > 0 for text in texts])
    assert 0 < share < 1 and found.pass_at[1].value == pytest.approx(share)


SCORERS = [
    {"name": "regex", "pattern": "b"},
    {"name": "token_counts", "weights": {"1": 1.0, "2": -0.5}},
    lambda prompts, completions: [len(p) + c.count("c") / 10 for p, c in zip(prompts, completions, strict=True)],
]


def test_other_scorers_say_what_an_env_with_them_would():
    """Of the same episodes: the same seed, in an env that pays by the other scorer."""
    found = score_all(policy_of(), SCORERS)
    for scorer in make_scorers(SCORERS):
        env_says = policy_of(scorer=scorer).sample_episodes(64)
        for i, name in enumerate(scorer.component_names):
            torch.testing.assert_close(found[name], env_says.components[:, i].double(), atol=1e-6, rtol=0)
            assert found[name].std() > 0


def score_all(policy, scorers):
    episodes = policy.sample_episodes(64)
    return {n: v for s in make_scorers(scorers) for n, v in score_episodes(policy.task, s, episodes).items()}


def test_a_scorer_that_pays_per_token_is_asked_step_by_step():
    reference = small_llama(seed=9)
    scorer = {"name": "log_prob", "model": reference}
    policy = policy_of()
    episodes = policy.sample_episodes(64)
    (made,) = make_scorers([scorer])
    assert made.per_token
    (values,) = score_episodes(policy.task, made, episodes).values()
    terms = policy.token_model.terms_under(reference, episodes.rows, episodes.actions)
    torch.testing.assert_close(values, terms.log_probs.double().sum(-1), atol=1e-4, rtol=0)


def test_they_are_reported_beside_the_reward():
    policy = policy_of()
    episodes = policy.sample_episodes(64)
    made = make_scorers(SCORERS[:1])
    found = describe(policy, episodes, scorers=made)
    assert list(found.other_components) == ["regex"] and set(found.components) == {"begins_with_a"}
    values = score_episodes(policy.task, made[0], episodes)["regex"]
    assert found.other_components["regex"].value == pytest.approx(values.mean().item())
    assert found.reward.value == pytest.approx(episodes.rewards.sum(-1).mean().item())


def test_mistakes_are_named():
    policy = policy_of()
    with pytest.raises(ValueError, match="two of the scorers report the component 'regex'"):
        evaluate(policy, 64, scorers=[SCORERS[0], {"name": "regex", "pattern": "c"}])
    with pytest.raises(ValueError, match=r"pass@k for k in \[1, 9\] needs 9 or more completions"):
        Success((1, 9), 8)
    with pytest.raises(ValueError, match=r"pass@k for k in \[\] needs 1"):
        Success((), 8)
    with pytest.raises(ValueError, match="attempts"):
        Success((1,), 0)
    with pytest.raises(ValueError, match="make the env with num_generations=16"):
        evaluate(policy, 64, success=Success((1,), 16))
    with pytest.raises(ValueError, match="success is told by the component 'chrf'; the env has"):
        evaluate(policy, 64, success=Success((1,), 8, "chrf"))

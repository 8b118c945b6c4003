"""What the 95% intervals of an evaluation hold, of trained policies whose numbers are all known by enumeration."""

import math

import gymnasium as gym
import pytest
import torch

from agents import RLOO
from textgym.evaluation import ModelPolicy, OffPolicySample, Success, describe, estimate_value
from textgym.exact import AnswerTree, TokenTree, entropy, evaluate_policy, expectation, kl, pass_at, soft_optimal
from textgym.language_models.tabular import TabularLM
from textgym.training import TokenModel

GROUP = 8
KS = (1, 4)


def held(policy, exact, repetitions, episodes, at_least):
    """The share of 95% intervals that hold the exact value, of those that are there, and how many these are.

    A repetition has `episodes` in groups of 8; pass@k is of returns of `at_least`.
    """
    inside = {name: [] for name in exact}
    drawn = policy.sample_episodes(repetitions * episodes)
    for start in range(0, repetitions * episodes, episodes):
        success = Success(KS, GROUP, at_least=at_least)
        found = describe(policy, drawn.select(slice(start, start + episodes)), samples=0, success=success)
        numbers = {name: getattr(found, name) for name in exact if "@" not in name}
        numbers |= {f"pass@{k}": number for k, number in found.pass_at.items()}
        for name, value in exact.items():
            low, high = numbers[name].interval()
            if not math.isnan(low):
                inside[name].append(low <= value <= high)
    return {name: (sum(x) / max(len(x), 1), len(x)) for name, x in inside.items()}


def exact_numbers(answers, policy, at_least):
    """Every number of an evaluation over the prompts of a tree."""
    log_pi, log_a, rewards = answers.log_probs(policy), answers.reference_log_probs(policy), answers.scores()["reward"]
    lengths, ended = answers.lengths.double(), torch.isin(answers.outcomes, answers.eos_tokens).any(-1).double()
    exact = {
        "reward": expectation(log_pi, rewards),
        "kl_to_reference": kl(log_pi, log_a),
        "length": expectation(log_pi, lengths),
        "eos_share": expectation(log_pi, ended),
        **{f"pass@{k}": pass_at(k, log_pi, rewards >= at_least) for k in KS},
    }
    numbers = {name: values.mean().item() for name, values in exact.items()}
    return numbers | {"entropy": entropy(log_pi).mean().item() / numbers["length"]}


def peaked(env, beta):
    """The tree, the rewards and the policy that is best with a KL penalty, beta: (S, K + 1) log-probabilities."""
    tree = TokenTree.of(env)
    rewards = tree.scores(env)["reward"]
    return tree, rewards, soft_optimal(tree, env.unwrapped.reference_logits, rewards, beta).policy


def assert_covered(shares, exact):
    """90 to 99 of 100 intervals hold the value; more only of a share so near 1 that many samples show nothing else."""
    for name, (share, number) in shares.items():
        assert number > 90 and 0.9 <= share, (name, shares)
        assert share <= 0.99 or exact[name] > 0.99, (name, shares)


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_intervals_of_a_peaked_policy(beta):
    """With beta = .3 nine texts in ten are the best one, and 1.6% end early, so that most numbers are skewed."""
    env = gym.make_vec("TextGenToy-v0", num_envs=256, num_generations=GROUP, autoreset_mode="Disabled")
    tree, _, best = peaked(env, beta)
    models = (
        TabularLM.from_logits(logits, tree.num_tokens) for logits in (best.float(), env.unwrapped.reference_logits)
    )
    policy = ModelPolicy(env, TokenModel(env.unwrapped.mdp, next(models)), next(models), seed=0)
    exact = exact_numbers(AnswerTree(env), policy, at_least=3.0)
    assert_covered(held(policy, exact, repetitions=100, episodes=256, at_least=3.0), exact)


@pytest.mark.parametrize("estimator", ["is", "wis", "pdis", "wpdis", "dr", "wdr"])
def test_off_policy_intervals_of_a_peaked_policy(estimator):
    """Of the policy with beta = .3, from texts of the one with beta = .4; V is that of the behaviour."""
    env = gym.make("TextGenToy-v0")
    tree, rewards, policy = peaked(env, 0.3)
    behaviour = evaluate_policy(tree, peaked(env, 0.4)[2], rewards)
    log_b, value = tree.log_probs(behaviour.policy), tree.expectation(policy, rewards).item()
    ratios, values = (tree.along(t, tree.outcomes) for t in (policy - behaviour.policy, behaviour.values))
    paid = torch.zeros_like(ratios).scatter(1, tree.lengths[:, None] - 1, rewards[:, None])
    generator, inside = torch.Generator().manual_seed(0), 0
    for _ in range(100):
        x = torch.multinomial(log_b.exp(), 500, True, generator=generator)
        low, high = estimate_value(OffPolicySample(ratios[x], paid[x], values[x]), estimator).interval()
        inside += low <= value <= high
    assert 90 <= inside <= 99


@pytest.mark.slow
def test_intervals_of_a_trained_transformer():
    """RLOO on sums, from a third of right answers to most; over all held-out prompts."""
    kwargs = {"num_envs": 256, "num_generations": GROUP, "autoreset_mode": "Disabled"}
    agent = RLOO("TokenPolicy", gym.make_vec("TextGenArithmetic-v0", **kwargs), "tiny-tasks", kl_coef=0.02, seed=0)
    agent.learn(40_000)
    test = gym.make_vec("TextGenArithmetic-v0", **kwargs, split="test")
    asked = test.unwrapped.task.prompts
    policy = ModelPolicy(test, agent.token_model, seed=1)
    policy.reference = agent.reference
    answers = AnswerTree(test, range(asked.num_prompts))
    exact = exact_numbers(answers, policy, at_least=1.0)
    shares = held(policy, exact, repetitions=100, episodes=256, at_least=1.0)
    print(exact, shares)
    assert exact["reward"] > 0.6
    assert_covered(shares, exact)

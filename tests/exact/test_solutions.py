"""Optimal policies and values, against loops over outcomes and against the equations that they satisfy."""

import time
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.brute_force import (
    INF,
    NAMES,
    SIZES,
    below,
    contexts_of,
    looped_log_probs,
    outcomes_of,
    random_outcomes,
    random_table,
)
from textgym.exact import TokenTree, evaluate_policy, gradient, greedy, hard_optimal, soft_optimal
from textgym.matching import RLHF, make_divergence


@pytest.mark.parametrize("gamma", [1.0, 0.7])
@pytest.mark.parametrize(("k", "n"), SIZES)
def test_hard_optimum_is_the_best_outcome_from_every_context(k, n, gamma):
    tree = TokenTree(k, n)
    rewards = random_outcomes(tree, 7)
    solution = hard_optimal(tree, rewards, gamma)
    scored = list(zip(outcomes_of(k, n), rewards.tolist(), strict=True))
    best = [
        max(gamma ** (len(x) - 1 - len(c)) * r for x, r in scored if x[: len(c)] == c and len(x) > len(c))
        for c in contexts_of(k, n)
    ]
    np.testing.assert_allclose(solution.values, best, atol=1e-12)
    discounted = rewards * gamma ** (tree.lengths - 1)
    assert tree.expectation(solution.policy, discounted) == pytest.approx(discounted.max().item(), abs=1e-12)
    assert evaluate_policy(tree, solution.policy, rewards, gamma).values[0] == pytest.approx(best[0], abs=1e-12)


def test_ties_share_the_probability():
    np.testing.assert_array_equal(greedy([[1.0, 2.0, 2.0], [0.0, -1.0, -INF]]).exp(), [[0, 0.5, 0.5], [1, 0, 0]])


@pytest.mark.parametrize("beta", [0.05, 0.7, 20.0])
@pytest.mark.parametrize(("k", "n"), SIZES)
def test_soft_optimum_satisfies_its_equations(k, n, beta):
    tree = TokenTree(k, n)
    reference, rewards = random_table(tree, 8), random_outcomes(tree, 9)
    policy, values, q_values = soft_optimal(tree, reference, rewards, beta)
    log_a = looped_log_probs(k, n, reference)
    log_masses = torch.where(below(k, n), log_a + rewards / beta, -INF).logsumexp(-1)  # (S,)
    log_reach = torch.where(below(k, n), log_a, -INF).logsumexp(-1)
    np.testing.assert_allclose(values, beta * (log_masses - log_reach), atol=1e-10)  # by enumeration
    step = reference.log_softmax(-1)
    np.testing.assert_allclose(values, beta * (step + q_values / beta).logsumexp(-1), atol=1e-10)  # soft Bellman
    np.testing.assert_allclose(tree.log_probs(policy), log_a + rewards / beta - log_masses[0], atol=1e-10)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_objective_of_rlhf_is_a_distance_to_its_target(beta):
    tree = TokenTree(3, 3)
    reference, logits, rewards = random_table(tree, 10), random_table(tree, 11), random_outcomes(tree, 12)
    target, log_z = tree.policy_of(tree.log_probs(reference) + RLHF(beta).log_weights({"reward": rewards}))
    objective = tree.expectation(logits, rewards) - beta * tree.kl(logits, reference)
    assert objective == pytest.approx((beta * log_z - beta * tree.kl(logits, target)).item(), abs=1e-10)
    solution = soft_optimal(tree, reference, rewards, beta)
    np.testing.assert_allclose(solution.policy, target, atol=1e-10)
    assert solution.values[0] == pytest.approx(beta * log_z.item(), abs=1e-10)


def test_the_soft_optimum_tends_to_the_hard_one():
    tree = TokenTree(3, 3)
    reference, rewards = random_table(tree, 13), random_outcomes(tree, 14)
    hard = hard_optimal(tree, rewards)
    rarest = -tree.log_probs(reference).min().item()
    for beta in (1e-1, 1e-2, 1e-4):
        gap = hard.values - soft_optimal(tree, reference, rewards, beta).values
        assert gap.min() > -1e-12 and gap.max() <= beta * rarest  # max r - beta log(1/a) <= V_beta <= max r
    np.testing.assert_allclose(tree.log_probs(soft_optimal(tree, reference, rewards, 1e-4).policy).exp().max(), 1.0)


@pytest.mark.parametrize(("k", "n"), SIZES)
def test_path_consistency(k, n):
    """V(s_i) - V(s_j) = sum over the actions between of r - beta log pi/a, here with rewards per action."""
    tree, beta = TokenTree(k, n), 0.4
    reference, rewards = random_table(tree, 15), random_table(tree, 16)
    policy, values, _ = soft_optimal(tree, reference, rewards, beta)
    step = rewards - beta * (policy - reference.log_softmax(-1))  # (S, K + 1)
    number = {c: i for i, c in enumerate(contexts_of(k, n))}
    for x in outcomes_of(k, n):
        value = [values[number[x[:i]]] for i in range(len(x))] + [0.0]  # V of the outcome is 0
        paid = [step[number[x[:i]], x[i]] for i in range(len(x))]
        for i, j in product(range(len(x)), range(len(x) + 1)):
            if i < j:
                assert value[i] - value[j] == pytest.approx(sum(paid[i:j]).item(), abs=1e-10)


def test_rewards_per_action_are_discounted_one_by_one():
    tree, gamma = TokenTree(2, 3), 0.5
    logits, rewards = random_table(tree, 17), random_table(tree, 18)
    number = {c: i for i, c in enumerate(contexts_of(2, 3))}
    returns = [
        sum(gamma**i * rewards[number[x[:i]], action] for i, action in enumerate(x)).item() for x in outcomes_of(2, 3)
    ]
    value = evaluate_policy(tree, logits, rewards, gamma).values[0]
    assert value == pytest.approx(tree.expectation(logits, returns).item(), abs=1e-12)
    assert hard_optimal(tree, rewards, gamma).values[0] == pytest.approx(max(returns), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(k=st.integers(1, 4), n=st.integers(1, 4), seed=st.integers(0, 10**6), beta=st.floats(0.02, 50))
def test_properties(k, n, seed, beta):
    tree = TokenTree(k, n)
    reference, logits, rewards = random_table(tree, seed), random_table(tree, seed + 1), random_outcomes(tree, seed + 2)
    log_a = tree.log_probs(reference)
    assert log_a.exp().sum() == pytest.approx(1, abs=1e-12)
    policy, values, q_values = soft_optimal(tree, reference, rewards, beta)
    target, log_z = tree.policy_of(log_a + rewards / beta)
    assert torch.logsumexp(log_a + rewards / beta, 0) == pytest.approx(log_z.item(), abs=1e-10)
    np.testing.assert_allclose(policy, target, atol=1e-9)
    np.testing.assert_allclose(values, beta * (reference.log_softmax(-1) + q_values / beta).logsumexp(-1), atol=1e-10)
    assert values[0] == pytest.approx(beta * log_z.item(), abs=1e-10)
    objective = tree.expectation(logits, rewards) - beta * tree.kl(logits, reference)
    assert objective == pytest.approx((beta * log_z - beta * tree.kl(logits, target)).item(), abs=1e-9)
    assert hard_optimal(tree, rewards).values[0] == rewards.max()
    for name, alpha in NAMES:
        divergence = make_divergence(name, alpha)
        assert divergence.exact(tree.log_probs(logits), log_a) > -1e-12
        assert divergence.exact(log_a, log_a) == pytest.approx(0, abs=1e-12)


def test_the_largest_toy_takes_well_under_a_second():
    start = time.process_time()
    tree = TokenTree(6, 6)
    assert (tree.num_contexts, tree.num_outcomes) == (9331, 55987)
    logits, rewards = random_table(tree, 0), tree.outcomes.eq(1).sum(-1).double()
    policy, log_z = tree.policy_of(tree.log_probs(logits) + rewards)
    log_p = tree.log_probs(policy)
    assert hard_optimal(tree, rewards).values[0] == 6
    assert soft_optimal(tree, logits, rewards, 1.0).values[0] == pytest.approx(log_z.item(), abs=1e-10)
    for name, alpha in NAMES:
        gradient(tree, make_divergence(name, alpha), logits, log_p)
    assert tree.log_probs(logits).exp().sum() == pytest.approx(1, abs=1e-12)
    assert time.process_time() - start < 1

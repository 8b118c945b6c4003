"""Enumeration and sums over the tree, against loops."""

import math

import numpy as np
import pytest
import torch

from tests.helpers.brute_force import (
    INF,
    SIZES,
    below,
    contexts_of,
    looped_log_probs,
    outcomes_of,
    random_outcomes,
    random_table,
)
from textgym.exact import TokenTree, evaluate_policy


@pytest.mark.parametrize(("k", "n"), SIZES)
def test_contexts_and_outcomes_are_those_of_itertools(k, n):
    tree = TokenTree(k, n)

    def unpadded(rows):
        return [tuple(token for token in row if token != k + 1) for row in rows.tolist()]

    assert (tree.num_contexts, tree.num_outcomes) == (len(contexts_of(k, n)), len(outcomes_of(k, n)))
    assert unpadded(tree.contexts) == contexts_of(k, n)
    assert unpadded(tree.outcomes) == outcomes_of(k, n)
    assert unpadded(tree.observations) == [(k, *c) for c in contexts_of(k, n)]
    assert tree.lengths.tolist() == [len(x) for x in outcomes_of(k, n)]
    assert tree.index(tree.contexts).tolist() == list(range(tree.num_contexts))
    assert tree.index(tree.outcomes).tolist() == list(range(tree.num_outcomes))


@pytest.mark.parametrize(("k", "n"), SIZES)
def test_log_probs_expectation_and_kl_are_those_of_loops(k, n):
    tree = TokenTree(k, n)
    logits, reference, values = random_table(tree, 0), random_table(tree, 1), random_outcomes(tree, 2)
    log_pi, log_a = looped_log_probs(k, n, logits), looped_log_probs(k, n, reference)
    np.testing.assert_allclose(tree.log_probs(logits), log_pi, atol=1e-12)
    np.testing.assert_allclose(tree.log_probs(logits.numpy() + 5.0), log_pi, atol=1e-12)
    assert tree.expectation(logits, values) == pytest.approx((log_pi.exp() * values).sum().item(), abs=1e-12)
    kl = (log_pi.exp() * (log_pi - log_a)).sum().item()
    assert tree.kl(logits, reference) == pytest.approx(kl, abs=1e-12)


def test_forbidden_actions_have_no_mass():
    tree = TokenTree(2, 2)
    logits = torch.zeros(3, 3)
    logits[0, 0] = -INF  # of the seven outcomes, those that begin with 0 are gone
    probs = tree.log_probs(logits).exp()
    np.testing.assert_allclose(probs, [1 / 2, 0, 1 / 6, 0, 0, 1 / 6, 1 / 6], atol=1e-7)
    # KL to the uniform policy, where one action of three is forbidden at the first step only
    assert tree.kl(logits, torch.zeros(3, 3)) == pytest.approx(math.log(3 / 2))
    assert tree.kl(torch.zeros(3, 3), logits) == INF


@pytest.mark.parametrize(("k", "n"), SIZES)
def test_tower_rule(k, n):
    tree = TokenTree(k, n)
    logits, values = random_table(tree, 3), random_outcomes(tree, 4)
    solution = evaluate_policy(tree, logits, values)
    probs = looped_log_probs(k, n, logits).exp()
    weights = below(k, n) * probs
    np.testing.assert_allclose(solution.values, weights @ values / weights.sum(-1), atol=1e-10)
    mean = (solution.policy.exp() * solution.q_values).sum(-1)  # V(s) = E_a[Q(s, a)]
    np.testing.assert_allclose(solution.values, mean, atol=1e-10)
    assert solution.values[0] == pytest.approx(tree.expectation(logits, values).item(), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), SIZES)
def test_policy_of_gives_back_any_distribution(k, n):
    tree = TokenTree(k, n)
    log_weights = random_outcomes(tree, 5)
    log_weights[torch.rand(tree.num_outcomes, generator=torch.Generator().manual_seed(6)) < 0.5] = -INF
    log_weights[0] = 0.3  # at least one outcome has mass
    policy, log_z = tree.policy_of(log_weights)
    z = log_weights.exp().sum()
    assert log_z == pytest.approx(math.log(z), abs=1e-12)
    np.testing.assert_allclose(tree.log_probs(policy).exp(), log_weights.exp() / z, atol=1e-12)
    assert ((tree.log_probs(policy) == -INF) == (log_weights == -INF)).all()
    np.testing.assert_allclose(policy.exp().sum(-1), np.ones(tree.num_contexts), atol=1e-12)
    empty = (below(k, n) & (log_weights > -INF)).sum(-1) == 0
    np.testing.assert_allclose(policy.exp()[empty], 1 / (k + 1), atol=1e-12)


@pytest.mark.parametrize(("k", "n"), SIZES)
def test_a_table_along_completions(k, n):
    tree = TokenTree(k, n)
    of_actions, of_contexts = random_table(tree, 6), random_table(tree, 7)[:, 0]
    number = {c: i for i, c in enumerate(contexts_of(k, n))}
    for x, actions, contexts in zip(
        outcomes_of(k, n), tree.along(of_actions, tree.outcomes), tree.along(of_contexts, tree.outcomes), strict=True
    ):
        path = [number[x[:t]] for t in range(len(x))]
        behind = [0.0] * (n - len(x))
        assert actions.tolist() == [of_actions[c, a].item() for c, a in zip(path, x, strict=True)] + behind
        assert contexts.tolist() == [of_contexts[c].item() for c in path] + behind
    with pytest.raises(
        ValueError, match=f"entries of the table have shape .* this tree has .{tree.num_contexts},. contexts"
    ):
        tree.along(torch.zeros(tree.num_contexts + 1), tree.outcomes)

"""Every divergence and its gradient on the tree, against formulas and finite differences."""

from itertools import product

import numpy as np
import pytest
import torch

from tests.helpers.brute_force import FINITE_ON_ZEROS, INF, NAMES, direct, looped_log_probs, random_table
from textgym.exact import TokenTree, gradient
from textgym.matching import Distributional, Pointwise, make_divergence


def test_a_distributional_target_has_the_wanted_means():
    tree = TokenTree(4, 4)
    log_a = tree.log_probs(random_table(tree, 19))
    features = {"ones": (tree.outcomes == 1).sum(-1).double(), "long": (tree.lengths == 4).double()}
    target = Distributional({"ones": 1.1, "long": 0.25}).fit(features, log_a)
    policy, _ = tree.policy_of(log_a + target.log_weights(features))
    assert tree.expectation(policy, features["ones"]) == pytest.approx(1.1, abs=1e-10)
    assert tree.expectation(policy, features["long"]) == pytest.approx(0.25, abs=1e-10)


@pytest.mark.parametrize(("name", "alpha"), NAMES)
def test_divergences_are_their_formulas(name, alpha):
    tree = TokenTree(3, 3)
    log_pi, log_p = tree.log_probs(random_table(tree, 20)), tree.log_probs(random_table(tree, 21))
    expected = direct(name, alpha, log_pi.exp().tolist(), log_p.exp().tolist())
    assert make_divergence(name, alpha).exact(log_pi, log_p) == pytest.approx(expected, rel=1e-10)


def filtered(tree):
    """A policy, and the log-probabilities of a target with zeros: outcomes with token 1."""
    keyword = (tree.outcomes == 1).any(-1).double()
    log_weights = tree.log_probs(random_table(tree, 22)) + Pointwise("keyword").log_weights({"keyword": keyword})
    return random_table(tree, 23), tree.log_probs(tree.policy_of(log_weights)[0])


@pytest.mark.parametrize(("name", "alpha"), NAMES)
def test_divergences_from_a_target_with_zeros(name, alpha):
    tree = TokenTree(3, 3)
    logits, log_p = filtered(tree)
    value = make_divergence(name, alpha).exact(tree.log_probs(logits), log_p)
    if (name, alpha) not in FINITE_ON_ZEROS:
        assert value == INF
        with pytest.raises(ValueError, match=f"{name} of this policy and target is inf"):
            gradient(tree, make_divergence(name, alpha), logits, log_p)
    else:
        expected = direct(name, alpha, tree.log_probs(logits).exp().tolist(), log_p.exp().tolist())
        assert value == pytest.approx(expected, rel=1e-10)


def finite_differences(tree, name, alpha, logits, log_p, step=1e-5):
    result = torch.zeros_like(logits)
    p = log_p.exp().tolist()
    for i, j in product(range(logits.shape[0]), range(logits.shape[1])):
        ends = []
        for sign in (1, -1):
            moved = logits.clone()
            moved[i, j] += sign * step
            pi = looped_log_probs(tree.num_tokens, tree.max_new_tokens, moved).exp().tolist()
            ends.append(direct(name, alpha, pi, p))
        result[i, j] = (ends[0] - ends[1]) / (2 * step)
    return result


@pytest.mark.parametrize(("name", "alpha"), NAMES)
def test_gradients_are_finite_differences(name, alpha):
    tree = TokenTree(2, 3)
    logits, log_p = random_table(tree, 24), tree.log_probs(random_table(tree, 25))
    expected = finite_differences(tree, name, alpha, logits, log_p)
    assert expected.abs().max() > 1e-3
    np.testing.assert_allclose(gradient(tree, make_divergence(name, alpha), logits, log_p), expected, atol=1e-7)


@pytest.mark.parametrize(("name", "alpha"), FINITE_ON_ZEROS)
def test_gradients_towards_zeros_are_finite_differences(name, alpha):
    tree = TokenTree(2, 3)
    logits, log_p = filtered(tree)
    expected = finite_differences(tree, name, alpha, logits, log_p)
    np.testing.assert_allclose(gradient(tree, make_divergence(name, alpha), logits, log_p), expected, atol=1e-7)


@pytest.mark.parametrize(("name", "alpha"), NAMES)
def test_gradients_vanish_at_the_target(name, alpha):
    tree = TokenTree(2, 2)
    logits = random_table(tree, 26)
    at_target = gradient(tree, make_divergence(name, alpha), logits, tree.log_probs(logits))
    np.testing.assert_allclose(at_target, torch.zeros_like(logits), atol=1e-12)

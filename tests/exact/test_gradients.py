"""Expected gradients of losses, against sums over ordered groups, exact gradients, and fixed points in closed form."""

import itertools

import pytest
import torch

from tests.helpers.brute_force import random_outcomes, random_table
from textgym.exact import Objective, TokenTree, evaluate_policy, expected_gradient, fixed_point, sampled_gradient
from textgym.exact.gradients import Batch
from textgym.training.losses import kl_estimate
from textgym.training.returns import baselines, group_deviations
from textgym.training.updates import token_weights

BETA = 0.5


def problem(k=2, n=2, beta=BETA, seed=0):
    tree = TokenTree(k, n)
    return Objective(tree, random_table(tree, seed), random_outcomes(tree, seed + 1), beta)


def make_loss(kl="reward", baseline="leave_one_out", scaled=False, normalization="sum"):
    """The losses of this family, from the functions that the agents call."""

    def loss(batch):
        log_ratios = batch.log_probs - batch.reference_log_probs
        rewards = batch.rewards - (BETA * log_ratios.detach() if kl == "reward" else 0.0)
        returns = rewards.sum(-1)
        advantages = returns - baselines(returns, batch.groups, baseline)
        if scaled:
            advantages = advantages / (group_deviations(returns, batch.groups) + 1e-4)
        losses = -advantages[:, None] * (batch.log_probs - batch.old_log_probs).exp()
        if kl != "reward":
            losses = losses + BETA * kl_estimate(log_ratios, kl)
        return (losses * token_weights(batch.mask, normalization)).sum()

    return loss


def by_hand(objective, loss, logits, size, old):
    """The gradient of the loss by the logits themselves, for every ordered group; its mean and its variance."""
    tree, gradients = objective.tree, []
    pi = tree.log_probs(old).exp().tolist()
    for x in itertools.product(range(tree.num_outcomes), repeat=size):
        parameters = logits.clone().requires_grad_()
        actions = tree.outcomes[list(x)]
        tables = (tree.log_policy(t) for t in (parameters, old, objective.reference_logits))
        log_probs, *rest = (tree.along(table, actions) for table in tables)
        mask = actions != tree.pad_id
        rewards = torch.zeros_like(rest[0])
        rewards[torch.arange(size), mask.sum(-1) - 1] = objective.rewards[list(x)]
        values = torch.full_like(rewards, torch.nan)  # not read here
        total = loss(Batch(actions, mask, log_probs, *rest, rewards, values, torch.zeros(size).long()))
        gradients.append((torch.tensor([pi[i] for i in x]).prod(), torch.autograd.grad(total, parameters)[0]))
    mean = sum(chance * found for chance, found in gradients)
    return mean, sum(float(chance * (found - mean).square().sum()) for chance, found in gradients)


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"scaled": True, "kl": "k3"}, {"normalization": "token"}, {"normalization": "sequence", "baseline": "mean"}],
    ids=str,
)
@pytest.mark.parametrize("size", [2, 3])
def test_expectations_are_those_over_ordered_groups(kwargs, size):
    objective = problem()
    logits, old, loss = random_table(objective.tree, 5), random_table(objective.tree, 6), make_loss(**kwargs)
    mean, variance = by_hand(objective, loss, logits, size, old)
    found = expected_gradient(objective, loss, logits, size, old)
    torch.testing.assert_close(found.mean, mean)
    assert found.variance == pytest.approx(variance) and found.draws is None


def test_a_loss_that_adds_groups_up_is_not_taken_for_their_mean():
    objective = problem()
    logits, mean = random_table(objective.tree, 5), make_loss()
    doubled = expected_gradient(objective, lambda b: mean(b) * len(b.groups.unique()), logits, 2).mean
    torch.testing.assert_close(doubled, expected_gradient(objective, mean, logits, 2).mean)  # one group counts once


@pytest.mark.parametrize("kwargs", [{}, {"baseline": "none"}, {"normalization": "sequence"}, {"kl": "k1"}], ids=str)
def test_which_losses_have_the_gradient_of_the_objective(kwargs):
    objective = problem(3, 2)
    logits = random_table(objective.tree, 5)
    error = expected_gradient(objective, make_loss(**kwargs), logits, 2).mean + objective.gradient(logits)
    unbiased = not kwargs or "baseline" in kwargs
    assert (error.norm() / objective.gradient(logits).norm() < 1e-6) == unbiased  # token weights are float32


def test_without_the_penalty_k1_as_a_loss_changes_nothing():
    """E_pi[grad log pi] = 0: the gradient is that of the reward alone."""
    objective = problem(3, 2)
    logits = random_table(objective.tree, 5)
    reward = Objective(objective.tree, objective.reference_logits, objective.rewards, 0.0).gradient(logits)
    torch.testing.assert_close(-expected_gradient(objective, make_loss("k1"), logits, 2).mean, reward)


def test_samples_are_of_the_policy_that_sampled():
    """The top token alone of each context is drawn: one outcome, whose gradient is written out."""
    objective = problem()
    tree = objective.tree
    logits = random_table(tree, 5)

    def top(log_pi):
        return torch.where(log_pi == log_pi.amax(-1, keepdim=True), 0.0, -torch.inf)

    found = expected_gradient(objective, make_loss(baseline="none"), logits, 1, sampling=top)
    parameters = logits.clone().requires_grad_()
    log_probs = tree.log_probs(parameters)
    x = int(tree.log_probs(top(tree.log_policy(logits))).argmax())
    paid = objective.rewards[x] - BETA * (log_probs - tree.log_probs(objective.reference_logits)).detach()[x]
    torch.testing.assert_close(found.mean, -torch.autograd.grad(paid * log_probs[x], parameters)[0])
    assert found.variance == pytest.approx(0, abs=1e-12)


def test_sampled_gradients_scatter_about_the_expected_one():
    """5 standard errors at each context and action, and the variance within a fifth."""
    objective = problem()
    logits, loss = random_table(objective.tree, 5), make_loss(scaled=True, normalization="sequence")
    exact = expected_gradient(objective, loss, logits, 3)
    found = sampled_gradient(objective, loss, logits, 3, draws=1000)
    errors = found.draws.std(0) / len(found.draws) ** 0.5
    assert ((found.mean - exact.mean).abs() < 5 * errors).all()
    assert found.variance == pytest.approx(exact.variance, rel=0.2)
    four = sampled_gradient(objective, loss, logits, 3, num_groups=4, draws=600)
    assert four.variance == pytest.approx(exact.variance / 4, rel=0.2)


def test_the_fixed_point_of_an_unbiased_loss_is_the_optimum():
    objective = problem(2, 3)
    for kwargs in ({}, {"scaled": True}):
        found = fixed_point(objective, make_loss(**kwargs), 2)
        torch.testing.assert_close(found, objective.optimum.policy, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kl", ["k2", "k3"])
def test_fixed_points_of_penalties_in_the_loss(kl):
    """The reward's own V and Q alone decide, as KL to come is not counted; k3 gives no exponential of them."""
    objective = problem(2, 3)
    found = fixed_point(objective, make_loss(kl), 2)
    _, values, q_values = evaluate_policy(objective.tree, found, objective.rewards)
    if kl == "k2":
        wanted = (objective.reference + q_values / BETA).log_softmax(-1)
    else:
        wanted = objective.reference + (BETA / (BETA + values[:, None] - q_values)).log()
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match=r"31 outcomes make 324,632 groups of 5, more than 262,144; take a smaller"):
        expected_gradient(problem(2, 4), make_loss(), random_table(TokenTree(2, 4), 5), 5)
    with pytest.raises(ValueError, match="no fixed point: the loss makes the policy deterministic"):
        fixed_point(problem(beta=0.0), make_loss("k1"), 2)
    with pytest.raises(ValueError, match="no fixed point in 2 steps: the natural gradient is"):
        fixed_point(problem(), make_loss(), 2, steps=2)

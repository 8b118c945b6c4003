"""The oracle of credit: advantages by hand, and comparisons against sums over outcomes."""

import pytest
import torch

from tests.helpers.brute_force import random_outcomes, random_table
from textgym.exact import CreditOracle, Objective, TokenTree


def test_advantages_by_hand():
    """One token or none: a uniform policy is paid 4 for EOS, 1 for the token; V = 2.5, A = 1.5 and -1.5."""
    tree = TokenTree(1, 1)
    oracle = CreditOracle(Objective(tree, torch.zeros(1, 2), torch.tensor([4.0, 1.0]), 0.0), torch.zeros(1, 2))
    assert oracle.credit(tree.outcomes).tolist() == [[1.5], [-1.5]]
    assert oracle.values(tree.outcomes).tolist() == [[2.5], [2.5]]


@pytest.fixture(scope="module")
def oracle():
    tree = TokenTree(2, 3)
    objective = Objective(tree, random_table(tree, 0), random_outcomes(tree, 1), 0.3)
    return CreditOracle(objective, random_table(tree, 2))


def test_credits_are_worth_what_the_choice_adds(oracle):
    """The sum of an outcome's advantages is its return, penalty included, minus the value of the start."""
    tree, objective = oracle.objective.tree, oracle.objective
    paid = objective.steps - objective.beta * (oracle.solution.policy - objective.reference)
    returns = tree.accumulate(paid)
    torch.testing.assert_close(oracle.credit(tree.outcomes).sum(-1), returns - oracle.solution.values[0])


def test_exact_credits_have_the_gradient_of_the_objective(oracle):
    credit = oracle.credit(oracle.objective.tree.outcomes)
    found = oracle.compare(credit[None])
    assert found[:4] == pytest.approx((1, 0, 1, 0), abs=1e-9)
    assert oracle.compare(2 * credit[None] + 1).correlation == pytest.approx(1)
    real = oracle.objective.tree.outcomes != oracle.objective.tree.pad_id
    visits = oracle.objective.tree.log_probs(oracle.solution.policy).exp()[:, None].expand(real.shape)[real]
    gradient = oracle._gradient(credit[real], visits, real)
    torch.testing.assert_close(gradient, oracle.objective.gradient(oracle.solution.policy))


def test_noise_is_that_of_the_gradients_of_single_episodes(oracle):
    """Each outcome's gradient by autograd, for two draws of credits."""
    tree = oracle.objective.tree
    credits = torch.randn(2, *tree.outcomes.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters = oracle.solution.policy.clone().requires_grad_()
    log_probs = tree.along(tree.log_policy(parameters), tree.outcomes)
    mass = tree.log_probs(parameters).exp().detach()
    gradients = torch.stack(
        [
            torch.autograd.grad((draw[x] * log_probs[x]).sum(), parameters, retain_graph=True)[0]
            for draw in credits
            for x in range(len(mass))
        ]
    ).view(2, len(mass), -1)
    mean = (gradients.mean(0) * mass[:, None]).sum(0)
    variance = ((gradients - mean).square().sum(-1) * mass).sum(-1).mean()
    wanted = variance.sqrt() / oracle.objective.gradient(parameters).norm()
    assert oracle.compare(credits).noise == pytest.approx(float(wanted))

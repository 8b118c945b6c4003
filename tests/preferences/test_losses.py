"""The losses against values by hand, finite differences, and the models whose maximum likelihood they are."""

import itertools
import math

import pytest
import torch

from textgym.preferences.losses import bradley_terry_loss, info_nce_loss, margin_loss

REWARDS = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_bradley_terry_by_hand():
    chosen, rejected = tensor(1.0, 0.0, math.log(3)), tensor(1.0, math.log(3), 0.0)
    expected = tensor(math.log(2), math.log(4), math.log(4 / 3))  # P(chosen) = 1/2, 1/4, 3/4
    torch.testing.assert_close(bradley_terry_loss(chosen, rejected), expected)
    ahead = bradley_terry_loss(tensor(math.log(6)), tensor(0.0), margin=tensor(math.log(2)))
    torch.testing.assert_close(ahead, tensor(math.log(4 / 3)))  # odds 6 / 2 : 1


def test_davidson_by_hand():
    # odds 4 : 1 make sqrt(odds) 2 : 1/2, and nu = 1.5 makes P = 2, 1.5, 0.5 of 4
    chosen, rejected = tensor(math.log(4), 0.0, math.log(4)), tensor(0.0, math.log(4), 0.0)
    ties = torch.tensor([False, False, True])
    losses = bradley_terry_loss(chosen, rejected, None, ties, torch.tensor(math.log(1.5)).double())
    torch.testing.assert_close(losses, -tensor(2 / 4, 0.5 / 4, 1.5 / 4).log())


def test_davidson_without_ties_is_bradley_terry():
    chosen, rejected, ties = REWARDS, REWARDS.flip(0), torch.zeros(4, dtype=torch.bool)
    no_ties = bradley_terry_loss(chosen, rejected, None, ties, torch.tensor(-50.0).double())
    torch.testing.assert_close(no_ties, bradley_terry_loss(chosen, rejected))


def test_info_nce_by_hand():
    # exp(s / tau) = 3 against 1 and 2, and against 1 alone
    positive, negatives = tensor(math.log(3), math.log(3)) / 2, tensor([0.0, math.log(2)], [0.0, 99.0]) / 2
    mask = torch.tensor([[True, True], [True, False]])
    losses = info_nce_loss(positive, negatives, mask, temperature=0.5)
    torch.testing.assert_close(losses, -tensor(3 / 6, 3 / 4).log())


def test_info_nce_with_one_negative_is_bradley_terry():
    losses = info_nce_loss(REWARDS, REWARDS.flip(0)[:, None])
    torch.testing.assert_close(losses, bradley_terry_loss(REWARDS, REWARDS.flip(0)))


def test_margin_by_hand():
    positive, negative = tensor(0.9, 0.9, -0.5).requires_grad_(), tensor(0.1, 0.8, 0.5).requires_grad_()
    losses = margin_loss(positive, negative, 0.5)
    losses.sum().backward()
    torch.testing.assert_close(losses.detach(), tensor(0.0, 0.4, 1.5))
    assert positive.grad.tolist() == [0, -1, -1] and negative.grad.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b, nu: bradley_terry_loss(a, b, tensor(0.2, 0.0, 1.0, 0.3)),
        lambda a, b, nu: bradley_terry_loss(a, b, None, torch.tensor([True, False, False, True]), nu),
        lambda a, b, nu: info_nce_loss(a, torch.stack([b, b**2, nu.expand(4)], -1), torch.rand(4, 3) < 2, 0.3),
        lambda a, b, nu: info_nce_loss(a, b[:, None] * nu, torch.tensor([[True], [False], [True], [True]]), 2.0),
        lambda a, b, nu: margin_loss(a, b, 0.7),
    ],
)
def test_gradients_are_those_of_finite_differences(loss):
    inputs = [REWARDS.clone(), tensor(0.1, 0.3, -0.2, 1.3), tensor(-0.4).squeeze()]
    assert torch.autograd.gradcheck(loss, [x.requires_grad_() for x in inputs])


def minimised(loss, *parameters):
    """The parameters at the minimum of a smooth convex loss."""
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, tolerance_change=0.0, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return [parameter.detach() for parameter in parameters]


PAIRS = torch.tensor(list(itertools.combinations(range(4), 2)))


def test_the_optimum_on_exact_bradley_terry_data_is_the_reward_that_made_them():
    first, second = PAIRS.T
    wins = (REWARDS[first] - REWARDS[second]).sigmoid()  # P(first is preferred)
    learned = torch.zeros(4, dtype=torch.float64, requires_grad=True)

    def loss():
        a, b = learned[first], learned[second]
        return (wins * bradley_terry_loss(a, b) + (1 - wins) * bradley_terry_loss(b, a)).mean()

    (found,) = minimised(loss, learned)
    torch.testing.assert_close(found - found.mean(), REWARDS - REWARDS.mean(), atol=1e-5, rtol=0)


def test_the_optimum_with_ties_is_the_reward_and_the_tie_parameter():
    first, second = PAIRS.T
    gap, nu = REWARDS[first] - REWARDS[second], 0.8
    odds = torch.stack([(gap / 2).exp(), torch.full_like(gap, nu), (-gap / 2).exp()])  # Davidson 1970
    first_wins, tie, second_wins = odds / odds.sum(0)
    learned = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    log_nu = torch.zeros((), dtype=torch.float64, requires_grad=True)
    no, yes = torch.zeros(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool)

    def loss():
        a, b = learned[first], learned[second]
        won, lost, tied = (
            bradley_terry_loss(x, y, None, t, log_nu) for x, y, t in ((a, b, no), (b, a, no), (a, b, yes))
        )
        return (first_wins * won + second_wins * lost + tie * tied).mean()

    found, found_nu = minimised(loss, learned, log_nu)
    torch.testing.assert_close(found - found.mean(), REWARDS - REWARDS.mean(), atol=1e-5, rtol=0)
    assert found_nu.exp().item() == pytest.approx(nu, abs=1e-5)


def test_the_optimum_of_info_nce_is_the_choice_model_and_its_bound_is_below_the_mutual_information():
    # p(x, y) of 3 x 3 values; negatives are drawn from p(y), so that the optimal score is log p(y | x) / p(y) + c(x)
    joint = torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    joint = joint / joint.sum()
    x_marginal, y_marginal = joint.sum(1), joint.sum(0)
    information = (joint * (joint / (x_marginal[:, None] * y_marginal)).log()).sum()
    scores = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    cases = torch.tensor(list(itertools.product(range(3), repeat=4)))  # x, y+ and two negatives
    x, positive, negatives = cases[:, 0], cases[:, 1], cases[:, 2:]
    weights = joint[x, positive] * y_marginal[negatives].prod(-1)

    def loss():
        return (weights * info_nce_loss(scores[x, positive], scores[x[:, None], negatives])).sum()

    (found,) = minimised(loss, scores)
    density_ratio = (joint / (x_marginal[:, None] * y_marginal)).log()
    expected = density_ratio - density_ratio.mean(1, keepdim=True)
    torch.testing.assert_close(found - found.mean(1, keepdim=True), expected, atol=1e-5, rtol=0)
    bound = math.log(3) - loss().item()
    assert 0.3 * information < bound < information

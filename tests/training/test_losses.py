"""The losses, their gradients and the KL estimates against hand values and enumeration."""

import pytest
import torch

from textgym.training.losses import (
    clipped_loss,
    importance_ratios,
    kl_estimate,
    kl_loss,
    policy_gradient_loss,
    truncated_loss,
    value_loss,
)


def test_policy_gradient_loss_and_its_gradient():
    log_probs = torch.tensor([[-1.0, -2.0, 0.0]], requires_grad=True)
    advantages = torch.tensor([[3.0, -1.0, 0.0]])
    loss = policy_gradient_loss(log_probs, advantages)
    loss.sum().backward()
    assert loss.tolist() == [[3.0, -2.0, 0.0]] and log_probs.grad.tolist() == [[-3, 1, 0]]


def test_importance_ratios_and_their_gradients():
    """Episodes of two tokens and of one; log-ratios log 2 and log 8, and log 3."""
    old = torch.tensor([[-3.0, -4.0], [-2.0, 0.0]])
    log_ratios = torch.tensor([[2.0, 8.0], [3.0, 1.0]]).log()
    mask = torch.tensor([[True, True], [True, False]])
    for level, expected in {
        "token": [[2, 8], [3, 1]],
        "sequence": [[4, 4], [3, 3]],
        "product": [[16, 16], [3, 3]],
    }.items():
        log_probs = (old + log_ratios).requires_grad_()
        ratios = importance_ratios(log_probs, old, mask, level)
        (gradient,) = torch.autograd.grad((ratios * mask).sum(), log_probs)
        torch.testing.assert_close(ratios.detach(), torch.tensor(expected).float(), rtol=1e-5, atol=0)
        torch.testing.assert_close(gradient, ratios.detach() * mask)


RATIOS = torch.tensor([1.0, 1.1, 1.5, 0.5, 5.0])


@pytest.mark.parametrize(
    ("advantage", "bounds", "loss", "gradient", "outside"),
    [  # by hand: -min(A min(rho, delta), A clip(rho, 0.8, 1 + high)); by log rho: -A rho where the first is smaller
        (2.0, {}, [-2.0, -2.2, -2.4, -1.0, -2.4], [-2.0, -2.2, 0.0, -1.0, 0.0], [0, 0, 1, 1, 1]),
        (-2.0, {}, [2.0, 2.2, 3.0, 1.6, 10.0], [2.0, 2.2, 3.0, 0.0, 10.0], [0, 0, 1, 1, 1]),
        (2.0, {"clip_range_high": 0.6}, [-2.0, -2.2, -3.0, -1.0, -3.2], [-2.0, -2.2, -3.0, -1.0, 0.0], [0, 0, 0, 1, 1]),
        (-2.0, {"clip_range_high": 0.6}, [2.0, 2.2, 3.0, 1.6, 10.0], [2.0, 2.2, 3.0, 0.0, 10.0], [0, 0, 0, 1, 1]),
        (2.0, {"delta": 4.0}, [-2.0, -2.2, -2.4, -1.0, -2.4], [-2.0, -2.2, 0.0, -1.0, 0.0], [0, 0, 1, 1, 1]),
        (-2.0, {"delta": 4.0}, [2.0, 2.2, 3.0, 1.6, 8.0], [2.0, 2.2, 3.0, 0.0, 0.0], [0, 0, 1, 1, 1]),
    ],
)
def test_the_clipped_loss_stops_the_gradient_where_the_ratio_went_far_enough(
    advantage, bounds, loss, gradient, outside
):
    log_ratios = RATIOS.log().requires_grad_()
    got, where = clipped_loss(log_ratios.exp(), torch.full((5,), advantage), 0.2, **bounds)
    got.sum().backward()
    torch.testing.assert_close(got.detach(), torch.tensor(loss))
    torch.testing.assert_close(log_ratios.grad, torch.tensor(gradient))
    assert where.tolist() == outside


def test_the_truncated_loss_bounds_the_weight_and_leaves_each_token_its_gradient():
    log_probs = torch.tensor([-1.0, -2.0, -1.0], requires_grad=True)
    ratios = torch.tensor([0.5, 5.0, 4.0])
    loss, outside = truncated_loss(log_probs, ratios, torch.tensor([2.0, 2.0, -1.0]), 4.0)
    loss.sum().backward()
    assert loss.tolist() == [1.0, 16.0, -4.0] and log_probs.grad.tolist() == [-1, -8, 4]
    assert outside.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("clip_range", "expected", "gradient"), [(None, [4, 1, 16], [-4, 2, 8]), (0.5, [6.25, 1, 12.25], [0, 2, 0])]
)
def test_value_loss_and_its_gradient(clip_range, expected, gradient):
    values = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)  # clipped: 0.5, 2, 3.5
    loss = value_loss(values, torch.tensor([0.0, 2.25, 3.0]), torch.tensor([3.0, 1.0, 0.0]), clip_range)
    loss.sum().backward()
    assert loss.tolist() == expected and values.grad.tolist() == gradient


def test_kl_estimates_over_all_tokens():
    logits = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = logits[0].requires_grad_(), logits[1].detach().log_softmax(-1)
    log_probs = ours.log_softmax(-1)
    probs = log_probs.exp()
    forward = (probs * (log_probs - theirs)).sum()  # KL(pi || a)
    backward = (theirs.exp() * (theirs - log_probs)).sum()  # KL(a || pi)

    def gradient(value):
        return torch.autograd.grad(value, ours, retain_graph=True)[0]

    estimates = {name: kl_estimate(log_probs - theirs, name) for name in ("k1", "k2", "k3")}
    for name in ("k1", "k3"):
        torch.testing.assert_close((probs * estimates[name]).sum(), forward)
    torch.testing.assert_close(estimates["k2"], (log_probs - theirs) ** 2 / 2)
    assert (estimates["k3"] >= 0).all() and (estimates["k1"] < 0).any()
    with_samples_fixed = {name: gradient((probs.detach() * k).sum()) for name, k in estimates.items()}
    torch.testing.assert_close(with_samples_fixed["k1"], torch.zeros(7, dtype=torch.float64))
    torch.testing.assert_close(with_samples_fixed["k2"], gradient(forward))
    torch.testing.assert_close(with_samples_fixed["k3"], gradient(backward))


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_loss_of_the_kl_has_the_gradient_of_the_kl(estimator):
    """Over all tokens of one state, drawn on-policy, and for k3 times the ratio drawn from any other policy."""
    logits = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs, old = logits[0].requires_grad_(), logits[1].log_softmax(-1), logits[2].log_softmax(-1)
    log_probs = ours.log_softmax(-1)
    (exact,) = torch.autograd.grad((log_probs.exp() * (log_probs - theirs)).sum(), ours, retain_graph=True)
    for sampled in [log_probs.detach()] + [old] * (estimator == "k3"):
        loss = (sampled.exp() * kl_loss(log_probs, sampled, theirs, estimator)).sum()
        torch.testing.assert_close(torch.autograd.grad(loss, ours, retain_graph=True)[0], exact)

"""The losses, their gradients and the KL estimates against hand values and enumeration."""

import pytest
import torch

from textgym.training.losses import clipped_loss, kl_estimate, policy_gradient_loss, value_loss


def test_policy_gradient_loss_and_its_gradient():
    log_probs = torch.tensor([[-1.0, -2.0, 0.0]], requires_grad=True)
    advantages = torch.tensor([[3.0, -1.0, 0.0]])
    loss = policy_gradient_loss(log_probs, advantages)
    loss.sum().backward()
    assert loss.tolist() == [[3.0, -2.0, 0.0]] and log_probs.grad.tolist() == [[-3, 1, 0]]


def test_clipped_loss_stops_the_gradient_where_the_ratio_went_far_enough_the_right_way():
    ratios = torch.tensor([1.0, 1.1, 1.5, 0.5, 1.0, 1.1, 1.5, 0.5])
    advantages = torch.tensor([2.0] * 4 + [-2.0] * 4)
    old = torch.full((8,), -1.0)
    log_probs = (old + ratios.log()).requires_grad_()
    loss, outside = clipped_loss(log_probs, old, advantages, 0.2)
    loss.sum().backward()
    # by hand: -min(A rho, A clip(rho, 0.8, 1.2)); its derivative by log rho is -A rho where the first is the smaller
    torch.testing.assert_close(loss.detach(), torch.tensor([-2.0, -2.2, -2.4, -1.0, 2.0, 2.2, 3.0, 1.6]))
    torch.testing.assert_close(log_probs.grad, torch.tensor([-2.0, -2.2, 0.0, -1.0, 2.0, 2.2, 3.0, 0.0]))
    assert outside.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


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

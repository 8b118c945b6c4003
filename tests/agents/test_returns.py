"""Returns, baselines and the loss against hand values."""

import pytest
import torch

from agents.losses import policy_gradient_loss
from agents.returns import baselines, returns_to_go


def test_returns_to_go():
    rewards = torch.tensor([[1.0, 2.0, 4.0], [0.0, 3.0, 0.0]])
    assert returns_to_go(rewards, 1.0).tolist() == [[7, 6, 4], [3, 3, 0]]
    assert returns_to_go(rewards, 0.5).tolist() == [[3, 4, 4], [1.5, 3, 0]]


def test_baselines():
    returns, prompts = torch.tensor([1.0, 3.0, 10.0, 5.0, 20.0]), torch.tensor([7, 7, 2, 7, 2])
    assert baselines(returns, prompts, "none").tolist() == [0, 0, 0, 0, 0]
    assert baselines(returns, prompts, "mean").tolist() == [3, 3, 15, 3, 15]
    assert baselines(returns, prompts, "leave_one_out").tolist() == [4, 3, 20, 2, 10]


def test_a_group_of_one_has_nothing_to_leave_out():
    with pytest.raises(ValueError, match="at least two episodes of every prompt"):
        baselines(torch.ones(3), torch.tensor([0, 0, 1]), "leave_one_out")
    with pytest.raises(ValueError, match="baseline is 'media'"):
        baselines(torch.ones(3), torch.zeros(3, dtype=torch.int64), "media")


def test_policy_gradient_loss_and_its_gradient():
    log_probs = torch.tensor([[-1.0, -2.0, 0.0]], requires_grad=True)
    advantages = torch.tensor([[3.0, -1.0, 0.0]])
    loss = policy_gradient_loss(log_probs, advantages)
    loss.sum().backward()
    assert loss.tolist() == [[3.0, -2.0, 0.0]] and log_probs.grad.tolist() == [[-3, 1, 0]]

"""Returns, advantages and baselines against hand values, plain sums and stable-baselines3's buffer."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from textgym.training.returns import (
    baselines,
    best_of_group,
    differ_in_group,
    generalized_advantages,
    group_deviations,
    likeliness_ranks,
    normalized_sum,
    returns_to_go,
    whiten,
)

RETURNS, PROMPTS = torch.tensor([1.0, 3.0, 10.0, 5.0, 20.0]), torch.tensor([7, 7, 2, 7, 2])


def test_returns_to_go():
    rewards = torch.tensor([[1.0, 2.0, 4.0], [0.0, 3.0, 0.0]])
    assert returns_to_go(rewards, 1.0).tolist() == [[7, 6, 4], [3, 3, 0]]
    assert returns_to_go(rewards, 0.5).tolist() == [[3, 4, 4], [1.5, 3, 0]]


def episode(length, width=6):
    """Rewards and values, (1, width), 0 behind the episode's end."""
    rewards, values = torch.randn(2, 1, width, generator=torch.Generator().manual_seed(length))
    rewards[:, length:] = values[:, length:] = 0
    return rewards, values


@pytest.mark.parametrize("length", [1, 4, 6])
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.8), (0.9, 1.0), (0.9, 0.0)])
def test_generalized_advantages_are_the_sum_and_those_of_sb3(length, gamma, gae_lambda):
    rewards, values = episode(length)
    r, v = rewards[0].tolist(), [*values[0, :length].tolist(), 0.0]
    errors = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
    by_sum = [sum((gamma * gae_lambda) ** (s - t) * errors[s] for s in range(t, length)) for t in range(length)]

    stock = RolloutBuffer(length, spaces.Box(0, 1), spaces.Discrete(2), "cpu", gae_lambda, gamma, n_envs=1)
    stock.rewards[:], stock.values[:] = rewards[0, :length, None], values[0, :length, None]
    stock.compute_returns_and_advantage(torch.tensor([100.0]), np.array([1.0]))  # the state behind the end has no value

    ours = generalized_advantages(rewards, values, gamma, gae_lambda)[0, :length]
    torch.testing.assert_close(ours, torch.tensor(by_sum))
    torch.testing.assert_close(ours, torch.from_numpy(stock.advantages[:, 0]))
    torch.testing.assert_close(ours + values[0, :length], torch.from_numpy(stock.returns[:, 0]))


def test_whitening_is_over_real_tokens_only():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    for padding in (0.0, 1e6):
        advantages = torch.tensor([[1.0, 3.0, padding], [5.0, padding, padding]])  # mean 3, standard deviation 2
        assert whiten(advantages, mask).tolist() == [[-1, 0, 0], [1, 0, 0]]
    assert whiten(torch.tensor([[4.0, 4.0]]), torch.ones(1, 2, dtype=torch.bool)).tolist() == [[0, 0]]
    assert whiten(torch.tensor([[4.0, 0.0]]), torch.tensor([[True, False]])).tolist() == [[4, 0]]  # as in SB3


def test_baselines():
    assert baselines(RETURNS, PROMPTS, "none").tolist() == [0, 0, 0, 0, 0]
    assert baselines(RETURNS, PROMPTS, "mean").tolist() == [3, 3, 15, 3, 15]
    assert baselines(RETURNS, PROMPTS, "leave_one_out").tolist() == [4, 3, 20, 2, 10]
    torch.testing.assert_close(baselines(RETURNS, PROMPTS, "batch"), torch.full((5,), 39 / 5))
    columns = torch.stack([RETURNS, -2 * RETURNS], 1)  # each for itself
    assert baselines(columns, PROMPTS, "leave_one_out").tolist() == [[4, -8], [3, -6], [20, -40], [2, -4], [10, -20]]


def test_group_deviations():
    three = (8 / 3) ** 0.5  # of 1, 3, 5
    torch.testing.assert_close(group_deviations(RETURNS, PROMPTS), torch.tensor([three, three, 5, three, 5]))
    assert group_deviations(torch.tensor([2.0, 2.0]), torch.tensor([1, 1])).tolist() == [0, 0]


def test_which_groups_differ():
    returns, prompts = torch.tensor([1.0, 0.0, 1.0, 1.0, 5.0]), torch.tensor([7, 2, 7, 2, 1])
    assert differ_in_group(returns, prompts).tolist() == [False, True, False, True, False]


def test_the_best_of_each_group():
    returns, prompts = torch.tensor([1.0, 3.0, 10.0, 3.0, 20.0, 0.0]), torch.tensor([7, 7, 2, 7, 2, 9])
    assert best_of_group(returns, prompts, 1).tolist() == [False, True, False, False, True, True]
    assert best_of_group(returns, prompts, 2).tolist() == [False, True, True, True, True, True]


def test_ranks_by_likeliness():
    log_probs, prompts = torch.tensor([-1.0, -3.0, -9.0, -3.0, -2.0, -7.0]), torch.tensor([7, 7, 2, 7, 2, 7])
    # of the four of group 7: three are below -1; one below each -3, and one is equal
    torch.testing.assert_close(likeliness_ranks(log_probs, prompts), torch.tensor([0.75, 0.375, 0, 0.375, 0.5, 0]))


@pytest.mark.parametrize("kind", ["leave_one_out", "mean"])
def test_a_group_of_one_among_others_has_nothing_to_be_compared_with(kind):
    message = f"baseline '{kind}' needs at least two episodes of every prompt, and 1 of 2 prompts have one; .*'none'"
    with pytest.raises(ValueError, match=message):
        baselines(torch.ones(3), torch.tensor([0, 0, 1]), kind)


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="baseline is 'media'"):
        baselines(torch.ones(3), torch.zeros(3, dtype=torch.int64), "media")


def test_a_normalized_sum_by_hand():
    """Group 7 has 1, 3, 5, group 2 has 10, 20; the second component applies to one of group 2 and is equal in 7."""
    nan = float("nan")
    components = torch.tensor([[1.0, 4.0], [3.0, 4.0], [10.0, nan], [5.0, 4.0], [20.0, 8.0]], dtype=torch.float64)
    three = 2 / ((8 / 3) ** 0.5 + 1e-4)  # of 1, 3, 5: two from the mean, over the deviation
    two = 5 / (5 + 1e-4)
    first = normalized_sum(components, torch.tensor([2.0, 1.0]).double(), PROMPTS)
    torch.testing.assert_close(first, 2 * torch.tensor([-three, 0, -two, three, two]).double())
    components[:, 1] = torch.tensor([1.0, nan, 3.0, 5.0, 3.0])  # mean 3 and deviation 2 of 1 and 5; then 3 and 0
    second = normalized_sum(components, torch.tensor([0.0, -1.0]).double(), PROMPTS)
    one = 2 / (2 + 1e-4)
    torch.testing.assert_close(second, torch.tensor([one, 0, 0, -one, 0]).double())


def test_a_scale_changes_nothing_in_a_normalized_sum():
    components = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()
    prompts, weights = torch.arange(8) // 4, torch.tensor([1.0, 0.5, -2.0]).double()
    scaled = normalized_sum(components * torch.tensor([1e3, 1.0, 1e2]) + 7, weights, prompts)
    torch.testing.assert_close(normalized_sum(components, weights, prompts), scaled, atol=2e-3, rtol=0)  # but for 1e-4
    with pytest.raises(
        ValueError, match="per_component='normalize' needs at least two episodes of every prompt, and 1 of"
    ):
        normalized_sum(components, weights, torch.tensor([0] * 7 + [1]))

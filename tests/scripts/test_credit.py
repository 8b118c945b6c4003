"""scripts/credit.py: exact credits would be exact advantages, and the redrawn ones have their gradient."""

import gymnasium as gym
import pytest
import torch
import tyro

from scripts.credit import Args, main
from scripts.experiments.credit import CreditProblem


@pytest.fixture(scope="module")
def problem():
    return CreditProblem(gym.make("TextGenToy-v0", num_tokens=2, max_new_tokens=3), distance=1.0, seed=0)


def test_returns_give_the_exact_gradient(problem):
    found = problem.compare([problem.centred_returns()])
    assert found.cosine == pytest.approx(1) and found.bias == pytest.approx(0, abs=1e-9)
    assert 0 < found.correlation < 1 and found.error > 0 and problem.kl > 0


def test_advantages_are_the_best_credits(problem):
    advantages = (problem._solution.q_values - problem._solution.values[:, None])[problem._contexts]
    exact = advantages.gather(-1, problem._tree.outcomes.clamp(max=2)[..., None])[..., 0]
    found = problem.compare([exact])
    assert found == pytest.approx((1, 0, 1, 0), abs=1e-9)
    assert problem.compare([2 * exact + 1]).correlation == pytest.approx(1)


def test_redrawn_credits_are_unbiased_and_held_ones_are_not(problem):
    held, redrawn = (
        problem.compare([problem.credits(rest, 16, seed) for seed in range(40)]) for rest in ("held", "redrawn")
    )
    assert redrawn.bias < 0.03 < 0.06 < held.bias


def test_the_table(capsys):
    main(tyro.cli(Args, args="--samples 1 --repeats 1".split()))
    printed = capsys.readouterr().out
    assert "return minus its mean" in printed and "held" in printed and "redrawn" in printed
    assert torch.get_num_threads() == 1

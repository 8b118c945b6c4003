"""scripts/credit.py: exact credits would be exact advantages, and which estimates have their gradient."""

import gymnasium as gym
import pytest
import torch
import tyro

from scripts.credit import Args, main
from scripts.experiments.credit import CreditProblem, learning_curve


def make_problem(beta=0.0):
    return CreditProblem(gym.make("TextGenToy-v0", num_tokens=2, max_new_tokens=3), distance=1.0, seed=0, beta=beta)


@pytest.fixture(scope="module")
def problem():
    return make_problem()


def test_returns_give_the_exact_gradient(problem):
    found = problem.compare([problem.returns()])
    assert found.cosine == pytest.approx(1) and found.bias == pytest.approx(0, abs=1e-9)
    assert 0 < found.correlation < 1 and found.error > 0 and problem.kl > 0


def test_without_a_penalty_rewards_to_go_are_returns(problem):
    """The toy pays at the end."""
    real = problem.oracle.objective.tree.outcomes != 3
    torch.testing.assert_close(problem.returns(to_go=True)[real], problem.returns()[real])


def test_rewards_to_go_are_as_right_and_under_a_penalty_noisier_near_the_optimum():
    """At the optimum reward minus penalty is the same for all texts, what is to come of it is not."""
    problem = make_problem(beta=0.5)
    whole, to_go = (problem.compare([problem.returns(to_go=to_go)]) for to_go in (False, True))
    assert to_go.bias == pytest.approx(0, abs=1e-9) and whole.bias == pytest.approx(0, abs=1e-9)
    objective = problem.objective
    penalty = objective.beta * (objective.optimum.policy - objective.reference)
    paid = objective.tree.along(objective.steps - penalty, objective.tree.outcomes)
    assert paid.sum(-1).std() < 1e-9 and paid[:, 1:].sum(-1).std() > 0.1


def test_generalised_advantages_of_a_perfect_critic_are_right_and_those_of_lambda_0_its_advantages():
    problem = make_problem(beta=0.5)
    for gae_lambda in (0.0, 0.6, 1.0):
        assert problem.compare([problem.generalized(gae_lambda, 0.0, 0)]).bias == pytest.approx(0, abs=1e-9)
    exact = problem.oracle.credit(problem.objective.tree.outcomes)
    torch.testing.assert_close(problem.generalized(0.0, 0.0, 0), exact)  # transitions are deterministic
    wrong = [problem.compare([problem.generalized(gae_lambda, 0.5, 0)]).bias for gae_lambda in (0.0, 0.6, 1.0)]
    assert wrong[0] > 1.5 * wrong[1] > 0.1 and wrong[2] == pytest.approx(0, abs=1e-9)


def test_a_process_reward_whose_head_can_say_everything_becomes_the_exact_advantage():
    """Of the three contexts of texts of two tokens, the features of each are linearly independent."""
    problem = CreditProblem(gym.make("TextGenToy-v0", num_tokens=2, max_new_tokens=2), 1.0, seed=0, beta=0.5)
    exact = problem.oracle.credit(problem.objective.tree.outcomes)
    errors = [(problem.process_rewards(n, 0) - exact).abs().max() for n in (20, 200_000)]
    assert errors[1] < 0.02 < errors[0]  # a mean of 200,000 returns of deviation 1 is off by 0.002


def test_a_learned_process_reward_is_quieter_than_returns_and_biased(problem):
    learned = [problem.compare([problem.process_rewards(1000, seed)]) for seed in range(5)]
    returns = problem.compare([problem.returns()])
    assert all(0.01 < one.bias < 0.3 and one.noise < 0.8 * returns.noise for one in learned)


def test_the_mean_of_the_group_shrinks_the_gradient_and_the_others_do_not(problem):
    mean, others = (problem.compare([problem.in_groups(4, loo, s) for s in range(300)]) for loo in (False, True))
    assert mean.bias == pytest.approx(0.25, abs=0.05) and others.bias < 0.05
    assert others.noise > problem.compare([problem.returns()]).noise


def test_redrawn_credits_are_unbiased_and_held_ones_are_not(problem):
    held, redrawn = (
        problem.compare([problem.counterfactual(rest, 16, seed) for seed in range(40)]) for rest in ("held", "redrawn")
    )
    assert redrawn.bias < 0.03 < 0.06 < held.bias


def test_perfect_credit_learns_faster():
    """Regret after 30 updates of 16 episodes: of five seeds, 0.50 and 0.64, with deviations of 0.02 over seeds."""
    perfect, returns = (learning_curve(name, 0, 0.5, 30, 16, 0.03) for name in ("perfect credit", "no baseline"))
    assert perfect[0] == returns[0] == 1 and perfect[30] < returns[30] < 1


def test_the_table(capsys):
    main(tyro.cli(Args, args="--samples 1 --repeats 1".split()))
    printed = capsys.readouterr().out
    rows = "exact advantage", "return minus its mean", "GAE, lambda 0.95, critic's error 0.5", "held", "redrawn"
    for row in (*rows, "process reward, 32"):
        assert row in printed
    assert torch.get_num_threads() == 1
    main(tyro.cli(Args, args="--beta 0.5 --repeats 1 --seeds 1 --updates 10 --n-envs 4".split()))
    printed = capsys.readouterr().out
    assert "perfect credit" in printed and "held" not in printed


@pytest.mark.parametrize(
    ("line", "message"), [("--seeds 1", "--beta must be above 0"), ("--group-size 1", "two episodes or more")]
)
def test_bad_options(line, message):
    with pytest.raises(ValueError, match=message):
        main(tyro.cli(Args, args=line.split()))

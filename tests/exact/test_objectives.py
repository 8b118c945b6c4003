"""The objective of KL-regularised agents, against sums over outcomes and finite differences."""

import pytest
import torch

from tests.helpers.brute_force import contexts_of, outcomes_of, random_outcomes, random_table
from textgym.exact import Objective, TokenTree


def looped_value(k, n, logits, reference, rewards, beta, gamma):
    """J, an outcome and a token at a time; rewards are paid at the end."""
    number = {c: i for i, c in enumerate(contexts_of(k, n))}
    log_pi, log_a, value = logits.log_softmax(-1), reference.log_softmax(-1), 0.0
    for x, reward in zip(outcomes_of(k, n), rewards.tolist(), strict=True):
        steps = [(number[x[:t]], action) for t, action in enumerate(x)]
        ratios = [log_pi[step] - log_a[step] for step in steps]
        paid = [-beta * ratio for ratio in ratios[:-1]] + [reward - beta * ratios[-1]]
        log_prob = sum(log_pi[step] for step in steps)
        value += torch.exp(log_prob) * sum(gamma**t * r for t, r in enumerate(paid))
    return value


@pytest.mark.parametrize(("beta", "gamma"), [(0.0, 1.0), (0.5, 1.0), (0.5, 0.7)])
def test_value_and_gradient(beta, gamma):
    k, n = 2, 3
    tree = TokenTree(k, n)
    reference, logits, rewards = random_table(tree, 0), random_table(tree, 1), random_outcomes(tree, 2)
    objective = Objective(tree, reference, rewards, beta, gamma)
    assert objective.value(logits) == pytest.approx(float(looped_value(k, n, logits, reference, rewards, beta, gamma)))
    gradient, step = objective.gradient(logits), 1e-5
    for cell in [(0, 0), (0, 2), (2, 1), (6, 0)]:
        above, below = logits.clone(), logits.clone()
        above[cell], below[cell] = logits[cell] + step, logits[cell] - step
        difference = (objective.value(above) - objective.value(below)) / (2 * step)
        assert gradient[cell] == pytest.approx(float(difference), abs=1e-8)


def test_the_optimum_has_no_gradient_and_no_credit_to_give():
    tree = TokenTree(3, 2)
    objective = Objective(tree, random_table(tree, 3), random_outcomes(tree, 4), 0.3)
    best = objective.optimum
    assert objective.gradient(best.policy).abs().max() < 1e-12
    assert objective.value(best.policy) == pytest.approx(float(best.values[0]))
    solution = objective.evaluate(best.policy)  # under the penalty, no choice is better than another
    torch.testing.assert_close(solution.q_values, best.values[:, None].expand_as(solution.q_values))


def test_rewards_per_action_are_those_of_outcomes_in_other_words():
    tree = TokenTree(2, 2)
    reference, logits, steps = random_table(tree, 5), random_table(tree, 6), random_table(tree, 7)
    per_action, per_outcome = (Objective(tree, reference, r, 0.2) for r in (steps, tree.accumulate(steps)))
    assert per_action.value(logits) == pytest.approx(float(per_outcome.value(logits)))
    torch.testing.assert_close(per_action.steps, steps)
    torch.testing.assert_close(tree.accumulate(per_outcome.steps), tree.accumulate(steps))

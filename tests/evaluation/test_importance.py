"""Off-policy estimators against hand values, against enumeration, and against repeated samples of the toy."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym  # noqa: F401 (registers the ids)
from textgym.evaluation import ESTIMATORS, NoOverlapError, OffPolicySample, estimate_value
from textgym.evaluation.importance import _terms, value_of
from textgym.exact import TokenTree, evaluate_policy

UNBIASED = ("is", "pdis", "dr")


class LoggedTree:
    """All outcomes of a tree as episodes of a behaviour b, (X, L) each: what two tables of logits say of them.

    Args:
        tree: K tokens, L actions.
        behaviour: (S, K + 1) logits of b.
        policy: (S, K + 1) logits of pi.
        rewards: (X,) at the end, or (S, K + 1) per action.
        error: the deviation of what V is guessed from the exact one.
        gamma: discount per action.
    """

    def __init__(self, tree, behaviour, policy, rewards, error=0.5, gamma=1.0):
        self.tree, self.behaviour, self.policy, self.rewards, self.gamma = tree, behaviour, policy, rewards, gamma
        self.solution = evaluate_policy(tree, policy, rewards, gamma)
        self.value = self.solution.values[0].item()
        per_action = evaluate_policy(tree, policy, rewards, 0.0).q_values  # without a future, Q(s, a) = r(s, a)
        self.log_ratios = self.along(tree.log_policy(policy) - tree.log_policy(behaviour))
        self.steps = self.along(per_action)
        self.guess = self.along(self.solution.values + error * noise(tree.num_contexts, seed=3))
        self.log_b, self.log_pi = tree.log_probs(behaviour), tree.log_probs(policy)

    def along(self, table):
        return self.tree.along(table, self.tree.outcomes)

    def sample(self, index=slice(None), values=None, q_values=None):
        """Some of the outcomes as logged episodes; by default with the guess of V."""
        values = self.guess if values is None else values
        parts = self.log_ratios, self.steps, values, q_values
        return OffPolicySample(*(None if part is None else part[index] for part in parts))

    def draw(self, repetitions, n, seed=0):
        """Outcomes of b, (repetitions, n)."""
        torch.manual_seed(seed)
        return torch.distributions.Categorical(logits=self.log_b).sample((repetitions, n))


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def toy(rewards="terminal", scale=1.0, **kwargs):
    """The toy with its reward at the end or per token; the policy is the reference, disturbed."""
    env = gym.make("TextGenToy-v0")
    tree = TokenTree.of(env)
    reference = torch.tensor(env.unwrapped.reference_logits)
    paid = tree.scores(env)["reward"]
    if rewards == "tokens":  # every token 1 is worth 1 at once, and every token 3 half of it
        paid = torch.tensor([0.0, 1.0, 0.0, 0.5, 0.0], dtype=torch.float64).expand(tree.num_contexts, -1)
    return LoggedTree(tree, reference, reference + scale * noise(*reference.shape, seed=1), paid, **kwargs)


# --- by hand: two actions, the ratios 2 then 1/2, and 1/2 then 3; the third episode has one action ---

RATIOS = torch.tensor([[2.0, 0.5], [0.5, 3.0], [1.5, 1.0]]).log()
REWARDS = torch.tensor([[1.0, 4.0], [0.0, 2.0], [3.0, 0.0]])
VALUES = torch.tensor([[2.0, 1.0], [2.0, 3.0], [2.0, 0.0]])
Q_VALUES = torch.tensor([[1.0, 2.0], [4.0, 1.0], [2.5, 0.0]])
FIRST, LAST = np.array([2.0, 0.5, 1.5]), np.array([1.0, 1.5, 1.5])  # w_0 and w_1; an ended episode keeps its weight
G = 0.9
BY_HAND = {
    "is": (1 * (1 + G * 4) + 1.5 * (G * 2) + 1.5 * 3) / 3,
    "wis": (1 * (1 + G * 4) + 1.5 * (G * 2) + 1.5 * 3) / 4,
    "pdis": (2 * 1 + 1.5 * 3) / 3 + G * (1 * 4 + 1.5 * 2) / 3,
    "wpdis": (2 * 1 + 1.5 * 3) / 4 + G * (1 * 4 + 1.5 * 2) / 4,
    # sum_t gamma^t (w_t (r_t - q_t) + w_{t-1} v_t)
    "dr": (2 * 0 + 0.5 * -4 + 1.5 * 0.5) / 3 + 2 + G * ((1 * 2 + 1.5 * 1) / 3 + (2 * 1 + 0.5 * 3) / 3),
    "wdr": (2 * 0 + 0.5 * -4 + 1.5 * 0.5) / 4 + 2 + G * ((1 * 2 + 1.5 * 1) / 4 + (2 * 1 + 0.5 * 3) / 4),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_values_by_hand(name):
    sample = OffPolicySample(RATIOS, REWARDS, VALUES, Q_VALUES)
    found = estimate_value(sample, name, gamma=G, min_effective_sample_size=2)
    assert found.value == pytest.approx(BY_HAND[name], abs=1e-6)
    sizes = [w.sum() ** 2 / (w**2).sum() for w in ((LAST,) if name in ("is", "wis") else (FIRST, LAST))]
    assert found.effective_sample_size == pytest.approx(min(sizes), abs=1e-5)
    assert found.interval() == (found.low, found.high) and found.low < found.value < found.high


def test_standard_errors_by_hand():
    sample = OffPolicySample(RATIOS, REWARDS, VALUES, Q_VALUES)
    returns = np.array([1 + G * 4, G * 2, 3])
    found = {n: estimate_value(sample, n, gamma=G, min_effective_sample_size=2) for n in ("is", "wis")}
    plain = (LAST * returns).std(ddof=1) / math.sqrt(3)
    assert found["is"].standard_error == pytest.approx(plain, abs=1e-6)
    # of a ratio of means, by the delta method: of w (G - value) / mean w
    residuals = LAST * (returns - BY_HAND["wis"]) / LAST.mean()
    assert found["wis"].standard_error == pytest.approx(residuals.std(ddof=1) / math.sqrt(3), abs=1e-6)


def test_without_q_the_value_stands_for_it():
    with_q = OffPolicySample(RATIOS, REWARDS, VALUES, VALUES)
    without = OffPolicySample(RATIOS, REWARDS, VALUES)
    for name in ("dr", "wdr"):
        options = {"gamma": G, "min_effective_sample_size": 2}
        assert estimate_value(with_q, name, **options) == estimate_value(without, name, **options)


def test_on_policy_they_are_the_mean_return():
    sample = OffPolicySample(torch.zeros(60, 2), torch.arange(120.0).view(60, 2))
    for name in ("is", "wis", "pdis", "wpdis"):
        found = estimate_value(sample, name)
        assert found.value == pytest.approx(119.0) and found.effective_sample_size == pytest.approx(60)


def test_episodes_of_a_group_do_not_count_as_independent():
    rewards = torch.arange(100.0)[:, None]
    twice = OffPolicySample(torch.zeros(200, 1), rewards.repeat_interleave(2, 0))
    once = estimate_value(OffPolicySample(torch.zeros(100, 1), rewards), "is")
    found, naive = estimate_value(twice, "is", group=2), estimate_value(twice, "is")
    assert found[:2] == pytest.approx(once[:2]) and naive.standard_error < 0.8 * found.standard_error


# --- by enumeration: episodes that count by their probabilities make an expectation ---


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("rewards", ["terminal", "tokens"])
@pytest.mark.parametrize("exact_q", [False, True])
def test_expectations_are_the_policys_value(rewards, gamma, exact_q):
    """Whatever the guess of V; with Q, for which V(s) = E_pi Q(s, a)."""
    logged = toy(rewards, gamma=gamma)
    other_q = logged.solution.q_values + noise(*logged.policy.shape, seed=2)  # as wrong as you like
    other_v = (logged.tree.log_policy(logged.policy).exp() * other_q).sum(-1)
    sample = logged.sample(values=logged.along(other_v), q_values=logged.along(other_q)) if exact_q else logged.sample()
    for name in ESTIMATORS:
        value = value_of(logged.log_b.exp(), *_terms(sample, name), gamma, name.startswith("w"))
        assert value.item() == pytest.approx(logged.value, abs=1e-10), name


def variances(logged, **values):
    """n times the variance of each estimator, as n grows: the variance of its influence function, by enumeration."""
    shares, found = logged.log_b.exp(), {}
    for name in ESTIMATORS:
        leaf = shares.clone().requires_grad_()
        number = value_of(leaf, *_terms(logged.sample(**values), name), logged.gamma, name.startswith("w"))
        (influence,) = torch.autograd.grad(number, leaf)
        found[name] = (shares @ influence**2 - (shares @ influence) ** 2).item()
    return found


def test_per_decision_weights_vary_less_and_exact_values_leave_nothing():
    logged = toy("tokens", error=0.1)
    plain = variances(logged)
    assert plain["pdis"] < 0.8 * plain["is"] and plain["wpdis"] < 0.8 * plain["wis"]
    assert plain["dr"] < plain["pdis"] and plain["wdr"] < plain["wpdis"]
    values, q_values = logged.along(logged.solution.values), logged.along(logged.solution.q_values)
    exact = variances(logged, values=values, q_values=q_values)
    assert exact["dr"] < 1e-10 and exact["wdr"] < 1e-10
    baseline = variances(logged, values=values)  # Q(s, a) = V(s): what remains is what the tokens themselves are worth
    assert 0.1 < baseline["dr"] < 0.9 * plain["pdis"]


# --- repeated samples of the toy ---


@pytest.mark.parametrize("rewards", ["terminal", "tokens"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_intervals_hold_the_exact_value(name, rewards):
    """95% intervals hold it in 90 to 99 of 100 repetitions, and standard errors are the spread of the estimates."""
    logged = toy(rewards, scale=0.6)
    found = [estimate_value(logged.sample(index), name) for index in logged.draw(100, 500)]
    held = sum(low <= logged.value <= high for low, high in (estimate.interval() for estimate in found))
    assert 90 <= held <= 99
    values = np.array([estimate.value for estimate in found])
    assert abs(values.mean() - logged.value) < 4 * values.std() / 10
    assert np.mean([e.standard_error for e in found]) == pytest.approx(values.std(), rel=0.25)
    assert 100 < min(e.effective_sample_size for e in found) < 300


def test_the_effective_sample_size_is_what_enumeration_expects():
    logged = toy()
    second_moment = (logged.log_b.exp() @ (2 * (logged.log_pi - logged.log_b)).exp()).item()  # E w^2
    (index,) = logged.draw(1, 100_000)
    found = estimate_value(logged.sample(index), "wis").effective_sample_size
    assert found == pytest.approx(100_000 / second_moment, rel=0.05)


# --- refused ---


def test_too_small_a_sample_is_refused():
    logged = toy(scale=3.0)
    (index,) = logged.draw(1, 200)
    for name in ESTIMATORS:
        with pytest.raises(
            NoOverlapError, match=rf"'{name}': the effective .* of 200 episodes is \d+\.\d, less than 50;"
        ):
            estimate_value(logged.sample(index), name)
    assert estimate_value(logged.sample(index), "wis", min_effective_sample_size=2).effective_sample_size < 50
    never = OffPolicySample(torch.full((100, 2), -torch.inf), torch.ones(100, 2))
    with pytest.raises(NoOverlapError, match="of 100 episodes is 0.0, less than 2"):
        estimate_value(never, min_effective_sample_size=2)


def test_a_behaviour_that_cannot_do_what_the_policy_may_is_refused():
    """Its first token is never 1, as top-k would have it; or it was drawn at another temperature than was logged."""
    logged = toy(scale=0.3)
    behaviour = logged.behaviour.clone()
    behaviour[0, 1] = -torch.inf
    truncated = LoggedTree(logged.tree, behaviour, logged.policy, logged.rewards)
    with pytest.raises(NoOverlapError, match=r"the mean weight is 0\.\d+ ± 0\.0\d+, not 1: .* top-k or top-p"):
        estimate_value(truncated.sample(truncated.draw(1, 1000)[0]))
    policy = LoggedTree(logged.tree, logged.behaviour, 0.5 * logged.behaviour, logged.rewards)
    for factor in (0.5, 2.0):
        drawn = LoggedTree(logged.tree, factor * logged.behaviour, logged.policy, logged.rewards)
        with pytest.raises(NoOverlapError, match="another temperature"):
            estimate_value(policy.sample(drawn.draw(1, 1000)[0]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"log_ratios": torch.zeros(3)}, r"log_ratios have shape \(3,\); they must be \(n, T\)"),
        ({"log_ratios": torch.zeros(0, 2)}, "n at least 1"),
        ({"rewards": torch.zeros(3, 3)}, r"rewards have shape \(3, 3\), log_ratios \(3, 2\)"),
        ({"values": torch.zeros(3)}, r"values have shape \(3,\)"),
        ({"q_values": torch.zeros(3, 2)}, "q_values are given without values"),
        ({"log_ratios": torch.full((3, 2), torch.inf)}, "log_ratios of episode 0, action 0, is inf"),
        ({"log_ratios": torch.full((3, 2), torch.nan)}, "log_ratios of episode 0, action 0, is nan"),
        ({"rewards": torch.tensor([[0, 0], [0, math.nan], [0, 0]])}, "rewards of episode 1, action 1, is nan"),
    ],
)
def test_samples_that_are_none(fields, message):
    with pytest.raises(ValueError, match=message):
        OffPolicySample(**{"log_ratios": RATIOS, "rewards": REWARDS, **fields})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimator": "snips"}, "estimator is 'snips'; accepted are .*'wpdis'"),
        ({"estimator": "dr"}, "'dr' is doubly robust: it needs values"),
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"group": 2}, "3 episodes cannot be parted into two or more groups of group=2"),
        ({"group": 3}, "3 episodes cannot be parted into two or more groups of group=3"),
        ({"min_effective_sample_size": 1}, "min_effective_sample_size is 1; it must be at least 2"),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        estimate_value(OffPolicySample(RATIOS, REWARDS), **{"min_effective_sample_size": 2, **arguments})

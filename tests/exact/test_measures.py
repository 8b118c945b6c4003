"""What a policy is worth over a table of outcomes, against hand values."""

import itertools
import math

import pytest
import torch

from textgym.exact import best_of_log_probs, entropy, expectation, kl, optimum_within, pass_at, target_log_probs

PI = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
A = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
RIGHT = torch.tensor([[True, False, False, True], [False, True, True, False]])


def test_hand_values():
    log_pi, log_a = PI.log(), A.log()
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2, dtype=torch.float64)
    assert expectation(log_pi, values).tolist() == pytest.approx([1.75, 3.0])
    first = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    second = -sum(p * math.log(p) for p in (0.1, 0.2, 0.3, 0.4))
    assert entropy(log_pi).tolist() == pytest.approx([first, second])
    divergence = sum(p * math.log(p / a) for p, a in zip(PI[1].tolist(), A[1].tolist(), strict=True))
    assert kl(log_pi, log_a).tolist() == pytest.approx([0.5 * math.log(2), divergence])
    assert kl(log_a, log_pi)[0] == math.inf
    assert pass_at(1, log_pi, RIGHT).tolist() == pytest.approx([0.5, 0.5])
    assert pass_at(3, log_a, RIGHT).tolist() == pytest.approx([0.875, 0.875])
    assert pass_at(7, torch.zeros(1, 1).double(), torch.tensor([[True]])).item() == 1.0
    assert pass_at(10**9, torch.tensor([[1e-9, 1 - 1e-9]]).double().log(), RIGHT[1:, :2].flip(-1)).item() == (
        pytest.approx(1 - math.exp(-1))
    )


def test_targets_have_a_z_per_prompt():
    log_a, rewards = A.log(), RIGHT.double()
    log_p, log_z = target_log_probs({"name": "rlhf", "beta": 0.5}, log_a, {"reward": rewards})
    z = [0.5 + 0.5 * math.exp(2)] * 2
    assert log_z.exp().tolist() == pytest.approx(z)
    assert log_p.exp()[1].tolist() == pytest.approx(
        [a * math.exp(2 * r) / z[1] for a, r in zip(A[1].tolist(), rewards[1].tolist(), strict=True)]
    )
    log_p, log_z = target_log_probs({"name": "pointwise"}, log_a, {"reward": rewards})
    assert log_z.exp().tolist() == pytest.approx([0.5, 0.5])
    assert log_p.exp().flatten().tolist() == pytest.approx([0.5, 0, 0, 0.5, 0, 0.6, 0.4, 0])
    # the mean of the feature over both prompts, under one coefficient
    log_p, _ = target_log_probs({"name": "distributional", "means": {"reward": 0.8}}, log_a, {"reward": rewards})
    assert expectation(log_p, rewards).mean().item() == pytest.approx(0.8, abs=1e-6)


def test_the_optimum_within_a_kl():
    """Of a reward in {0, 1} with base rate 1/2: at mean s, the KL is log 2 + s log s + (1 - s) log(1 - s)."""
    log_a, rewards = A.log(), RIGHT.double()
    s = 0.8
    budget = math.log(2) + s * math.log(s) + (1 - s) * math.log(1 - s)
    found = optimum_within(budget, log_a, rewards)
    assert (found.reward, found.kl) == pytest.approx((s, budget), abs=1e-9)
    assert found.beta == pytest.approx(1 / math.log(s / (1 - s)))
    assert optimum_within(5.0, log_a, rewards) == pytest.approx((1.0, math.log(2), 0.0))
    nothing = optimum_within(0.0, log_a, rewards)
    assert (nothing.reward, nothing.kl) == pytest.approx((0.5, 0.0), abs=1e-9)


def test_no_policy_within_the_kl_is_better():
    """Random policies of two prompts of different difficulty, each against the optimum at its own KL."""
    generator = torch.Generator().manual_seed(0)
    log_a = torch.randn(2, 6, generator=generator, dtype=torch.float64).log_softmax(-1)
    rewards = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    gaps = []
    for _ in range(200):
        log_pi = (log_a + torch.randn(2, 6, generator=generator, dtype=torch.float64)).log_softmax(-1)
        best = optimum_within(kl(log_pi, log_a).mean().item(), log_a, rewards)
        gaps.append(best.reward - expectation(log_pi, rewards).mean().item())
    assert min(gaps) > 0
    log_p, _ = target_log_probs({"name": "rlhf", "beta": 0.3}, log_a, {"reward": rewards})
    best = optimum_within(kl(log_p, log_a).mean().item(), log_a, rewards)
    assert best.reward == pytest.approx(expectation(log_p, rewards).mean().item(), abs=1e-9)
    assert best.beta == pytest.approx(0.3)


def test_the_best_of_n_is_that_of_enumeration():
    """Every triple of outcomes; of equally good ones, each is taken as often."""
    log_pi, rewards = PI[1:].log(), torch.tensor([[0.5, 1.0, 0.5, 0.0]], dtype=torch.float64)
    expected = [0.0] * 4
    for triple in itertools.product(range(4), repeat=3):
        best = [x for x in triple if rewards[0, x] == rewards[0, list(triple)].max()]
        for x in best:
            expected[x] += math.prod(PI[1, list(triple)].tolist()) / len(best)
    log_best = best_of_log_probs(3, log_pi, rewards)
    # given how good it is, the best is distributed as one sample is; in a triple, an outcome may stand twice
    assert log_best.exp()[0].tolist() == pytest.approx(expected)
    assert torch.equal(best_of_log_probs(1, log_pi, rewards).exp().round(decimals=12), PI[1:])
    assert kl(log_best, log_pi).item() <= math.log(3) - 2 / 3
    zeros = best_of_log_probs(2, PI[:1].log(), rewards)
    assert zeros[0, 3] == -math.inf and zeros.exp().sum().item() == pytest.approx(1)
    with pytest.raises(ValueError, match="n is 0"):
        best_of_log_probs(0, log_pi, rewards)


def test_mistakes_are_named():
    log_a, rewards = A.log(), RIGHT.double()
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        pass_at(0, log_a, RIGHT)
    with pytest.raises(ValueError, match="right is torch.float64; say which outcomes count as right"):
        pass_at(1, log_a, rewards)
    with pytest.raises(ValueError, match="the target reads the feature 'topic'; there are \\['reward'\\]"):
        target_log_probs({"name": "pointwise", "feature": "topic"}, log_a, {"reward": rewards})
    with pytest.raises(ValueError, match="no outcome of prompt 1 has any mass"):
        target_log_probs({"name": "pointwise"}, log_a, {"reward": rewards * torch.tensor([[1.0], [0.0]])})
    with pytest.raises(ValueError, match="kl_budget is -1"):
        optimum_within(-1, log_a, rewards)

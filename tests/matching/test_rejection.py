"""Quasi-rejection sampling against enumeration: p_beta, its distances to p, and what samples say of them."""

import math

import gymnasium as gym
import pytest
import torch

import textgym  # noqa: F401 (registers the ids)
from textgym.exact import TokenTree
from textgym.matching.rejection import distances, find_log_beta, log_acceptance, measure


def enumerated(filtered, noise=0.5):
    """log P, normalised, and log q over the toy's outcomes: q is the exact policy of p with noise on its logits."""
    env = gym.make("TextGenToy-v0")
    tree = TokenTree.of(env)
    rewards = tree.scores(env)["reward"]
    log_weights = torch.where(rewards > 0, 0.0, -math.inf) if filtered else rewards / 0.5
    log_p, start = tree.log_probs(env.unwrapped.reference_logits) + log_weights, torch.Generator().manual_seed(0)
    logits = tree.policy_of(log_p)[0].clamp(min=-3)  # some mass where p has none
    logits = logits + noise * torch.randn(logits.shape, generator=start, dtype=torch.float64)
    return log_p - log_p.logsumexp(0), tree.log_probs(logits)


def exact(log_p, log_pi):
    """TV, KL(p || pi) and KL(pi || p) by their definitions."""

    def kl(log_x, log_y):
        return sum(math.exp(x) * (x - y) for x, y in zip(log_x.tolist(), log_y.tolist(), strict=True) if x > -math.inf)

    return {
        "tv": (log_p.exp() - log_pi.exp()).abs().sum() / 2,
        "kl_p_pi": kl(log_p, log_pi),
        "kl_pi_p": kl(log_pi, log_p),
    }


def exact_p_beta(log_p, log_q, log_beta):
    """Log p_beta, normalised, and the exact rate, sum min(P / beta, q)."""
    log_mass = torch.minimum(log_p - log_beta, log_q)
    return log_mass - log_mass.logsumexp(0), log_mass.logsumexp(0).exp().item()


def draw(log_p, log_q, n, seed=0):
    index = torch.multinomial(log_q.exp(), n, replacement=True, generator=torch.Generator().manual_seed(seed))
    return (log_p - log_q)[index], index


def test_log_beta_by_hand():
    ratios = torch.tensor([1.0, 2.0, 4.0, 0.0]).log()
    # the mean of min(1, w / beta): (1 + 2 + 4) / 8 / 4 at beta = 8, (1 + 2 + 4) / 4 / 4 at 4, (1 + 2 + 2) / 2 / 4 at 2
    assert find_log_beta(ratios, 7 / 32) == pytest.approx(math.log(8))
    assert find_log_beta(ratios, 7 / 16) == pytest.approx(math.log(4))
    assert find_log_beta(ratios, 5 / 8) == pytest.approx(math.log(2))
    assert find_log_beta(ratios, 3 / 4) == pytest.approx(0)  # all that can stay does


@pytest.mark.parametrize(
    ("acceptance", "message"),
    [(0.8, "out of reach: P > 0 for 3 of 4"), (0, "above 0 and at most 1"), (1.5, "at most 1")],
)
def test_rates_out_of_reach(acceptance, message):
    with pytest.raises(ValueError, match=message):
        find_log_beta(torch.tensor([1.0, 2.0, 4.0, 0.0]).log(), acceptance)


def test_a_target_that_no_sample_meets():
    nowhere = torch.full((5,), -math.inf)
    with pytest.raises(ValueError, match="P is 0 for all 5 samples"):
        measure(nowhere, 0.0)
    with pytest.raises(ValueError, match="P > 0 for 0 of 5"):
        find_log_beta(nowhere, 0.1)


def test_a_policy_that_is_the_target():
    ratios = torch.full((6,), -2.0)  # P = Z q with Z = exp(-2)
    found = measure(ratios, find_log_beta(ratios, 0.25))
    assert found.rate.value == pytest.approx(0.25)
    for number in (*found.before.values(), *found.after.values()):
        assert number.value == pytest.approx(0, abs=1e-12) and number.standard_error < 1e-9


@pytest.mark.parametrize("filtered", [False, True])
def test_distances_over_all_outcomes_are_exact(filtered):
    log_p, log_q = enumerated(filtered)
    log_p_beta, _ = exact_p_beta(log_p, log_q, 0.7)
    for log_pi in (log_q, log_p_beta):
        found, wanted = distances(log_p - log_q, log_pi - log_q, log_q.exp()), exact(log_p, log_pi)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert float(found[name]) == pytest.approx(float(value), abs=1e-12), name


@pytest.mark.parametrize("filtered", [False, True])
def test_a_quarter_accepted_at_least_halves_the_exact_total_variation(filtered):
    log_p, log_q = enumerated(filtered)
    log_beta = find_log_beta(draw(log_p, log_q, 100_000)[0], 0.25)
    log_p_beta, rate = exact_p_beta(log_p, log_q, log_beta)
    assert rate == pytest.approx(0.25, abs=5 * 0.5 / math.sqrt(100_000))  # an indicator's deviation is at most 1/2
    before, after = exact(log_p, log_q), exact(log_p, log_p_beta)
    assert before["tv"] > 0.1 and after["tv"] < before["tv"] / 2
    assert after["kl_p_pi"] < before["kl_p_pi"] / 2 and after["kl_pi_p"] < before["kl_pi_p"] / 2


@pytest.mark.parametrize("filtered", [False, True])
def test_what_is_accepted_follows_p_beta(filtered):
    log_p, log_q = enumerated(filtered)
    ratios, index = draw(log_p, log_q, 200_000)
    chance = log_acceptance(ratios, 0.7).exp()
    stay = torch.rand(len(chance), generator=torch.Generator().manual_seed(1), dtype=torch.float64) < chance
    log_p_beta, rate = exact_p_beta(log_p, log_q, 0.7)
    assert stay.double().mean().item() == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / len(stay)))
    counts, p = torch.bincount(index[stay], minlength=len(log_p)).double(), log_p_beta.exp()
    n = counts.sum()
    assert counts[p == 0].sum() == 0
    common = n * p > 10  # where a count is nearly normal
    assert common.sum() > 50
    assert (((counts - n * p) / (n * p * (1 - p)).sqrt())[common].abs() < 5).all()


@pytest.mark.parametrize("filtered", [False, True])
def test_standard_errors_are_the_spread_of_the_estimates(filtered):
    log_p, log_q = enumerated(filtered)
    log_p_beta, rate = exact_p_beta(log_p, log_q, 0.7)
    runs = [measure(3.0 + draw(log_p, log_q, 4000, seed)[0], 3.7) for seed in range(200)]  # P = e^3 p
    wanted = {("rate",): rate}
    wanted |= {("before", name): float(value) for name, value in exact(log_p, log_q).items()}
    wanted |= {("after", name): float(value) for name, value in exact(log_p, log_p_beta).items()}
    for path, value in wanted.items():
        found = [run.rate if path == ("rate",) else getattr(run, path[0])[path[1]] for run in runs]
        if math.isinf(value):
            assert all(one.value == math.inf and math.isnan(one.standard_error) for one in found)
            continue
        values, errors, *_ = torch.tensor(found, dtype=torch.float64).T
        spread = values.std().item()
        assert errors.mean().item() == pytest.approx(spread, rel=0.2), path  # of 200, known to 5% (one deviation)
        assert values.mean().item() == pytest.approx(value, abs=5 * spread / math.sqrt(200) + 0.1 * spread), (
            path
        )  # bias

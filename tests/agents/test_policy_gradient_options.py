"""Each option of the family: the mean of 200 stochastic gradients against the enumerated one, biased or not."""

from math import comb

import pytest
import torch

from agents import GRPO, REINFORCE, RLOO
from tests.helpers.enumerated import Enumerated, check_mean, cosine
from textgym.exact import best_of_log_probs, soft_optimal
from textgym.training import Episodes
from textgym.training.losses import kl_estimate, kl_loss, policy_gradient_loss

BETA = 2.0


def exact(toy, kl_coef=0.0):
    """The gradient of E[r] - kl_coef KL(pi || a)."""
    log_pi = toy.text_log_probs()
    penalty = toy.tree.kl(toy.logits, toy.reference_logits)
    return toy.gradient(log_pi.exp() @ toy.rewards - kl_coef * penalty)


@pytest.mark.parametrize(
    ("cls", "kwargs", "factor"),
    [
        (RLOO, {"kl_coef": BETA}, 1),
        (RLOO, {"loss_normalization": "constant"}, 1 / 3),  # three tokens at most
        (REINFORCE, {"baseline": "mean"}, 1 - 1 / 64),
        (REINFORCE, {"reward_to_go": True}, 1),
        (GRPO, {"scale_rewards": "none"}, 1 - 1 / 64),
        (GRPO, {"scale_rewards": "none", "importance_sampling_level": "sequence"}, 1 - 1 / 64),
        (GRPO, {"scale_rewards": "none", "importance_sampling_level": "product", "delta": 3.0}, 1 - 1 / 64),
        (RLOO, {"importance_sampling_clip_max": 2.0}, 1),
    ],
    ids=str,
)
def test_on_policy_these_ascend_the_objective(cls, kwargs, factor):
    toy = Enumerated(cls, **{"kl_coef": 0.0, **kwargs})
    check_mean(toy.samples(), factor * exact(toy, toy.agent.kl_coef))


def test_whole_episode_ratios_correct_for_another_policy_exactly_and_truncated_ones_do_not():
    """Every text's ratio is below 1000, so that nothing is truncated there; at 1.2 the bias is the stated one."""
    for clip_max in (1e3, 1.2):
        toy = Enumerated(
            RLOO,
            on_policy=False,
            kl_coef=0.0,
            importance_sampling_clip_max=clip_max,
            importance_sampling_level="product",
        )
        ratios = (toy.pi - toy.q).detach().sum(-1).exp()  # (X,)
        assert ratios.max() < 1e3 and (ratios > 1.2).any()
        expected = toy.expected(ratios.clamp(max=clip_max) * (toy.rewards - toy.probs @ toy.rewards))
        check_mean(toy.samples(), expected)
        assert torch.allclose(expected, exact(toy)) == (clip_max == 1e3)


def by_hand(toy, level, bounds):
    """The weights of grad log pi(x_t | s_t) in minus the expected loss, whose centred reward is independent of pi."""
    log_ratios, mask = (toy.pi - toy.q).detach(), toy.mask
    lengths = mask.sum(-1, keepdim=True)
    ratios = {
        "token": log_ratios.exp(),
        "sequence": (log_ratios.sum(-1, keepdim=True) / lengths).exp().expand_as(log_ratios),
        "product": log_ratios.sum(-1, keepdim=True).exp().expand_as(log_ratios),
    }[level]
    advantages = (toy.rewards - toy.probs @ toy.rewards)[:, None]
    if "importance_sampling_clip_max" in bounds:
        return advantages * ratios.clamp(max=bounds["importance_sampling_clip_max"]) * mask
    low, high = 1 - bounds["clip_range"], 1 + bounds.get("clip_range_high", bounds["clip_range"])
    open_above, open_below = ratios < high, (ratios > low) & (ratios < bounds.get("delta", torch.inf))
    return advantages * ratios * torch.where(advantages > 0, open_above, open_below) * mask


@pytest.mark.parametrize("level", ["token", "sequence", "product"])
@pytest.mark.parametrize(
    "bounds",
    [
        {"clip_range": 0.2},
        {"clip_range": 0.2, "clip_range_high": 0.5},
        {"clip_range": 0.2, "delta": 1.6},
        {"clip_range": None, "importance_sampling_clip_max": 1.5},
    ],
    ids=["clip", "clip-higher", "two-sided", "cispo"],
)
def test_off_policy_each_bound_has_the_bias_that_its_equation_says(level, bounds):
    toy = Enumerated(RLOO, on_policy=False, kl_coef=0.0, importance_sampling_level=level, **bounds)
    expected = toy.expected(by_hand(toy, level, bounds))
    check_mean(toy.samples(), expected)
    assert cosine(expected, exact(toy)) < 0.999


@pytest.mark.parametrize("kl_penalty", ["k2", "k3"])
def test_the_kl_in_the_loss_is_that_of_the_states_met(kl_penalty):
    """Its gradient leaves out that a token leads to other states, which k1 in the reward does not."""
    toy = Enumerated(RLOO, kl_coef=BETA, kl_penalty=kl_penalty)
    log_pi, log_a = toy.tree.log_policy(toy.logits), toy.tree.log_policy(toy.reference_logits)
    per_state = (log_pi.exp() * (log_pi - log_a)).sum(-1)  # (S,)
    met = toy.tree.along(per_state, toy.tree.outcomes).sum(-1)  # (X,): a text's states
    per_state_gradient = toy.gradient(toy.probs.detach() @ met)
    expected = exact(toy) - BETA * per_state_gradient
    check_mean(toy.samples(), expected)
    assert cosine(expected, exact(toy, BETA)) < 0.999


def test_the_kl_as_k3_times_the_ratio_is_so_off_policy_too():
    toy = Enumerated(
        RLOO,
        False,
        kl_coef=BETA,
        kl_penalty="k3",
        importance_sampling_level="product",
        importance_sampling_clip_max=1e3,
    )
    log_pi, log_a = toy.tree.log_policy(toy.logits), toy.tree.log_policy(toy.reference_logits)
    met = toy.tree.along((log_pi.exp() * (log_pi - log_a)).sum(-1), toy.tree.outcomes).sum(-1)
    check_mean(toy.samples(), exact(toy) - BETA * toy.gradient(toy.probs @ met))  # states as q meets them


@pytest.mark.parametrize("keep_best", [1, 3])
def test_raft_ascends_the_likelihood_of_the_best_of_n(keep_best):
    """Of 8: one is distributed as the enumerated best-of-n, and the i-th best by the chance that i - 1 are better."""
    toy = Enumerated(REINFORCE, kl_coef=0.0, keep_best=keep_best)
    order = toy.rewards.argsort()
    at_most = toy.probs[order].cumsum(0)  # P(reward <= that of each text)
    below = at_most - toy.probs[order]
    chances = sum(binomial_at_most(at_most, 8, i) - binomial_at_most(below, 8, i) for i in range(keep_best))
    expected = toy.expected(torch.empty_like(chances).scatter(0, order, chances) / toy.probs / keep_best)
    if keep_best == 1:
        best = best_of_log_probs(8, toy.probs.log()[None], toy.rewards[None])[0].exp()
        torch.testing.assert_close(expected, toy.expected(best / toy.probs))
    check_mean(toy.samples(1600, 8), expected)


def binomial_at_most(share, n, i):
    """The chance that the (i + 1)-th best of n is among the texts of this share: at most i of n are better."""
    return sum(comb(n, j) * (1 - share).clamp(min=0) ** j * share.clamp(max=1) ** (n - j) for j in range(i + 1))


def test_the_unlikeliness_reward_weighs_by_how_many_are_less_likely():
    """In expectation over the 7 others of a group of 8: r(x) (1 - coef * 7/8 P(less likely)), equals counted half."""
    toy = Enumerated(REINFORCE, kl_coef=0.0, baseline="none", unlikeliness_coef=0.8)
    toy.episodes = toy.episodes.replace(rewards=toy.episodes.rewards.abs())
    less = (toy.probs < toy.probs[:, None]).double() @ toy.probs + toy.probs / 2
    expected = toy.expected(toy.rewards * (1 - 0.8 * 7 / 8 * less))
    check_mean(toy.samples(1600, 8), expected)
    assert cosine(expected, exact(toy)) < 0.999


def test_masked_texts_leave_the_gradient_of_those_that_end():
    """The mean over texts with an EOS, whose baseline counts all; rollouts of 2048, most of which end."""
    toy = Enumerated(RLOO, kl_coef=0.0, mask_truncated_completions=True)
    ended = (toy.tree.outcomes == toy.tree.num_tokens).any(-1)
    centred = (toy.rewards - toy.probs @ toy.rewards) * ended
    draws = torch.multinomial(toy.probs, 50 * 2048, True, generator=torch.Generator().manual_seed(7)).view(50, -1)
    samples = torch.cat([toy.ascent(toy.episodes.select(index)) for index in draws])
    expected = toy.expected(centred) / (toy.probs @ ended.double())
    check_mean(samples, expected)
    assert cosine(expected, exact(toy)) < 0.99


def test_groups_without_deviation_add_nothing_so_that_leaving_them_out_keeps_the_direction():
    """Rewards of 0 and 1: the mean over groups that differ, times their share, is the objective's gradient."""
    toy = Enumerated(RLOO, kl_coef=0.0)
    right = (toy.rewards > toy.rewards.median()).double()  # (X,), paid with the first token
    toy.episodes = toy.episodes.replace(rewards=torch.nn.functional.pad(right[:, None], (0, 2)))
    samples = toy.samples(1600, 4)
    differ = (samples != 0).any(-1)
    rate = toy.probs @ right
    share = 1 - rate**4 - (1 - rate) ** 4
    assert abs(differ.float().mean() - share) < 5 * (share * (1 - share) / 1600) ** 0.5
    check_mean(samples[differ] * share, exact(toy))


def of_two_prompts(toy):
    """Episodes of two prompts, and the rewards of their texts, (X,) each: the second's are ten times as far apart."""
    noise = torch.randn(toy.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rewards = (10 * noise * toy.mask).to(toy.episodes.rewards)
    other = toy.episodes.replace(prompt_ids=torch.ones(len(rewards), dtype=torch.int64), rewards=rewards)
    return Episodes.concatenate([toy.episodes, other]), toy.rewards, rewards.sum(-1)


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (GRPO, {"scale_rewards": "group"}),
        (GRPO, {"scale_rewards": "batch"}),
        (REINFORCE, {"baseline": "batch"}),
        (REINFORCE, {"baseline": "batch", "scale_rewards": "batch"}),
    ],
    ids=["GRPO", "batch", "batch-mean", "REINFORCE++"],
)
def test_statistics_of_groups_and_of_the_rollout(cls, kwargs):
    """The group's deviation weighs two prompts alike whose rewards differ in scale; the rollout's keeps the direction.

    Of 2048 episodes, whose own share in the statistics is 1 / 2048.
    """
    toy = Enumerated(cls, kl_coef=0.0, **kwargs)
    episodes, *rewards = of_two_prompts(toy)
    scale, mean = kwargs.get("scale_rewards"), sum(toy.probs @ r for r in rewards) / 2
    exactly = [toy.gradient(toy.text_log_probs().exp() @ r) / 2 for r in rewards]
    deviations = [(toy.probs @ (r - toy.probs @ r) ** 2).sqrt() for r in rewards]
    if scale != "group":
        deviations = [sum(toy.probs @ (r - mean) ** 2 / 2 for r in rewards).sqrt() if scale else torch.tensor(1.0)] * 2
    generator = torch.Generator().manual_seed(7)
    draws = torch.multinomial(toy.probs.repeat(2), 50 * 2048, replacement=True, generator=generator).view(50, -1)
    samples = torch.cat([toy.ascent(episodes.select(index)) for index in draws])
    expected = sum(g / d for g, d in zip(exactly, deviations, strict=True))
    check_mean(samples, expected)
    assert (cosine(expected, sum(exactly)) < 0.95) == (scale == "group")


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_where_each_place_of_the_kl_ends(scaled):
    """The fixed points of the expected gradients, found by ascending them, beside p = a exp(r / beta) / Z.

    k1 in the reward ends there, also where returns are divided by their deviation: at p all penalised returns are
    equal. k2 and k3 times the ratio have one fixed point, and k3 alone, which is the KL of the other direction,
    another one.
    """
    toy, beta, ends = Enumerated(GRPO), 1.0, {}
    log_p = toy.tree.log_probs(soft_optimal(toy.tree, toy.reference_logits, toy.rewards, beta).policy)
    a, mask = toy.a, toy.mask
    for place in ("reward", "k2", "k3", "plain k3"):
        logits = toy.reference_logits.clone().requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=0.1)
        for step in range(150):
            optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 150)
            log_probs = toy.along(logits)
            old = log_probs.detach()
            returns = toy.rewards - beta * (old - a).sum(-1) * (place == "reward")
            advantages = returns - old.sum(-1).exp() @ returns
            if scaled:
                advantages = advantages / ((old.sum(-1).exp() @ advantages**2).sqrt() + 1e-4)
            losses = policy_gradient_loss(log_probs, advantages[:, None].expand_as(mask))
            if place == "plain k3":
                losses = losses + beta * kl_estimate(log_probs - a, "k3")
            elif place != "reward":
                losses = losses + beta * kl_loss(log_probs, old, a, place)
            optimizer.zero_grad()
            (old.sum(-1).exp()[:, None] * losses * mask).sum().backward()
            optimizer.step()
        ends[place] = toy.tree.log_probs(logits.detach()).exp()
    distances = {place: (end - log_p.exp()).abs().sum().item() / 2 for place, end in ends.items()}
    assert distances["reward"] < 0.005, distances
    assert min(distances["k2"], distances["plain k3"]) > 0.02, distances
    torch.testing.assert_close(ends["k2"], ends["k3"], atol=1e-3, rtol=0)

"""The reward-KL frontier: against hand values and enumeration, and its intervals against many samples."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym  # noqa: F401 (registers the ids)
from tests.conftest import CHARACTERS, checksum, small_llama
from textgym.evaluation import (
    Frontier,
    ModelPolicy,
    OutOfRangeError,
    best_of_n_reward,
    evaluate,
    sample_frontier,
)
from textgym.exact import AnswerTree, TokenTree, best_of_log_probs, expectation, kl, optimum_within
from textgym.language_models.tabular import TabularLM
from textgym.tokenizers import make_tokenizer
from textgym.training import TokenModel
from textgym.training.rollouts import collect_episodes

WORDS = " a", " very", " not", " good", " bad", " movie"


def table(prompts, outcomes, seed=0):
    """A reference and rewards: (C, X) log a and r."""
    random = torch.Generator().manual_seed(seed)
    log_a = torch.randn(prompts, outcomes, generator=random, dtype=torch.float64).log_softmax(-1)
    return log_a, torch.randn(prompts, outcomes, generator=random, dtype=torch.float64)


def draw(log_p, n, random):
    """Indices of n outcomes for each prompt, (C, n)."""
    return torch.multinomial(log_p.exp(), n, replacement=True, generator=random)


@pytest.fixture(scope="module")
def words():
    """All texts of up to three of six words that `tiny` writes behind 24 openings of reviews: log a and the reward."""
    tokenizer = make_tokenizer("tiny")
    allowed = [*(tokenizer.encode(word)[0] for word in WORDS), *tokenizer.eos_token_ids]
    answers = AnswerTree(gym.make("TextGen-v0", allowed_tokens=allowed, max_new_tokens=3), range(24))
    return answers.log_probs("tiny"), answers.scores()["reward"]


def test_a_reward_of_0_or_1_by_hand():
    """With base rate p the best policy of mean q has the KL q log(q / p) + (1 - q) log((1 - q) / (1 - p))."""
    p, q = 0.2, 0.7
    divergence = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    frontier = Frontier(torch.tensor([[0.0, 1.0]]), torch.tensor([[1 - p, p]]).double().log())
    assert frontier.start == pytest.approx(p)
    assert frontier.reward_within(divergence)[:2] == pytest.approx((q, 0.0))
    assert frontier.least_kl(q)[:2] == pytest.approx((divergence, 0.0))
    beta = 1 / math.log(q / (1 - q) * (1 - p) / p)  # a exp(r / beta) has the odds p exp(1 / beta) / (1 - p)
    assert frontier.at(beta) == pytest.approx((beta, divergence, q, 0.0))
    assert frontier.is_whole and frontier.reward_within(99.0).value == pytest.approx(1)
    assert frontier.least_kl(1 - 1e-9).value == pytest.approx(-math.log(p), abs=1e-6)
    assert frontier.reward_within(0.0).value == pytest.approx(p, abs=1e-3)


def test_all_outcomes_give_the_exact_frontier():
    log_a, rewards = table(5, 40)
    frontier = Frontier(rewards, log_a)
    for budget in (0.01, 0.3, 1.0, 2.5):
        best = optimum_within(budget, log_a, rewards)
        assert frontier.reward_within(budget)[:2] == pytest.approx((best.reward, 0.0), abs=1e-7)
        assert frontier.least_kl(best.reward)[:2] == pytest.approx((budget, 0.0), abs=1e-6)
        assert frontier.at(best.beta)[1:3] == pytest.approx((budget, best.reward), abs=1e-6)
    points = frontier.curve(7)
    assert [point.kl for point in points] == pytest.approx([frontier.limit.kl * i / 7 for i in range(1, 8)], rel=1e-3)


def test_no_policy_is_above_it_and_its_own_are_on_it():
    log_a, rewards = table(4, 30)
    frontier = Frontier(rewards, log_a)
    others = [table(4, 30, seed)[0] for seed in range(1, 20)]
    for log_pi in [*others, best_of_log_probs(4, log_a, rewards)]:
        assert expectation(log_pi, rewards).mean() <= frontier.reward_within(kl(log_pi, log_a).mean().item()).value
    log_p = (log_a + rewards / 0.7).log_softmax(-1)
    x = draw(log_p, 40_000, torch.Generator().manual_seed(0))
    of_p = rewards.gather(1, x).flatten(), (log_p - log_a).gather(1, x).flatten()
    for number in (frontier.share(*of_p), frontier.times_least(*of_p)):
        assert number.standard_error < 0.02 and abs(number.value - 1) < 4 * number.standard_error


def covered(log_a, rewards, prompts, n, finite, repetitions=100):
    """How often the intervals of estimated frontiers hold the exact one: (hits of R(k), hits of K(r)) at 2 places."""
    exact, random = Frontier(rewards, log_a), torch.Generator().manual_seed(1)
    inside = torch.zeros(2, 2, dtype=torch.int)
    for _ in range(repetitions):
        chosen = torch.randperm(len(rewards), generator=random)[:prompts]
        if not finite:
            chosen = torch.randint(len(rewards), (prompts,), generator=random)
        sample = rewards[chosen].gather(1, draw(log_a[chosen], n, random))
        frontier = Frontier(sample, num_prompts=len(rewards) if finite else None)
        for place, share in enumerate((0.3, 0.99)):
            at = share * frontier.limit.kl, frontier.start + share * (frontier.limit.reward - frontier.start)
            estimates = frontier.reward_within(at[0]), frontier.least_kl(at[1])
            truth = exact.reward_within(at[0]), exact.least_kl(at[1])
            for row, (estimate, (true, *_)) in enumerate(zip(estimates, truth, strict=True)):
                low, high = estimate.interval()
                inside[row, place] += low <= true <= high
    return inside


def test_intervals_cover_the_exact_frontier(words):
    inside = covered(*words, prompts=24, n=48, finite=True)
    assert inside.min() >= 90 and inside.max() <= 99


@pytest.mark.slow  # three minutes
@pytest.mark.parametrize(
    ("prompts", "n", "finite"), [(24, 16, True), (24, 128, True), (24, 256, True), (12, 64, True), (40, 64, False)]
)
def test_intervals_cover_for_more_designs(words, prompts, n, finite):
    inside = covered(*words, prompts, n, finite, repetitions=200)
    assert inside.min() >= 176 and inside.max() <= 199  # 95% less 4 standard deviations: 190 - 4 * 3.1 = 177


def test_a_few_prompts_have_the_interval_of_student():
    """t(0.975) is 2.201 with 11 degrees of freedom, and 1.960 with all prompts there."""
    rewards = torch.rand(12, 40, generator=torch.Generator().manual_seed(0))
    for number, width in ((None, 2.201), (24, 2.201), (12, 1.960)):
        estimate = Frontier(rewards, num_prompts=number).reward_within(0.1)
        low, high = ((bound - estimate.value) / estimate.standard_error for bound in estimate.interval())
        assert (low, high) == pytest.approx((-width, width), abs=1e-3)


def test_few_samples_do_not_err_low():
    """The plain mean of log mean exp errs low by about 1 / (2 n_eff); what is added takes it off."""
    log_a, rewards = table(1, 2000)
    exact, random = Frontier(rewards, log_a), torch.Generator().manual_seed(0)
    x = draw(log_a.expand(4_000, -1), 24, random)
    frontier = Frontier(rewards.expand(4_000, -1).gather(1, x))
    t = 1 / frontier.limit.beta
    log_z = (log_a + t * rewards).logsumexp(-1).item()
    plain = (t * frontier.rewards).logsumexp(-1) - math.log(24)
    found = frontier.limit.reward * t - frontier.limit.kl  # L(t)
    error = frontier.limit.standard_error
    assert plain.mean() - log_z < -4 * error
    assert abs(found - log_z) < 0.25 * abs(plain.mean().item() - log_z) + 4 * error
    assert exact.reward_within(frontier.limit.kl).value == pytest.approx(frontier.limit.reward, abs=0.03)


def test_reward_and_kl_are_derivatives_of_log_z():
    """K = t L' - L, L' from finite differences of L = t reward - kl."""
    log_a, rewards = table(3, 50)
    frontier = Frontier(rewards.gather(1, draw(log_a, 200, torch.Generator().manual_seed(0))))
    t, step = 0.6, 1e-4
    values = [point.reward / point.beta - point.kl for point in map(frontier.at, (1 / (t - step), 1 / (t + step)))]
    assert frontier.at(1 / t).reward == pytest.approx((values[1] - values[0]) / (2 * step), rel=1e-5)


def test_the_share_of_a_policy_has_an_interval_that_covers():
    """Of a policy that is half reference and half p_beta: exact share and ratio, and 100 estimates of both."""
    log_a, rewards = table(30, 60)
    log_pi = torch.logaddexp(log_a, (log_a + rewards / 0.8).log_softmax(-1)) - math.log(2)
    exact, random = Frontier(rewards, log_a), torch.Generator().manual_seed(0)
    reward, divergence = expectation(log_pi, rewards).mean().item(), kl(log_pi, log_a).mean().item()
    gain = (reward - exact.start) / (exact.reward_within(divergence).value - exact.start)
    ratio = divergence / exact.least_kl(reward).value
    hits = np.zeros(2, int)
    for _ in range(100):
        frontier = Frontier(rewards.gather(1, draw(log_a, 64, random)), num_prompts=30)
        prompts = torch.randint(30, (400,), generator=random)
        x = draw(log_pi[prompts], 1, random)
        sample = [values[prompts].gather(1, x)[:, 0] for values in (rewards, log_pi - log_a)]
        for i, (estimate, true) in enumerate(((frontier.share(*sample), gain), (frontier.times_least(*sample), ratio))):
            low, high = estimate.interval()
            hits[i] += low <= true <= high
    assert (90 <= hits).all() and (hits <= 99).all()


def test_best_of_n_by_hand_and_without_bias():
    bound, reward = best_of_n_reward(torch.tensor([[1.0, 4.0, 2.0]]), 2)
    assert bound == pytest.approx(math.log(2) - 0.5) and reward.value == pytest.approx((4 + 4 + 2) / 3)
    log_a, rewards = table(200, 30)
    log_best = best_of_log_probs(6, log_a, rewards)
    bound, reward = best_of_n_reward(rewards.gather(1, draw(log_a, 12, torch.Generator().manual_seed(0))), 6)
    difference = reward.value - expectation(log_best, rewards).mean().item()
    assert abs(difference) < 4 * 0.5 / math.sqrt(200)  # the best of six has a standard deviation of about 1/2
    assert kl(log_best, log_a).mean() <= bound


def test_what_is_beyond_the_samples_is_refused():
    log_a, rewards = table(4, 500)
    frontier = Frontier(rewards.gather(1, draw(log_a, 32, torch.Generator().manual_seed(0))), num_prompts=9)
    kl_, reward = frontier.limit.kl, frontier.limit.reward
    assert not frontier.is_whole and 0.1 < kl_ < 2
    frontier.reward_within(kl_), frontier.least_kl(reward), frontier.at(frontier.limit.beta)
    message = f"32 samples of each of 4 prompts support the frontier up to KL {kl_:.2f} nats and reward {reward:.3f}"
    one = torch.ones(3)
    for ask in (
        lambda: frontier.reward_within(kl_ + 0.01),
        lambda: frontier.least_kl(reward + 0.01),
        lambda: frontier.at(frontier.limit.beta * 0.99),
        lambda: frontier.share(one, one * 9),
        lambda: frontier.times_least(one * 9, one),
    ):
        with pytest.raises(OutOfRangeError, match=message):
            ask()
    with pytest.raises(OutOfRangeError, match="did not move"):
        frontier.share(one, one * 0)
    with pytest.raises(OutOfRangeError, match="the reference itself earns"):
        frontier.times_least(one * -9, one)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Frontier(torch.ones(3)), r"a finite table \(prompts, texts\), not of shape \(3,\)"),
        (lambda: Frontier(torch.tensor([[1.0, math.nan]])), "finite"),
        (lambda: Frontier(torch.ones(3, 1)), "1 sample of a prompt shows no spread"),
        (lambda: Frontier(torch.ones(3, 4)), "the same reward; there is nothing to gain"),
        (lambda: Frontier(torch.rand(3, 4), num_prompts=2), "of 3 prompts, and there are only 2"),
        (lambda: Frontier(torch.rand(3, 4)).reward_within(-1.0), "kl is -1.0; it must be at least 0"),
        (
            lambda: best_of_n_reward(torch.rand(3, 4), 5),
            "as many samples of each prompt; there are 4",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def policy_of(env, seed=0):
    return ModelPolicy(env, TokenModel(env.unwrapped.mdp, small_llama()), seed=seed)


def test_samples_of_the_reference_are_as_many_of_every_prompt():
    arguments = {**CHARACTERS, "prompts": ["a", "bb", "ab", "ba", "c"], "max_new_tokens": 3, "scorer": checksum}
    env = gym.make_vec("TextGen-v0", num_envs=16, autoreset_mode="Disabled", **arguments)
    policy = policy_of(env)
    answers = AnswerTree(env)
    log_a, rewards = answers.log_probs(policy), answers.scores()["reward"]
    frontier = sample_frontier(policy, prompts=9, samples=100, seed=3)
    assert frontier.rewards.shape == (5, 100) and frontier.num_prompts == 5
    exact = Frontier(rewards, log_a)
    for share in (0.3, 0.9):
        value, error, *_ = frontier.reward_within(share * frontier.limit.kl)
        assert abs(value - exact.reward_within(share * frontier.limit.kl).value) < 4 * error
    # each row is of one prompt: its mean is that prompt's, within four standard errors
    of_prompts = expectation(log_a, rewards)
    order = np.random.default_rng(3).permutation(5)
    errors = frontier.rewards.std(-1) / 10
    assert ((frontier.rewards.mean(-1) - of_prompts[order]).abs() < 4 * errors).all()
    assert sample_frontier(policy, prompts=2, samples=3, seed=3).rewards.shape == (2, 3)


def test_prompts_can_be_chosen_for_episodes():
    env = gym.make_vec("TextGen-v0", num_envs=3, autoreset_mode="Disabled", **CHARACTERS)
    policy = policy_of(env)
    wanted = np.array([[0, 1, 0], [1, 1, 0]])
    episodes = collect_episodes(env, policy.reference.actor(), 2, prompt_ids=wanted)
    assert episodes.prompt_ids.tolist() == wanted.flatten().tolist()


def test_an_evaluation_tells_the_distance():
    env = gym.make_vec("TextGenToy-v0", num_envs=64, autoreset_mode="Disabled")
    tree = TokenTree.of(env)
    rewards, log_a = tree.scores(env)["reward"], tree.log_probs(env.unwrapped.reference_logits)
    model = TabularLM.from_logits(tree.policy_of(log_a + rewards / 0.5)[0].numpy(), 4)
    policy = ModelPolicy(env, TokenModel(env.unwrapped.mdp, model), env.unwrapped.reference_model(), seed=0)
    measured = evaluate(policy, 1024, frontier=Frontier(rewards[None], log_a[None]))
    for number in (measured.share_of_attainable, measured.times_least_kl):
        assert number.standard_error < 0.1 and abs(number.value - 1) < 4 * number.standard_error
    assert measured.to_json()["times_least_kl"]["value"] == measured.times_least_kl.value
    far = evaluate(policy, 64, frontier=Frontier(rewards[None] * torch.tensor([[1.0]]) - 5, log_a[None]))
    assert far.times_least_kl is None
    assert evaluate(policy, 64).share_of_attainable is None

"""Masks, temperature and truncation against transformers' own generation and hand values; sampling against its odds."""

import math

import gymnasium as gym
import pytest
import torch

from agents import REINFORCE
from tests.conftest import CHARACTERS, count_tokens, small_llama
from textgym.language_models.distribution import TokenDistribution, sample
from textgym.mdp import TextMDP


def mdp(vocab_size=4, **kwargs):
    return TextMDP(
        **{"vocab_size": vocab_size, "max_prompt_tokens": 3, "max_new_tokens": 6, "eos_token_ids": (3,)} | kwargs
    )


def probabilities(distribution, weights, length=0, **kwargs):
    """Of tokens whose unprocessed odds are as `weights`."""
    logits = torch.tensor([weights]).log()
    return distribution.log_probs(logits, torch.tensor([length]), **kwargs).exp()[0]


def near(*expected):
    return pytest.approx(expected, abs=1e-6)


def test_hand_values():
    weights = [4.0, 3.0, 2.0, 1.0]
    assert probabilities(TokenDistribution(mdp()), weights) == near(0.4, 0.3, 0.2, 0.1)
    assert probabilities(TokenDistribution(mdp(), 0.5), weights) == near(16 / 30, 9 / 30, 4 / 30, 1 / 30)
    assert probabilities(TokenDistribution(mdp(), 2.0), [16.0, 9.0, 4.0, 1.0]) == near(0.4, 0.3, 0.2, 0.1)
    assert probabilities(TokenDistribution(mdp(), top_k=2), weights) == near(4 / 7, 3 / 7, 0, 0)
    assert probabilities(TokenDistribution(mdp(), top_k=9), weights) == near(0.4, 0.3, 0.2, 0.1)
    assert probabilities(TokenDistribution(mdp(), top_p=0.65), weights) == near(4 / 7, 3 / 7, 0, 0)
    assert probabilities(TokenDistribution(mdp(), top_p=0.75), weights) == near(4 / 9, 3 / 9, 2 / 9, 0)
    assert probabilities(TokenDistribution(mdp(), top_p=1e-6), weights) == near(1, 0, 0, 0)  # the best one always stays
    # Temperature first: 16/30 + 9/30 = 0.83. Top-k next, top-p last: 16/29 + 9/29 = 0.86 of what top-k leaves.
    assert probabilities(TokenDistribution(mdp(), 0.5, top_p=0.82), weights) == near(16 / 25, 9 / 25, 0, 0)
    assert probabilities(TokenDistribution(mdp(), 0.5, 3, 0.85), weights) == near(16 / 25, 9 / 25, 0, 0)


def test_masks_of_the_env_come_first():
    masked = mdp(banned_tokens=(0,), min_new_tokens=2)
    assert probabilities(TokenDistribution(masked), [4.0, 3.0, 2.0, 1.0], length=1) == near(0, 3 / 5, 2 / 5, 0)
    assert probabilities(TokenDistribution(masked), [4.0, 3.0, 2.0, 1.0], length=2) == near(0, 3 / 6, 2 / 6, 1 / 6)
    assert probabilities(TokenDistribution(masked, top_k=1), [4.0, 3.0, 2.0, 1.0]) == near(0, 1, 0, 0)
    assert probabilities(TokenDistribution(mdp(allowed_tokens=(1, 3))), [4.0, 3.0, 2.0, 1.0]) == near(0, 0.75, 0, 0.25)
    lengths = torch.tensor([0, 1, 2])
    together = TokenDistribution(masked).log_probs(torch.zeros(3, 4), lengths).exp()
    assert together[:, 3].tolist() == near(0, 0, 1 / 3) and (together[:, 0] == 0).all()


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0])
def test_entropies_and_gradients_are_finite_whatever_is_impossible(temperature):
    logits = torch.tensor([[40.0, 3.0, -2.0, -100.0]], requires_grad=True)
    distribution = TokenDistribution(mdp(banned_tokens=(0,), min_new_tokens=1), temperature, top_k=2, top_p=0.9)
    for truncate in (True, False):
        log_probs = distribution.log_probs(logits, torch.tensor([0]), truncate=truncate)
        entropy = -(log_probs.exp() * log_probs).sum()
        odds = math.exp(-5 / temperature)  # of the token 2 against the token 1, where both are left
        p = odds / (1 + odds) if not truncate or temperature > 2.3 else 0.0  # exp(-5 / 2.3) / (1 + ...) = 0.1
        expected = -(p * math.log(p) + (1 - p) * math.log(1 - p)) if p else 0.0
        assert entropy.item() == pytest.approx(expected, abs=1e-5)
        assert torch.isfinite(torch.autograd.grad(entropy, logits)[0]).all()


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.6}, {"temperature": 1.7, "top_k": 20, "top_p": 0.5}],
    ids=str,
)
@pytest.mark.parametrize("masks", [{}, {"banned_tokens": (7, 9), "min_new_tokens": 1}], ids=["all", "masked"])
def test_it_is_the_distribution_that_transformers_generates_from(options, masks):
    model = small_llama(vocab_size=64)
    ids = torch.randint(0, 64, (16, 4), generator=torch.Generator().manual_seed(0))
    generated = model.generate(
        ids,
        do_sample=True,
        max_new_tokens=1,
        output_scores=True,
        return_dict_in_generate=True,
        attention_mask=torch.ones_like(ids),
        pad_token_id=63,
        eos_token_id=63,
        **{"top_k": 0, **options},
        **({"suppress_tokens": [7, 9], "min_new_tokens": 1} if masks else {}),
    )
    expected = generated.scores[0].softmax(-1)
    with torch.no_grad():
        logits = model(ids).logits[:, -1]
    made = TokenDistribution(mdp(64, eos_token_ids=(63,), **masks), **options)
    log_probs = made.log_probs(logits, torch.zeros(16, dtype=torch.int64))
    torch.testing.assert_close(log_probs.exp(), expected, atol=1e-6, rtol=0)
    assert torch.equal(log_probs.exp() == 0, expected == 0)


def test_a_chosen_token_stays_possible_where_the_policy_would_truncate_it_now():
    distribution, weights = TokenDistribution(mdp(), top_k=2), [4.0, 3.0, 2.0, 1.0]
    assert probabilities(distribution, weights, chosen=torch.tensor([3])) == near(4 / 8, 3 / 8, 0, 1 / 8)
    assert probabilities(distribution, weights, chosen=torch.tensor([1])) == near(4 / 7, 3 / 7, 0, 0)
    assert probabilities(distribution, weights, chosen=torch.tensor([3]), truncate=False) == near(0.4, 0.3, 0.2, 0.1)


def test_log_probs_of_sampled_tokens_are_those_of_the_truncated_distribution_in_training_too():
    options = {"temperature": 0.7, "top_k": 3, "top_p": 0.9}
    env = gym.make_vec(
        "TextGen-v0", num_envs=16, num_generations=4, autoreset_mode="Disabled", scorer=count_tokens, **CHARACTERS
    )
    agent = REINFORCE("TokenPolicy", env, small_llama(), kl_coef=0.1, seed=0, device="cpu", policy_kwargs=options)
    episodes = agent.sample_episodes(64)
    _, log_probs, entropies = agent.policy.evaluate_actions(episodes.rows, episodes.actions)
    real = episodes.mask
    torch.testing.assert_close(log_probs[real], episodes.log_probs[real], atol=1e-4, rtol=0)
    ranks = []
    for row in episodes.rows:
        ids = row[row != 5][None]
        prompt = int((row[:3] != 5).sum())
        with torch.no_grad():
            logits = agent.policy.model(input_ids=ids, use_cache=False).logits[0, prompt - 1 : -1]
            plain = logits.div(0.7).log_softmax(-1)
        ranks += (plain > plain.gather(-1, ids[0, prompt:, None])).sum(-1).tolist()
    assert max(ranks) == 2  # three tokens of five are drawn
    assert entropies[real].max() <= math.log(3) + 1e-6 and (log_probs[real] <= 0).all()
    # The reference is not truncated: the last row's log-probabilities under the untrained model at this temperature.
    reference = episodes.reference_log_probs[-1][episodes.mask[-1]]
    torch.testing.assert_close(reference, plain.gather(-1, ids[0, prompt:, None])[:, 0], atol=1e-4, rtol=0)


def test_draws_follow_the_probabilities_and_impossible_tokens_are_never_drawn():
    n, weights = 200_000, torch.tensor([0.0, 4.0, 0.0, 3.0, 2.5, 0.5, 0.0, 1e-30, 0.0])
    torch.manual_seed(0)
    p = weights.double() / weights.sum()
    counts = sample(p.float().log().clamp(min=-1e30).expand(n, -1)).bincount(minlength=9)
    assert (counts[p < 1e-20] == 0).all() and counts.sum() == n
    assert ((counts - n * p).abs() <= 5 * (n * p * (1 - p)).sqrt() + 1e-9).all()  # 5 standard deviations


@pytest.mark.parametrize(("number", "token"), [(0.0, 1), (1 - 2**-53, 4)])
def test_the_least_and_the_largest_random_number_draw_possible_tokens(number, token, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: torch.full(size, number, **kwargs))
    weights = torch.tensor([[0.0, 3.0, 0.0, 0.0, 4.0, 0.0]])
    assert sample((weights / 7).log().clamp(min=-1e30)).tolist() == [token]


def test_each_row_draws_by_its_own_distribution():
    torch.manual_seed(0)
    peaks = torch.arange(100) % 7
    log_probs = torch.full((100, 7), -1e30).scatter(1, peaks[:, None], 0.0)
    assert torch.equal(sample(log_probs), peaks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; it must be positive"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": -0.1}, "top_p"),
    ],
)
def test_senseless_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TokenDistribution(mdp(), **options)


def test_truncation_is_known_by_name_and_refused_with_a_reason():
    assert TokenDistribution(mdp(), 0.5).truncation == {}
    TokenDistribution(mdp(), 0.5).refuse_truncation("never raised")
    for options in ({"top_k": 2}, {"top_p": 0.9}):
        distribution, ((name, value),) = TokenDistribution(mdp(), **options), options.items()
        assert distribution.truncation == options
        with pytest.raises(ValueError, match=f"{name} is {value}; not here"):
            distribution.refuse_truncation("not here")
    assert TokenDistribution(mdp(), top_k=2, top_p=0.9).truncation == {"top_k": 2, "top_p": 0.9}

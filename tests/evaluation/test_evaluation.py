"""The evaluation, against hand computation from the episodes; the same for a plain model and for an agent."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from textgym.evaluation import ModelPolicy, describe, evaluate
from textgym.evaluation.tables import table
from textgym.language_models import load_model
from textgym.matching import Estimate
from textgym.metrics import self_bleu
from textgym.sb3 import EpisodicAlgorithm
from textgym.training import TokenModel


def log_probs_by_hand(path, episodes):
    """(E,) log-probability of each completion, and (E,) summed entropies, one token at a time."""
    network = load_model(path)
    totals, entropies = [], []
    for row in episodes.rows.tolist():
        prompt, completion = row[:1], [i for i in row[1:] if i != 5]
        with torch.no_grad():
            logits = network(torch.tensor([prompt + completion])).logits[0]
        distributions = logits[: len(completion)].double().log_softmax(-1)
        totals.append(sum(distributions[t, token].item() for t, token in enumerate(completion)))
        entropies.append(-(distributions.exp() * distributions).sum().item())
    return np.array(totals), np.array(entropies)


def test_numbers_against_the_episodes(model, other_model):
    env = gym.make_vec("TextGenChars-v0", num_envs=16, autoreset_mode="Disabled")
    policy = ModelPolicy(env, TokenModel(env.unwrapped.mdp, model), other_model, seed=0)
    episodes = policy.sample_episodes(32)
    result = describe(policy, episodes, samples=2)
    completions = [[i for i in row[1:] if i != 5] for row in episodes.rows.tolist()]
    texts = ["".join("abcd"[i] for i in ids if i < 4) for ids in completions]
    rewards = np.array([2 * text.count("ab") / max(len(text), 1) for text in texts])
    lengths = np.array([len(ids) for ids in completions])

    assert result.episodes == 32 == len(texts)
    assert 0 < rewards.mean() < 1  # otherwise the next lines show little
    assert result.reward.value == pytest.approx(rewards.mean())
    assert result.reward.standard_error == pytest.approx(rewards.std(ddof=1) / math.sqrt(32))
    assert result.components == {"regex": result.reward}
    assert result.length.value == pytest.approx(lengths.mean())
    assert result.eos_share.value == pytest.approx(np.mean([ids[-1] == 4 for ids in completions]))
    tokens = [i for ids in completions for i in ids]
    triples = [t for ids in completions for t in zip(ids, ids[1:], ids[2:], strict=False)]
    assert result.distinct_3 == pytest.approx(len(set(triples)) / len(triples))
    pairs = [pair for ids in completions for pair in zip(ids, ids[1:], strict=False)]
    assert result.distinct_1 == pytest.approx(len(set(tokens)) / len(tokens))
    assert result.distinct_2 == pytest.approx(len(set(pairs)) / len(pairs))
    assert result.self_bleu == pytest.approx(self_bleu(texts))

    ours, entropies = log_probs_by_hand(model, episodes)
    theirs, _ = log_probs_by_hand(other_model, episodes)
    k1 = ours - theirs
    assert result.kl_to_reference.value == pytest.approx(k1.mean(), abs=1e-4)
    assert result.kl_to_reference.standard_error == pytest.approx(k1.std(ddof=1) / math.sqrt(32), abs=1e-4)
    assert result.entropy.value == pytest.approx(entropies.sum() / lengths.sum(), abs=1e-4)
    # The standard error of a ratio of means, by the delta method: of (entropies - ratio lengths) / mean length.
    residuals = entropies - result.entropy.value * lengths
    error = residuals.std(ddof=1) / math.sqrt(32) / lengths.mean()
    assert result.entropy.standard_error == pytest.approx(error, rel=1e-3)
    assert [s.completion for s in result.samples] == [texts[0], texts[-1]]
    assert [s.reward for s in result.samples] == pytest.approx([rewards[0], rewards[-1]])
    assert [s.prompt for s in result.samples] == ["", ""]


def make(n=16, **kwargs):
    return gym.make_vec("TextGenChars-v0", num_envs=n, autoreset_mode="Disabled", **kwargs)


def test_an_agent_is_evaluated_as_its_model_is(model, other_model):
    env = make()
    agent = EpisodicAlgorithm("TokenPolicy", make(), model, reference=other_model, seed=3, device="cpu")
    policy = ModelPolicy(env, TokenModel(env.unwrapped.mdp, model), other_model)
    ours, theirs = evaluate(policy, 640), evaluate(agent, 640)
    for name in ("reward", "kl_to_reference", "entropy", "length", "eos_share"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.standard_error > 0
        assert abs(a.value - b.value) < 4 * math.hypot(a.standard_error, b.standard_error), name
    episodes = agent.sample_episodes(32)
    assert describe(agent, episodes) == describe(policy, episodes)  # the same numbers of the same episodes


def test_a_model_is_its_own_reference_and_the_seed_decides(model):
    def run(seed):
        env = make()
        return evaluate(ModelPolicy(env, TokenModel(env.unwrapped.mdp, model), seed=seed), 32)

    assert run(1) == run(1) != run(2)
    assert run(1).kl_to_reference.value == pytest.approx(0, abs=1e-5)


def test_rounds_go_on_with_the_random_numbers(model):
    env = make()
    policy = ModelPolicy(env, TokenModel(env.unwrapped.mdp, model), seed=1)
    first, second = policy.sample_episodes(16), policy.sample_episodes(16)
    assert not torch.equal(first.rows, second.rows)


def test_one_episode_has_no_standard_errors(model):
    env = make(1)
    result = evaluate(ModelPolicy(env, TokenModel(env.unwrapped.mdp, model), seed=0), 1)
    assert result.self_bleu is None and len(result.samples) == 1
    assert all(math.isnan(e.standard_error) for e in (result.reward, result.entropy, result.length))
    assert result.to_json()["reward"]["standard_error"] is None


def test_mistakes(model):
    env = make()
    policy = ModelPolicy(env, TokenModel(env.unwrapped.mdp, model))
    for count in (0, 10, -16):
        with pytest.raises(ValueError, match=f"episodes={count} is not a multiple of the number of envs, 16"):
            policy.sample_episodes(count)
    with pytest.raises(ValueError, match="another MDP than the env's"):
        ModelPolicy(make(max_new_tokens=3), policy.token_model)
    with pytest.raises(ValueError, match="the very model that is trained"):
        ModelPolicy(env, policy.token_model, policy.token_model.model)


def test_the_table_has_every_number(model):
    from rich.console import Console

    env, console = make(), Console(width=72, record=True)  # too narrow for all columns
    result = evaluate(ModelPolicy(env, TokenModel(env.unwrapped.mdp, model), seed=0), 16)
    console.print(table(result, "[a title]"))
    text = console.export_text()
    assert "[a title]" in text and f"{result.self_bleu:.4f}" in text
    for value in (result.reward, result.components["regex"], result.entropy, result.eos_share, result.length):
        assert isinstance(value, Estimate) and f"{value.value:.4f}" in text and f"{value.standard_error:.4f}" in text
        assert "{:.4f}..{:.4f}".format(*value.interval()) in text

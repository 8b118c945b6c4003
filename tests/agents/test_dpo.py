"""DPO and online DPO: steps that plain torch takes, too, what is logged, what is refused, and that they learn."""

import copy
import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from agents import DPO, OnlineDPO
from tests.conftest import PAIRS, share_of_a, small_agent
from textgym.language_models.forward import left_aligned


def mean_return(made, episodes=256):
    """The mean return of fresh episodes."""
    return made.sample_episodes(episodes).rewards.sum(-1).mean().item()


def weights(made):
    return {name: p.detach().clone() for name, p in made.policy.model.named_parameters()}


def plain_log_probs(model, mdp, rows):
    """log pi of whole completions from transformers' logits, (B,)."""
    ids, lengths = left_aligned(mdp, rows)
    log_probs = model(input_ids=ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    prompts = (rows[:, : mdp.max_prompt_tokens] != mdp.pad_id).sum(-1, keepdim=True)
    place = torch.arange(1, ids.shape[1])
    return (log_probs * ((place >= prompts) & (place < lengths[:, None]))).sum(-1)


@pytest.mark.parametrize("micro_batch_size", [None, 1, 3, 4])
def test_three_steps_are_those_of_plain_torch(micro_batch_size):
    options = {"beta": 0.2, "label_smoothing": 0.1, "micro_batch_size": micro_batch_size}
    made = small_agent(DPO, dataset=PAIRS, batch_size=6, learning_rate=1e-2, **options)
    model, reference = copy.deepcopy(made.policy.model), copy.deepcopy(made.policy.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=made.policy.optimizer.defaults["eps"])
    for _ in range(3):
        made.learn(1, reset_num_timesteps=False)
        rows = made.rollout_buffer.episodes.rows
        assert len(rows) == (12 if made._n_updates < 3 else 8)  # sixteen pairs: six, six and four
        log_ratios = plain_log_probs(model, made.mdp, rows) - plain_log_probs(reference, made.mdp, rows).detach()
        margins = 0.2 * (log_ratios[::2] - log_ratios[1::2])
        loss = -(0.9 * logsigmoid(margins) + 0.1 * logsigmoid(-margins)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        assert made.logger.name_to_value["train/loss"] == pytest.approx(loss.item(), abs=1e-5)
    torch.testing.assert_close(weights(made), dict(model.named_parameters()), atol=2e-5, rtol=0)


def test_what_is_logged():
    made = small_agent(DPO, dataset=PAIRS, batch_size=16, learning_rate=1e-2, beta=0.5)
    made.learn(1)
    first, before = dict(made.logger.name_to_value), copy.deepcopy(made.policy.model)
    made.learn(1, reset_num_timesteps=False)
    rows, log = made.rollout_buffer.episodes.rows, made.logger.name_to_value
    policy, reference = (plain_log_probs(m, made.mdp, rows).view(-1, 2) for m in (before, made.reference.model))
    rewards = 0.5 * (policy - reference)
    for column, side in enumerate(("chosen", "rejected")):
        assert log[f"logps/{side}"] == pytest.approx(policy[:, column].mean().item(), abs=1e-4)
        assert log[f"rewards/{side}"] == pytest.approx(rewards[:, column].mean().item(), abs=1e-4)
    margins = rewards[:, 0] - rewards[:, 1]
    assert log["rewards/margins"] == pytest.approx(margins.mean().item(), abs=1e-4)
    assert log["rewards/accuracies"] == (margins > 0).float().mean().item()
    assert first["rewards/margins"] == first["rewards/accuracies"] == 0  # equal is not better, as in TRL
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (first["train/epoch"], log["train/epoch"]) == (1, 2)
    assert "rollout/reward" not in log and "train/log_prob_mismatch" not in log


@pytest.mark.parametrize("name", ["total_variation", "chi2_reverse"])
def test_divergences_without_an_implicit_reward_are_refused(name):
    with pytest.raises(ValueError, match=f"f_divergence_type is '{name}', whose f' is finite at 0"):
        small_agent(DPO, dataset=PAIRS, f_divergence_type=name)


def test_a_truncated_policy_is_refused():
    with pytest.raises(ValueError, match="a truncated policy has no implicit reward"):
        small_agent(DPO, dataset=PAIRS, policy_kwargs={"top_k": 2})


def test_it_learns_what_is_preferred():
    """Random texts, of which the one with more a is chosen; the env's reward is the share of a."""
    generator = torch.Generator().manual_seed(0)
    texts = ["".join("abcd"[i] for i in torch.randint(4, (6,), generator=generator)) for _ in range(400)]
    pairs = [sorted(two, key=lambda text: -text.count("a")) for two in zip(texts[::2], texts[1::2], strict=True)]
    rows = [{"chosen": a, "rejected": b} for a, b in pairs if a.count("a") > b.count("a")]
    kwargs = {"scorer": share_of_a, "dataset": rows, "batch_size": 16, "learning_rate": 3e-3}
    made = small_agent(DPO, n=16, **kwargs)
    before = mean_return(made)
    made.learn(6_000)
    assert mean_return(made) > before + 0.2
    assert made.logger.name_to_value["rewards/accuracies"] > 0.7


def online(**kwargs):
    return small_agent(OnlineDPO, scorer=share_of_a, **{"n": 32, **kwargs})


def test_online_pairs_by_hand():
    made = online(n=8, pairing="all")
    episodes = made.sample_episodes(8)
    rewards = torch.zeros(8, 6)
    rewards[:, 0] = torch.tensor([1.0, 2.0, 2.0, 0.0, 3.0, 3.0, 3.0, 3.0])
    episodes = episodes.replace(rewards=rewards)
    compared, count = made.compared(episodes)
    assert count == 12 and made.pairs(compared).tolist() == [[0, 3], [1, 0], [1, 3], [2, 0], [2, 3]]
    made.pairing = "best_worst"
    compared, count = made.compared(episodes)
    assert count == 2 and compared.rewards.sum(-1).tolist() == [2, 0, 3, 3]
    assert made.pairs(compared).tolist() == [[0, 1]]


@pytest.mark.parametrize("pairing", ["all", "best_worst"])
def test_online_dpo_learns(pairing):
    made = online(pairing=pairing, learning_rate=3e-3, n=64)
    before = mean_return(made)
    made.learn(8_000)
    assert mean_return(made) > before + 0.2


def test_a_rollout_of_ties_is_no_update():
    made = small_agent(OnlineDPO, scorer=lambda completions: [1.0] * len(completions))
    before = weights(made)
    made.learn(100, log_interval=None)
    log = made.logger.name_to_value
    assert made._n_updates == 0 and (log["rollout/ties"], log["rollout/pairs"]) == (1, 0)
    assert all(torch.equal(p, before[name]) for name, p in weights(made).items())


def test_online_dpo_needs_several_episodes_of_a_prompt():
    with pytest.raises(ValueError, match="OnlineDPO compares the episodes of a prompt"):
        small_agent(OnlineDPO, k=1)

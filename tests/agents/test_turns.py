"""Training on episodes of several turns: a partner's tokens are in no loss, and who cannot leave them out refuses."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import GRPO, PPO, REINFORCE, RLOO, SFT, DistributionMatching, OnlineDPO, SoftQLearning
from tests.conftest import small_llama
from tests.helpers.agents import Log, assert_same, gradients, randomize_values, stale_episodes
from textgym.bridges.tasks import task_of
from textgym.evaluation import ModelPolicy, describe, sample_frontier
from textgym.exact.answers import AnswerTree
from textgym.language_models.decoder import Decoder
from textgym.language_models.forward import state_hidden
from textgym.scorers import Scorer
from textgym.training import TokenModel
from textgym.training.returns import generalized_advantages, returns_to_go
from textgym.wrappers import DiscreteContexts

P, T, PAD, EOS, EOT = 1, 16, 5, 4, 3


def parrot(columns, turns):
    """Says twice what the policy has just said; an empty turn is the last one."""
    return 2 * turns[-1] or None


class PerTurn(Scorer):
    """Pays the tokens "a" of a turn with its end, and at the end of the episode."""

    name, per_token = "per_turn", True

    def score(self, generations):
        done = zip(generations.completion_ids, generations.ended, strict=True)
        return [float(ids.count(0)) if ended or ids[-1] in (0, 1) else 0.0 for ids, ended in done]


KWARGS = {
    "tokenizer": {"name": "characters", "alphabet": "abcd"},
    "prompts": ["a", "b"],
    "scorer": PerTurn(),
    "partner": parrot,
    "max_prompt_tokens": P,
    "max_new_tokens": T,
    "eot_token_ids": [EOT],
    "max_turn_tokens": 3,
}


def agent(cls, n=16, **kwargs):
    env = gym.make_vec("TextGen-v0", num_envs=n, num_generations=4, autoreset_mode="Disabled", **KWARGS)
    made = cls("TokenPolicy", env, small_llama(), **{"seed": 0, "device": "cpu", **kwargs})
    made.set_logger(Log())
    return made


def places(row):
    """Where the policy chose, by the rules of the conversation alone: a walk through the row's completion."""
    tokens, chosen, turn, t = [i for i in row[P:].tolist() if i != PAD], [], [], 0
    while t < len(tokens):
        chosen.append(t)
        turn.append(tokens[t])
        ends = tokens[t] == EOT or len(turn) == 3
        t += 1
        if tokens[t - 1] == EOS or t == T:
            break
        if ends:
            answer = 2 * [i for i in turn if i != EOT]
            if not answer or len(answer) >= T - t:
                assert tokens[t:] == [EOS]
                break
            assert tokens[t : t + len(answer)] == answer
            t, turn = t + len(answer), []
    return chosen


def test_the_mask_is_where_the_policy_chose():
    episodes = agent(REINFORCE, baseline="mean").sample_episodes(64)
    for i in range(64):
        assert episodes.mask[i].nonzero().flatten().tolist() == places(episodes.rows[i])
    chosen = episodes.rows[:, P:].where(episodes.mask, torch.tensor(PAD))
    assert torch.equal(episodes.actions, chosen)
    assert not episodes.log_probs[~episodes.mask].any() and (episodes.log_probs[episodes.mask] < 0).all()
    assert not episodes.rewards[~episodes.mask].any()
    assert (episodes.lengths < (episodes.rows[:, P:] != PAD).sum(-1)).float().mean() > 0.3
    assert episodes.turns.max() >= 3
    by_hand = [sum(b - a > 1 for a, b in zip(p, p[1:], strict=False)) + 1 for p in map(places, episodes.rows)]
    assert episodes.turns.tolist() == by_hand


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_an_update_is_the_sum_over_actions_by_hand(micro_batch_size):
    """The loss of one PPO update and its gradient, with rows run one by one through the plain model."""
    made = agent(
        PPO,
        16,
        kl_coef=0.3,
        reference=small_llama(seed=1),
        gamma=0.9,
        gae_lambda=0.8,
        ent_coef=0.1,
        batch_size=None,
        n_epochs=1,
        max_grad_norm=1e9,
        micro_batch_size=micro_batch_size,
    )
    randomize_values(made)
    made.policy.optimizer.step = lambda: None
    made.rollout_buffer.episodes = episodes = stale_episodes(made, 16)
    made.train()
    ours = gradients(made)
    made.policy.optimizer.zero_grad()
    model, head = made.policy.token_model.model, made.policy.token_model.value_net
    errors, terms = [], []
    for e in range(16):
        chosen = places(episodes.rows[e])
        ids = torch.cat([episodes.rows[e, :P], episodes.rows[e, P:][: chosen[-1]]])[None]
        hidden = model.base_model(input_ids=ids).last_hidden_state[0, [P - 1 + t for t in chosen]]
        log_probs = model.lm_head(hidden)[:, :PAD].log_softmax(-1)
        tokens = episodes.rows[e, P:][chosen]
        old, values = episodes.log_probs[e, chosen], episodes.values[e, chosen]
        rewards = episodes.rewards[e, chosen] - 0.3 * (old - episodes.reference_log_probs[e, chosen])
        advantages, later = torch.zeros(len(chosen)), 0.0
        for t in reversed(range(len(chosen))):
            following = values[t + 1] if t + 1 < len(chosen) else 0.0
            advantages[t] = later = rewards[t] + 0.9 * following - values[t] + 0.9 * 0.8 * later
        errors.append(advantages)
        entropies = -(log_probs.exp() * log_probs).sum(-1)
        terms.append((log_probs.gather(1, tokens[:, None])[:, 0], old, values, head(hidden)[:, 0], entropies))
    flat = torch.cat(errors)
    log_probs, old, old_values, values, entropies = (torch.cat(parts) for parts in zip(*terms, strict=True))
    advantages, ratio = (flat - flat.mean()) / flat.std(), (log_probs - old).exp()
    losses = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    losses = losses + made.vf_coef * (flat + old_values - values) ** 2 - 0.1 * entropies
    losses.mean().backward()
    assert_same(ours, gradients(made), atol=1e-5)
    assert max(g.abs().max() for g in ours.values()) > 0.1
    np.testing.assert_allclose(made.logger.all["train/loss"], [losses.mean().item()], rtol=1e-4)


@pytest.mark.parametrize(("cls", "kwargs"), [(PPO, {}), (RLOO, {}), (GRPO, {}), (REINFORCE, {"reward_to_go": True})])
def test_the_ratio_before_the_first_update_is_one(cls, kwargs):
    made = agent(cls, **kwargs)
    episodes = made.sample_episodes(32)
    terms = made.policy.token_model.evaluate_episodes(episodes.rows, episodes.actions)
    ratios = (terms.log_probs - episodes.sampled_log_probs).exp()
    assert (ratios - 1).abs().max() < 1e-4
    before = {name: p.clone() for name, p in made.policy.named_parameters()}
    made.learn(100)
    assert any(not torch.equal(p, before[name]) for name, p in made.policy.named_parameters())


def test_two_collections_give_the_same_rewards():
    """The stepwise one and the one of training, beside what single envs pay for the same tokens."""
    episodes = agent(REINFORCE, baseline="mean").sample_episodes(32)
    env = gym.make("TextGen-v0", **KWARGS).unwrapped
    for e in range(32):
        env.reset(options={"prompt_ids": episodes.rows[e, :P].numpy()})
        for t in places(episodes.rows[e]):
            row, reward, ended, _, _ = env.step(int(episodes.rows[e, P + t]))
            assert reward == episodes.rewards[e, t]
        assert ended and np.array_equal(row, episodes.rows[e])


def test_returns_lead_over_what_the_partner_says():
    mask = torch.tensor([[True, True, False, False, True, False]])
    rewards, values = torch.tensor([[0.0, 1.0, 0.0, 0.0, 2.0, 0.0]]), torch.tensor([[0.5, 0.25, 9.0, 9.0, 1.0, 9.0]])
    assert returns_to_go(rewards, 0.5, mask)[mask].tolist() == [1.0, 2.0, 2.0]
    errors = [0 + 0.5 * 0.25 - 0.5, 1 + 0.5 * 1 - 0.25, 2 - 1]
    by_hand = [errors[0] + 0.25 * (errors[1] + 0.25 * errors[2]), errors[1] + 0.25 * errors[2], errors[2]]
    assert generalized_advantages(rewards, values * mask, 0.5, 0.5, mask)[mask].tolist() == by_hand


def test_the_decoder_feeds_an_answer_into_the_slot():
    model, env = small_llama(), gym.make_vec("TextGen-v0", num_envs=6, **KWARGS)
    decoder, lengths = Decoder(model, env.unwrapped.mdp), []
    model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    env.action_space.seed(0)
    observations, _ = env.reset(seed=0)
    for _ in range(40):
        rows = torch.from_numpy(observations)
        hidden, live = decoder.hidden(rows)
        fed, lengths[:] = lengths.copy(), []
        with torch.no_grad():
            torch.testing.assert_close(hidden[live], state_hidden(model, env.unwrapped.mdp, rows)[live])
        lengths[:] = []
        assert max(fed, default=1) == 1  # prompts have one token, and answers are not prefilled
        observations, *_ = env.step(env.action_space.sample())


@pytest.mark.parametrize("cls", [DistributionMatching, SoftQLearning, OnlineDPO, SFT])
def test_agents_of_one_turn_refuse(cls):
    kwargs = {"target": {"name": "rlhf", "beta": 1.0}} if cls is DistributionMatching else {}
    kwargs = {"dataset": [{"prompt": "a", "completion": "b"}]} if cls is SFT else kwargs
    with pytest.raises(ValueError, match=f"{cls.__name__} takes episodes of one turn; this env has a partner"):
        agent(cls, **kwargs)


@pytest.mark.parametrize(
    "refuses",
    [
        lambda: task_of("TextGenGuess-v0"),
        lambda: AnswerTree(gym.make("TextGenGuess-v0")),
        lambda: DiscreteContexts(gym.make("TextGenGuess-v0")),
        lambda: sample_frontier(policy(), 2, 2),
    ],
)
def test_tools_of_one_turn_refuse(refuses):
    with pytest.raises(ValueError, match="takes episodes of one turn; this env has a partner"):
        refuses()


@pytest.mark.parametrize(
    "scorer",
    [
        {"name": "length", "target": 3},
        {"name": "overlong", "cache": 2},
        {"name": "repetition"},
        {"name": "token_counts", "weights": {0: 1.0}},
        {"name": "log_prob", "model": small_llama()},
        {"name": "cosine_length", "scorer": {"name": "length", "target": 3}},
    ],
)
def test_scorers_that_take_all_tokens_for_the_policys_refuse(scorer):
    env = gym.make("TextGen-v0", **{**KWARGS, "scorer": scorer})
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"scorer '{scorer['name']}'.* takes episodes of one turn"):
        env.step(EOS)


def policy():
    env = gym.make_vec("TextGen-v0", num_envs=8, autoreset_mode="Disabled", **KWARGS)
    return ModelPolicy(env, TokenModel(env.unwrapped.mdp, small_llama()), small_llama(seed=1))


def test_an_evaluation_counts_turns_and_the_policys_tokens():
    made = policy()
    episodes = made.sample_episodes(32)
    result = describe(made, episodes)
    assert result.length.value == pytest.approx(np.mean([len(places(row)) for row in episodes.rows]))
    assert result.turns.value == pytest.approx(episodes.turns.double().mean().item())

"""The tabular LM is its table: logits along every outcome, decoding, gradients, checkpoints, training."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym  # noqa: F401 (registers the ids)
from agents.reinforce import REINFORCE
from textgym.language_models import load_model
from textgym.language_models.decoder import Decoder, check_decoding
from textgym.language_models.forward import check_model, state_hidden
from textgym.language_models.shared_prompts import episode_logits
from textgym.language_models.tabular import TabularLM
from textgym.mdp import TextMDP
from textgym.sb3 import TokenPolicy

K, L = 3, 3
MDP = TextMDP(vocab_size=K + 1, max_prompt_tokens=1, max_new_tokens=L, eos_token_ids=(K,), bos_token_id=K)
CONTEXTS = [c for d in range(L) for c in itertools.product(range(K), repeat=d)]
OUTCOMES = [(*c, K) for c in CONTEXTS] + list(itertools.product(range(K), repeat=L))


def table(seed=0):
    return np.random.default_rng(seed).normal(size=(len(CONTEXTS), K + 1))


def model(seed=0):
    return TabularLM.from_logits(table(seed), L)


def row_of(completion):
    return [K, *completion, *[MDP.pad_id] * (L - len(completion))]


def test_the_agents_checks_accept_it():
    for tokens, length in ((1, 1), (1, 4), (4, 1), (3, 3)):
        mdp = TextMDP(tokens + 1, 1, length, (tokens,), tokens)
        shape = (sum(tokens**d for d in range(length)), tokens + 1)
        lm = TabularLM.from_logits(np.random.default_rng(0).normal(size=shape), length)
        check_model(lm, mdp)
        check_decoding(lm, mdp)


def test_logits_along_every_outcome_are_rows_of_the_table():
    logits = episode_logits(model(), MDP, torch.tensor([row_of(x) for x in OUTCOMES]))
    expected = table()
    assert len(OUTCOMES) == 13 + 27
    for outcome, given in zip(OUTCOMES, logits, strict=True):
        rows = [expected[CONTEXTS.index(outcome[:t])] for t in range(len(outcome))]
        assert np.array_equal(given[: len(outcome)].detach().numpy(), np.array(rows, np.float32))


def test_the_probabilities_of_all_outcomes_sum_to_one():
    rows = torch.tensor([row_of(x) for x in OUTCOMES])
    log_probs = episode_logits(model(), MDP, rows).log_softmax(-1)
    actions = rows[:, 1:].clamp(max=K)
    chosen = log_probs.gather(-1, actions[..., None])[..., 0] * (rows[:, 1:] != MDP.pad_id)
    assert chosen.sum(-1).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_cached_decoding_of_ragged_schedules_is_the_plain_forward():
    lm, rng = model(), np.random.default_rng(0)
    decoder, rows = Decoder(lm, MDP), np.array([row_of(())] * 6)
    for _ in range(200):  # each row stays, grows, or is replaced by any context
        for i, what in enumerate(rng.integers(0, 4, size=6)):
            length = int(MDP.completion_lengths(rows[i]))
            if what == 0 or length == L - 1:
                rows[i] = row_of(CONTEXTS[rng.integers(len(CONTEXTS))])
            elif what > 1:
                rows[i, 1 + length] = rng.integers(K)
        logits = decoder.logits(torch.from_numpy(rows))
        contexts = [CONTEXTS.index(tuple(r[1:][r[1:] < K].tolist())) for r in rows]
        assert np.array_equal(logits.numpy(), table()[contexts].astype(np.float32))
        assert torch.equal(logits, state_hidden(lm, MDP, torch.from_numpy(rows)))


def test_left_padding_makes_no_difference():
    lm = model()
    for context in CONTEXTS:
        ids = torch.tensor([[0] * (L - 1 - len(context)) + [K, *context]])
        mask = torch.tensor([[0] * (L - 1 - len(context)) + [1] * (1 + len(context))])
        expected = torch.tensor(table()[CONTEXTS.index(context)], dtype=torch.float32)
        assert torch.equal(lm(ids, attention_mask=mask).logits[0, -1], expected)


def test_generate_is_greedy_decoding_of_the_table():
    lm = model()
    ids = torch.tensor([[0, 0, K], [0, K, 1], [K, 2, 0]])
    out = lm.generate(
        input_ids=ids,
        attention_mask=torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 1]]),
        do_sample=False,
        max_new_tokens=1,
        pad_token_id=K,
    )
    best = table().argmax(-1)
    assert out[:, -1].tolist() == [best[0], best[CONTEXTS.index((1,))], best[CONTEXTS.index((2, 0))]]
    context = ()
    while len(context) < L and K not in context:
        context = (*context, int(best[CONTEXTS.index(context)]))
    out = lm.generate(input_ids=torch.tensor([[K]]), do_sample=False, max_new_tokens=L, pad_token_id=K)
    assert tuple(out[0, 1:].tolist()) == context


def test_a_four_dimensional_mask_hides_columns():
    lm = model()
    ids, hidden = torch.tensor([[K, 1, 2]]), torch.tensor([True, False, True])
    for mask in (hidden, torch.zeros(3).masked_fill(~hidden, torch.finfo(torch.float32).min)):
        logits = lm(ids, attention_mask=mask[None, None, None]).logits[0, -1]
        # without token 1 the digits are 0·K + (2 + 1) = 3: the context (2,)
        assert torch.equal(logits, torch.tensor(table()[CONTEXTS.index((2,))], dtype=torch.float32))


def test_the_gradient_is_that_of_the_table():
    lm = model()
    assert [name for name, p in lm.named_parameters() if p.requires_grad] == ["model.table"]
    rows = torch.tensor([row_of((0, 2, K)), row_of((0, 1, 1))])
    episode_logits(lm, MDP, rows).log_softmax(-1)[[0, 1], [2, 1], [K, 1]].sum().backward()
    softmax = np.exp(table()) / np.exp(table()).sum(-1, keepdims=True)
    expected = np.zeros_like(table())
    for context, action in (((0, 2), K), ((0,), 1)):  # d log pi(a|s) / d logits(s) = e_a - pi(s)
        expected[CONTEXTS.index(context)] = np.eye(K + 1)[action] - softmax[CONTEXTS.index(context)]
    assert np.allclose(lm.table.grad.numpy(), expected, atol=1e-6)


def test_save_and_load(tmp_path):
    lm = model()
    lm.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, TabularLM) and torch.equal(loaded.table, lm.table)
    ids = torch.tensor([[K, 0, 1]])
    assert torch.equal(loaded(ids).logits, lm(ids).logits) and loaded.config.max_new_tokens == L


def test_tables_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"has shape \(12, 4\); max_new_tokens=3 wants \(13, 4\)"):
        TabularLM.from_logits(table()[:-1], L)
    with pytest.raises(ValueError, match=r"has shape \(4,\); max_new_tokens=3 wants \(S, K \+ 1\)"):
        TabularLM.from_logits(table()[0], L)


def test_a_longer_task_is_refused():
    with pytest.raises(ValueError, match="has 4 positions, an episode up to 5 tokens"):
        check_model(model(), TextMDP(K + 1, 1, L + 1, (K,), K))


@pytest.mark.parametrize("vector", [False, True])
def test_agents_start_from_the_reference(vector):
    kwargs = {"reference_seed": 5}
    env = gym.make_vec("TextGenToy-v0", 2, **kwargs) if vector else gym.make("TextGenToy-v0", **kwargs)
    lm = TokenPolicy.kwargs_for(env)["model"]
    assert np.array_equal(lm.table.detach().numpy(), env.unwrapped.reference_logits.astype(np.float32))
    assert TokenPolicy.kwargs_for(gym.make("TextGen-v0"))["model"] == "tiny"


@pytest.mark.parametrize("kwargs", [{}, {"policy_kwargs": {"value_function": "separate"}}, {"dtype": "bfloat16"}])
def test_reinforce_trains_it_and_its_checkpoint_reloads(tmp_path, kwargs):
    agent = REINFORCE("TokenPolicy", "TextGenToy-v0", n_envs=16, learning_rate=0.1, seed=0, **kwargs)
    before = agent.policy.model.table.detach().clone()
    agent.learn(32)
    assert not torch.equal(agent.policy.model.table, before)
    assert torch.equal(agent.reference.model.table, before)
    agent.save(tmp_path / "agent")
    loaded = REINFORCE.load(tmp_path / "agent", env="TextGenToy-v0")
    assert torch.equal(loaded.policy.model.table, agent.policy.model.table)
    obs = np.array([[4, 5, 5, 5, 5], [4, 0, 5, 5, 5], [4, 3, 2, 5, 5], [4, 1, 1, 1, 5]])
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], agent.predict(obs, deterministic=True)[0])


def test_autocast_leaves_the_table_as_it_is():
    """There is no matrix product, so decoding and training forward agree in bfloat16 as they do in float32."""
    agent = REINFORCE("TokenPolicy", "TextGenToy-v0", n_envs=16, dtype="bfloat16", seed=0)
    episodes = agent.sample_episodes(16)
    assert episodes.sampled_log_probs[episodes.mask].max() < 0
    assert torch.allclose(episodes.sampled_log_probs, episodes.log_probs, atol=1e-6)


def test_reinforce_finds_the_optimum():
    """L times token 1 pays 4, the most there is."""
    agent = REINFORCE("TokenPolicy", "TextGenToy-v0", n_envs=64, learning_rate=0.1, kl_coef=0.0, seed=0)
    agent.learn(64 * 4 * 60)
    env = gym.make("TextGenToy-v0")
    (obs, _), ended = env.reset(), False
    while not ended:
        obs, reward, ended, _, _ = env.step(agent.predict(obs, deterministic=True)[0])
    assert reward == 4.0

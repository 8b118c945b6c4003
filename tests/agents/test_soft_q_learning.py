"""Soft Q-learning: path errors by hand, gradients by finite differences, and the exact optimum of the toy."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import REINFORCE
from agents.soft_q_learning import SoftQLearning
from tests.conftest import CHARACTERS, episodes_of, small_llama
from tests.helpers.agents import Log, agent, assert_same, weights
from textgym.exact import TokenTree, soft_optimal
from textgym.language_models.log_probs import LOGITS_PER_CHUNK
from textgym.language_models.shared_prompts import episode_logits
from textgym.training import TokenTerms

BOTH = pytest.mark.parametrize("consistency", ["trajectory", "suffix"])
K, L = 3, 3
OFFSETS = [0, 1, 4]  # contexts of three tokens by length


def toy(n=32, env="TextGenToy-v0", env_kwargs=None, **kwargs):
    """An agent whose gradients are not clipped, on contexts so few that all are visited."""
    made = gym.make_vec(env, num_envs=n, num_generations=n, autoreset_mode="Disabled", **(env_kwargs or {}))
    algorithm = SoftQLearning("TokenPolicy", made, **{"seed": 0, "device": "cpu", "max_grad_norm": 1e9, **kwargs})
    algorithm.set_logger(Log())
    return algorithm


def small(n=32, **kwargs):
    return toy(n, env_kwargs={"num_tokens": K, "max_new_tokens": L}, **kwargs)


def context(tokens):
    """Contexts by length, then as base-K numbers."""
    return OFFSETS[len(tokens)] + sum(token * K ** (len(tokens) - 1 - i) for i, token in enumerate(tokens))


def bellman(reference_logits, reward, beta, tokens=()):
    """Q* of a context and of all that follow it, by recursion: {tokens: [Q*(s, 0), .., Q*(s, EOS)]}, and V*(s)."""
    tables, q_values = {}, []
    for token in range(K):
        if len(tokens) + 1 == L:
            q_values.append(reward([*tokens, token]))
        else:
            below, value = bellman(reference_logits, reward, beta, (*tokens, token))
            tables |= below
            q_values.append(value)
    q_values.append(reward(list(tokens)))  # EOS
    odds = np.exp(reference_logits[context(tokens)])
    value = beta * math.log((odds / odds.sum()) @ np.exp(np.array(q_values) / beta))
    return tables | {tokens: q_values}, value


def set_table(made, table):
    with torch.no_grad():
        made.policy.model.table.copy_(torch.as_tensor(table))


def gradients(made, episodes):
    """Those of one update on given episodes, without a step."""
    made.policy.optimizer.step = lambda: None
    made.rollout_buffer.episodes = episodes
    made.train()
    return {name: p.grad.clone() for name, p in made.policy.model.named_parameters()}


@BOTH
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_at_the_optimum_every_error_and_every_gradient_is_zero(consistency, temperature):
    made = small(beta=0.3, consistency=consistency, policy_kwargs={"temperature": temperature})
    reference = made.env.get_attr("reference_logits")[0]
    q_values, value = bellman(reference / temperature, lambda t: t.count(1), 0.3)
    table = reference.copy()
    for tokens, row in q_values.items():
        table[context(tokens)] += temperature * np.array(row) / 0.3
    episodes = made.sample_episodes(64)  # of the reference: any policy's paths are consistent
    assert gradients(made, episodes)["model.table"].abs().max() > 0.01
    set_table(made, table)
    for batch in (episodes, made.sample_episodes(64)):
        gradient = gradients(made, batch)["model.table"]
        assert made.logger.all["train/consistency"][-1] < 1e-10 and gradient.abs().max() < 1e-5
        assert made.logger.all["train/value"][-1] == pytest.approx(value, abs=1e-5)


def test_path_errors_by_hand():
    """beta = 0.5, gamma = 0.5; episodes of two and three tokens."""
    made = agent(SoftQLearning, beta=0.5, gamma=0.5, consistency="suffix")
    batch = episodes_of([[1.0, 2.0, None], [0.0, 0.0, 4.0]], [[0.0] * 3] * 2, [0, 0])
    batch = batch.replace(
        reference_log_probs=torch.tensor([[-1.0, -2.0, 0.0], [-1.0, -1.0, -1.0]]),
        reference_log_normalizers=torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 2.0]]),
    )
    log_normalizers = torch.tensor([[5.0, 2.0, 0.0], [0.0, 1.0, 2.0]])
    log_probs = torch.tensor([[-3.0, -1.0, 0.0], [-1.0, -2.0, -5.0]])
    # first episode: V = 0.5 * (2, 1) = (1, 0.5); r - beta (log pi - log a) = (1 + 1, 2 - 0.5) = (2, 1.5)
    # C_1 = 0.5 - 1.5 = -1, C_0 = 1 - (2 + 0.5 * 1.5) = -1.75
    # second: V = (0, 0.5, 0); r - beta (log pi - log a) = (0, 0.5, 4 + 2) = (0, 0.5, 6)
    # C_2 = -6, C_1 = 0.5 - (0.5 + 3) = -3, C_0 = 0 - (0 + 0.25 + 1.5) = -1.75
    errors = torch.tensor([[-1.75, -1.0, 0.0], [-1.75, -3.0, -6.0]])
    batch, zeros = made.with_returns(batch), torch.zeros(2, 3)
    terms = TokenTerms(log_probs, entropies=zeros, values=zeros, log_normalizers=log_normalizers)
    losses, logged = made.loss(batch, terms)
    torch.testing.assert_close(losses, errors**2 / 2)
    torch.testing.assert_close(logged["consistency"], errors**2)
    made.consistency = "trajectory"
    losses, logged = made.loss(batch, terms)
    torch.testing.assert_close(losses, torch.full((2, 3), 1.75**2 / 2))
    torch.testing.assert_close(logged["value"], torch.tensor([[1.0] * 3, [0.0] * 3]))


def loss_by_hand(table, reference, episodes, consistency, beta, gamma, temperature):
    """The loss of a batch as a function of the table, in float64, token by token."""
    table, reference = table / temperature, torch.as_tensor(reference) / temperature
    log_pi, log_a = table.log_softmax(-1), reference.log_softmax(-1)
    values = beta * (table.exp().sum(-1).log() - reference.exp().sum(-1).log())
    total = torch.zeros((), dtype=torch.float64)
    for actions, n, rewards in zip(episodes.actions.tolist(), episodes.lengths.tolist(), episodes.rewards, strict=True):
        contexts = [context(actions[:t]) for t in range(n)]
        errors = [
            values[contexts[t]]
            - sum(
                gamma ** (u - t)
                * (rewards[u] - beta * (log_pi[contexts[u], actions[u]] - log_a[contexts[u], actions[u]]))
                for u in range(t, n)
            )
            for t in range(n)
        ]
        used = errors[:1] if consistency == "trajectory" else errors
        total = total + sum(error**2 / 2 for error in used) / len(used) / len(episodes)
    return total


@BOTH
def test_the_gradient_is_that_of_finite_differences(consistency):
    constants = {"beta": 0.4, "gamma": 0.9}
    made = small(16, consistency=consistency, policy_kwargs={"temperature": 0.7}, **constants)
    reference = made.env.get_attr("reference_logits")[0]
    table = torch.as_tensor(reference) + torch.randn(reference.shape, generator=torch.Generator().manual_seed(1))
    set_table(made, table)
    table = made.policy.model.table.detach().double()  # rounded
    episodes = made.sample_episodes(16)
    gradient = gradients(made, episodes)["model.table"]
    numerical = torch.zeros_like(table)
    for i, j in np.ndindex(*table.shape):
        step = torch.zeros_like(table)
        step[i, j] = 1e-5
        both = [
            loss_by_hand(t, reference, episodes, consistency, temperature=0.7, **constants)
            for t in (table + step, table - step)
        ]
        numerical[i, j] = (both[0] - both[1]) / 2e-5
    assert numerical.abs().max() > 0.05
    torch.testing.assert_close(gradient.double(), numerical, atol=1e-5, rtol=1e-4)
    loss = loss_by_hand(table, reference, episodes, consistency, temperature=0.7, **constants)
    assert made.logger.all["train/loss"][-1] == pytest.approx(loss.item(), rel=1e-5)


MASKED = CHARACTERS | {"min_new_tokens": 2, "banned_tokens": [1]}


def test_log_normalizers_of_masked_and_tempered_logits():
    made = agent(SoftQLearning, 16, env=MASKED, reference=small_llama(seed=1), policy_kwargs={"temperature": 0.7})
    episodes = made.sample_episodes(16)
    terms = made.token_model.evaluate_episodes(episodes.rows, episodes.actions)
    torch.testing.assert_close(terms.log_probs, episodes.log_probs, atol=1e-5, rtol=0)
    theirs = made.reference.model, episodes.reference_log_normalizers
    for model, ours in ((made.policy.model, terms.log_normalizers), theirs):
        odds = (episode_logits(model, made.mdp, episodes.rows) / 0.7).exp()
        odds[..., 1] = 0
        odds[:, :2, 4] = 0  # EOS
        torch.testing.assert_close(ours, odds.sum(-1).log() * episodes.mask, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kwargs", "most"),
    [({}, 1e-6), ({"lora": {"r": 4}}, 1e-6), ({"lora": {"r": 4}, "dtype": "bfloat16"}, 1e-6)],
    ids=["float32", "lora", "lora-bfloat16"],
)
def test_values_start_at_zero(kwargs, most):
    made = agent(SoftQLearning, 16, env=MASKED, beta=0.5, learning_rate=1e-2, **kwargs)
    for _ in range(2):
        made.learn(1, reset_num_timesteps=False)
    first, second = made.logger.all["train/value"]
    assert abs(first) <= most < 1e-3 < abs(second)
    returns = made.logger.all["rollout/reward"]
    assert made.logger.all["train/consistency"][0] >= returns[0] ** 2 > 1  # C_0 = -return, where pi = a


@BOTH
def test_micro_batches_and_chunks_do_not_change_the_gradient(consistency, monkeypatch):
    made = agent(SoftQLearning, 16, beta=0.5, consistency=consistency, reference=small_llama(seed=1), max_grad_norm=1e9)
    episodes = made.sample_episodes(16)
    results = []
    for micro_batch_size, chunk in ((None, 2**25), (1, 2**25), (7, 2**25), (None, 15)):
        made.micro_batch_size = micro_batch_size
        monkeypatch.setitem(LOGITS_PER_CHUNK, "cpu", chunk)
        results.append(gradients(made, episodes))
    assert max(g.abs().max() for g in results[0].values()) > 0.1
    for other in results[1:]:
        assert_same(results[0], other, atol=1e-5)


def test_what_stands_at_padding_does_not_matter():
    made = agent(SoftQLearning, 16, beta=0.5, consistency="suffix", max_grad_norm=1e9)
    episodes = made.sample_episodes(16)
    garbage = torch.full_like(episodes.rewards, 1e4)
    names = "values", "advantages", "returns", "reference_log_normalizers"
    dirty = episodes.replace(**{n: getattr(episodes, n).where(episodes.mask, garbage) for n in names})
    assert (~episodes.mask).any()
    assert_same(gradients(made, episodes), gradients(made, dirty), atol=0)


def test_minibatches_and_epochs_count_updates():
    made = agent(SoftQLearning, 16, batch_size=5, n_epochs=3)
    made.learn(1)
    assert made._n_updates == 3 * 4  # 16 episodes are three batches of five and one of one


def test_a_checkpoint_goes_on_as_it_was(tmp_path):
    kwargs = {"beta": 0.3, "consistency": "suffix", "batch_size": 4, "n_epochs": 2, "learning_rate": 1e-2}
    made = agent(SoftQLearning, **kwargs)
    made.learn(1)
    made.save(tmp_path / "one")
    before = weights(made)
    made.learn(1, reset_num_timesteps=False)
    resumed = SoftQLearning.load(tmp_path / "one", made.env, device="cpu")
    assert {name: getattr(resumed, name) for name in kwargs} == kwargs
    resumed.learn(1, reset_num_timesteps=False)
    assert_same(weights(resumed), weights(made), atol=0)
    assert max((weight - before[name]).abs().max() for name, weight in weights(made).items()) > 1e-3
    episodes = resumed.rollout_buffer.episodes
    expected = made.token_model.terms_under(made.reference.model, episodes.rows, episodes.actions)
    torch.testing.assert_close(episodes.reference_log_probs, expected.log_probs)
    torch.testing.assert_close(episodes.reference_log_normalizers, expected.log_normalizers)
    with pytest.raises(ValueError, match="holds a SoftQLearning, not a REINFORCE"):
        REINFORCE.load(tmp_path / "one", made.env)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0; it must be positive"),
        ({"beta": -1.0}, "beta is -1.0; it must be positive"),
        ({"beta": math.nan}, "beta is nan; it must be positive"),
        ({"consistency": "step"}, "consistency is 'step'; accepted are .'trajectory', 'suffix'."),
        ({"n_epochs": 0}, "n_epochs is 0; it must be an integer of at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be an integer of at least 1"),
        ({"policy_kwargs": {"top_k": 3}}, "top_k is 3; a truncated policy is no softmax of Q-values"),
        ({"policy_kwargs": {"top_p": 0.9}}, "top_p is 0.9; a truncated policy is no softmax of Q-values"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        agent(SoftQLearning, **kwargs)


def solve(made, beta, updates):
    """Train; the tree, the optimum, and the policy's table."""
    env = made.env.venv
    tree, reference = TokenTree.of(env), env.unwrapped.reference_logits
    optimum = soft_optimal(tree, reference, tree.scores(env)["reward"], beta)
    for _ in range(updates):
        made.learn(1, reset_num_timesteps=False)
    return tree, optimum, made.policy.model.table.detach().double(), torch.as_tensor(reference)


def distance(tree, logits, optimum):
    """The total variation of a policy to the optimal one, over all outcomes."""
    return (tree.log_probs(logits).exp() - tree.log_probs(optimum.policy).exp()).abs().sum() / 2


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_soft_optimal_policy(seed):
    """Total variation to p(x) = a(x) exp(r(x) / beta) / Z from 0.76 to at most 0.02, exactly."""
    made = toy(256, beta=0.5, learning_rate=0.1, max_grad_norm=1.0, seed=seed)
    tree, optimum, table, reference = solve(made, 0.5, 150)
    assert distance(tree, reference, optimum) > 0.7
    assert distance(tree, table, optimum) <= 0.02
    assert made.logger.all["train/value"][-1] == pytest.approx(optimum.values[0].item(), abs=0.02)


@pytest.mark.slow
def test_suffixes_also_find_the_values_of_every_state():
    made = toy(256, beta=1.0, learning_rate=0.1, max_grad_norm=1.0, consistency="suffix")
    tree, optimum, table, reference = solve(made, 1.0, 150)
    values = table.logsumexp(-1) - reference.logsumexp(-1)
    probabilities, visits = tree.log_probs(optimum.policy).exp(), torch.zeros(tree.num_contexts, dtype=torch.float64)
    for t in range(tree.max_new_tokens):
        there = tree.lengths > t
        visits.index_add_(0, tree.index(tree.outcomes[there][:, :t]), probabilities[there])

    def error(values):
        return visits / visits.sum() @ (values - optimum.values).abs()

    assert error(0.0) > 1 and error(values) < 0.05
    assert distance(tree, table, optimum) <= 0.03

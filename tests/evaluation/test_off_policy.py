"""Off-policy evaluation of models, end to end: logged episodes of an env, another model, another scorer."""

import math

import gymnasium as gym
import pytest
import torch

from agents import REINFORCE
from tests.conftest import CHARACTERS, count_tokens, small_llama
from textgym.evaluation import ESTIMATORS, ModelPolicy, NoOverlapError, off_policy, off_policy_sample
from textgym.exact import TokenTree, evaluate_policy
from textgym.language_models.tabular import TabularLM
from textgym.training import TokenModel

REPETITIONS, N = 100, 500


def toy_policy(logits=None, **kwargs):
    env = gym.make_vec("TextGenToy-v0", num_envs=1000, autoreset_mode="Disabled")
    logits = env.unwrapped.reference_logits if logits is None else logits
    return ModelPolicy(env, TokenModel(env.unwrapped.mdp, TabularLM.from_logits(logits, 4), **kwargs), seed=0)


@pytest.fixture(scope="module")
def toy():
    """The tree, the policy with its exact values, and episodes of the behaviour, which is the reference."""
    env = gym.make("TextGenToy-v0")
    tree, reference = TokenTree.of(env), torch.tensor(env.unwrapped.reference_logits)
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    solution = evaluate_policy(tree, reference + 0.6 * noise, tree.scores(env)["reward"])
    policy = toy_policy(solution.policy)
    with torch.no_grad():  # the best guess of V that is linear in a context's logits
        features = torch.nn.functional.pad(solution.policy, (0, 1), value=1.0)
        *weights, bias = torch.linalg.lstsq(features, solution.values).solution
        policy.token_model.value_net.weight.copy_(torch.stack(weights))
        policy.token_model.value_net.bias.copy_(bias)
    return tree, reference, solution, policy, toy_policy().sample_episodes(REPETITIONS * N)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_intervals_hold_the_exact_value(toy, name):
    *_, solution, policy, episodes = toy
    value = solution.values[0].item()
    parts = [episodes.select(slice(start, start + N)) for start in range(0, len(episodes), N)]
    found = [off_policy(part, policy, name) for part in parts]
    assert 90 <= sum(low <= value <= high for low, high in (e.interval() for e in found)) <= 99
    together = off_policy(episodes, policy, name)
    assert together.standard_error < 0.01
    assert abs(together.value - value) < 4 * together.standard_error


def test_the_sample_is_what_the_tables_say(toy):
    tree, reference, solution, policy, episodes = toy
    sample, actions = off_policy_sample(episodes, policy), episodes.actions
    log_ratios = tree.along(solution.policy - tree.log_policy(reference), actions)
    torch.testing.assert_close(sample.log_ratios, log_ratios, atol=1e-5, rtol=0)
    returns = (actions == 1).sum(-1) - 0.5 * (actions == 3).sum(-1)
    torch.testing.assert_close(sample.rewards.sum(-1), returns)
    weight, bias = (parameter.double() for parameter in policy.token_model.value_net.parameters())
    values = tree.along(solution.policy @ weight[0] + bias, actions)
    torch.testing.assert_close(sample.values.double(), values, atol=1e-5, rtol=0)


def test_exact_values_leave_no_error(toy):
    tree, _, solution, policy, episodes = toy
    part = episodes.select(slice(N))
    values, q_values = (tree.along(table, part.actions) for table in (solution.values, solution.q_values))
    for name in ("dr", "wdr"):
        found = off_policy(part, policy, name, values=values, q_values=q_values)
        assert found.value == pytest.approx(solution.values[0].item(), abs=1e-5) and found.standard_error < 1e-5
    baseline = off_policy(part, policy, "dr", values=values)  # Q(s, a) = V(s)
    assert baseline.standard_error < 0.95 * off_policy(part, policy, "pdis").standard_error


def policy_of(seed=0, n=192, scorer=count_tokens, token_model=None, micro_batch_size=None, **kwargs):
    """Random Llamas over characters, with several prompts."""
    env = gym.make_vec("TextGen-v0", num_envs=n, autoreset_mode="Disabled", scorer=scorer, **(CHARACTERS | kwargs))
    made = TokenModel(env.unwrapped.mdp, small_llama(seed=seed), **(token_model or {}))
    return ModelPolicy(env, made, seed=0, micro_batch_size=micro_batch_size)


def test_a_language_model_against_one_episode_at_a_time():
    """Ratios and values of ragged episodes with several prompts, in micro-batches that share them."""
    episodes, policy = policy_of(0).sample_episodes(384), policy_of(1, micro_batch_size=50)
    torch.nn.init.normal_(policy.token_model.value_net.weight, generator=torch.Generator().manual_seed(0))
    sample = off_policy_sample(episodes, policy)
    for i, row in enumerate(episodes.rows[:64]):
        ids, actions = row[row != 5], row[3:][row[3:] != 5]  # V = 5 is the pad id, P = 3
        with torch.no_grad():
            output = policy.token_model.model(input_ids=ids[None], use_cache=False, output_hidden_states=True)
            values = policy.token_model.value_net(output.hidden_states[-1][0])[-len(actions) - 1 : -1, 0]
        log_probs = output.logits[0, -len(actions) - 1 : -1].log_softmax(-1).gather(-1, actions[:, None])[:, 0]
        log_ratios = log_probs - episodes.log_probs[i, : len(actions)]
        torch.testing.assert_close(sample.log_ratios[i, : len(actions)].float(), log_ratios, atol=1e-4, rtol=0)
        torch.testing.assert_close(sample.values[i, : len(actions)], values, atol=1e-4, rtol=0)
        assert not sample.log_ratios[i, len(actions) :].any() and not sample.values[i, len(actions) :].any()
    assert torch.equal(sample.rewards, episodes.rewards) and episodes.lengths.unique().numel() > 3
    fresh = policy.sample_episodes(10 * 192).rewards.sum(-1)
    found = off_policy(episodes, policy)
    error = math.hypot(found.standard_error, fresh.std().item() / 43)
    assert abs(found.value - fresh.mean().item()) < 4 * error and found.effective_sample_size < 350


def test_an_agent_can_be_the_policy():
    episodes = policy_of(0).sample_episodes(384)
    env = gym.make_vec("TextGen-v0", num_envs=8, autoreset_mode="Disabled", scorer=count_tokens, **CHARACTERS)
    agent = REINFORCE("TokenPolicy", env, small_llama(seed=1), seed=0, device="cpu")
    assert off_policy(episodes, agent) == pytest.approx(off_policy(episodes, policy_of(1)), abs=1e-5)


@pytest.mark.parametrize("per_token", [False, True])
def test_another_scorer(per_token):
    """The same episodes are rescored: what an env with that scorer would have paid, step by step."""
    scorer = {"name": "log_prob", "model": small_llama(seed=9)} if per_token else {"name": "regex", "pattern": "a"}
    behaviour = policy_of(0)
    episodes = behaviour.sample_episodes(384)
    other = policy_of(0, scorer=scorer).sample_episodes(384)
    assert torch.equal(episodes.rows, other.rows)  # the scorer does not change what is drawn
    sample = off_policy_sample(episodes, policy_of(1), scorer=scorer)
    torch.testing.assert_close(sample.rewards, other.rewards, atol=1e-5, rtol=0)
    assert off_policy(episodes, policy_of(1), scorer=scorer) == pytest.approx(off_policy(other, policy_of(1)), abs=1e-5)
    mean = off_policy(episodes, behaviour, "is", scorer=scorer)  # a scorer alone: every weight is 1
    assert mean.value == pytest.approx(other.rewards.sum(-1).mean().item(), abs=1e-4)
    assert mean.effective_sample_size == pytest.approx(384, abs=0.01)


def test_another_temperature(toy):
    """The policy may be the behaviour's own model at another temperature."""
    tree, reference, *_, episodes = toy
    rewards = tree.scores(gym.make("TextGenToy-v0"))["reward"]
    exact, logged = (tree.expectation(logits, rewards).item() for logits in (2 * reference, reference))
    found = off_policy(episodes, toy_policy(temperature=0.5))
    assert abs(found.value - exact) < 4 * found.standard_error < abs(exact - logged)


def test_a_truncated_behaviour_is_refused():
    episodes = policy_of(0, token_model={"top_k": 2}).sample_episodes(960)
    with pytest.raises(NoOverlapError, match="top-k or top-p|effective sample size"):
        off_policy(episodes, policy_of(0))
    with pytest.raises(ValueError, match="top_p is 0.9; logged tokens that it makes impossible"):
        off_policy(policy_of(0).sample_episodes(192), policy_of(0, token_model={"top_p": 0.9}))


def test_a_greedy_behaviour_is_refused():
    episodes = policy_of(0).sample_episodes(192)
    same = episodes.select(torch.zeros(192, dtype=torch.int64))
    with pytest.raises(NoOverlapError, match="greedy"):
        off_policy(same, policy_of(1))


def changed(field, place, value):
    episodes = policy_of(0).sample_episodes(192)
    tensor = getattr(episodes, field).clone()
    tensor[place] = value
    return episodes.replace(**{field: tensor})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: policy_of(0).sample_episodes(192).select(slice(0)), "there are no episodes"),
        (lambda: policy_of(0, max_new_tokens=4).sample_episodes(192), r"have 3 \+ 4 cells .* max_new_tokens=6"),
        (lambda: changed("rows", (3, 4), 9), "another tokenizer; the env's has 5 tokens"),
        (lambda: changed("log_probs", (3, 0), -torch.inf), r"episode 3, token 0 \(id \d, log-probability -inf\)"),
        (lambda: changed("log_probs", (3, 0), torch.nan), r"log-probability nan\): a token that was drawn"),
        (lambda: changed("log_probs", (3, 0), 0.5), "a finite log-probability, at most 0"),
        (lambda: changed("log_probs", slice(None), 0.0), "all log-probabilities of the episodes are 0"),
        (
            lambda: changed("rows", (slice(None), 3), 4),
            "an end-of-text token or max_new_tokens=6 ends an",
        ),
    ],
)
def test_episodes_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        off_policy(make(), policy_of(1))


def test_tokens_that_the_env_forbids_are_refused():
    with pytest.raises(ValueError, match=r"episode \d+, token 0 \(id 4, .*\): the env forbids this token there"):
        off_policy(policy_of(0).sample_episodes(384), policy_of(1, min_new_tokens=2))


def test_values_must_come_from_somewhere():
    episodes, policy = policy_of(0).sample_episodes(384), policy_of(1)
    with pytest.raises(ValueError, match="'dr' is doubly robust: it needs values"):
        off_policy(episodes, policy, "dr")  # the head is as it was made: it says 0 everywhere
    with pytest.raises(ValueError, match=r"values have shape \(384,\)"):
        off_policy(episodes, policy, "dr", values=torch.zeros(384))
    ones = off_policy(episodes, policy, "dr", values=torch.ones(384, 6))
    assert ones == off_policy(episodes, policy, "dr", values=episodes.mask.float())  # nothing behind the end

"""The answer tree of a language model, against brute force with the project's own scoring, and against sampling."""

import math
from itertools import product

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym  # noqa: F401 (registers the ids)
from tests.conftest import CHARACTERS, checksum, small_gpt2, small_llama
from tests.helpers.models import small
from textgym.evaluation import ModelPolicy
from textgym.exact import AnswerTree, TokenTree, entropy, expectation, kl, pass_at, target_log_probs
from textgym.language_models import load_model
from textgym.language_models.forward import state_hidden
from textgym.matching import Estimate
from textgym.sb3 import EpisodicAlgorithm
from textgym.tasks import TASKS
from textgym.training import TokenModel

RESTRICTED = {
    "none": {},
    "allowed": {"allowed_tokens": [0, 2, 4]},
    "banned": {"banned_tokens": [1, 3], "min_new_tokens": 1},
    "full length only": {"banned_tokens": [1], "min_new_tokens": 3},
    "several EOS": {"eos_token_ids": [1, 4], "min_new_tokens": 1},
    "no EOS": {"banned_tokens": [2, 4]},
    "one token": {"allowed_tokens": [3, 4]},
}


def make(vector=False, **kwargs):
    arguments = {**CHARACTERS, "max_new_tokens": 3, "scorer": checksum, **kwargs}
    return gym.make_vec("TextGen-v0", num_envs=2, **arguments) if vector else gym.make("TextGen-v0", **arguments)


def outcomes_by_hand(mdp):
    """Every finished completion, by its length and then EOS first: walks through the MDP's own masks."""
    found = []
    for length in range(1, mdp.max_new_tokens + 1):
        for x in product(range(mdp.vocab_size), repeat=length):
            if any(mdp.is_eos[t] for t in x[:-1]) or not (mdp.is_eos[x[-1]] or length == mdp.max_new_tokens):
                continue
            if all(mdp.action_masks(t)[token] for t, token in enumerate(x)):
                found.append(x)
    ended = [x for x in found if mdp.is_eos[x[-1]]]
    return ended + [x for x in found if not mdp.is_eos[x[-1]]]


def rows_by_hand(env):
    """(C, X, P + T) the last observations of all outcomes."""
    task, listed = env.unwrapped.task, outcomes_by_hand(env.unwrapped.mdp)
    rows = task.prompts.observations(np.arange(task.prompts.num_prompts)).astype(np.int64)
    rows = np.repeat(rows[:, None], len(listed), 1)
    for i, x in enumerate(listed):
        rows[:, i, task.mdp.max_prompt_tokens : task.mdp.max_prompt_tokens + len(x)] = x
    return torch.from_numpy(rows)


def log_probs_by_hand(env, token_model, reference=None):
    """(C, X) by the training forward: every outcome is a row of its own."""
    rows = rows_by_hand(env)
    flat = rows.flatten(0, 1)
    actions = flat[:, env.unwrapped.mdp.max_prompt_tokens :]
    with torch.no_grad():
        if reference is None:
            terms = token_model.evaluate_episodes(flat, actions)
        else:
            terms = token_model.terms_under(reference, flat, actions)
    return terms.log_probs.double().sum(-1).view(rows.shape[:2])


@pytest.mark.parametrize("restriction", RESTRICTED)
def test_outcomes_are_those_of_the_mdp(restriction):
    env = make(**RESTRICTED[restriction])
    tree, listed, pad = AnswerTree(env), outcomes_by_hand(env.unwrapped.mdp), env.unwrapped.mdp.pad_id
    assert [tuple(t for t in row if t != pad) for row in tree.outcomes.tolist()] == listed
    assert tree.num_outcomes == len(listed) == len(tree.outcomes)
    assert tree.lengths.tolist() == [len(x) for x in listed]


@pytest.mark.parametrize("architecture", [small_llama, small_gpt2])
@pytest.mark.parametrize("restriction", RESTRICTED)
def test_log_probs_are_those_of_the_training_forward(restriction, architecture):
    env, model = make(**RESTRICTED[restriction]), architecture()
    token_model = TokenModel(env.unwrapped.mdp, model, temperature=0.7)
    tree, expected = AnswerTree(env), log_probs_by_hand(env, token_model)
    found = tree.log_probs(token_model)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    np.testing.assert_allclose(found.exp().sum(-1), np.ones(4), atol=1e-5)  # nothing is left out
    assert torch.equal(tree.log_probs(model, temperature=0.7), found)
    assert not torch.allclose(tree.log_probs(model), found, atol=1e-2)
    torch.testing.assert_close(AnswerTree(env, [3, 1]).log_probs(token_model), found[[3, 1]], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["Qwen2", "GPTNeoX", "Gemma2"])
def test_other_architectures(name):
    env = make(allowed_tokens=[0, 1, 4])
    token_model = TokenModel(
        env.unwrapped.mdp, small(name, **({} if name == "GPTNeoX" else {"num_key_value_heads": 2}))
    )
    torch.testing.assert_close(
        AnswerTree(env).log_probs(token_model), log_probs_by_hand(env, token_model), atol=2e-5, rtol=0
    )


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_virtual_tokens(kind):
    env, model = make(allowed_tokens=[0, 1, 4]), small_llama()
    token_model = TokenModel(env.unwrapped.mdp, model, peft={"peft_type": kind, "num_virtual_tokens": 3})
    found, tree = AnswerTree(env).log_probs(token_model), AnswerTree(env)
    torch.testing.assert_close(found, log_probs_by_hand(env, token_model), atol=2e-5, rtol=0)
    assert (found - tree.log_probs(small_llama())).abs().max() > 0.1
    with token_model.adapters_off():
        torch.testing.assert_close(tree.log_probs(model), tree.log_probs(small_llama()), atol=1e-6, rtol=0)


def test_many_prompts_and_a_large_vocabulary_go_in_parts(monkeypatch):
    env, model = make(), small_llama()
    tree = AnswerTree(env)
    whole, scores = tree.log_probs(model), tree.scores()
    monkeypatch.setattr("textgym.exact.answers.ROWS_AT_ONCE", 3)
    monkeypatch.setattr("textgym.exact.answers.LOGITS_PER_CHUNK", {"cpu": 7})
    torch.testing.assert_close(tree.log_probs(model), whole, atol=1e-5, rtol=0)
    assert all(torch.equal(tree.scores()[name], scores[name]) for name in scores)


@pytest.mark.parametrize("truncation", [{"top_k": 2}, {"top_p": 0.6}])
def test_truncated_outcomes_have_no_mass(truncation):
    env = make(min_new_tokens=1)
    tree, model = AnswerTree(env), small_llama()
    log_pi = tree.log_probs(model, **truncation)
    assert 0 < (log_pi > -math.inf).double().mean() < 0.5
    np.testing.assert_allclose(log_pi.exp().sum(-1), np.ones(4), atol=1e-5)
    policy = TokenModel(env.unwrapped.mdp, model, **truncation)
    rows = rows_by_hand(env).flatten(0, 1)[(log_pi > -math.inf).flatten()]
    with torch.no_grad():
        terms = policy.evaluate_episodes(rows, rows[:, 3:])
    torch.testing.assert_close(log_pi[log_pi > -math.inf], terms.log_probs.double().sum(-1), atol=2e-5, rtol=0)
    assert kl(tree.log_probs(model), log_pi).tolist() == [math.inf] * 4
    assert (kl(log_pi, tree.log_probs(model)) > 0.1).all()


def test_policy_and_reference_of_an_agent():
    """With adapters the reference is the policy's own model; the agent keeps what it was doing."""
    env = make()
    vector = gym.make_vec("TextGen-v0", num_envs=4, autoreset_mode="Disabled", **CHARACTERS | {"max_new_tokens": 3})
    options = {"policy_kwargs": {"temperature": 1.3, "top_k": 3}, "seed": 0, "device": "cpu"}
    agent = EpisodicAlgorithm("TokenPolicy", vector, small_llama(), lora={"r": 2}, **options)
    with torch.no_grad():
        for name, parameter in agent.policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    tree, token_model = AnswerTree(env), agent.token_model
    token_model.train(True)
    log_pi, log_a = tree.log_probs(agent), tree.reference_log_probs(agent)
    assert token_model.training and not token_model.model.training
    with token_model.adapters_off():
        expected = log_probs_by_hand(env, token_model, token_model.model)
    torch.testing.assert_close(log_a, expected, atol=2e-5, rtol=0)
    assert (kl(log_pi, log_a) > 0.1).all()
    assert torch.equal(log_pi, tree.log_probs(token_model))


def test_a_model_in_training_is_read_without_dropout_and_with_a_cache():
    env = make()
    token_model = TokenModel(env.unwrapped.mdp, small_gpt2(), gradient_checkpointing=True)
    tree = AnswerTree(env)
    expected = tree.log_probs(token_model)
    flags = [module.training for module in token_model.train(True).modules()]
    assert torch.equal(tree.log_probs(token_model), expected)
    assert [module.training for module in token_model.modules()] == flags and any(flags)


def play(env, prompt, outcome):
    """The return and the last info of an episode through the env's own API."""
    env.reset(options={"prompt": prompt})
    total = 0.0
    for token in outcome:
        _, reward, terminated, _, info = env.step(token)
        total += reward
    assert terminated
    return total, info


SCORERS = {
    "function": checksum,
    "composed": {
        "name": "weighted_sum",
        "scorers": [{"name": "regex", "pattern": "ab"}, {"name": "keyword", "words": "ab"}],
        "weights": [1.0, -0.5],
    },
    "per token": {"name": "token_counts", "weights": {"1": 1.0, "2": -2.0}},
}


@pytest.mark.parametrize("scorer", SCORERS)
def test_scores_are_those_of_episodes(scorer):
    env = make(scorer=SCORERS[scorer], min_new_tokens=1, eos_token_ids=[3, 4])
    tree, listed = AnswerTree(env), outcomes_by_hand(env.unwrapped.mdp)
    scores = tree.scores()
    names = env.unwrapped.task.scorer.component_names
    assert set(scores) == {"reward", *names} and all(v.shape == (4, len(listed)) for v in scores.values())
    for c, prompt in enumerate(CHARACTERS["prompts"]):
        for x in range(0, len(listed), 7):
            total, info = play(env, prompt, listed[x])
            assert scores["reward"][c, x].item() == pytest.approx(total)
            assert {n: scores[n][c, x].item() for n in names} == pytest.approx({n: info[n] for n in names})
    assert torch.equal(
        AnswerTree(make(True, scorer=SCORERS[scorer], min_new_tokens=1, eos_token_ids=[3, 4])).scores()["reward"],
        scores["reward"],
    )


def test_it_is_the_token_tree_where_there_is_one():
    env = gym.make("TextGenToy-v0")
    ours, theirs = AnswerTree(env), TokenTree.of(env)
    assert torch.equal(ours.outcomes, theirs.outcomes) and ours.num_contexts == theirs.num_contexts
    logits, rewards = env.unwrapped.reference_logits, theirs.scores(env)["reward"]
    log_a, scores = ours.log_probs(env.unwrapped.reference_model()), ours.scores()
    torch.testing.assert_close(log_a[0], theirs.log_probs(logits), atol=1e-5, rtol=0)
    assert torch.equal(scores["reward"][0], rewards)
    log_p, log_z = target_log_probs({"name": "rlhf", "beta": 0.5}, log_a, scores)
    policy, expected = theirs.policy_of(theirs.log_probs(logits) + rewards / 0.5)
    assert log_z.item() == pytest.approx(expected.item(), abs=1e-5)
    assert kl(log_p, log_a).item() == pytest.approx(theirs.kl(policy, logits).item(), abs=1e-5)
    assert expectation(log_p, scores["reward"]).item() == pytest.approx(
        theirs.expectation(policy, rewards).item(), abs=1e-5
    )


def agrees_with_sampling(policy, episodes):
    """Every exact number is within four standard errors of its estimate; the env has groups of 8."""
    tree, episodes = AnswerTree(policy.env), policy.sample_episodes(episodes)
    log_pi, log_a, rewards = tree.log_probs(policy), tree.reference_log_probs(policy), tree.scores()["reward"]
    log_ratio = (episodes.log_probs - episodes.reference_log_probs).sum(-1)
    right = (episodes.rewards.sum(-1) >= 1).double()
    for name, exact, sampled in (
        ("reward", expectation(log_pi, rewards), episodes.rewards.sum(-1).view(-1, 8).mean(-1)),
        ("KL", kl(log_pi, log_a), log_ratio.view(-1, 8).mean(-1)),
        ("entropy", entropy(log_pi), -episodes.log_probs.sum(-1).view(-1, 8).mean(-1)),
        ("pass@8", pass_at(8, log_pi, rewards >= 1), right.view(-1, 8).amax(-1)),
    ):
        estimate = Estimate.mean_of(sampled)
        assert 0 < estimate.standard_error < 0.05, name
        assert abs(exact.mean().item() - estimate.value) < 4 * estimate.standard_error, name


def test_sampling_agrees_within_four_standard_errors():
    def right(completions):
        return [float(text.startswith("a")) for text in completions]

    arguments = {**CHARACTERS, "max_new_tokens": 3, "scorer": right}
    env = gym.make_vec("TextGen-v0", num_envs=512, num_generations=8, autoreset_mode="Disabled", **arguments)
    token_model = TokenModel(env.unwrapped.mdp, small_llama(), temperature=1.2)
    agrees_with_sampling(ModelPolicy(env, token_model, small_llama(seed=1), seed=0), 8192)


@pytest.mark.parametrize(
    ("env_id", "source", "size"),
    [
        ("TextGenArithmetic-v0", "arithmetic", 8),
        ("TextGenNumerals-v0", "numerals", 8),
        pytest.param("TextGenCountdown-v0", "countdown", 1, marks=pytest.mark.slow),  # 402,234 outcomes
    ],
)
def test_sampling_agrees_on_the_ids_with_a_right_answer(env_id, source, size):
    if source == "numerals":
        pytest.importorskip("sacrebleu")
    prompts = {"name": source, "split": "test", "size": size}
    env = gym.make_vec(env_id, num_envs=512, num_generations=8, autoreset_mode="Disabled", prompts=prompts)
    token_model = TokenModel(env.unwrapped.mdp, TASKS[env_id].model, temperature=1.3)
    other = load_model(TASKS[env_id].model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.05)
    agrees_with_sampling(ModelPolicy(env, token_model, other, seed=0), 4096)


def test_every_context_costs_one_token():
    """The tokens that go through the model: each prompt once, and one for every context."""
    env, model, fed = make(), small_llama(), []
    model.model.register_forward_pre_hook(lambda m, a, k: fed.append(k["input_ids"].numel()), with_kwargs=True)
    tree = AnswerTree(env)
    token_model = TokenModel(env.unwrapped.mdp, model)
    fed.clear()
    tree.log_probs(token_model)
    assert sum(fed) == (1 + 1 + 2 + 3) + 4 * (tree.num_contexts - 1)


def test_a_row_of_its_own_gives_the_same_next_token():
    env, model = make(), small_llama()
    tree = AnswerTree(env)
    log_probs = tree.log_probs(model)
    rows = torch.from_numpy(env.unwrapped.task.prompts.observations([3])).long()
    first = model.get_output_embeddings()(state_hidden(model, env.unwrapped.mdp, rows)).log_softmax(-1)
    assert log_probs[3, 0].item() == pytest.approx(first[0, 4].item(), abs=1e-5)  # EOS at once


def test_mistakes_are_named():
    env = make()
    with pytest.raises(ValueError, match="CartPole.* is not a TextGym env"):
        AnswerTree(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="come from a function, which has no end; give prompt_ids"):
        AnswerTree(make(prompts=lambda rng: "a"))
    with pytest.raises(ValueError, match="allows no token but those that end a text"):
        AnswerTree(make(allowed_tokens=[4]))
    with pytest.raises(ValueError, match="4 ordinary tokens are allowed, and answers have up to 20: .*for each of 4"):
        AnswerTree(make(max_new_tokens=20))
    tree = AnswerTree(env)
    with pytest.raises(ValueError, match="brings its own temperature"):
        tree.log_probs(TokenModel(env.unwrapped.mdp, small_llama()), temperature=0.5)
    with pytest.raises(ValueError, match="made for another MDP"):
        tree.log_probs(TokenModel(make(max_new_tokens=2).unwrapped.mdp, small_llama()))
    with pytest.raises(ValueError, match="embeds 4 tokens, the env's tokenizer has 5"):
        tree.log_probs(small_llama(vocab_size=4))
    agent = EpisodicAlgorithm(
        "TokenPolicy",
        gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled", **CHARACTERS | {"max_new_tokens": 3}),
        small_llama(),
        device="cpu",
    )
    agent.reference = None
    with pytest.raises(ValueError, match="this policy has no reference"):
        tree.reference_log_probs(agent)

"""The tree of an env: its scores against episodes played, its observations against a language model, and refusals."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym
from tests.conftest import CHARACTERS
from textgym.exact import TokenTree, evaluate_policy, hard_optimal, soft_optimal
from textgym.scorers import LogProb, Scorer, WeightedSum


class Ones(Scorer):
    """A token scorer: 1 for every token 1."""

    name = "ones"
    per_token = True

    def score(self, generations):
        newest = generations.observations[np.arange(len(generations)), generations.lengths]  # column 0 is BOS
        return newest == 1


def length(completion_ids):
    return [float(len(ids)) for ids in completion_ids]


def play(env, outcome):
    """Rewards and the last info of one episode."""
    env.reset(seed=0)
    rewards = []
    for token in outcome[outcome <= env.unwrapped.num_tokens].tolist():
        _, reward, terminated, _, info = env.step(token)
        rewards.append(reward)
    assert terminated
    return rewards, info


@pytest.mark.parametrize("scorer", [None, length, WeightedSum([Ones(), length], [1.0, -0.25])])
def test_scores_are_those_of_episodes_played(scorer):
    task = {} if scorer is None else {"scorer": scorer, "num_tokens": 3, "max_new_tokens": 3}
    env = gym.make("TextGenToy-v0", **task)
    tree = TokenTree.of(env)
    scores, steps = tree.scores(env), tree.step_scores(env)
    assert set(scores) == {"reward", *env.unwrapped.scorer.component_names}
    for number, outcome in enumerate(tree.outcomes):
        rewards, info = play(env, outcome)
        assert sum(rewards) == pytest.approx(scores["reward"][number].item())
        for name in env.unwrapped.scorer.component_names:
            assert info[name] == pytest.approx(scores[name][number].item())
        context = tree.index(
            torch.stack([outcome.where(torch.arange(len(outcome)) < i, tree.pad_id) for i in range(4)])
        )
        paid = [steps["reward"][context[i], outcome[i]].item() for i in range(len(rewards))]
        assert rewards == pytest.approx(paid)


def test_the_vector_env_has_the_same_tree():
    env, vector = gym.make("TextGenToy-v0"), gym.make_vec("TextGenToy-v0", num_envs=3)
    tree = TokenTree.of(vector)
    assert tree == TokenTree.of(env) == TokenTree(4, 4)
    torch.testing.assert_close(tree.scores(vector), tree.scores(env), rtol=0, atol=0)


def test_the_best_return_of_the_toy_is_four_ones():
    env = gym.make("TextGenToy-v0")
    tree = TokenTree.of(env)
    solution = hard_optimal(tree, tree.scores(env)["reward"])
    best = tree.outcomes[tree.log_probs(solution.policy).argmax()]
    assert (solution.values[0], best.tolist()) == (4.0, [1, 1, 1, 1])


def test_characters_are_solved_too():
    env = gym.make("TextGenChars-v0", max_new_tokens=4)  # the share of the text that "ab" covers
    tree = TokenTree.of(env)
    rewards = tree.scores(env)["reward"]
    assert rewards[tree.index([[0, 1, 5 + 0, 5], [0, 1, 0, 1], [0, 1, 2, 2], [2, 2, 2, 2]])].tolist() == [1, 1, 0.5, 0]


def test_a_language_model_at_all_contexts_is_its_table():
    env = gym.make("TextGenToy-v0", num_tokens=3, max_new_tokens=3, reference_seed=5)
    tree, model = TokenTree.of(env), env.unwrapped.reference_model()
    with torch.no_grad():
        logits = model(**textgym.model_inputs(tree.observations, tree.pad_id)).logits[:, -1]
    np.testing.assert_array_equal(logits, env.unwrapped.reference_logits.astype(np.float32))


def test_log_probabilities_that_an_env_pays_are_those_of_the_tree():
    toy = {"num_tokens": 3, "max_new_tokens": 3}
    reference = gym.make("TextGenToy-v0", **toy).unwrapped
    env = gym.make("TextGenToy-v0", scorer=LogProb(reference.reference_model()), **toy)
    tree = TokenTree.of(env)
    log_a = tree.log_probs(reference.reference_logits)
    np.testing.assert_allclose(tree.scores(env)["reward"], log_a, atol=1e-5)
    value = evaluate_policy(tree, reference.reference_logits, tree.step_scores(env)["reward"]).values[0]
    assert value == pytest.approx((log_a.exp() @ log_a).item(), abs=1e-5)  # minus the entropy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (CHARACTERS, "max_prompt_tokens"),
        (CHARACTERS | {"max_prompt_tokens": 1, "prompts": ["", "a"]}, "only prompt is the empty one"),
        (CHARACTERS | {"max_prompt_tokens": 1, "prompts": lambda rng: ""}, "only prompt is the empty one"),
        (CHARACTERS | {"max_prompt_tokens": 1, "prompts": [""], "min_new_tokens": 1}, "forbids no token"),
        (CHARACTERS | {"max_prompt_tokens": 1, "prompts": [""], "banned_tokens": [0]}, "forbids no token"),
        ({"tokenizer": "bytes", "max_prompt_tokens": 1, "prompts": [""]}, "too large to enumerate"),
    ],
)
def test_other_envs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TokenTree.of(gym.make("TextGen-v0", **arguments))


def test_envs_of_others_and_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="not a TextGym env"):
        TokenTree.of(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match=r"num_tokens=4.*num_tokens=3"):
        TokenTree(3, 4).scores(gym.make("TextGenToy-v0"))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 3), "num_tokens is 0"),
        ((3, 0), "max_new_tokens is 0"),
        ((300, 9), "too large"),
        ((1, 9000), "9,001 outcomes"),
    ],
)
def test_sizes_that_cannot_be_enumerated(sizes, message):
    with pytest.raises(ValueError, match=message):
        TokenTree(*sizes)


def test_bad_input_is_named():
    tree, nothing = TokenTree(2, 2), torch.full((7,), -torch.inf)
    with pytest.raises(ValueError, match=r"logits have shape \(3, 2\); this tree has \(3, 3\) contexts and actions"):
        tree.log_probs(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"rewards have shape \(6,\); this tree has \(7,\) outcomes"):
        hard_optimal(tree, torch.zeros(6))
    with pytest.raises(ValueError, match="logits of context 1 .* make no distribution"):
        tree.log_probs([[0.0, 0.0, 0.0], [-torch.inf] * 3, [0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="no outcome has any mass"):
        tree.policy_of(nothing)
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="nan or inf"):
            tree.policy_of(nothing.index_fill(0, torch.tensor([1]), wrong))
    for beta in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="beta is .* must be positive"):
            soft_optimal(tree, torch.zeros(3, 3), torch.zeros(7), beta)

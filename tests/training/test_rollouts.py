"""Episodes from a Gymnasium vector env, against what the env itself says and against the SB3 collection."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.conftest import CHARACTERS, count_tokens, small_llama
from textgym.training import TokenModel
from textgym.training.features import check_features, features_of
from textgym.training.rollouts import collect_episodes


def make(n=4, mode="Disabled", scorer=count_tokens, **kwargs):
    return gym.make_vec("TextGen-v0", num_envs=n, autoreset_mode=mode, scorer=scorer, **(CHARACTERS | kwargs))


class Writes:
    """Row i writes `lengths[i]` times token 1 and then EOS; values and log-probabilities say the step and the row."""

    def __init__(self, env, lengths):
        self.mdp, self.device, self.lengths = env.unwrapped.mdp, torch.device("cpu"), torch.tensor(lengths)

    def __call__(self, obs):
        written = (obs[:, 3:] != 5).sum(-1)
        rows = torch.arange(len(obs))
        return torch.where(written >= self.lengths, 4, 1), written[:, None].float(), -1.0 - rows - 10 * written


def test_every_field_by_hand():
    env = make(3)
    episodes = collect_episodes(env, Writes(env, [0, 2, 9]), rounds=2, seed=0)
    assert len(episodes) == 6
    assert episodes.actions.tolist() == 2 * [[4, 5, 5, 5, 5, 5], [1, 1, 4, 5, 5, 5], [1] * 6]
    assert episodes.lengths.tolist() == 2 * [1, 3, 6]
    assert episodes.mask.tolist() == (episodes.actions != 5).tolist()
    prompts = (episodes.rows[:, :3] != 5).sum(-1)
    assert (prompts >= 1).all() and episodes.row_lengths.tolist() == (prompts + episodes.lengths - 1).tolist()
    assert episodes.rewards.tolist() == 2 * [[1, 0, 0, 0, 0, 0], [0, 0, 3, 0, 0, 0], [0, 0, 0, 0, 0, 6]]
    assert episodes.components.tolist() == 2 * [[1], [3], [6]]
    assert episodes.values.tolist() == 2 * [[0] * 6, [0, 1, 2, 0, 0, 0], [0, 1, 2, 3, 4, 5]]
    assert episodes.sampled_log_probs[1].tolist() == [-2, -12, -22, 0, 0, 0]
    assert torch.equal(episodes.log_probs, episodes.sampled_log_probs)
    table = env.unwrapped.task.prompts.observations(episodes.prompt_ids.numpy())
    assert np.array_equal(table[:, :3], episodes.rows[:, :3].numpy())


def test_features_are_the_components_and_the_return():
    env = make(2, scorer={"name": "token_counts", "weights": {1: 0.5, 4: -1.0}})
    episodes = collect_episodes(env, Writes(env, [2, 6]))
    features = features_of(episodes, env.unwrapped.task.scorer.component_names)
    assert features["reward"].tolist() == features["token_counts"].tolist() == [0.0, 3.0]
    assert features["reward"].dtype == torch.float64

    class Reads:
        features = ("token_counts", "keyword")

    with pytest.raises(ValueError, match=r"reads the feature 'keyword'; the env reports \['reward', 'token_counts'\]"):
        check_features(Reads(), ["token_counts"])


def test_the_log_probabilities_are_those_of_the_training_forward():
    env = make(8)
    model = TokenModel(env.unwrapped.mdp, small_llama())
    episodes = collect_episodes(env, model, rounds=2, seed=1)
    terms = model.evaluate_episodes(episodes.rows, episodes.actions)
    torch.testing.assert_close(episodes.log_probs, terms.log_probs.detach(), atol=1e-4, rtol=0)


def test_the_seed_decides_and_later_rounds_go_on():
    env = make(8)
    actor = Writes(env, [1] * 8)
    first, again = (collect_episodes(env, actor, rounds=2, seed=3) for _ in range(2))
    assert torch.equal(first.rows, again.rows) and not torch.equal(first.rows[:8], first.rows[8:])


def test_an_env_that_restarts_rows_by_itself_is_refused():
    env = make(2, "SameStep")
    with pytest.raises(ValueError, match="autoreset mode is .*autoreset_mode='Disabled'"):
        collect_episodes(env, Writes(env, [1, 1]))

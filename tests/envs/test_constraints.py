"""The ids with constraints: their features by hand, on tiny and on SmolLM2, and tiny's base rates."""

import math

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

import textgym  # noqa: F401 (registers the ids)
from tests.conftest import ENV_IDS, SMOLLM2
from textgym.scorers import make_scorer
from textgym.tasks import TASKS
from textgym.testing import make_generations
from textgym.tokenizers import make_tokenizer

SMOLLM2_IDS = [env_id for env_id in TASKS if env_id not in ENV_IDS]
EXAMPLES = {
    "TextGenKeyword-v0": {"A Horror film.": {"keyword": 1}, "Horrors.": {"keyword": 0}},
    "TextGenTopic-v0": {"Funny!": {"topic": 1}, "It was fun.": {"topic": 0}},
    "TextGenBalance-v0": {"This film is old.": {"opening": 1}, "Is this it? Thistles": {"opening": 0}},
    "TextGenHybrid-v0": {
        "This comedy\nis old.": {"topic": 1, "opening": 1},
        "The jokes are old.": {"topic": 1, "opening": 0},
        "Thistles.": {"topic": 0, "opening": 0},
    },
    "TextGenKeywordSmolLM2-v0": {"All you need is love.": {"keyword": 1}, "a lovely glove": {"keyword": 0}},
    "TextGenTopicSmolLM2-v0": {"An ancient spell": {"topic": 1}, "A spelling bee": {"topic": 0}},
    "TextGenBalanceSmolLM2-v0": {"He saw her; she left.": {"female": 1}, "he and she": {"female": 0}},
    "TextGenHybridSmolLM2-v0": {
        "The queen lost her ring.": {"topic": 1, "female": 1},
        "A ring": {"topic": 0, "female": 0},
    },
}
"""Text -> its components; the reward is their mean."""

TEXTS = [(env_id, text, components) for env_id, texts in EXAMPLES.items() for text, components in texts.items()]


def test_every_constraint_has_an_example():
    kinds = [
        f"TextGen{kind}{model}-v0" for model in ("", "SmolLM2") for kind in ("Keyword", "Topic", "Balance", "Hybrid")
    ]
    assert list(EXAMPLES) == kinds and set(kinds) <= set(TASKS) and set(kinds[4:]) <= set(SMOLLM2_IDS)


@pytest.mark.parametrize(("env_id", "text", "components"), TEXTS)
def test_features_by_hand(env_id, text, components):
    scores = make_scorer(TASKS[env_id].kwargs["scorer"]).evaluate(make_generations([""], [text]))
    assert {name: values.item() for name, values in scores.components.items()} == components
    assert scores.rewards.item() == sum(components.values()) / len(components)


def play(env, text):
    """The observation of reset; reward and info at the end of the text."""
    first, _ = env.reset(seed=0)
    task = env.unwrapped.task
    for token in [*task.tokenizer.encode(text), *task.mdp.eos_token_ids]:
        _, reward, terminated, _, info = env.step(token)
    assert terminated
    return first, reward, info


@pytest.mark.parametrize(("env_id", "text", "components"), [row for row in TEXTS if row[0] in ENV_IDS])
def test_the_env_pays_and_reports_them(env_id, text, components):
    env = gym.make(env_id)
    first, reward, info = play(env, text)
    mdp = env.unwrapped.mdp
    assert first.tolist() == [mdp.bos_token_id] + 32 * [mdp.pad_id]  # no prompt
    assert reward == sum(components.values()) / len(components)
    assert info == {**components, "eos": True, "prompt_id": 0}


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2, reason="the extra smollm2-q4 is not installed")
def test_the_constraints_of_smollm2():
    tokenizer = make_tokenizer("smollm2-q4")  # once, as it takes seconds to read
    for env_id in list(EXAMPLES)[4:]:
        env = gym.make(env_id, tokenizer=tokenizer)
        mdp = env.unwrapped.mdp
        assert (mdp.vocab_size, mdp.max_prompt_tokens, mdp.max_new_tokens) == (49152, 1, 40)
        for text, components in EXAMPLES[env_id].items():
            first, reward, info = play(env, text)
            assert first.tolist() == [mdp.bos_token_id] + 40 * [mdp.pad_id]
            assert reward == sum(components.values()) / len(components)
            assert info == {**components, "eos": True, "prompt_id": 0}
        check_env(env.unwrapped)


@pytest.mark.slow
def test_base_rates_of_tiny_are_those_of_the_tasks():
    from textgym.sb3 import EpisodicAlgorithm

    for env_id in ("TextGenKeyword-v0", "TextGenHybrid-v0"):
        agent = EpisodicAlgorithm("TokenPolicy", env_id, "tiny", seed=7, device="cpu")
        means = agent.sample_episodes(2048).components.mean(0).tolist()
        for mean, (name, feature) in zip(means, TASKS[env_id].features.items(), strict=True):
            rate = feature.base_rate
            assert mean == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / 2048)), name

"""The table of scorers: what it exports, that naming one imports no other, and which names a component may have."""

import functools
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.logger import Logger

import textgym.scorers
from agents import REINFORCE
from textgym.scorers import FunctionScorer, Keyword, Regex, Scorer, Threshold, WeightedSum, make_scorer
from textgym.scorers.registry import RESERVED, SCORERS, scorer_class
from textgym.testing import check_scorer, make_generations

SHADOWING = [*RESERVED, "", "_x", "_reward", 3, None]


class Named(Scorer):
    """1 for every text, under any name."""

    def __init__(self, name):
        self.name = name

    def score(self, generations):
        return [1.0] * len(generations)


def test_every_row_names_a_scorer_that_the_package_exports():
    for name in SCORERS:
        cls = scorer_class(name)
        assert issubclass(cls, Scorer)
        assert getattr(textgym.scorers, cls.__name__) is cls
        assert cls.__name__ in textgym.scorers.__all__ and cls.__name__ in dir(textgym.scorers)
    assert scorer_class("keyword") is Keyword
    assert all(hasattr(textgym.scorers, name) for name in textgym.scorers.__all__)


@pytest.mark.parametrize("name", SCORERS)
def test_the_first_line_of_a_docstring_says_what_is_paid(name):
    """It is what `python -m textgym` lists, so it is one whole sentence."""
    line = scorer_class(name).__doc__.splitlines()[0]
    assert line.endswith(".") and ". " not in line and len(line) < 100


def test_what_is_not_exported():
    with pytest.raises(AttributeError, match="module 'textgym.scorers' has no attribute 'Keywords'"):
        _ = textgym.scorers.Keywords


HEAVY = (
    *("torch", "transformers", "peft", "vaderSentiment", "sacrebleu", "rouge_score", "nltk", "textstat", "jsonschema"),
    "sentence_transformers",
    "requests",
    "textgym.language_models",
)


def modules_after(code):
    """Which modules of ours, and which heavy ones, a fresh interpreter has imported after some code."""
    report = f"""
import sys
{code}
heavy = {HEAVY}
print(*(name for name in sys.modules if name.startswith("textgym.scorers.") or name in heavy))
"""
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.split()) - {
        f"textgym.scorers.{module}" for module in ("base", "generations", "registry", "trainer")
    }


def test_naming_a_scorer_imports_no_other():
    assert modules_after("import textgym.scorers") == set()
    made = "import textgym.scorers; textgym.scorers.make_scorer"
    sentiment = {"textgym.scorers.sentiment", "vaderSentiment"}
    assert modules_after(f"{made}('sentiment')") == sentiment
    assert modules_after(f"{made}({{'name': 'keyword', 'words': 'a'}})") == {"textgym.scorers.text"}
    nested = "{'name': 'threshold', 'scorer': 'sentiment', 'at': 0}"
    assert modules_after(f"{made}({nested})") == {*sentiment, "textgym.scorers.composition"}


def test_no_class_imports_its_library_before_it_is_built():
    imported = modules_after("from textgym.scorers import *")
    assert {path.partition(":")[0] for path in SCORERS.values()} <= imported
    assert all(name.startswith("textgym.scorers.") for name in imported)


@pytest.mark.parametrize("name", SHADOWING, ids=repr)
def test_a_name_that_shadows_is_refused_wherever_a_scorer_is_put(name):
    message = "a scorer's component cannot be named .*: .*; choose another with name=... "
    for put in (
        make_scorer,
        lambda scorer: WeightedSum([Regex("a"), scorer]),
        lambda scorer: Threshold(scorer, at=0.5),
        lambda scorer: gym.make("TextGen-v0", scorer=scorer),
        check_scorer,
    ):
        with pytest.raises(ValueError, match=message):
            put(Named(name))


@pytest.mark.parametrize("name", ["reward", "", "_x"])
def test_a_name_that_is_given_is_taken_or_refused(name):
    def brevity(completions):
        return [0.0] * len(completions)

    for spec in ({"name": "keyword", "words": "a"}, {"name": "threshold", "scorer": "sentiment", "at": 0.5}):
        with pytest.raises(ValueError, match=f"cannot be named {name!r}"):
            make_scorer({**spec, "component_name": name})
    with pytest.raises(ValueError, match=f"cannot be named {name!r}"):
        make_scorer(FunctionScorer(brevity, name=name))


def reward(completions):
    return [float(len(text)) for text in completions]


def _judge(completions):
    return reward(completions)


class Reward:
    def __call__(self, completions):
        return reward(completions)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (reward, "reward_function"),
        (functools.partial(reward), "reward_function"),
        (_judge, "judge"),
        (Reward(), "Reward"),
        (lambda completions: reward(completions), "<lambda>"),
    ],
)
def test_a_function_of_any_name_is_enough(function, name):
    scores = make_scorer(function).evaluate(make_generations(["a", "b"], ["x", "yy"]))
    assert list(scores.components) == [name]
    np.testing.assert_array_equal(scores.rewards, [1, 2])


def test_underscores_alone_leave_a_name():
    function = type("_", (Reward,), {})()
    assert FunctionScorer(function).name == "function"


def test_a_function_called_reward_in_an_env():
    env = gym.make("TextGen-v0", tokenizer="bytes", max_prompt_tokens=64, max_new_tokens=2, scorer=reward)
    env.reset(seed=0)
    env.step(ord("a"))
    _, value, _, _, info = env.step(ord("b"))
    assert value == info["reward_function"] == 2.0 and "reward" not in info


def test_names_of_the_log_are_reserved():
    """Agents log components as rollout/<name>; what else they log there must not be the name of one."""
    modes = {"num_generations": 2, "autoreset_mode": "Disabled"}
    env = gym.make_vec("TextGen-v0", num_envs=4, max_new_tokens=2, scorer=reward, **modes)
    agent = REINFORCE("TokenPolicy", env, kl_coef=0.1, seed=0)
    recorded = {}

    class Kept(Logger):
        def dump(self, step=0):
            recorded.update(self.name_to_value)
            super().dump(step)

    agent.set_logger(Kept(None, []))
    agent.learn(8)
    logged = {key.removeprefix("rollout/") for key in recorded if key.startswith("rollout/")}
    assert {"reward", "kl_to_reference"} < logged and logged - set(RESERVED) == {"reward_function"}

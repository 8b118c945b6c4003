"""Prompt sources by name: their arguments, their parts, and what the envs make of `level` and `split`."""

from typing import Literal

import gymnasium as gym
import numpy as np
import pytest

from tests.conftest import CHARACTERS
from textgym import prompt_sources
from textgym.arguments import Count
from textgym.prompts import load_prompts
from textgym.splits import HELD_OUT, in_split


def letters(level: Literal[1, 2] = 1, size: Count = 2):
    """A source with levels."""
    return [{"prompt": "ab"[:level], "row": row} for row in range(size)]


def spelled(word: str, level: Literal[1, 2] = 1):
    """A source that needs an argument."""
    return list(word) * level


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    for function in (letters, spelled):
        path = f"tests.test_prompt_sources:{function.__name__}"
        monkeypatch.setitem(prompt_sources.PROMPT_SOURCES, function.__name__, path)


def contents(source):
    return [prompt.content for prompt in load_prompts(source)]


def test_a_name_alone_and_a_dict_with_arguments():
    assert contents("letters") == contents({"name": "letters"}) == ["a", "a"]
    loaded = load_prompts({"name": "letters", "level": np.int64(2), "size": 3})
    assert [(p.content, p.columns) for p in loaded] == [("ab", {"row": row}) for row in range(3)]


def test_an_argument_behind_a_colon():
    assert contents("spelled:bad") == contents({"name": "spelled", "word": "bad"}) == ["b", "a", "d"]
    assert contents({"name": "spelled:ab", "level": 2}) == ["a", "b", "a", "b"]
    assert contents("spelled:a:b") == ["a", ":", "b"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"name": "lettres"}, "unknown prompt source 'lettres'; did you mean 'letters'.* those with a name are"),
        ({"name": "xyzzy:1"}, "unknown prompt source 'xyzzy:1'; those with a name are .*'letters', .*'reviews'"),
        ({"name": 3}, "unknown prompt source 3; those"),
        ({"name": "letters", "levl": 1}, "'letters' takes no argument 'levl'; did you mean 'level'.* accepted are "),
        ({"name": "letters", "level": 3}, r"prompt source 'letters': level is 3; accepted are \[1, 2\]"),
        ({"name": "letters", "level": True}, r"prompt source 'letters': level is True; accepted are \[1, 2\]"),
        ({"name": "letters", "size": 0}, "prompt source 'letters': size is 0; it must be an integer of at least 1"),
        ({"name": "reviews", "split": "dev"}, r"'reviews': split is 'dev'; accepted are \['train', 'test', None\]"),
        ("letters:2", "'letters:2': 'letters' takes nothing behind a colon, but .'level', 'size'."),
        ("spelled", "'spelled' needs 'word': write 'spelled:...', or a dict that has it"),
        ({"name": "spelled:a", "word": "b"}, "'spelled:a': 'spelled' takes 'word' once"),
    ],
)
def test_bad_sources(source, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(source)


def test_the_parts_of_the_reviews():
    everything, train, test = (contents({"name": "reviews", "split": split}) for split in (None, "train", "test"))
    assert contents("reviews") == everything and len(everything) == 212
    assert not set(train) & set(test) and sorted(train + test) == sorted(everything)
    assert 30 <= len(test) <= 55  # 42 of 212 are expected; the hash is fixed


def test_a_part_is_the_hashs_share():
    held_out = np.mean([in_split(f"prompt {i}", "test") for i in range(10_000)])
    assert abs(held_out - HELD_OUT) < 4 * (HELD_OUT * (1 - HELD_OUT) / 10_000) ** 0.5
    assert all(in_split(f"{i}", "test") != in_split(f"{i}", "train") for i in range(100))


def make(kind, **kwargs):
    env = gym.make("TextGen-v0", **kwargs) if kind == "single" else gym.make_vec("TextGen-v0", num_envs=2, **kwargs)
    assert env.spec is not None and type(env.spec).from_json(env.spec.to_json()).kwargs == env.spec.kwargs
    prompts = env.unwrapped.task.prompts
    return prompts.contents(np.arange(prompts.num_prompts))


@pytest.mark.parametrize("kind", ["single", "vector"])
class TestEnvs:
    def test_level_and_split_reach_the_source(self, kind):
        assert make(kind, split="test") == contents({"name": "reviews", "split": "test"})
        assert make(kind) == make(kind, split=None) == contents("reviews")
        assert make(kind, **CHARACTERS | {"prompts": "letters"}, level=2) == ["ab", "ab"]
        assert make(kind, **CHARACTERS | {"prompts": {"name": "letters", "size": 1}}, level=2) == ["ab"]
        assert make(kind, **CHARACTERS | {"prompts": "spelled:ab"}, level=2) == ["a", "b", "a", "b"]

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"level": 2}, "prompt source 'reviews' takes no argument 'level'; accepted are .'split'."),
            ({"split": "dev"}, r"prompt source 'reviews': split is 'dev'; accepted are \['train', 'test', None\]"),
            (
                {"prompts": ["a"], "level": 2},
                "level is 2, but these prompts have no level: only those of a prompt source",
            ),
            ({"prompts": ["a"], "split": "test"}, "split is 'test', but these prompts have no split: only .*'reviews'"),
            (
                {"prompts": {"name": "letters", "level": 1}, "level": 2},
                "level is given twice, as an argument of the env",
            ),
        ],
    )
    def test_what_a_source_does_not_take(self, kind, kwargs, message):
        with pytest.raises(ValueError, match=message):
            make(kind, **kwargs)


def test_the_toy_has_neither():
    with pytest.raises(TypeError, match="TextGenToyEnv got an unexpected keyword argument 'split'"):
        gym.make("TextGenToy-v0", split="test")

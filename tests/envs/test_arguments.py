"""Arguments of the envs: wrong types are refused by name, unknown names with those that are known."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode

from tests.conftest import CHARACTERS
from textgym.envs import TextGenerationEnv


def single(env_id="TextGen-v0", **kwargs):
    return gym.make(env_id, **kwargs)


def vector(env_id="TextGen-v0", **kwargs):
    return gym.make_vec(env_id, **{"num_envs": 2, **kwargs})


MAKERS = pytest.mark.parametrize("make", [single, vector])
WRONG = [(name, value) for name in ("max_prompt_tokens", "max_new_tokens") for value in ("8", 2.5, True, None, [8])]
WRONG += [("min_new_tokens", value) for value in ("1", 1.0, None)]
WRONG += [(name, value) for name in ("eos_token_ids", "banned_tokens", "allowed_tokens") for value in (2, "ab", ["a"])]
WRONG += [("banned_tokens", [1.0]), ("banned_tokens", [True]), ("allowed_tokens", {"a": 1}), ("eos_token_ids", b"a")]
WRONG += [("truncate_prompts", 1), ("truncate_prompts", "no")]


@MAKERS
@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_types(make, name, value):
    with pytest.raises(ValueError, match=rf"^{name} is .*; it must be (an integer|True or False|a list of token ids)"):
        make(**{**CHARACTERS, name: value})


@MAKERS
def test_no_end_of_text(make):
    with pytest.raises(ValueError, match="eos_token_ids is empty; name the ids that end a text, or None for the token"):
        make(**CHARACTERS, eos_token_ids=[])


@MAKERS
def test_integers_of_any_kind_are_accepted(make):
    env = make(**{**CHARACTERS, "max_new_tokens": np.int32(3)}, banned_tokens=np.array([1]), eos_token_ids=(2, 4))
    assert env.unwrapped.mdp.max_new_tokens == 3 and type(env.unwrapped.mdp.max_new_tokens) is int
    assert env.unwrapped.mdp.banned_tokens == (1,) and env.unwrapped.mdp.eos_token_ids == (2, 4)


@pytest.mark.parametrize("name", ["num_envs", "num_generations"])
@pytest.mark.parametrize("value", [4.0, "4", True, None])
def test_numbers_of_rows(name, value):
    for env_id in ("TextGen-v0", "TextGenToy-v0"):
        with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be an integer"):
            vector(env_id, **{name: value})


@pytest.mark.parametrize("name", ["num_tokens", "max_new_tokens"])
def test_the_toys_numbers(name):
    for make in (single, vector):
        with pytest.raises(ValueError, match=f"{name} is '3'; it must be an integer"):
            make("TextGenToy-v0", **{name: "3"})


@pytest.mark.parametrize(
    ("make", "env_id", "name", "message"),
    [
        (
            single,
            "TextGen-v0",
            "max_tokens",
            "TextGenerationEnv got an unexpected keyword argument 'max_tokens'; did you mean 'max_new_to",
        ),
        (
            vector,
            "TextGen-v0",
            "num_generation",
            "VectorEnv got an unexpected keyword argument 'num_generation'; did you mean 'num_gener",
        ),
        (
            single,
            "TextGen-v0",
            "num_generations",
            "got an unexpected keyword argument 'num_generations'; .*it takes allowed_tokens, .*",
        ),
        (
            single,
            "TextGenToy-v0",
            "num_token",
            "TextGenToyEnv got an unexpected keyword argument 'num_token'; did you mean 'num_tokens'",
        ),
        (single, "TextGenToy-v0", "tokenizer", "'tokenizer'; .*it takes max_new_tokens, num_tokens, reference_logits"),
        (
            vector,
            "TextGenToy-v0",
            "env_arguments",
            "TextGenToyVectorEnv got an unexpected keyword argument 'env_arguments'",
        ),
    ],
)
def test_unknown_names(make, env_id, name, message):
    with pytest.raises(TypeError, match=message):
        make(env_id, **{name: 1})


def test_a_subclass_may_take_more():
    class Mine(TextGenerationEnv):
        def __init__(self, flavour="sweet", **kwargs):
            self.flavour = flavour
            super().__init__(**kwargs)

    assert Mine(flavour="sour", **CHARACTERS).flavour == "sour"
    with pytest.raises(TypeError, match="Mine got an unexpected keyword argument 'flavor'; did you mean 'flavour'"):
        Mine(flavor="sour")


def test_autoreset_modes_by_name_or_member():
    for mode in AutoresetMode:
        for given in (mode, mode.value):
            assert vector(**CHARACTERS, autoreset_mode=given).metadata["autoreset_mode"] is mode
    for given in ("same_step", None, ["SameStep"]):
        with pytest.raises(ValueError, match="autoreset_mode is .*; accepted are"):
            vector(**CHARACTERS, autoreset_mode=given)


@pytest.mark.parametrize("action", [True, np.True_, 1.0, "a", None])
def test_actions_that_are_no_integers(action):
    env = single(**CHARACTERS).unwrapped
    env.reset()
    with pytest.raises(InvalidAction, match="an action is an integer token id"):
        env.step(action)

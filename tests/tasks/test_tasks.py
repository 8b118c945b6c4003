"""The tasks: JSON and words, found in their modules, and what they say of rewards, features, targets and models."""

import dataclasses
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

import textgym
from tests.conftest import ENV_IDS
from textgym.embedded import EMBEDDED
from textgym.matching import make_target
from textgym.registration import register
from textgym.sb3.env_model import default_model, has_attribute
from textgym.scorers import make_scorer
from textgym.tasks import FAMILIES, TASKS, Task, by_id
from textgym.tasks.base import Feature

CONSTRAINTS = [task for task in TASKS.values() if task.target is not None]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_is_json_and_registered_as_it_says(task):
    assert json.loads(json.dumps(dataclasses.asdict(task)))["kwargs"] == task.kwargs
    spec = gym.spec(task.id)
    assert (spec.entry_point, spec.vector_entry_point, spec.kwargs) == (task.env, task.vector_env, task.kwargs)
    assert EnvSpec.from_json(spec.to_json()).kwargs == task.kwargs


def test_every_module_is_a_family():
    files = {file.stem for file in Path(textgym.tasks.__file__).parent.glob("*.py")}
    assert set(FAMILIES) == files - {"__init__", "base"} and "constraints" in FAMILIES
    assert list(TASKS) == sorted(TASKS)
    assert set(TASKS) == {env_id for env_id in gym.registry if env_id.startswith("TextGen")}


def test_two_tasks_of_one_id_are_refused():
    task = TASKS["TextGen-v0"]
    with pytest.raises(ValueError, match="two tasks have the id 'TextGen-v0'"):
        by_id([task, *TASKS.values()])
    assert list(by_id([dataclasses.replace(task, id="B-v0"), dataclasses.replace(task, id="A-v0")])) == ["A-v0", "B-v0"]


def test_registering_again_changes_nothing_and_hands_out_a_copy():
    before = dict(gym.registry)
    textgym.registration.register_envs()
    register(dataclasses.replace(TASKS["TextGen-v0"], kwargs={"scorer": "regex"}))
    assert gym.registry == before and gym.spec("TextGen-v0").kwargs == {}
    mine = Task("OfATest-v0", "", "", "", (0.0, 1.0), kwargs={"scorer": {"name": "keyword", "words": ["a"]}})
    try:
        register(mine)
        gym.spec("OfATest-v0").kwargs["scorer"]["words"].append("b")
        assert mine.kwargs["scorer"]["words"] == ["a"]
    finally:
        gym.registry.pop("OfATest-v0", None)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_random_texts_earn_what_lies_in_the_range(env_id):
    env, task = gym.make_vec(env_id, num_envs=64), TASKS[env_id]
    env.action_space.seed(0)
    env.reset(seed=0)
    (low, high), returns = task.reward_range, np.zeros(64)
    for _ in range(64):
        _, rewards, ended, _, _ = env.step(env.action_space.sample())
        returns += rewards
        assert ((low - 1e-9 <= returns) & (returns <= high))[ended].all()
        assert env.unwrapped.scorer.per_token or not rewards[~ended].any()
        returns[ended] = 0


@pytest.mark.parametrize(
    ("env_id", "text", "reward"),
    [
        ("TextGenToy-v0", "1 1 1 1", 4.0),
        ("TextGenToy-v0", "3 3 3 3", -2.0),
        ("TextGenChars-v0", "abababab", 1.0),
        ("TextGenChars-v0", "ab", 1.0),
        ("TextGenChars-v0", "abcd", 0.5),
        ("TextGenChars-v0", "", 0.0),
        ("TextGenWords-v0", "the film", 0.0),
    ],
)
def test_rewards_that_the_descriptions_name(env_id, text, reward):
    env = gym.make(env_id)
    env.reset()
    task, mdp = env.unwrapped.task, env.unwrapped.mdp
    for token in [*task.tokenizer.encode(text), *mdp.eos_token_ids][: mdp.max_new_tokens]:
        _, earned, ended, _, _ = env.step(token)
    assert ended and earned == reward


@pytest.mark.parametrize(
    ("env_id", "contexts", "completions"), [("TextGenToy-v0", 85, 341), ("TextGenWords-v0", 22_621, 271_453)]
)
def test_the_numbers_of_the_enumerable_tasks(env_id, contexts, completions):
    env = gym.make(env_id).unwrapped
    assert len(env.reference_logits) == contexts
    assert contexts + env.num_tokens**env.mdp.max_new_tokens == completions
    assert f"{contexts:,} contexts and {completions:,} completions" in TASKS[env_id].description.replace("\n", " ")


@pytest.mark.parametrize("task", CONSTRAINTS, ids=[task.id for task in CONSTRAINTS])
def test_features_are_components_and_what_the_target_reads(task):
    assert list(task.features) == list(make_scorer(task.kwargs["scorer"]).component_names)
    assert list(make_target(task.target).features) == list(task.features)
    for feature in task.features.values():
        assert isinstance(feature, Feature) and 0 < 3 * feature.standard_error < feature.base_rate < 0.5


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_agents_start_from_the_model_that_the_task_names(env_id):
    env, model = gym.make(env_id), TASKS[env_id].model
    assert has_attribute(env, "reference_model") == (model == "table")
    if model in EMBEDDED:
        assert default_model(env) == model
    elif model is None:
        assert env.unwrapped.mdp.vocab_size != 3072  # no model that is named has the env's tokens


def test_the_models_of_smollm2_are_those_of_the_tokenizer():
    for task in TASKS.values():
        if "SmolLM2" in task.id:
            assert task.model == task.kwargs["tokenizer"] == "smollm2-q4"

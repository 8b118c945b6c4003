"""Prompts that a sampler or a pin brings are let go, but never while a row, a pin or a later episode needs them."""

import gymnasium as gym
import numpy as np
import pytest

from textgym import prompt_table


@pytest.fixture(autouse=True)
def keep_few(monkeypatch):
    monkeypatch.setattr(prompt_table, "KEPT", 2)


def numbered():
    """A sampler of ever new prompts: "0", "1" and so on."""
    count = iter(range(10**6))
    return lambda rng: str(next(count))


def length_of_prompt(prompts, completion_ids):
    """Fails for a prompt that is not the one that the env began with, since lengths would differ."""
    return [float(len(p)) for p in prompts]


COMMON = {"tokenizer": "bytes", "max_new_tokens": 64, "scorer": length_of_prompt}


@pytest.mark.parametrize("k", [1, 2])
def test_a_slow_row_keeps_its_prompt_and_its_schedule(k):
    """Row 0 goes on for 63 steps while the others end in each; then it plays the rounds that the others have left."""
    env = gym.make_vec("TextGen-v0", num_envs=4, num_generations=k, prompts=numbered(), **COMMON)
    table = env.unwrapped.task.prompts
    _, info = env.reset(seed=0)
    texts = table.texts(info["prompt_id"])
    for _ in range(63):
        *_, info = env.step(np.array([65, 256, 256, 256]))
        assert table.texts(info["prompt_id"])[0] == texts[0]
        ended = info["final_info"]["prompt_id"][1:]
        assert [env.unwrapped.decode(row) for row in info["final_obs"][1:]] == table.texts(ended)
    seen = []
    for _ in range(64):
        *_, info = env.step(np.full(4, 256))
        final = info["final_info"]["prompt_id"][0]
        (text,) = table.texts([final])
        assert info["final_info"]["length_of_prompt"][0] == len(text)
        seen.append(text)
    groups = 4 // k
    assert seen == [str(groups * n) for n in range(64)]  # the n-th prompt of group 0
    for _ in range(300):
        env.step(np.full(4, 256))
    assert len(table) < 2 * 65 * groups  # row 0 still has 63 rounds to play that the others have left


def test_memory_of_a_vector_env_is_bounded():
    env = gym.make_vec("TextGen-v0", num_envs=4, prompts=numbered(), **COMMON)
    env.reset(seed=0)
    for _ in range(100):
        env.step(np.full(4, 256))
        assert len(env.unwrapped.task.prompts) <= 2 * 4 + 4


def test_a_pin_is_kept_as_long_as_it_holds():
    env = gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled", prompts=numbered(), **COMMON)
    env.reset(options={"prompts": ["first", "second"]})
    for n in range(20):  # new pins for row 1 only, of which each is let go
        env.step(np.full(2, 256))
        mask = {"reset_mask": np.array([False, True])}
        env.reset(options={"prompts": ["", f"other {n}"], **mask})
        env.step(np.full(2, 256))
        rows, _ = env.reset(options={"reset_mask": np.array([True, True])})
        assert [env.unwrapped.decode(row) for row in rows] == ["first", f"other {n}"]
    assert len(env.unwrapped.task.prompts) < 10


def test_the_single_env():
    env = gym.make("TextGen-v0", prompts=["a"], **COMMON).unwrapped
    for n in range(30):
        _, info = env.reset(options={"prompt": f"task {n}"})
        assert env.task.prompts.texts([info["prompt_id"]]) == [f"task {n}"]
        assert env.step(256)[1] == len(f"task {n}")
        assert len(env.task.prompts) <= 6
    assert env.reset()[1]["prompt_id"] == 0

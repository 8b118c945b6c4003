"""What is learned on the training prompts of an id carries over to prompts that training never sees."""

import math

import gymnasium as gym
import pytest

from agents import GRPO
from textgym.evaluation import ModelPolicy, evaluate

EPISODES = 2048
ANSWERS = {"n": 256, "k": 8, "learning_rate": 2e-4, "kl_coef": 0.0}
TRAININGS = {
    "TextGen-v0": {"n": 32, "k": 4, "learning_rate": 1e-3, "tokens": 8_000},
    "TextGenArithmetic-v0": ANSWERS | {"tokens": 20_000},
    "TextGenCountdown-v0": ANSWERS | {"tokens": 60_000},
    "TextGenNumerals-v0": ANSWERS | {"tokens": 20_000},
    "TextGenSummary-v0": ANSWERS | {"tokens": 200_000},
}
"""Rows, completions of a prompt, arguments of the agent and tokens, by id: a minute of one core, for summaries two."""


@pytest.mark.slow
@pytest.mark.parametrize("env_id", TRAININGS)
def test_reward_rises_on_held_out_prompts(env_id):
    def make(split, n, k):
        return gym.make_vec(env_id, num_envs=n, num_generations=k, autoreset_mode="Disabled", split=split)

    training = dict(TRAININGS[env_id])
    tokens, train = training.pop("tokens"), make("train", training.pop("n"), training.pop("k"))
    agent = GRPO("TokenPolicy", train, seed=0, device="cpu", **training)
    held_out = ModelPolicy(make("test", 256, 1), agent.token_model, seed=1)
    tables = (env.unwrapped.task.prompts for env in (train, held_out.env))
    seen, unseen = (set(table.texts(range(table.num_prompts))) for table in tables)
    assert not seen & unseen
    before = evaluate(held_out, EPISODES)
    agent.learn(tokens)
    after = evaluate(held_out, EPISODES)
    error = math.hypot(before.reward.standard_error, after.reward.standard_error)
    assert after.reward.value - before.reward.value > 4 * error > 0
    assert before.kl_to_reference.value == pytest.approx(0, abs=1e-4) and after.kl_to_reference.value > 0.1

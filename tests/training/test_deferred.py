"""Scoring behind the env: the same rewards, logs and weights as in the steps, in less time, and errors as ever."""

import time

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import GRPO, REINFORCE
from tests.conftest import CHARACTERS, count_tokens
from tests.helpers.agents import agent
from textgym.scorers import FunctionScorer, Judge, Remote, ScorerError, WeightedSum
from textgym.training.rollouts import collect_episodes

SAMPLED = CHARACTERS | {"prompts": lambda rng: "abcd"[rng.integers(4)] + "abcd"[rng.integers(4)]}


def checksum(prompts, completions, log_metric, log_extra):
    """Depends on prompt and text, and takes the longer the shorter they are; it notes what it was asked."""
    time.sleep(0.001 * (3 - len(completions[0]) % 3))
    log_metric("rows", len(prompts))
    log_extra("asked", [(tuple(prompts), tuple(completions))])
    return [sum(map(ord, p)) + len(c) / 8 for p, c in zip(prompts, completions, strict=True)]


def scorer(slow):
    return WeightedSum([FunctionScorer(checksum, slow=slow), count_tokens], [0.01, 1.0])


def test_who_is_slow():
    assert Remote("http://localhost/").slow and Judge("http://localhost/", "small").slow
    assert scorer(True).slow and not scorer(False).slow and not FunctionScorer(count_tokens).slow


@pytest.mark.parametrize("env", [CHARACTERS, SAMPLED], ids=["a list of prompts", "a sampler"])
@pytest.mark.parametrize(("cls", "rounds"), [(REINFORCE, 1), (GRPO, 3)])
def test_a_training_is_the_same_with_the_scorer_behind_the_env(cls, rounds, env):
    behind, before = (
        agent(cls, scorer=scorer(slow), env=env, episodes_per_update=8 * rounds).learn(200) for slow in (True, False)
    )
    weights = [torch.cat([p.detach().flatten() for p in one.policy.parameters()]) for one in (behind, before)]
    assert torch.equal(*weights) and behind._n_updates == before._n_updates > 1
    assert behind.task.trainer.extras == before.task.trainer.extras  # asked for the same rows together, in one order
    for name, values in before.logger.all.items():
        if not name.startswith("time/"):
            np.testing.assert_equal(behind.logger.all[name], values)
    assert list(behind.ep_info_buffer) == list(before.ep_info_buffer)
    assert 0 < before.task.trainer.seconds and before.task.trainer.overlapped == 0 < behind.task.trainer.overlapped


def test_episodes_without_an_rl_library_are_the_same():
    def collected(slow):
        env = gym.make_vec("TextGen-v0", num_envs=8, autoreset_mode="Disabled", scorer=scorer(slow), **SAMPLED)
        torch.manual_seed(0)
        made = agent()
        return collect_episodes(env, made.token_model, rounds=2, seed=1)

    behind, before = collected(True), collected(False)
    for name in ("rows", "rewards", "components", "sampled_log_probs"):
        assert torch.equal(getattr(behind, name), getattr(before, name)), name


def test_steps_of_the_standard_api_pay_at_once():
    env = gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="Disabled", scorer=scorer(True), **CHARACTERS)
    env.reset(seed=0)
    _, rewards, _, _, info = env.step(np.array([4, 4]))
    assert (rewards > 0).all() and (info["checksum"] > 0).all()


def test_wrappers_that_read_rewards_get_them():
    env = gym.make_vec(
        "TextGen-v0", num_envs=8, num_generations=4, autoreset_mode="Disabled", scorer=scorer(True), **CHARACTERS
    )
    wrapped = gym.wrappers.vector.TransformReward(env, lambda rewards: 2 * rewards)
    made = REINFORCE("TokenPolicy", wrapped, agent().token_model.model, seed=0, device="cpu")
    made.learn(1)
    episodes = made.rollout_buffer.episodes
    assert made.task.trainer.overlapped == 0
    torch.testing.assert_close(episodes.rewards.sum(-1), 2 * (episodes.components @ torch.tensor([0.01, 1.0])))


@pytest.mark.parametrize("call", [1, 2, 4])
def test_an_error_ends_the_rollout_which_is_sampled_again(call):
    broken = []

    def service(completions):
        broken.append(len(completions))
        if len(broken) == call:
            raise ConnectionError("the judge is down")
        return [float(len(text)) for text in completions]

    def calm(completions):
        return [float(len(text)) for text in completions]

    whole = agent(scorer=calm).learn(100)
    made = agent(scorer=FunctionScorer(service, slow=True))
    with pytest.raises(ScorerError, match="scorer 'service' raised ConnectionError: the judge is down"):
        made.learn(100)
    made.learn(100 - made.resume_from.num_timesteps, reset_num_timesteps=False)
    for one, other in zip(made.policy.parameters(), whole.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_rollout_takes_hardly_longer_than_the_slower_of_decoding_and_scoring():
    """Row i writes i tokens and EOS: six calls of 50 ms each; a decode step sleeps 50 ms, too. One by one, 0.6 s."""

    def sleepy(completions):
        time.sleep(0.05)
        return [1.0] * len(completions)

    class Sleepy:
        device = torch.device("cpu")

        def __init__(self, env):
            self.mdp = env.unwrapped.mdp

        def __call__(self, obs):
            time.sleep(0.05)
            written = (obs[:, 3:] != 5).sum(-1)
            tokens = torch.where(written >= torch.arange(len(obs)), 4, 1)
            return tokens, torch.zeros(len(obs), 1), torch.zeros(len(obs))

    seconds = {}
    for slow in (True, False):
        kwargs = CHARACTERS | {"scorer": FunctionScorer(sleepy, slow=slow)}
        env = gym.make_vec("TextGen-v0", num_envs=6, autoreset_mode="Disabled", **kwargs)
        start = time.perf_counter()
        episodes = collect_episodes(env, Sleepy(env), seed=0)
        seconds[slow], trainer = time.perf_counter() - start, env.unwrapped.task.trainer
        assert episodes.rewards.sum() == 6 and trainer.seconds > 0.29
        assert (trainer.overlapped > 0.2) is slow
    assert seconds[False] > 0.59 and seconds[True] < 0.75 * seconds[False], seconds

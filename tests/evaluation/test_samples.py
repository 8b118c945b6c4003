"""Episodes as texts, through the vector API: every row's own episode, its return, and how it is printed."""

import io

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

import textgym  # noqa: F401
from tests.conftest import CHARACTERS, count_tokens
from textgym.evaluation import NoReward, Sample, play, show_sample


def make(scorer=count_tokens, n=4, **kwargs):
    return gym.make_vec("TextGen-v0", num_envs=n, autoreset_mode="Disabled", scorer=scorer, **(CHARACTERS | kwargs))


def writes(lengths):
    """A policy whose row i writes `lengths[i]` times "b" and then EOS; V = 5, EOS 4, pad 5."""

    def choose(rows):
        written = (rows[:, 3:] != 5).sum(-1)
        return np.where(written >= np.array(lengths), 4, 1)

    return choose


def test_rows_end_on_their_own_and_keep_their_returns():
    samples = play(make(), writes([0, 2, 5, 9]), prompts=["", "a", "ab", "cad"])
    assert [s.prompt for s in samples] == ["", "a", "ab", "cad"]
    assert [s.completion for s in samples] == ["", "bb", "bbbbb", "bbbbbb"]  # at most six tokens
    assert [s.reward for s in samples] == [1, 3, 6, 6]  # tokens, EOS included


def test_token_rewards_add_up():
    per_token = {"name": "token_counts", "weights": {1: 0.5, 4: -1.0}}
    samples = play(make(per_token, n=2), writes([2, 6]), prompts=["a", "a"])
    assert [s.reward for s in samples] == pytest.approx([0.0, 3.0])


def test_the_seed_draws_the_prompts():
    def prompts(seed):
        return [s.prompt for s in play(make(n=16), writes([1] * 16), seed=seed)]

    assert prompts(0) == prompts(0) != prompts(1)


def test_without_scoring_there_is_no_reward():
    samples = play(make(NoReward(), n=2), writes([1, 2]), prompts=["a", "ab"])
    assert samples == [Sample("a", "b", None), Sample("ab", "bb", None)]


def test_a_sample_in_a_line():
    out = io.StringIO()
    console = Console(file=out, width=20)
    show_sample(Sample("[red]The\nfilm", " was [bold]good" * 3, 0.25), console)
    show_sample(Sample("a", "b"), console)
    assert out.getvalue().splitlines() == ["+0.250 [[red]The\\nfilm]" + " was [bold]good" * 3, "[a]b"]

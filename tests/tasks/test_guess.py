"""The guessing game: the exact optimum against an enumeration of all strategies, and players at the env."""

from itertools import product

import gymnasium as gym
import numpy as np
import pytest

from textgym.guessing import answer, best_return
from textgym.scorers.base import ScorerError
from textgym.tasks.guess import GAMES, prompts


def strategies(numbers, turns):
    """Every deterministic strategy: a guess, and what follows "less" and "more"; guesses may be foolish."""
    if not turns:
        return [None]
    after = strategies(numbers, turns - 1)
    return [(guess, less, more) for guess in range(1, numbers + 1) for less, more in product(after, after)]


def played(strategy, secret, cost):
    paid = 0.0
    while strategy is not None:
        guess, less, more = strategy
        if guess == secret:
            return paid + 1
        paid, strategy = paid - cost, more if secret > guess else less
    return paid


@pytest.mark.parametrize(("numbers", "turns", "cost"), [(3, 2, 0.1), (4, 2, 0.0), (5, 2, 0.3), (2, 3, 0.1), (3, 3, 0)])
def test_the_best_return_is_that_of_all_strategies(numbers, turns, cost):
    secrets = range(1, numbers + 1)
    best = max(np.mean([played(s, secret, cost) for secret in secrets]) for s in strategies(numbers, turns))
    assert best_return(numbers, turns, cost) == pytest.approx(best)


def test_the_best_chance_is_what_turns_can_tell_apart():
    for numbers in range(1, 20):
        for turns in range(1, 5):
            assert best_return(numbers, turns) == pytest.approx(min(1, (2**turns - 1) / numbers))


@pytest.mark.parametrize("level", GAMES)
def test_binary_search_earns_the_optimum(level):
    env = gym.make("TextGenGuess-v0", level=level).unwrapped
    (largest, turns), returns = GAMES[level], []
    for row in prompts(level):
        env.reset(options={"prompt": row})
        low, high, total, ended = 1, largest, 0.0, False
        while not ended:
            middle = (low + high) // 2
            for token in env.encode(f"{middle},"):
                observation, reward, ended, _, _ = env.step(token)
                total += reward
            text = env.decode(observation)
            if text.endswith("more "):
                low = middle + 1
            elif text.endswith("less "):
                high = middle - 1
        returns.append(total)
    assert np.mean(returns) == pytest.approx(best_return(largest, turns, 0.1))


def test_the_words_of_the_task_are_true():
    assert best_return(7, 3, 0.1) == pytest.approx(6 / 7) and best_return(7, 3) == 1
    assert best_return(9, 3, 0.1) == pytest.approx(0.6) and best_return(9, 3) == pytest.approx(7 / 9)
    assert best_return(3, 2) == 1


@pytest.mark.parametrize("columns", [{}, {"secret": "4", "turns": 3}, {"secret": 4, "turns": None}])
def test_the_partner_names_a_column_that_is_missing(columns):
    with pytest.raises(ValueError, match="the game's column '(secret|turns)'"):
        answer(columns, ["4"])


def test_the_scorer_names_the_column_that_is_missing():
    env = gym.make("TextGenGuess-v0", prompts=["1-7 in 3:"])
    env.reset()
    with pytest.raises(ScorerError, match="reads the column 'secret'; the prompts have"):
        env.step(env.unwrapped.encode("4")[0])


def test_a_second_digit_ends_the_turn():
    env = gym.make("TextGenGuess-v0").unwrapped
    env.reset(options={"prompt": {"prompt": "1-7 in 3:", "secret": 5, "turns": 3}})
    steps = [env.step(env.encode(character)[0]) for character in "555,"]
    assert [step[1:3] for step in steps] == [(0.0, False), (-0.1, False), (0.0, False), (1.0, True)]
    assert env.decode(steps[-1][0]) == "1-7 in 3:55less 5,"

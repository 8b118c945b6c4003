"""Episodes of several turns: by hand, the vector env against the single one, the checkers, what ends them, refusals."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as check_by_gymnasium
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_by_sb3

from textgym.testing import check_env

GUESS = "TextGenGuess-v0"
CHARS = {
    "tokenizer": {"name": "characters", "alphabet": "abcd"},
    "prompts": [""],
    "scorer": {"name": "regex", "pattern": "ab"},
    "max_prompt_tokens": 1,
    "max_new_tokens": 8,
    "eot_token_ids": [3],  # "d"
}


def echo(columns, turns):
    """Says what the policy has just said; an empty turn is the last one."""
    return turns[-1] or None


def game(secret, turns=3, largest=7):
    return {"prompt": f"1-{largest} in {turns}:", "secret": secret, "turns": turns}


def write(env, text, **options):
    """The observation, the rewards, whether it has ended and the last info after some characters."""
    observation, _ = env.reset(options=options)
    rewards, ended = [], False
    for character in text:
        observation, reward, ended, truncated, info = env.step(env.unwrapped.encode(character)[0])
        assert not truncated
        rewards.append(reward)
    return observation, rewards, ended, info


@pytest.mark.parametrize(
    ("secret", "text", "row", "rewards", "eos"),
    [
        (5, "4,6,5,", "4,more 6,less 5,", [0, -0.1, 0, -0.1, 0, 1], True),
        (4, "4,", "4,", [0, 1], True),
        (1, "4,2,3,", "4,less 2,less 3,", [0, -0.1, 0, -0.1, 0, -0.1], True),
        (2, ",22,2,", ",what 22,less 2,", [-0.1, 0, 0, -0.1, 0, 1], True),
        (2, "1," + "1" * 17, "1,more " + "1" * 17, [0, -0.1] + [0] * 16 + [-0.1], False),
        (9, "1" * 23 + ",", "1" * 23 + ",", [0] * 23 + [-0.1], False),  # the turn fills the row, nobody answers
        (9, "1" * 18 + ",", "1" * 18 + ",", [0] * 18 + [-0.1], True),  # "less " would leave no cell
        (9, "1" * 17 + ",", "1" * 17 + ",less ", [0] * 17 + [-0.1], None),
    ],
)
def test_by_hand(secret, text, row, rewards, eos):
    env = gym.make(GUESS, max_turn_tokens=None).unwrapped
    prompt = game(secret)["prompt"]
    observation, paid, ended, info = write(env, text, prompt=game(secret))
    assert env.decode(observation) == prompt + row
    assert paid == pytest.approx(rewards)
    assert ended == (eos is not None) == env.mdp.ended(observation)
    written = env.mdp.completion_lengths(observation)
    assert written == len(row) + (eos is True)
    if ended:
        assert info["eos"] is eos and info["guessed"] == pytest.approx(sum(rewards))
        assert (observation[env.mdp.max_prompt_tokens + len(row) :][: written - len(row)] == 44).all()


def test_the_secret_is_not_observed():
    env = gym.make(GUESS).unwrapped
    first = {tuple(env.reset(options={"prompt": game(secret)})[0]) for secret in range(1, 8)}
    assert len(first) == 1


def test_the_partner_sees_columns_and_every_turn():
    heard = []

    def listener(columns, turns):
        heard.append((dict(columns), turns))
        return "cc" if len(turns) < 5 else None

    rows = [{"prompt": "a", "secret": "s"}]
    env = gym.make("TextGen-v0", **{**CHARS, "prompts": rows, "max_new_tokens": 16, "partner": listener})
    observation, _, ended, info = write(env, "abddbbd")
    assert ended and info["eos"] and env.unwrapped.decode(observation) == "aabdccdccbbd"
    says = ("ab", "cc", "", "cc", "bb")
    assert heard == [({"secret": "s"}, says[:n]) for n in (1, 3, 5)]


def test_a_turn_has_a_limit_of_its_own():
    env = gym.make("TextGen-v0", **{**CHARS, "max_new_tokens": 12}, partner=echo, max_turn_tokens=2)
    observation, _, ended, _ = write(env, "abcdd")
    assert ended and env.unwrapped.decode(observation) == "ababcdcd"  # "ab" by its length, "c" and "" by their ends


def test_a_scorer_of_whole_texts_is_paid_at_the_end_and_sees_both_sides():
    env = gym.make("TextGen-v0", **CHARS, partner=echo)
    _, rewards, ended, info = write(env, "abdd")  # "abdab", and an empty turn
    assert ended and rewards == [0, 0, 0, pytest.approx(4 / 6)] and info["eos"]


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
@pytest.mark.parametrize(
    "env_id_and_kwargs",
    [(GUESS, {}), ("TextGen-v0", {**CHARS, "partner": echo, "max_turn_tokens": 2})],
)
def test_the_vector_env_is_single_ones(env_id_and_kwargs, mode):
    """Every step of a hundred episodes and more, each row beside a single env of its own."""
    env_id, kwargs = env_id_and_kwargs
    n, steps = 8, 400
    envs = gym.make_vec(env_id, num_envs=n, autoreset_mode=mode, **kwargs)
    singles = [gym.make(env_id, **kwargs).unwrapped for _ in range(n)]
    table = envs.unwrapped.task.prompts
    envs.action_space.seed(1)
    observations, info = envs.reset(seed=1)

    def begin(i, prompt_ids):
        return singles[i].reset(options={"prompt": table.pin(prompt_ids[i])})[0]

    expected = np.stack([begin(i, info["prompt_id"]) for i in range(n)])
    assert np.array_equal(observations, expected)
    over, episodes = np.zeros(n, bool), 0
    for _ in range(steps):
        assert np.array_equal(envs.unwrapped.action_masks(), [s.action_masks() for s in singles])
        actions = envs.action_space.sample()
        observations, rewards, terminated, truncated, info = envs.step(actions)
        assert not truncated.any()
        for i in range(n):
            if over[i]:  # a dead step, or under NextStep the one that begins anew
                assert rewards[i] == 0 and not terminated[i]
                if mode == "NextStep":
                    expected[i], over[i] = begin(i, info["prompt_id"]), False
                continue
            expected[i], reward, ended, _, said = singles[i].step(actions[i])
            assert reward == rewards[i] and ended == terminated[i]
            if ended:
                episodes += 1
                final = info["final_info"] if mode == "SameStep" else info
                names = {"prompt_id", "eos", *singles[i].scorer.component_names}
                assert {name: final[name][i] for name in names} == {name: said[name] for name in names}
                if mode == "SameStep":
                    assert np.array_equal(info["final_obs"][i], expected[i])
                    expected[i] = begin(i, info["prompt_id"])
                else:
                    over[i] = True
        assert np.array_equal(observations, expected)
        if mode == "Disabled" and over.sum() > n // 2:
            observations, info = envs.reset(options={"reset_mask": over.copy()})
            expected[over] = [begin(i, info["prompt_id"]) for i in np.flatnonzero(over)]
            over[:] = False
            assert np.array_equal(observations, expected)
    assert episodes > 100


def test_checkers():
    check_by_gymnasium(gym.make(GUESS).unwrapped, skip_render_check=True)
    check_by_sb3(gym.make(GUESS))
    check_env(gym.make(GUESS), episodes=16)
    check_env(gym.make("TextGen-v0", **CHARS, partner=echo), episodes=16)


def test_it_is_json_and_runs_in_gymnasiums_own_vector_env():
    spec = EnvSpec.from_json(gym.spec(GUESS).to_json())
    envs = SyncVectorEnv([lambda: gym.make(spec)] * 3)
    allowed = gym.make(spec).unwrapped.mdp.allowed_tokens
    envs.reset(seed=0)
    for actions in np.random.default_rng(0).choice(allowed, (40, 3)):
        envs.step(actions)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_on_by_itself(clone):
    env = gym.make_vec(GUESS, num_envs=1).unwrapped
    env.reset(options={"prompts": [game(5)]})
    say = lambda e, text: [e.step(np.array(e.encode(c)))[1:3] for c in text][-1]  # noqa: E731
    say(env, "4,")
    other = clone(env)
    assert say(env, "6,5,") == (1.0, True)
    assert say(other, "3,6,") == (pytest.approx(-0.1), True)


@pytest.mark.parametrize(
    ("partner", "error", "match"),
    [
        (lambda columns, turns: 3, TypeError, "the partner answered 3 to 'a'; it must be a text, or None"),
        (lambda columns, turns: "", ValueError, "the partner answered '', the tokens \\[\\]; some are wanted"),
    ],
)
def test_a_wrong_answer_is_refused(partner, error, match):
    with pytest.raises(error, match=match):
        write(gym.make("TextGen-v0", **CHARS, partner=partner), "ad")


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({}, "partner is None and eot_token_ids \\[3\\]; an episode of several turns needs both"),
        ({"partner": echo, "eot_token_ids": []}, "an episode of several turns needs both"),
        ({"eot_token_ids": [], "max_turn_tokens": 2}, "without a partner there are no turns"),
        ({"partner": echo, "max_turn_tokens": 0}, "max_turn_tokens is 0"),
        ({"partner": 3}, "partner is 3; it must be a function, an import string 'module:function', or None"),
        ({"partner": "tests.envs.test_turns:ech"}, "did you mean 'echo'"),
        ({"partner": echo, "eot_token_ids": [4]}, "\\[4\\] are in eot_token_ids and in eos_token_ids"),
        ({"partner": echo, "eot_token_ids": [9]}, "eot_token_ids contains \\[9\\]; token ids run from 0 to 4"),
        ({"partner": echo, "eot_token_ids": "d"}, "eot_token_ids is 'd'; it must be a list of token ids"),
        ({"partner": echo, "banned_tokens": [3]}, "allowed_tokens and banned_tokens forbid all eot_token_ids"),
    ],
)
def test_wrong_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        gym.make("TextGen-v0", **{**CHARS, **kwargs})


def test_what_takes_one_turn_only_refuses():
    task = gym.make(GUESS).unwrapped.task
    with pytest.raises(ValueError, match="encode_parts takes episodes of one turn; this env has a partner"):
        task.encode_parts("1-7 in 3:", "4,")

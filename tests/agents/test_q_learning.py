"""Q-learning: updates by hand, values against dynamic programming, ends of episodes, checkpoints, what it refuses."""

import io
import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rich.console import Console
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv

import textgym  # noqa: F401 (registers the env ids)
from agents import QLearning
from agents.tabular import Transitions, update_tables
from tests.conftest import CHARACTERS
from tests.helpers.agents import Log
from textgym.exact import TokenTree, evaluate_policy, greedy, hard_optimal
from textgym.sb3 import TextVecEnv

CHARS = CHARACTERS | {"prompts": [""], "max_prompt_tokens": 1, "max_new_tokens": 3}


def agent(env="TextGenToy-v0", **kwargs):
    made = QLearning("TabularPolicy", env, **{"seed": 0, "device": "cpu", **kwargs})
    made.set_logger(Log())
    return made


def transitions(*rows):
    """Rows of (s, a, r, s', terminated)."""
    s, a, r, after, terminated = zip(*rows, strict=True)
    return Transitions(*map(torch.tensor, (s, a)), torch.tensor(r).float(), *map(torch.tensor, (after, terminated)))


def update(tables, rows, learning_rate, gamma, chosen=None):
    """The tables after the update, and the TD errors."""
    tables = torch.tensor(tables)
    chosen = torch.tensor(chosen or [0] * len(rows))
    errors = update_tables(tables, chosen, transitions(*rows), learning_rate, gamma)
    return tables.tolist(), errors.tolist()


def test_updates_by_hand():
    tables = [[[0.0, 2.0], [3.0, 4.0]]]
    # 2 + 1/4 (1 + 1/2 * 4 - 2), and 3 + 1/4 (-1 + 1/2 * 2 - 3)
    after, errors = update(tables, [(0, 1, 1.0, 1, False), (1, 0, -1.0, 0, False)], 0.25, 0.5)
    assert after == [[[0.0, 2.25], [2.25, 4.0]]] and errors == [1.0, -3.0]
    after, errors = update(tables, [(0, 1, 1.0, 1, True)], 0.25, 0.5)  # a terminal state has no value
    assert after == [[[0.0, 1.75], [3.0, 4.0]]] and errors == [-1.0]


def test_double_q_reads_the_best_action_in_the_other_table():
    tables = [[[0.0, 0.0], [5.0, 1.0]], [[0.0, 0.0], [2.0, 8.0]]]
    rows = [(0, 0, 1.0, 1, False), (0, 0, 1.0, 1, False)]
    # first table: its best action after state 1 is 0, worth 2 in the second; second table: 1, worth 1 in the first
    after, errors = update(tables, rows, 0.5, 1.0, chosen=[0, 1])
    assert errors == [3.0, 2.0]
    assert after == [[[1.5, 0.0], [5.0, 1.0]], [[1.0, 0.0], [2.0, 8.0]]]


def test_double_q_acts_on_the_mean_of_its_tables():
    made = agent(double_q=True)
    made.policy.tables[:, 0] = torch.tensor([[3.0, 2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 3.5, 0.0, 0.0]])
    assert made.q_values(0).tolist() == [1.5, 2.0, 1.75, 0.0, 0.0]
    assert made.predict(0, deterministic=True)[0] == 1


def test_rows_that_share_a_cell_all_count():
    """As the mean of one-by-one updates over all orders; another row's target is that before the step."""
    tables, alpha, rewards = [[[1.0, 0.0], [0.0, 0.0]]], 0.25, [1.0, 2.0, 6.0]
    rows = [(0, 0, reward, 1, True) for reward in rewards]
    after, errors = update(tables, [*rows, (1, 1, 0.0, 0, False)], alpha, 0.5)
    results = []
    for order in itertools.permutations(rewards):
        value = 1.0
        for target in order:
            value += alpha * (target - value)
        results.append(value)
    assert after[0][0][0] == pytest.approx(sum(results) / len(results), abs=1e-6)
    assert after[0][1] == [0.0, 0.125]  # 1/4 (0 + 1/2 * 1), with the value that the cell had
    assert errors == [0.0, 1.0, 5.0, 0.5]
    assert update(tables, rows, 1.0, 0.5)[0] == [[[3.0, 0.0], [0.0, 0.0]]]


def scattered(completion_ids):
    """A reward without any order, different for every completion."""
    return [math.sin(sum(7 * (t + 1) ** (i + 1) for i, t in enumerate(ids))) for ids in completion_ids]


@pytest.mark.parametrize("double_q", [False, True])
@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_tables_become_those_of_dynamic_programming(gamma, double_q):
    kwargs = {"num_tokens": 2, "max_new_tokens": 3, "scorer": scattered}
    made = agent(
        gym.make_vec("TextGenToy-v0", num_envs=64, **kwargs),
        gamma=gamma,
        double_q=double_q,
        learning_rate=1.0,  # right where nothing is random
        exploration_final_eps=1.0,
    )
    made.learn(20_000)
    env = gym.make("TextGenToy-v0", **kwargs)
    tree = TokenTree.of(env)
    optimum = hard_optimal(tree, tree.step_scores(env)["reward"], gamma)
    np.testing.assert_allclose(made.q_values(np.arange(tree.num_contexts)), optimum.q_values, atol=1e-6)


def regret(made):
    """How far the greedy policy's exact expected return is below the best one on the toy."""
    env = gym.make("TextGenToy-v0")
    tree = TokenTree.of(env)
    rewards = tree.scores(env)["reward"]
    policy = greedy(made.q_values(np.arange(tree.num_contexts)))
    return float(hard_optimal(tree, rewards).values[0] - evaluate_policy(tree, policy, rewards).values[0])


RANDOM = {"n_envs": 256, "learning_rate": 1.0, "exploration_final_eps": 1.0}
"""Learning off-policy from uniformly drawn tokens; 60 seeds of 60 were optimal after 25,000."""


def test_the_greedy_policy_is_optimal_on_the_toy_for_ten_seeds():
    assert regret(agent()) > 1  # before
    for seed in range(10):
        assert abs(regret(agent(seed=seed, **RANDOM).learn(25_000))) < 1e-6, seed


@pytest.mark.slow
@pytest.mark.parametrize("double_q", [False, True])
def test_the_default_settings_are_optimal_on_the_toy_for_ten_seeds(double_q):
    for seed in range(10):
        made = agent(seed=seed, double_q=double_q).learn(120_000 if double_q else 60_000)
        assert abs(regret(made)) < 1e-6, seed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("double_q", [False, True])
def test_the_greedy_policy_is_optimal_on_cuda(double_q, tmp_path):
    for seed in range(10):
        made = agent(seed=seed, device="cuda", double_q=double_q, **RANDOM).learn(60_000)
        assert made.policy.tables.is_cuda and abs(regret(made)) < 1e-6, seed
    made.save(tmp_path / "m")
    assert QLearning.load(tmp_path / "m", device="cpu").q_values(0) == pytest.approx(made.q_values(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_vec_env("FrozenLake-v1", 8, env_kwargs={"is_slippery": False}),
        lambda: gym.make_vec(
            "FrozenLake-v1",
            num_envs=8,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
            is_slippery=False,
        ),
    ],
)
def test_frozen_lake_is_solved_whatever_form_the_env_has(make):
    made = agent(make(), gamma=0.9, learning_rate=1.0, exploration_final_eps=0.5)
    made.learn(4_000)
    assert made.q_values(0).max() == pytest.approx(0.9**5)  # six steps at best, paid at the last
    env = gym.make("FrozenLake-v1", is_slippery=False)
    state, ended, total = env.reset()[0], False, 0.0
    while not ended:
        state, reward, terminated, truncated, _ = env.step(made.predict(state, deterministic=True)[0].item())
        total, ended = total + reward, terminated or truncated
    assert total == 1.0


def test_an_env_by_id():
    made = agent("CliffWalking-v1", n_envs=32, exploration_initial_eps=0.1, exploration_final_eps=0.1)
    made.learn(20_000)
    assert made.q_values(36).max() == pytest.approx(-13, abs=1e-3)  # the path along the cliff


class OneStep(gym.Env):
    """One step from state 0 to state 1, for a reward of 1; then it ends one way or both."""

    observation_space = action_space = spaces.Discrete(2)

    def __init__(self, terminated, truncated):
        self.ends = terminated, truncated

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 1, 1.0, *self.ends, {}


@pytest.mark.parametrize("terminated,truncated,target", [(True, False, 1.0), (False, True, 11.0), (True, True, 1.0)])
@pytest.mark.parametrize("mode", ["single", "sb3", AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_a_truncated_episode_is_bootstrapped_from_its_last_state(mode, terminated, truncated, target):
    def one():
        return OneStep(terminated, truncated)

    if isinstance(mode, AutoresetMode):
        env = SyncVectorEnv([one, one], autoreset_mode=mode)
    else:
        env = one() if mode == "single" else DummyVecEnv([one, one])
    made = agent(env, learning_rate=1.0, gamma=0.5, exploration_final_eps=1.0)
    made.policy.tables[:] = torch.tensor([[10.0, 10.0], [20.0, 20.0]])
    made.learn(40)
    assert set(made.q_values(0).tolist()) == {target} and made.q_values(1).tolist() == [20.0, 20.0]
    assert made._episode_num == made.num_timesteps == 40


@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
@pytest.mark.parametrize("restrictions", [{"banned_tokens": [1]}, {"min_new_tokens": 2}, {"allowed_tokens": [0, 4]}])
def test_forbidden_tokens_are_never_chosen(mode, restrictions):
    options = CHARS | restrictions | {"scorer": scattered}
    made = agent(gym.make_vec("TextGen-v0", num_envs=16, autoreset_mode=mode, **options))
    made.learn(4_000)  # the env raises InvalidAction at any forbidden one
    env = gym.make("TextGen-v0", **options)
    for length in range(3):
        env.reset()
        for _ in range(length):
            env.step(0)
        forbidden = ~env.unwrapped.action_masks()
        assert (np.isneginf(made.q_values("a" * length)) == forbidden).all()
        assert forbidden.any() or length == 2
    assert np.isfinite(made.q_values(21)).all()  # the ended episode


def test_predict_and_epsilon():
    made = agent(n_envs=2)
    made.policy.tables[0, 0, 3] = 1.0
    observations = np.zeros(4_000, np.int64)
    assert (made.predict(observations, deterministic=True)[0] == 3).all()
    action, state = made.predict(0, deterministic=True)
    assert action.shape == () and action == 3 and state is None
    made.policy.epsilon = 0.5
    shares = np.bincount(made.predict(observations)[0], minlength=5) / 4_000
    np.testing.assert_allclose(shares, [0.1, 0.1, 0.1, 0.6, 0.1], atol=0.04)  # five standard errors


def test_schedules_logs_and_callbacks(tmp_path):
    made = agent(n_envs=10, learning_rate=LinearSchedule(0.8, 0.0, 1.0), exploration_final_eps=0.2)
    steps = []
    made.learn(1_000, callback=lambda local, _: steps.append(local["self"].num_timesteps) or True, log_interval=25)
    assert steps == list(range(10, 1_001, 10)) and made._n_updates == 100
    log = made.logger.all
    assert log["train/epsilon"] == pytest.approx([1 - 0.008 * i for i in range(100)])
    assert log["train/learning_rate"] == pytest.approx([0.8 - 0.008 * i for i in range(100)])
    assert log["time/total_timesteps"] == [250, 500, 750, 1_000]
    assert len(log["train/td_error"]) == 100 and len(log["rollout/ep_rew_mean"]) == 4
    assert made.policy.epsilon == pytest.approx(0.208)
    assert agent(n_envs=10).learn(1_000, callback=lambda local, _: local["self"].num_timesteps < 50).num_timesteps == 50
    made.learn(100, callback=CheckpointCallback(5, str(tmp_path), name_prefix="q"), progress_bar=True)
    assert {p.name for p in tmp_path.iterdir()} == {"q_50_steps", "q_100_steps"}


def test_returns_and_lengths_of_episodes():
    """Rewards are the number of tokens, so that both means are the same, and EOS ends an episode early."""
    made = agent(
        gym.make_vec("TextGenToy-v0", num_envs=8, scorer=lambda completion_ids: [len(x) for x in completion_ids])
    )
    made.learn(800, log_interval=100)
    log = made.logger.all
    assert log["rollout/ep_rew_mean"] == pytest.approx(log["rollout/ep_len_mean"])
    assert 1 < log["rollout/ep_len_mean"][0] < 4


@pytest.mark.parametrize("double_q", [False, True])
def test_checkpoints(double_q, tmp_path):
    made = agent(double_q=double_q, gamma=0.9).learn(2_000)
    made.save(tmp_path / "m.zip")
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"algorithm.json", "training.safetensors", "manifest.json"}
    blind = QLearning.load(tmp_path / "m", device="cpu")
    states = np.arange(86)
    assert (blind.q_values(states) == made.q_values(states)).all() and blind.policy.epsilon == made.policy.epsilon
    assert (blind.predict(states, deterministic=True)[0] == made.predict(states, deterministic=True)[0]).all()
    assert (blind.num_timesteps, blind._n_updates) == (made.num_timesteps, made._n_updates)

    resumed = [QLearning.load(tmp_path / "m", "TextGenToy-v0", device="cpu") for _ in range(2)]
    for one in resumed:
        assert one.gamma == 0.9 and one.double_q == double_q
        one.learn(640, reset_num_timesteps=False)
        assert one.num_timesteps == made.num_timesteps + 640
    first, second = (one.policy.tables for one in resumed)
    assert first.equal(second) and not first.equal(made.policy.tables)


def test_a_seed_gives_the_same_tables():
    tables = [agent(seed=seed).learn(2_000).policy.tables for seed in (0, 0, 1)]
    assert tables[0].equal(tables[1]) and not tables[0].equal(tables[2])


def test_checkpoints_that_do_not_fit(tmp_path):
    made = agent(learning_rate=LinearSchedule(1.0, 0.1, 1.0))
    made.save(tmp_path / "m")
    with pytest.raises(ValueError, match="learning_rate was a function, which is not saved; pass learning_rate="):
        QLearning.load(tmp_path / "m")
    loaded = QLearning.load(tmp_path / "m", device="cpu", learning_rate=0.1)
    with pytest.raises(ValueError, match="without an env cannot be saved"):
        loaded.save(tmp_path / "n")
    with pytest.raises(ValueError, match=r"tables, \(1, 86, 5\).* do not fit: here they are \(1, 16, 4\)"):
        QLearning.load(tmp_path / "m", "FrozenLake-v1", learning_rate=0.1)
    with pytest.raises(ValueError, match=r"here they are \(2, 86, 5\)"):
        QLearning.load(tmp_path / "m", "TextGenToy-v0", learning_rate=0.1, double_q=True)
    agent(gym.make_vec("TextGen-v0", num_envs=1, **CHARS)).save(tmp_path / "free")
    with pytest.raises(ValueError, match="the forbidden actions must be the same"):
        QLearning.load(tmp_path / "free", gym.make_vec("TextGen-v0", num_envs=1, **CHARS, banned_tokens=[0]))
    with pytest.raises(FileNotFoundError, match="no TextGym checkpoint"):
        QLearning.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds a QLearning, not a SARSA"):
        type("SARSA", (QLearning,), {}).load(tmp_path / "m")
    with pytest.raises(TypeError, match="no argument 'gama'; did you mean 'gamma'"):
        QLearning.load(tmp_path / "m", gama=0.5)
    (tmp_path / "m" / "training.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="m', training.safetensors: the file is damaged"):
        QLearning.load(tmp_path / "m")


def test_bad_arguments():
    for kwargs in ({"learning_rate": 0.0}, {"learning_rate": 1.5}, {"gamma": -0.1}, {"exploration_final_eps": 2.0}):
        ((name, value),) = kwargs.items()
        with pytest.raises(ValueError, match=f"{name} is {value}; it must be in"):
            agent(**kwargs)
    with pytest.raises(ValueError, match="max_prompt_tokens"):
        agent("TextGen-v0")
    with pytest.raises(ValueError, match="too large"):
        agent(gym.make_vec("TextGenToy-v0", num_envs=2, num_tokens=20, max_new_tokens=6))
    with pytest.raises(ValueError, match="observation_space is Box.*tables need Discrete"):
        agent("MountainCar-v0")
    with pytest.raises(ValueError, match="action_space is Box.*tables need Discrete"):
        agent(gym.wrappers.TransformAction(OneStep(True, False), lambda _: 0, spaces.Box(0, 1, (1,))))
    with pytest.raises(ValueError, match="SameStep or Disabled"):
        agent(gym.make_vec("FrozenLake-v1", num_envs=2, vectorization_mode="sync"))
    with pytest.raises(ValueError, match="tables need Discrete"):
        agent(TextVecEnv(gym.make_vec("TextGenToy-v0", num_envs=2)))


def test_values_are_shown_by_state_and_by_text():
    made = agent()
    made.policy.tables[0, 9] = torch.tensor([0.5, 2.0, -1.0, 0.25, 1.0])  # context 9 is "1 0": 1 + 4 + 4
    assert made.q_values("1 0").tolist() == made.q_values(9).tolist() == [0.5, 2.0, -1.0, 0.25, 1.0]
    assert made.q_values("").tolist() == made.q_values(0).tolist()
    assert made.q_values(np.array([[0, 9]])).shape == (1, 2, 5)
    out = io.StringIO()
    made.show("1 0", Console(file=out, width=60))
    words = [w for w in out.getvalue().split() if w[0] in "+-" or w.isdigit() or w == "<eos>"]
    assert words[-8:] == ["<eos>", "+1.0000", "0", "+0.5000", "3", "+0.2500", "2", "-1.0000"] and "+2.0000" in words
    for wrong, message in ((86, "no state 86"), (-1, "no state -1"), ("1 1 1 1", "nothing follows"), ("7", "encode")):
        with pytest.raises(ValueError, match=message):
            made.q_values(wrong)
    lake = agent("FrozenLake-v1", n_envs=1)
    with pytest.raises(ValueError, match="no TextGym env"):
        lake.q_values("1")
    lake.show(3, Console(file=out))

"""A training in a run's folder goes on bit for bit, whatever ended it."""

import errno
import warnings

import gymnasium as gym
import pytest
import torch
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import DPO, PPO, REINFORCE, DistributionMatching
from tests.conftest import CHARACTERS, count_tokens, small_llama
from tests.helpers.checkpoints import parameters
from tests.helpers.runs import KWARGS, TOTAL, At, fail, make_env, result, train
from textgym.sb3.logs import run_logger
from textgym.sb3.run import RunCheckpoints, train_run
from textgym.training.run import open_run
from textgym.training.state import checksums


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What uninterrupted trainings end with, by agent."""
    folder = tmp_path_factory.mktemp("whole")
    for cls in KWARGS:
        train(folder / cls.__name__, cls)
    return {cls: result(folder / cls.__name__) for cls in KWARGS}


@pytest.mark.parametrize("cls", KWARGS)
@pytest.mark.parametrize("how", ["stopped", "an error", "killed"])
def test_a_training_that_ended_early_ends_as_one_that_did_not(tmp_path, whole, cls, how):
    steps = {"stopped": 38, "an error": 40, "killed": 42}[how]
    if how == "stopped":
        train(tmp_path, cls, callbacks=[At(steps, lambda agent: False)])
    elif how == "an error":
        with pytest.raises(ConnectionError):
            train(tmp_path, cls, callbacks=[At(steps, fail(ConnectionError("the judge is down")))])
    else:  # nothing is saved at the end
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, cls, callbacks=[At(steps, fail(KeyboardInterrupt))])
    before = len(result(tmp_path)[1])
    assert 0 < before < len(whole[cls][1])
    torch.rand(5)
    train(tmp_path, cls, resume=True)
    sums, rows = result(tmp_path)
    assert rows == whole[cls][1] and sums == whole[cls][0]
    assert [row["time/iterations"] for row in rows] == [str(i + 1) for i in range(len(rows))]


SGD = {"policy_kwargs": {"optimizer_class": torch.optim.SGD}}
MOMENTUM = {"policy_kwargs": SGD["policy_kwargs"] | {"optimizer_kwargs": {"momentum": 0.9}}}


@pytest.mark.parametrize(
    ("cls", "kwargs", "again"),
    [
        (PPO, {"lora": {"r": 2}, "policy_kwargs": {"value_function": "separate"}}, {}),
        (DistributionMatching, {"proposal": "adaptive"}, {}),
        (REINFORCE, {"dtype": "bfloat16"}, {}),
        (REINFORCE, MOMENTUM, SGD),
        (DPO, {"lora": {"r": 2}, "dtype": "bfloat16"}, {}),
    ],
    ids=["adapters", "a third model", "bfloat16", "momentum", "adapters of DPO"],
)
def test_so_does_one_with(tmp_path, cls, kwargs, again):
    train(tmp_path / "whole", cls, **kwargs)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", cls, callbacks=[At(42, fail(KeyboardInterrupt))], **kwargs)
    train(tmp_path / "cut", cls, resume=True, **again)
    assert result(tmp_path / "cut") == result(tmp_path / "whole")


def test_so_does_one_on_single_envs_with_generators_of_their_own(tmp_path, monkeypatch):
    single = lambda: gym.make("TextGen-v0", **CHARACTERS, scorer=count_tokens)  # noqa: E731
    monkeypatch.setattr("tests.helpers.runs.make_env", lambda scorer: DummyVecEnv([single] * 3))
    test_so_does_one_with(tmp_path, REINFORCE, {"baseline": "none"}, {})


def test_checkpoints_lie_between_rollouts_and_as_far_apart_as_asked(tmp_path, whole):
    train(tmp_path)
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    logged = [int(row["time/total_timesteps"]) for row in whole[REINFORCE][1]]
    assert set(steps) <= set(logged) and steps[-1] == logged[-1] and len(steps) >= 4
    assert all(b - a >= 60 for a, b in zip(steps[:-2], steps[1:-1], strict=True))


def test_the_time_decides_where_no_number_of_tokens_is_given(tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 200))
    monkeypatch.setattr("textgym.sb3.run.time.monotonic", lambda: next(clock))
    train(tmp_path, every=None)
    assert len(list((tmp_path / "checkpoints").iterdir())) > 3


@pytest.mark.parametrize(("name", "value"), [("every", 0), ("minutes", 0.0), ("minutes", -1.0)])
def test_bad_intervals(tmp_path, name, value):
    with open_run(tmp_path, False) as run, pytest.raises(ValueError, match=f"{name} is {value}"):
        RunCheckpoints(run, **{name: value})


def test_a_full_disk_is_a_warning_and_the_training_goes_on(tmp_path, whole, monkeypatch):
    calls, real = [], REINFORCE.save

    def save(self, path):
        calls.append(path)
        if len(calls) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, path)

    monkeypatch.setattr(REINFORCE, "save", save)
    with pytest.warns(UserWarning, match="no checkpoint at .* tokens, training goes on: .*No space") as caught:
        train(tmp_path)
    assert sum("No space" in str(one.message) for one in caught) == 2 and result(tmp_path)[0] == whole[REINFORCE][0]


def test_a_full_disk_at_the_end_is_an_error_and_the_checkpoint_before_stays(tmp_path, monkeypatch):
    train(tmp_path)
    before = checksums(tmp_path / "checkpoint")
    monkeypatch.setattr(REINFORCE, "save", fail(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(tmp_path, resume=True, total=2 * TOTAL)
    assert checksums(tmp_path / "checkpoint") == before


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before(tmp_path):
    with pytest.raises(FloatingPointError):
        train(tmp_path, callbacks=[At(40, lambda agent: agent.policy.model.lm_head.weight.data.fill_(torch.nan))])
    loaded = REINFORCE.load(tmp_path / "checkpoint", device="cpu")
    assert all(value.isfinite().all() for value in parameters(loaded).values()) and loaded.num_timesteps > 0


def test_a_scorer_that_fails_at_once_leaves_a_beginning(tmp_path, whole):
    with pytest.raises(ConnectionError):
        train(tmp_path, callbacks=[At(1, fail(ConnectionError("down")))])
    train(tmp_path, resume=True)
    assert result(tmp_path) == whole[REINFORCE]


def test_a_rollout_that_was_given_up_is_sampled_again_without_a_checkpoint(tmp_path, whole):
    with open_run(tmp_path, resume=False) as run:
        kwargs = {"seed": 0, "learning_rate": 1e-2, "device": "cpu", **KWARGS[REINFORCE]}
        agent = REINFORCE("TokenPolicy", make_env(), small_llama(), **kwargs)
        agent.set_logger(run_logger(run, "REINFORCE"))
        with pytest.raises(ConnectionError):
            agent.learn(TOTAL, callback=At(40, fail(ConnectionError("down"))), reset_num_timesteps=False)
        train_run(agent, TOTAL, RunCheckpoints(run))
        agent.logger.close()
    assert result(tmp_path) == whole[REINFORCE]


def test_what_sb3_saves_in_the_middle_of_a_rollout_begins_before_it(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        at = At(37, fail(KeyboardInterrupt))
        train(tmp_path / "run", callbacks=[CheckpointCallback(5, str(tmp_path / "sb3")), at], every=10**6)
    newest = max((tmp_path / "sb3").iterdir(), key=lambda path: int(path.name.split("_")[-2]))
    agent = REINFORCE.load(newest, make_env(), device="cpu")
    with open_run(tmp_path / "again", resume=False) as run:
        agent.set_logger(run_logger(run, "REINFORCE"))
        train_run(agent, TOTAL, RunCheckpoints(run))
        agent.logger.close()
    assert result(tmp_path / "again")[0] == whole[REINFORCE][0]

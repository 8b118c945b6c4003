"""Trainings of small agents in the folders of runs, and what ends them early."""

import csv

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback

from agents import DPO, PPO, REINFORCE, ContrastiveLM, DistributionMatching, OnlineDPO
from tests.conftest import CHARACTERS, PAIRS, count_tokens, small_llama
from textgym.sb3.logs import CLOCKS, run_logger
from textgym.sb3.run import RunCheckpoints, train_run
from textgym.training.run import open_run
from textgym.training.state import checksums

KWARGS = {
    REINFORCE: {"kl_coef": 0.1},
    PPO: {"reference_kl_target": 0.1, "n_epochs": 2, "batch_size": 4},
    DistributionMatching: {"initial_episodes": 32},
    OnlineDPO: {},
    DPO: {"batch_size": 5},
    ContrastiveLM: {"batch_size": 3, "micro_batch_size": 4},
}
DATA = {DPO: {"dataset": PAIRS}, ContrastiveLM: {"dataset": PAIRS}}
"""What no checkpoint holds."""
TOTAL = 400


def make_env(scorer=count_tokens):
    kwargs = {**CHARACTERS, "scorer": scorer}
    return gym.make_vec("TextGen-v0", num_envs=8, num_generations=4, autoreset_mode="Disabled", **kwargs)


def train(out, cls=REINFORCE, resume=False, total=TOTAL, scorer=count_tokens, callbacks=(), every=60, **kwargs):
    """A training in `out`; a callback may be a function of the run's folder."""
    kwargs |= DATA.get(cls, {})
    with open_run(out, resume, keep=100) as run:
        if run.checkpoint is None:
            kwargs = {"seed": 0, "learning_rate": 1e-2, "device": "cpu", **KWARGS[cls], **kwargs}
            agent = cls("TokenPolicy", make_env(scorer), small_llama(), **kwargs)
        else:
            agent = cls.load(run.checkpoint, make_env(scorer), device="cpu", **kwargs)
        agent.set_logger(run_logger(run, cls.__name__))
        try:
            made = [callback if isinstance(callback, BaseCallback) else callback(run) for callback in callbacks]
            train_run(agent, total, RunCheckpoints(run, every=every), *made)
        finally:
            agent.logger.close()
        return agent


def result(out):
    """What a run ends with, apart from its clocks."""
    with (out / "progress.csv").open() as file:
        rows = [row | dict.fromkeys(CLOCKS, "") for row in csv.DictReader(file)]
    return checksums(out / "checkpoint"), rows


class At(BaseCallback):
    """Does something at an env step."""

    def __init__(self, step, act):
        super().__init__()
        self.step, self.act = step, act

    def _on_step(self):
        return self.n_calls != self.step or self.act(self.model) is not False


def fail(error):
    def act(*args):
        raise error

    return act

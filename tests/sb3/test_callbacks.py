"""What happens while an agent trains: signals, the progress bar, printed samples, a falling learning rate."""

import io
import os
import re
import signal

import pytest
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from tests.helpers.agents import agent
from textgym.sb3.callbacks import Decay, ShowProgress, StopOnSignal, learn


class At(BaseCallback):
    """Calls a function at the end of the first rollout."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def _on_rollout_end(self):
        self.action()

    def _on_step(self):
        return True


def quiet():
    return Console(file=io.StringIO(), width=200)


def handlers():
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_and_is_returned(number):
    before, trained = handlers(), agent()
    received = learn(trained, 10**6, At(lambda: os.kill(os.getpid(), number)), console=quiet())
    assert received == number and handlers() == before
    assert 0 < trained.num_timesteps < 1000


def test_a_training_that_ends_by_itself_returns_none():
    before, trained = handlers(), agent()
    assert learn(trained, 1, console=quiet()) is None
    assert handlers() == before and trained.num_timesteps > 0
    assert learn(trained, 1, console=quiet(), reset_num_timesteps=False) is None


def test_the_signals_act_as_before_after_an_error():
    def fail():
        raise RuntimeError("a judge is down")

    before, console = handlers(), quiet()
    with pytest.raises(RuntimeError, match="judge"):
        learn(agent(), 10**6, At(fail), console=console)
    assert handlers() == before


def test_the_second_signal_acts_as_usual():
    stop, before = StopOnSignal(), handlers()
    stop._on_training_start()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.received == signal.SIGTERM and handlers() == before


def test_progress_shows_reward_and_kl_and_samples_now_and_then():
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    trained = agent(kl_coef=0.1)
    bar = ShowProgress(samples_every=2, console=console)
    trained.learn(5 * 8 * 6, callback=bar)
    out = console.file.getvalue()
    assert re.search(r"update \d+  reward \+\d\.\d{3}  KL -?\d\.\d{2} nats", out)
    assert out.count("\x1b[36m+") == 3 * (bar.rollouts // 2) > 0  # three samples in every second update
    assert not bar.bar.live.is_started


def test_decay_trains_so_many_updates_with_a_falling_rate():
    trained, rates = agent(), []
    seen = At(lambda: rates.append(trained.lr_schedule(0.3)))
    trained.learn(10**6, callback=[Decay(4, 0.8), seen])
    assert rates == pytest.approx([0.8, 0.8 * 0.75**2, 0.8 * 0.5**2, 0.8 * 0.25**2])
    assert trained._n_updates == 4

"""Checkpoints: whole, without pickle, resumable bit for bit; SB3's callbacks write them too."""

import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback

from agents import REINFORCE
from tests.conftest import CHARACTERS, count_tokens, small_llama
from textgym.sb3 import checkpoints

ENV = {**CHARACTERS, "scorer": count_tokens}


def vector_env():
    return gym.make_vec("TextGen-v0", num_envs=8, num_generations=4, autoreset_mode="Disabled", **ENV)


def agent(**kwargs):
    return REINFORCE("TokenPolicy", vector_env(), small_llama(), seed=0, device="cpu", **kwargs)


def parameters(model):
    return {name: p.detach().clone() for name, p in model.policy.named_parameters()}


def updates(n):
    """A callback that ends the training after n rollouts."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Updates(BaseCallback):
        seen = 0

        def _on_rollout_start(self):
            self.seen += 1

        def _on_step(self):
            return self.seen <= n

    return Updates()


def test_resuming_continues_bit_for_bit(tmp_path):
    straight = agent(kl_coef=0.1)
    rewards = []

    def run(model, n):
        for _ in range(n):
            model.learn(1, reset_num_timesteps=False)
            rewards.append(model.rollout_buffer.episodes.rewards.sum().item())

    run(straight, 3)
    straight.save(tmp_path / "three")
    resumed = REINFORCE.load(tmp_path / "three", vector_env(), device="cpu")
    torch.rand(5), np.random.rand(5)  # whatever happens before training goes on
    straight = REINFORCE.load(tmp_path / "three", vector_env(), device="cpu")
    torch.manual_seed(1)
    run(resumed, 3)
    torch.manual_seed(2)
    run(straight, 3)
    assert rewards[3:6] == rewards[6:9]
    for (name, a), b in zip(parameters(resumed).items(), parameters(straight).values(), strict=True):
        assert torch.equal(a, b), name
    assert resumed.num_timesteps == straight.num_timesteps and resumed._n_updates == straight._n_updates == 6


def test_a_run_that_was_saved_and_resumed_equals_one_that_was_not(tmp_path):
    class Save(CheckpointCallback):
        """Saves at the end of the second rollout, where a resumed run begins its third."""

        rollouts = 0

        def _on_step(self):
            return True

        def _on_rollout_start(self):
            if self.rollouts == 2:
                self.model.save(tmp_path / "two")
            self.rollouts += 1

    whole = agent(kl_coef=0.1)
    whole.learn(10**9, callback=[Save(1, str(tmp_path)), updates(4)])
    resumed = REINFORCE.load(tmp_path / "two", vector_env(), device="cpu")
    resumed.learn(10**9, callback=updates(2), reset_num_timesteps=False)
    assert whole._n_updates == resumed._n_updates == 4
    for (name, a), b in zip(parameters(whole).items(), parameters(resumed).values(), strict=True):
        assert torch.equal(a, b), name


def test_save_load_predict(tmp_path):
    made = agent(learning_rate=1e-2)
    made.learn(200)
    made.save(tmp_path / "m.zip")
    assert (tmp_path / "m").is_dir()
    loaded = REINFORCE.load(tmp_path / "m.zip", device="cpu")  # no env
    obs, _ = vector_env().reset(seed=0)
    assert np.array_equal(made.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    a, b = (m.policy.get_distribution(torch.from_numpy(obs)).distribution.logits for m in (made, loaded))
    assert torch.equal(a, b)
    assert loaded.learning_rate == 1e-2 and loaded.num_timesteps == made.num_timesteps
    for a, b in zip(made.reference.model.parameters(), loaded.reference.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_is_a_transformers_model(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = agent()
    made.save(tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert tokenizer("abd", add_special_tokens=False).input_ids == [0, 1, 3] and tokenizer.eos_token_id == 4
    for a, b in zip(made.policy.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_nothing_is_pickled(tmp_path, monkeypatch):
    agent().save(tmp_path / "m")
    files = [p for p in (tmp_path / "m").rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".json", ".safetensors"}

    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    REINFORCE.load(tmp_path / "m", device="cpu")


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    made = agent()
    made.save(tmp_path / "m")
    before = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir() if p.is_file()}
    made.learn(50)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        made.save(tmp_path / "m")
    assert {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir() if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_sb3_callbacks_write_loadable_checkpoints(tmp_path):
    made = agent()
    single = gym.make("TextGen-v0", **ENV)
    evaluate = EvalCallback(
        single, best_model_save_path=str(tmp_path / "best"), eval_freq=5, n_eval_episodes=2, verbose=0, warn=False
    )
    made.learn(300, callback=[CheckpointCallback(10, str(tmp_path / "c")), evaluate])
    saved = sorted((tmp_path / "c").iterdir(), key=lambda p: int(p.name.split("_")[-2]))
    assert saved and all(p.is_dir() and p.name.endswith("steps") for p in saved)
    assert REINFORCE.load(saved[0], device="cpu").num_timesteps < REINFORCE.load(saved[-1], device="cpu").num_timesteps
    REINFORCE.load(tmp_path / "best" / "best_model", device="cpu")


def test_bad_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="no algorithm.json"):
        REINFORCE.load(tmp_path)
    made = agent(learning_rate=lambda progress: 1e-3 * progress)
    made.save(tmp_path / "m")
    with pytest.raises(ValueError, match="pass learning_rate="):
        REINFORCE.load(tmp_path / "m")
    REINFORCE.load(tmp_path / "m", learning_rate=1e-3)
    data = json.loads((tmp_path / "m" / "algorithm.json").read_text())
    (tmp_path / "m" / "algorithm.json").write_text(json.dumps(data | {"algorithm": "PPO"}))
    with pytest.raises(ValueError, match="holds a PPO, not a REINFORCE"):
        REINFORCE.load(tmp_path / "m")

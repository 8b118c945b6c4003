"""The training script: what it writes, signals, resuming, and a user's own reward from another directory."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agents import REINFORCE
from tests.conftest import small_llama
from textgym.tokenizers import character_tokenizer

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    small_llama().save_pretrained(folder)
    character_tokenizer("abcd").to_pretrained().save_pretrained(folder)
    return folder


def command(model, *extra):
    base = ["reinforce", "--env-id", "TextGenChars-v0", "--model", str(model), "--n-envs", "16", "--device", "cpu"]
    return [sys.executable, str(SCRIPT), *base, "--threads", "1", "--learning-rate", "1e-3", *extra]


def run(model, cwd, *extra, expect=0):
    done = subprocess.run(command(model, *extra), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def test_train_writes_logs_checkpoint_and_samples_and_resumes(model, tmp_path):
    (tmp_path / "my_rewards.py").write_text(
        "def brevity(completions, **kwargs):\n    return [1 - len(c) / 8 for c in completions]\n"
    )
    options = ["--scorer", "my_rewards:brevity", "--total-timesteps", "1500", "--out", "run", "--samples-every", "2"]
    out = run(model, tmp_path, *options, "--checkpoint-every", "500")
    assert "REINFORCE on TextGenChars-v0" in out and out.count("+0.") > 3 and "checkpoint in run/checkpoint" in out
    rows = list(csv.DictReader((tmp_path / "run" / "progress.csv").open()))
    assert len(rows) > 5
    assert {"rollout/reward", "rollout/kl_to_reference", "rollout/brevity", "train/loss"} <= set(rows[-1])
    assert float(rows[-1]["rollout/brevity"]) == pytest.approx(float(rows[-1]["rollout/reward"]), abs=1e-5)
    assert any(p.name.startswith("events.out.tfevents") for p in (tmp_path / "run").iterdir())
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) >= 2
    saved = json.loads((tmp_path / "run" / "checkpoint" / "algorithm.json").read_text())
    assert saved["env_id"] == "TextGenChars-v0" and saved["num_timesteps"] >= 1500

    first = (tmp_path / "run" / "progress.csv").read_text()
    done = subprocess.run(command(model, *options), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "holds a checkpoint; go on from it with --resume" in done.stderr
    run(model, tmp_path, *options, "--resume")
    assert (tmp_path / "run" / "progress.csv").read_text() == first
    assert (tmp_path / "run" / f"progress-{saved['num_timesteps']}.csv").is_file()
    again = json.loads((tmp_path / "run" / "checkpoint" / "algorithm.json").read_text())
    assert again["num_timesteps"] >= saved["num_timesteps"] + 1500 and again["n_updates"] > saved["n_updates"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_loadable_checkpoint(model, tmp_path, number):
    process = subprocess.Popen(
        command(model, "--total-timesteps", "100000000", "--out", "run"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    progress = tmp_path / "run" / "progress.csv"
    deadline = time.monotonic() + 120
    while not (progress.exists() and progress.read_text().count("\n") > 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number and f"stopped by {number.name}; go on with --resume" in out
    assert REINFORCE.load(tmp_path / "run" / "checkpoint", device="cpu").num_timesteps > 0


def test_a_wrong_scorer_name_is_one_clear_error(model, tmp_path):
    done = subprocess.run(command(model, "--scorer", "sentimant"), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "did you mean 'sentiment'" in done.stderr

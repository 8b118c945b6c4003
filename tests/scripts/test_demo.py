"""The demo as `make demo` runs it, with its claims."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from agents import PPO
from scripts.agent_arguments import OPTIMIZERS

SCRIPT = Path(__file__).parents[2] / "scripts" / "demo.py"


def run(tmp_path, *options):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "demo"), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "demo" / "learning_curve.png").read_bytes()[1:4] == b"PNG"
    return done.stdout


def row(out, name):
    """The numbers of a row of the table."""
    line = next(line for line in out.splitlines() if name in line and "│" in line)
    return [float(x) for x in re.findall(r"[+-]?\d+\.\d+", line)]


def test_a_short_demo_shows_everything(tmp_path):
    """A fortieth of the demo; that it improves is for the slow test."""
    out = run(tmp_path, "--total-timesteps", "2500", "--threads", "1")
    before, _, _, _ = row(out, "reward")
    assert before < 0.25
    assert len(re.findall(r"^[+-]\d\.\d{3} \[", out, re.M)) == 12  # six samples before, six after
    loaded = PPO.load(tmp_path / "demo" / "checkpoint", device="cpu", policy_kwargs=OPTIMIZERS["sgd"])
    assert loaded.num_timesteps >= 2_500


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["reinforce", "rloo", "grpo", "ppo"])
def test_the_demo_keeps_its_promise(algorithm, tmp_path):
    out = run(tmp_path, "--algorithm", algorithm)
    before, _, after, _ = row(out, "reward")
    assert before < 0.25 and after >= 0.6
    assert row(out, "length")[1] >= 8
    distinct_before, distinct_after = row(out, "distinct-2")[:2]
    assert distinct_after >= distinct_before / 2

"""`torchrun scripts/train.py`: one run of two processes, which can be killed, and goes on with any number."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from scripts.benchmarks.processes import processes, rate

ROOT = Path(__file__).parents[2]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TRAIN = ["scripts/train.py", "reinforce", "--env-id", "TextGenToy-v0", "--n-envs", "16", "--samples-every", "0"]

pytestmark = [pytest.mark.subprocess, pytest.mark.slow]


def start(launcher, out, total, *more):
    command = [*launcher, *TRAIN, "--total-timesteps", str(total), "--out", str(out), *more]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def steps_of(out):
    """The tokens before each rollout's end, as the log has them."""
    with (out / "progress.csv").open() as file:
        return [int(row["time/total_timesteps"]) for row in csv.DictReader(file)]


def test_two_processes_make_one_run_and_one_goes_on(tmp_path):
    running = start(TWO, tmp_path / "run", 600, "--eval-freq", "200", "--eval-episodes", "16")
    said, _ = running.communicate(timeout=240)
    assert running.returncode == 0, said
    assert said.count("REINFORCE on TextGenToy-v0") == 1 and "2 processes" in said
    steps = steps_of(tmp_path / "run")
    assert steps[-1] >= 600 and 60 < steps[0] < 200  # 32 episodes of up to 5 tokens, of both
    again = start([sys.executable], tmp_path / "run", 800, "--resume")
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert steps_of(tmp_path / "run")[-1] >= 800
    twice = start(TWO, tmp_path / "run", 800)
    said, _ = twice.communicate(timeout=240)
    assert (
        twice.returncode == 1 and "holds a run; choose another --out" in said and "rank 1" not in said.split("holds")[0]
    )


def test_a_process_that_is_killed_ends_the_other_and_the_run_goes_on(tmp_path):
    running = start(TWO, tmp_path / "run", 10_000_000, "--checkpoint-every", "300")
    while not (tmp_path / "run" / "checkpoint").exists():
        time.sleep(0.1)
        assert running.poll() is None
    held = int((tmp_path / "run" / "lock").read_text())
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    (other,) = [int(pid) for pid in children if int(pid) != held]
    os.kill(other, signal.SIGKILL)
    said, _ = running.communicate(timeout=240)
    assert running.returncode == 1 and re.search("(Connection closed by peer|SIGTERM)", said), said
    tokens = int(os.readlink(tmp_path / "run" / "checkpoint").rpartition("/")[2])
    again = start(TWO, tmp_path / "run", tokens + 300, "--resume")
    said, _ = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert steps_of(tmp_path / "run")[-1] >= tokens + 300


def test_the_benchmark_counts_from_the_end_of_the_first_update(tmp_path):
    with SummaryWriter(str(tmp_path / "board")) as writer:
        for tokens, seconds in ((100, 7.0), (150, 9.0), (400, 9.5)):
            writer.add_scalar("rollout/reward", 0.5, tokens, walltime=seconds)
    assert rate(tmp_path) == 120.0


def test_the_benchmark_runs_one_process_and_two():
    (result,) = processes(num_envs=8, new_tokens=8, updates=2, repeats=1)
    assert list(result["tokens_per_second_wall"]) == ["1", "2"] and 0.1 < result["ratio"] < 4

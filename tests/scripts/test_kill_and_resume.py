"""Killed trainings of every agent go on to the same bytes; tests/sb3/test_run.py has what is fast to see of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.agent_arguments import COMMANDS

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_and_resume.py"


def run(tmp_path, *agents, kills):
    """The rows of the table: agent, kills, aimed ones, half writings, resumed, the same bytes."""
    options = ["--kills", str(kills), "--total-timesteps", "600"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--agents", *agents], cwd=tmp_path, capture_output=True, text=True
    )
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    assert done.returncode == 0, done.stdout + done.stderr
    return rows


def check(rows, agents, kills):
    assert len(rows) == len(agents)
    for _, *counts in rows:
        killed, aimed, half, resumed, same = map(int, counts)
        assert killed == resumed == same == kills and aimed == kills // 2 and half >= 1


@pytest.mark.slow
def test_every_agent(tmp_path):
    check(run(tmp_path, *COMMANDS, kills=20), list(COMMANDS), 20)

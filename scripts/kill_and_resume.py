"""Kill trainings at random moments and go on with --resume: `python scripts/kill_and_resume.py --kills 20`.

Each kill (SIGKILL) ends a training of its own; every other one is aimed at the writing of a checkpoint. A resumed
training must end as an uninterrupted one does: weights, optimizer, random state and log (its clocks apart), byte by
byte. Processes
are forked, so that libraries are imported once.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from scripts.agent_arguments import COMMANDS
from scripts.command_line import run_script
from scripts.train import command_line, train
from textgym.training.state import checksums

OPTIONS = """--env-kwargs {"max_new_tokens":8} --n-envs 16 --num-generations 4 --learning-rate 1e-3 --device cpu
    --threads 1 --samples-every 0 --checkpoint-every 300 --out {out}"""
OWN = {
    "ppo": "--reference-kl-target 0.5 --batch-size 8 --n-epochs 2",
    "distribution-matching": "--initial-episodes 160",
}


@dataclass
class Args:
    """What to kill."""

    agents: tuple[str, ...] = tuple(COMMANDS)
    kills: int = 20
    """Of each agent."""
    total_timesteps: int = 2_000
    seed: int = 0


def start(agent: str, out: Path, total: int, *more: str) -> int:
    """Fork a training; its process id."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        sys.stdout = sys.stderr = (out.parent / f"{out.name}.txt").open("a")
        words = f"{agent} {OPTIONS} {OWN.get(agent, '')} --total-timesteps {total}".replace("{out}", str(out)).split()
        train(tyro.cli(command_line(), args=[*words, *more]))
        status = 0
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def status_of(pid: int) -> int:
    """Wait for a process."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int, out: Path, moment: float, aimed: bool) -> bool:
    """Kill a process after `moment` seconds, aimed in the first writing from then on; False if it ended before."""
    begun = time.monotonic()
    while time.monotonic() - begun < moment or (aimed and not any(out.glob("checkpoints/.*.tmp"))):
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return False
    os.kill(pid, signal.SIGKILL)
    return status_of(pid) == -signal.SIGKILL


def result(out: Path) -> Any:
    """Checksums of the last checkpoint, and the log without what depends on the clock."""
    with (out / "progress.csv").open(newline="") as file:
        rows = [row | {"time/fps": "", "time/time_elapsed": ""} for row in csv.DictReader(file)]
    return checksums(out / "checkpoint"), rows


def main(args: Args) -> None:
    """Kill, resume, compare, and print a table; status 1 if a training ended otherwise than the uninterrupted one."""
    table = Table("agent", "kills", "aimed", "left half a writing", "resumed", "the same bytes")
    generator, failed = np.random.default_rng(args.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        for agent in args.agents:
            whole, out, begun = Path(folder, agent), Path(folder, f"{agent}-killed"), time.monotonic()
            if status_of(start(agent, whole, args.total_timesteps)):
                sys.exit(whole.with_name(f"{agent}.txt").read_text())
            seconds, counts = time.monotonic() - begun, np.zeros(5, int)
            while counts[0] < args.kills:
                shutil.rmtree(out, ignore_errors=True)
                aimed, pid = counts[0] % 2, start(agent, out, args.total_timesteps)
                if not kill(pid, out, generator.uniform(0, 0.9 * seconds), bool(aimed)):
                    continue
                half = any(out.glob("checkpoints/.*.tmp"))
                again = ["--resume"] if (out / "lock").is_file() else []  # it may not have begun
                resumed = status_of(start(agent, out, args.total_timesteps, *again)) == 0
                counts += 1, aimed, half, resumed, resumed and result(out) == result(whole)
            table.add_row(agent, *map(str, counts))
            failed += args.kills - counts[4]
    Console().print(table)
    sys.exit(int(failed > 0))


if __name__ == "__main__":
    run_script(main, Args, __doc__)

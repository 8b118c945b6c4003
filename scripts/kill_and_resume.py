"""Kill trainings at random moments and go on with --resume: `python scripts/kill_and_resume.py --kills 20`.

Each kill (SIGKILL) ends a training of its own; every other one is aimed at the writing of a checkpoint. A resumed
training must end as an uninterrupted one does: weights, optimizer, random state and log (its clocks apart), byte by
byte. Processes are forked, so that libraries are imported once.
"""

from __future__ import annotations

if __name__ == "__main__":
    from scripts.start import start_script

    start_script(__file__)  # before the imports below, which take seconds

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from scripts.agent_arguments import COMMANDS
from scripts.experiments.killing import kill, result, start, status_of
from textgym.arguments import Count, Seed


@dataclass
class Args:
    """What to kill."""

    agents: tuple[str, ...] = tuple(COMMANDS)
    """Those to try, as `scripts/train.py` names them."""
    kills: Count = 20
    """Of each agent."""
    total_timesteps: Count = 2_000
    """Tokens of a training."""
    seed: Seed = 0
    """Of the moments at which trainings are killed."""


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
